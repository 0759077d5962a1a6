//! Means of whole channels, and channels multiplied by a number each, of images with their channels last: the two ends
//! of squeeze and excitation.

use rayon::prelude::*;

use crate::arena::Floats;
use crate::block::{BLOCK, ChannelBlock};
use crate::simd::vectorised;

/// Channel blocks that a task sums up.
const BLOCKS_A_TASK: usize = 8;

/// The mean of each channel of images of `size` (height, width), whose pixels have `blocks` channel blocks: images of one
/// pixel.
pub fn means(
    x: &[ChannelBlock],
    batch: usize,
    [height, width]: [usize; 2],
    blocks: usize,
) -> Floats {
    let mut output = Floats::new(batch * blocks * BLOCK);
    let image = height * width * blocks;
    let images = output.blocks_mut().chunks_mut(blocks.max(1));
    for (out, image) in images.zip(x.chunks(image.max(1))) {
        out.par_chunks_mut(BLOCKS_A_TASK)
            .enumerate()
            .for_each(|(i, out)| sum(image, [height, width, blocks], i * BLOCKS_A_TASK, out));
    }
    output
}

/// Multiplies each channel of images of `plane` pixels by its number in `gate`, an image of one pixel.
pub fn multiply(x: &[ChannelBlock], plane: usize, blocks: usize, gate: &[ChannelBlock]) -> Floats {
    const PIXELS_A_TASK: usize = 64;
    let mut output = Floats::new(x.len() * BLOCK);
    let image = (plane * blocks).max(1);
    let images = output.blocks_mut().chunks_mut(image).zip(x.chunks(image));
    for ((out, x), gate) in images.zip(gate.chunks(blocks.max(1))) {
        out.par_chunks_mut(PIXELS_A_TASK * blocks)
            .zip(x.par_chunks(PIXELS_A_TASK * blocks))
            .for_each(|(out, x)| scale(out, x, gate));
    }
    output
}

vectorised! {
    /// Means of the blocks of an image from a first one on. Rows are summed by themselves, so that long sums of floats do
    /// not lose digits.
    fn sum(image: &[ChannelBlock], size: [usize; 3], first: usize, out: &mut [ChannelBlock]) {
        let [height, width, blocks] = size;
        let per_pixel = 1.0 / (height * width) as f32;
        out.fill(ChannelBlock([0.0; BLOCK]));
        for row in image.chunks_exact((width * blocks).max(1)) {
            for (place, total) in out.iter_mut().enumerate() {
                let mut sum = [0.0; BLOCK];
                for pixel in row.chunks_exact(blocks) {
                    for (sum, value) in sum.iter_mut().zip(&pixel[first + place].0) {
                        *sum += value;
                    }
                }
                for (total, sum) in total.0.iter_mut().zip(sum) {
                    *total += sum;
                }
            }
        }
        for total in out {
            for total in &mut total.0 {
                *total *= per_pixel;
            }
        }
    }
}

vectorised! {
    /// Multiplies pixels by the numbers of their channels.
    fn scale(out: &mut [ChannelBlock], x: &[ChannelBlock], gate: &[ChannelBlock]) {
        for (out, x) in out.chunks_exact_mut(gate.len()).zip(x.chunks_exact(gate.len())) {
            for ((out, x), gate) in out.iter_mut().zip(x).zip(gate) {
                for ((out, x), gate) in out.0.iter_mut().zip(&x.0).zip(&gate.0) {
                    *out = x * gate;
                }
            }
        }
    }
}
