//! Images with the channels of a pixel side by side: the layout between the kernels of inference.
//!
//! Convolutions take and give whole vectors of channels, so nothing is transposed on the way from the
//! stem to the heads. The order is NHWC, with the channels of every pixel rounded up to whole
//! [`ChannelBlock`]s. (oneDNN's nChw16c also has blocks of sixteen channels, but a plane for each.)
//! The padding after the last channel is arbitrary, and no result depends on it.

use rayon::prelude::*;

use crate::TASKS;
use crate::block::{BLOCK, ChannelBlock};
use crate::transpose::{interleave, separate};

/// Floats from one pixel to the next.
pub const fn pitch(channels: usize) -> usize {
    channels.next_multiple_of(BLOCK)
}

/// Floats of images `[N, C, H, W]` in this layout.
pub const fn len([n, c, h, w]: [usize; 4]) -> usize {
    n * h * w * pitch(c)
}

/// Brings images from planes of `plane` pixels to this layout.
pub fn from_planes(planes: &[f32], channels: usize, plane: usize, pixels: &mut [ChannelBlock]) {
    let image = plane * channels.div_ceil(BLOCK);
    if image > 0 {
        let images = pixels
            .chunks_mut(image)
            .zip(planes.chunks(channels * plane));
        images.for_each(|(pixels, planes)| interleave(planes, plane, channels, plane, pixels));
    }
}

/// Brings images from this layout to planes of `plane` pixels.
pub fn to_planes(pixels: &[ChannelBlock], channels: usize, plane: usize, planes: &mut [f32]) {
    let image = plane * channels.div_ceil(BLOCK);
    if image > 0 {
        let images = planes
            .chunks_mut(channels * plane)
            .zip(pixels.chunks(image));
        images.for_each(|(planes, pixels)| separate(pixels, plane, channels, planes));
    }
}

/// The blocks of several images for each pixel, one after another. Of each image they are given with their number in a pixel.
pub fn concat(images: &[(&[ChannelBlock], usize)], pixels: usize, into: &mut [ChannelBlock]) {
    let pitch: usize = images.iter().map(|(_, blocks)| blocks).sum();
    let run = pixels.div_ceil(TASKS).max(1);
    let runs = into[..pixels * pitch].par_chunks_mut(run * pitch.max(1));
    runs.enumerate().for_each(|(i, into)| {
        for (pixel, mut into) in (i * run..).zip(into.chunks_mut(pitch)) {
            for (image, blocks) in images {
                let (here, rest) = into.split_at_mut(*blocks);
                here.copy_from_slice(&image[pixel * blocks..][..*blocks]);
                into = rest;
            }
        }
    });
}

/// Nearest pixels: for each pixel of images, that of as many images of another size, by the rule of torch's
/// (and Burn's) nearest-neighbour interpolation. Sizes are height, width.
pub fn nearest(batch: usize, from: [usize; 2], to: [usize; 2]) -> Vec<usize> {
    let [rows, columns] = [0, 1].map(|axis| {
        let ratio = from[axis] as f64 / to[axis] as f64;
        let source = move |i| ((i as f64 * ratio) as usize).min(from[axis] - 1);
        (0..to[axis]).map(source)
    });
    let rows = (0..batch).flat_map(|image| rows.clone().map(move |row| image * from[0] + row));
    rows.flat_map(|row| columns.clone().map(move |column| row * from[1] + column))
        .collect()
}
