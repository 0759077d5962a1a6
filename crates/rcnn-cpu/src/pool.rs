//! Max-pool and average-pool of images with their channels last.

use std::ops::Range;

use rayon::prelude::*;

use crate::arena::Floats;
use crate::block::{BLOCK, ChannelBlock, floats, floats_mut};
use crate::simd::vectorised;

/// The sizes of a pooling.
pub struct Pool {
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
    /// Whether windows that reach past the end give pixels too.
    pub ceil_mode: bool,
}

impl Pool {
    /// Height and width of the output, if it has any.
    pub fn output_size(&self) -> Option<[usize; 2]> {
        let side = |axis: usize| {
            let padded = self.size[axis] + 2 * self.padding[axis];
            let room = padded.checked_sub(self.kernel[axis])?;
            Some(
                1 + match self.ceil_mode {
                    true => room.div_ceil(self.stride[axis]),
                    false => room / self.stride[axis],
                },
            )
        };
        Some([side(0)?, side(1)?])
    }
}

/// The largest values of images `x`, as images of size `out`.
pub fn max(pool: &Pool, out: [usize; 2], x: &[ChannelBlock]) -> Floats {
    forward(pool, out, x, max_line)
}

/// The means of images `x`, as images of size `out`.
pub fn average(pool: &Pool, out: [usize; 2], x: &[ChannelBlock]) -> Floats {
    forward(pool, out, x, average_line)
}

fn forward(
    pool: &Pool,
    [out_h, out_w]: [usize; 2],
    x: &[ChannelBlock],
    line: fn(&Pool, &[ChannelBlock], usize, &mut [ChannelBlock]),
) -> Floats {
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

/// The pixels along an axis that a window meets.
#[inline(always)]
fn window(pool: &Pool, axis: usize, at: usize) -> Range<usize> {
    let start = at * pool.stride[axis];
    let end = (start + pool.kernel[axis]).saturating_sub(pool.padding[axis]);
    start.saturating_sub(pool.padding[axis])..end.min(pool.size[axis])
}

vectorised! {
    /// The largest values of a row of windows.
    fn max_line(pool: &Pool, x: &[ChannelBlock], row: usize, out: &mut [ChannelBlock]) {
        let blocks = pool.blocks;
        floats_mut(out).fill(f32::NEG_INFINITY);
        for (column, out) in out.chunks_mut(blocks).enumerate() {
            for y in window(pool, 0, row) {
                for x_ in window(pool, 1, column) {
                    let pixel = &x[(y * pool.size[1] + x_) * blocks..][..blocks];
                    for (most, value) in floats_mut(out).iter_mut().zip(floats(pixel)) {
                        *most = larger(*most, *value);
                    }
                }
            }
        }
    }
}

vectorised! {
    /// The means of a row of windows.
    fn average_line(pool: &Pool, x: &[ChannelBlock], row: usize, out: &mut [ChannelBlock]) {
        let blocks = pool.blocks;
        floats_mut(out).fill(0.0);
        for (column, out) in out.chunks_mut(blocks).enumerate() {
            let (rows, columns) = (window(pool, 0, row), window(pool, 1, column));
            let share = 1.0 / (rows.len() * columns.len()) as f32;
            for y in rows {
                for x_ in columns.clone() {
                    let pixel = &x[(y * pool.size[1] + x_) * blocks..][..blocks];
                    for (sum, value) in floats_mut(out).iter_mut().zip(floats(pixel)) {
                        *sum += value;
                    }
                }
            }
            floats_mut(out).iter_mut().for_each(|value| *value *= share);
        }
    }
}

/// The larger, or what is not a number.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}
