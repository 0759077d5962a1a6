//! Max-pool of images with their channels last.

use rayon::prelude::*;

use crate::arena::Floats;
use crate::block::{BLOCK, ChannelBlock};
use crate::simd::vectorised;

/// The sizes of a max-pool.
pub struct MaxPool {
    /// Images.
    pub batch: usize,
    /// Channel blocks of a pixel.
    pub blocks: usize,
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps down and right.
    pub stride: [usize; 2],
    /// Pixels added above and below, left and right, that count for nothing.
    pub padding: [usize; 2],
}

impl MaxPool {
    /// Height and width of the output, if it has any.
    pub fn output_size(&self) -> Option<[usize; 2]> {
        let side = |axis: usize| {
            let padded = self.size[axis] + 2 * self.padding[axis];
            Some(padded.checked_sub(self.kernel[axis])? / self.stride[axis] + 1)
        };
        Some([side(0)?, side(1)?])
    }
}

/// Pools images `x` to images of size `out`.
pub fn forward(pool: &MaxPool, [out_h, out_w]: [usize; 2], x: &[ChannelBlock]) -> Floats {
    let mut output = Floats::new(pool.batch * out_h * out_w * pool.blocks * BLOCK);
    let [height, width] = pool.size;
    output
        .blocks_mut()
        .par_chunks_mut((out_w * pool.blocks).max(1))
        .enumerate()
        .for_each(|(i, out)| {
            let (image, row) = (i / out_h, i % out_h);
            let x = &x[image * height * width * pool.blocks..];
            line(pool, x, row, out);
        });
    output
}

vectorised! {
    /// Pools to a row of pixels.
    fn line(pool: &MaxPool, x: &[ChannelBlock], row: usize, out: &mut [ChannelBlock]) {
        let [height, width] = pool.size;
        let meets = |axis: usize, at: usize, side: usize| {
            let start = at * pool.stride[axis];
            let end = (start + pool.kernel[axis]).saturating_sub(pool.padding[axis]);
            start.saturating_sub(pool.padding[axis])..end.min(side)
        };
        let blocks = pool.blocks;
        out.fill(ChannelBlock([f32::NEG_INFINITY; BLOCK]));
        for (column, out) in out.chunks_mut(blocks).enumerate() {
            for y in meets(0, row, height) {
                for x_ in meets(1, column, width) {
                    let pixel = &x[(y * width + x_) * blocks..][..blocks];
                    for (most, value) in out.iter_mut().zip(pixel) {
                        for (most, value) in most.0.iter_mut().zip(&value.0) {
                            *most = max(*most, *value);
                        }
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
