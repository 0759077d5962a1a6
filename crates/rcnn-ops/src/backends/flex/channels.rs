//! Sums and scales of channels, a thread for each.

use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::pool::Floats;
use super::pooled::pooled;
use super::{dims, pixels};
use crate::channels;

pub(super) fn affine(x: FlexTensor, scale: FlexTensor, shift: FlexTensor) -> FlexTensor {
    if [&x, &scale, &shift].iter().any(|t| t.dtype() != DType::F32) {
        return channels::affine::<Flex>(x, scale, shift);
    }
    let shape @ [_, c, h, w] = dims(&x);
    let x = pixels::to_planes(x);
    let [scale, shift] = [scale, shift].map(|t| t.to_contiguous());
    let (scale, shift) = (scale.storage::<f32>(), shift.storage::<f32>());
    let plane = (h * w).max(1);
    let mut out = Floats::new(x.storage::<f32>().len());
    out.par_chunks_mut(plane)
        .zip(x.storage::<f32>().par_chunks(plane))
        .enumerate()
        .for_each(|(index, (out, x))| {
            let (scale, shift) = (scale[index % c], shift[index % c]);
            for (out, x) in out.iter_mut().zip(x) {
                *out = x * scale + shift;
            }
        });
    pooled(out, shape)
}

pub(super) fn moments(x: FlexTensor) -> FlexTensor {
    if x.dtype() != DType::F32 {
        return channels::moments::<Flex>(x);
    }
    let [n, c, h, w] = dims(&x);
    let x = pixels::to_planes(x);
    let x = x.storage::<f32>();
    let count = (n * h * w) as f64;
    per_channel(c, |channel| {
        let planes = || (0..n).map(|image| &x[(image * c + channel) * h * w..][..h * w]);
        let mean = planes().map(|plane| f64::from(sum(plane))).sum::<f64>() / count;
        let squares = planes().map(|plane| f64::from(square_sum(plane, mean as f32)));
        [mean as f32, (squares.sum::<f64>() / count) as f32]
    })
}

pub(super) fn sums(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    if a.dtype() != DType::F32 || b.dtype() != DType::F32 {
        return channels::sums::<Flex>(a, b);
    }
    let [n, c, h, w] = dims(&a);
    let [a, b] = [a, b].map(pixels::to_planes);
    let (a, b) = (a.storage::<f32>(), b.storage::<f32>());
    per_channel(c, |channel| {
        let planes = (0..n).map(|image| (image * c + channel) * h * w);
        let sums = planes.map(|start| {
            let (a, b) = (&a[start..start + h * w], &b[start..start + h * w]);
            [f64::from(sum(a)), f64::from(dot(a, b))]
        });
        let total = sums.fold([0.0; 2], |total, next| {
            [total[0] + next[0], total[1] + next[1]]
        });
        total.map(|total| total as f32)
    })
}

/// A `[2, C]` of two values for each channel.
fn per_channel(channels: usize, values: impl Fn(usize) -> [f32; 2] + Send + Sync) -> FlexTensor {
    let values: Vec<[f32; 2]> = (0..channels).into_par_iter().map(values).collect();
    let row = |row: usize| values.iter().map(move |value| value[row]);
    let rows: Vec<f32> = row(0).chain(row(1)).collect();
    FlexTensor::from_data(TensorData::new(rows, [2, channels]))
}

/// The sum of `term` in sixteen strands, which vectorise.
fn strands(length: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut strands = [0.0f32; 16];
    let whole = length - length % 16;
    for start in (0..whole).step_by(16) {
        for (lane, strand) in strands.iter_mut().enumerate() {
            *strand += term(start + lane);
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
