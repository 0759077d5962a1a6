//! Max-pool: rows first, then columns, so that both vectorise.

use rayon::prelude::*;

use super::conv2d::vectorised;
use super::pool::Floats;

/// The sizes of a max-pool.
pub(super) struct MaxPool {
    /// Planes: images times channels.
    pub(super) planes: usize,
    /// Height and width of the input.
    pub(super) size: [usize; 2],
    /// Height and width of the kernel.
    pub(super) kernel: [usize; 2],
    /// Steps down and right.
    pub(super) stride: [usize; 2],
    /// Pixels added above and below, left and right, that count for nothing.
    pub(super) padding: [usize; 2],
}

impl MaxPool {
    /// Height and width of the output, if it has any.
    pub(super) fn output_size(&self) -> Option<[usize; 2]> {
        let side = |axis: usize| {
            let padded = self.size[axis] + 2 * self.padding[axis];
            Some(padded.checked_sub(self.kernel[axis])? / self.stride[axis] + 1)
        };
        Some([side(0)?, side(1)?])
    }
}

/// Pools planes `x` to planes of size `out`.
pub(super) fn forward(pool: &MaxPool, [out_h, out_w]: [usize; 2], x: &[f32]) -> Floats {
    let mut output = Floats::new(pool.planes * out_h * out_w);
    output
        .par_chunks_mut(out_h * out_w)
        .zip(x.par_chunks(pool.size[0] * pool.size[1]))
        .for_each_init(Vec::new, |line, (out, x)| plane(pool, x, out_w, line, out));
    output
}

vectorised! {
    /// Pools a plane; `line` is room for one padded row.
    fn plane(pool: &MaxPool, x: &[f32], out_w: usize, line: &mut Vec<f32>, out: &mut [f32]) {
        let [height, width] = pool.size;
        let [pad_y, pad_x] = pool.padding;
        let [step_y, step_x] = pool.stride;
        let needed = (out_w * step_x + pool.kernel[1]).max(pad_x + width);
        for (row, out) in out.chunks_mut(out_w).enumerate() {
            line.clear();
            line.resize(needed, f32::NEG_INFINITY);
            let first = (row * step_y).saturating_sub(pad_y);
            let end = (row * step_y + pool.kernel[0]).saturating_sub(pad_y).min(height);
            for y in first..end {
                for (most, x) in line[pad_x..].iter_mut().zip(&x[y * width..][..width]) {
                    *most = max(*most, *x);
                }
            }
            out.fill(f32::NEG_INFINITY);
            for x in 0..pool.kernel[1] {
                if step_x == 2 {
                    let (pairs, _) = line[x..].as_chunks::<2>();
                    for (most, pair) in out.iter_mut().zip(pairs) {
                        *most = max(*most, pair[0]);
                    }
                } else {
                    for (most, x) in out.iter_mut().zip(line[x..].iter().step_by(step_x)) {
                        *most = max(*most, *x);
                    }
                }
            }
        }
    }
}

/// The larger, or what is not a number.
#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}
