//! Sixteen channels side by side: the unit that the transforms work on.
//!
//! Images come as planes, but a Winograd transform mixes neighbouring pixels and treats every
//! channel alike, so it vectorises across channels whatever the size of the image. [`load`]
//! turns sixteen planes into pixels of sixteen channels, and [`store`] turns them back. Loops
//! over the sixteen are left to the compiler: [`vectorised`] has them compiled for the widest
//! vectors of the machine.

use std::ops::Range;

use rayon::prelude::*;

use super::pool::{LANES, Lane};
use super::shared::Shared;
use super::vector::vectorised;

/// Sixteen lanes, which transposed are sixteen runs of sixteen floats.
pub(super) type Block = [Lane; LANES];

/// Transposes sixteen by sixteen floats.
///
/// Interleaving the halves of 256 values rotates the bits of their positions by one; four
/// times swaps row and column. Every instruction set has an instruction to interleave.
#[inline(always)]
pub(super) fn transpose(block: &mut Block) {
    let mut other = [Lane::ZERO; LANES];
    riffle(block, &mut other);
    riffle(&other, block);
    riffle(block, &mut other);
    riffle(&other, block);
}

#[inline(always)]
fn riffle(from: &Block, to: &mut Block) {
    const HALF: usize = LANES / 2;
    for i in 0..HALF {
        let (low, high) = (&from[i].0, &from[i + HALF].0);
        for j in 0..HALF {
            to[2 * i].0[2 * j] = low[j];
            to[2 * i].0[2 * j + 1] = high[j];
            to[2 * i + 1].0[2 * j] = low[j + HALF];
            to[2 * i + 1].0[2 * j + 1] = high[j + HALF];
        }
    }
}

/// Cuts a range into starts and lengths of at most sixteen.
#[inline(always)]
pub(super) fn steps(range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let end = range.end;
    let starts = range.step_by(LANES);
    starts.map(move |start| (start, LANES.min(end - start)))
}

/// The first `len` floats of up to sixteen runs, `stride` apart, as lanes.
#[inline(always)]
pub(super) fn load(runs: &[f32], stride: usize, count: usize, len: usize) -> Block {
    let mut block = [Lane::ZERO; LANES];
    if len == LANES {
        for (i, row) in block.iter_mut().enumerate().take(count) {
            row.0 = *runs[i * stride..].first_chunk().expect("sixteen floats");
        }
    } else {
        for (i, row) in block.iter_mut().enumerate().take(count) {
            row.0[..len].copy_from_slice(&runs[i * stride..][..len]);
        }
    }
    transpose(&mut block);
    block
}

/// The reverse of [`load`], from element `start` of what threads share.
///
/// # Safety
///
/// No other thread may touch these floats.
#[inline(always)]
pub(super) unsafe fn store(
    mut block: Block,
    runs: &Shared<'_, f32>,
    start: usize,
    stride: usize,
    count: usize,
    len: usize,
) {
    transpose(&mut block);
    for (i, row) in block.iter().enumerate().take(count) {
        // SAFETY: the caller has these floats to itself.
        unsafe {
            if len == LANES {
                runs.write(start + i * stride, &row.0);
            } else {
                runs.write(start + i * stride, &row.0[..len]);
            }
        }
    }
}

/// Fills `to` with each `step`th float.
#[inline(always)]
pub(super) fn take_every(step: usize, from: &[f32], to: &mut [f32]) {
    match step {
        1 => to.copy_from_slice(&from[..to.len()]),
        2 => {
            // With the step known, the compiler loads whole vectors and picks.
            let (pairs, rest) = from.as_chunks::<2>();
            for (to, pair) in to.iter_mut().zip(pairs) {
                *to = pair[0];
            }
            if let (Some(to), Some(from)) = (to.get_mut(pairs.len()), rest.first()) {
                *to = *from;
            }
        }
        _ => {
            for (to, from) in to.iter_mut().zip(from.iter().step_by(step)) {
                *to = *from;
            }
        }
    }
}

/// Positions that a thread transposes at once.
const PIECE: usize = 256;

/// Transposes `count` runs of `len` floats, `stride` apart, into `len` rows of lanes.
pub(super) fn interleave(runs: &[f32], stride: usize, count: usize, len: usize, out: &mut [Lane]) {
    let lanes = count.div_ceil(LANES);
    out[..len * lanes]
        .par_chunks_mut(PIECE * lanes)
        .enumerate()
        .for_each(|(i, out)| interleave_piece(&runs[i * PIECE..], stride, count, out));
}

/// The reverse of [`interleave`], to runs one after the other.
pub(super) fn separate(from: &[Lane], len: usize, count: usize, runs: &mut [f32]) {
    runs[..len * count]
        .par_chunks_mut(LANES * len)
        .enumerate()
        .for_each(|(lane, runs)| separate_lane(from, len, [lane, count.div_ceil(LANES)], runs));
}

/// Brings the channels of images' pixels side by side, from planes of so many pixels.
pub(in super::super) fn to_pixels(
    planes: &[f32],
    channels: usize,
    plane: usize,
    pixels: &mut [Lane],
) {
    let image = plane * channels.div_ceil(LANES);
    if image > 0 {
        let images = pixels
            .chunks_mut(image)
            .zip(planes.chunks(channels * plane));
        images.for_each(|(pixels, planes)| interleave(planes, plane, channels, plane, pixels));
    }
}

/// The reverse of [`to_pixels`].
pub(in super::super) fn to_planes(
    pixels: &[Lane],
    channels: usize,
    plane: usize,
    planes: &mut [f32],
) {
    let image = plane * channels.div_ceil(LANES);
    if image > 0 {
        let images = planes
            .chunks_mut(channels * plane)
            .zip(pixels.chunks(image));
        images.for_each(|(planes, pixels)| separate(pixels, plane, channels, planes));
    }
}

vectorised! {
    fn interleave_piece(runs: &[f32], stride: usize, count: usize, out: &mut [Lane]) {
        let lanes = count.div_ceil(LANES);
        for lane in 0..lanes {
            let runs = &runs[lane * LANES * stride..];
            let count = LANES.min(count - lane * LANES);
            for (start, len) in steps(0..out.len() / lanes) {
                let block = load(&runs[start..], stride, count, len);
                for (i, value) in block.iter().enumerate().take(len) {
                    out[(start + i) * lanes + lane] = *value;
                }
            }
        }
    }
}

vectorised! {
    /// Separates one lane of each of `len` rows, in the thread that asks: `place` is which lane, and
    /// lanes of a row.
    pub(in super::super) fn separate_lane(from: &[Lane], len: usize, place: [usize; 2], runs: &mut [f32]) {
        let [lane, lanes] = place;
        let count = runs.len() / len;
        let runs = Shared::new(runs);
        for (start, step) in steps(0..len) {
            let mut block = [Lane::ZERO; LANES];
            for (i, row) in block.iter_mut().enumerate().take(step) {
                *row = from[(start + i) * lanes + lane];
            }
            // SAFETY: this thread holds all these runs.
            unsafe { store(block, &runs, start, len, count, step) };
        }
    }
}
