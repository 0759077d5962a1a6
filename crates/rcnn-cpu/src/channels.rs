//! Scales and sums of each channel of images as planes, `[N, C, H * W]`.

use rayon::prelude::*;

use crate::arena::Floats;

/// `x * scale + shift`, with a scale and a shift for each channel.
pub fn affine(x: &[f32], plane: usize, scale: &[f32], shift: &[f32]) -> Floats {
    assert_eq!(scale.len(), shift.len());
    let plane = plane.max(1);
    let mut out = Floats::new(x.len());
    out.par_chunks_mut(plane)
        .zip(x.par_chunks(plane))
        .enumerate()
        .for_each(|(index, (out, x))| {
            let channel = index % scale.len();
            let (scale, shift) = (scale[channel], shift[channel]);
            for (out, x) in out.iter_mut().zip(x) {
                *out = x * scale + shift;
            }
        });
    out
}

/// Mean and variance (of the population) of each channel: all means, then all variances.
pub fn moments(x: &[f32], [n, c, plane]: [usize; 3]) -> Vec<f32> {
    let count = (n * plane) as f64;
    per_channel(c, |channel| {
        let planes = || (0..n).map(|image| &x[(image * c + channel) * plane..][..plane]);
        let mean = planes().map(|plane| f64::from(sum(plane))).sum::<f64>() / count;
        let squares = planes().map(|plane| f64::from(square_sum(plane, mean as f32)));
        [mean as f32, (squares.sum::<f64>() / count) as f32]
    })
}

/// Sums of `a` and of `a * b` over each channel: all of the first, then all of the second.
pub fn sums(a: &[f32], b: &[f32], [n, c, plane]: [usize; 3]) -> Vec<f32> {
    per_channel(c, |channel| {
        let planes = (0..n).map(|image| (image * c + channel) * plane);
        let sums = planes.map(|start| {
            let (a, b) = (&a[start..start + plane], &b[start..start + plane]);
            [f64::from(sum(a)), f64::from(dot(a, b))]
        });
        let total = sums.fold([0.0; 2], |total, next| {
            [total[0] + next[0], total[1] + next[1]]
        });
        total.map(|total| total as f32)
    })
}

/// Two values for each channel: all of the first, then all of the second.
fn per_channel(channels: usize, values: impl Fn(usize) -> [f32; 2] + Send + Sync) -> Vec<f32> {
    let values: Vec<[f32; 2]> = (0..channels).into_par_iter().map(values).collect();
    let row = |row: usize| values.iter().map(move |value| value[row]);
    row(0).chain(row(1)).collect()
}

/// The sum of `term` in sixteen strands, which vectorise.
fn strands(length: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut strands = [0.0f32; 16];
    let whole = length - length % 16;
    for start in (0..whole).step_by(16) {
        for (block, strand) in strands.iter_mut().enumerate() {
            *strand += term(start + block);
        }
    }
    strands.iter().sum::<f32>() + (whole..length).map(term).sum::<f32>()
}

fn sum(values: &[f32]) -> f32 {
    strands(values.len(), |i| values[i])
}

fn square_sum(values: &[f32], mean: f32) -> f32 {
    strands(values.len(), |i| (values[i] - mean) * (values[i] - mean))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    strands(a.len(), |i| a[i] * b[i])
}
