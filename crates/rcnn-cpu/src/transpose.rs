//! Sixteen channels side by side: the unit that the transforms work on.
//!
//! Images come as planes, but a Winograd transform mixes neighbouring pixels and treats every
//! channel alike, so it vectorises across channels whatever the size of the image. [`load`]
//! turns sixteen planes into pixels of sixteen channels, and [`store`] turns them back. Loops
//! over the sixteen are left to the compiler: [`vectorised`] has them compiled for the widest
//! vectors of the machine.

use std::ops::Range;

use rayon::prelude::*;

use crate::block::{BLOCK, ChannelBlock};
use crate::region::{Axis, Region};
use crate::simd::vectorised;

/// Sixteen blocks, which transposed are sixteen runs of sixteen floats.
pub(crate) type Square = [ChannelBlock; BLOCK];

/// Transposes sixteen by sixteen floats.
///
/// Interleaving the halves of 256 values rotates the bits of their positions by one; four
/// times swaps row and column. Every instruction set has an instruction to interleave.
#[inline(always)]
pub(crate) fn transpose(square: &mut Square) {
    let mut other = [ChannelBlock::ZERO; BLOCK];
    riffle(square, &mut other);
    riffle(&other, square);
    riffle(square, &mut other);
    riffle(&other, square);
}

#[inline(always)]
fn riffle(from: &Square, to: &mut Square) {
    const HALF: usize = BLOCK / 2;
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
pub(crate) fn steps(range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let end = range.end;
    let starts = range.step_by(BLOCK);
    starts.map(move |start| (start, BLOCK.min(end - start)))
}

/// The first `len` floats of up to sixteen runs, `stride` apart, as blocks.
#[inline(always)]
pub(crate) fn load(runs: &[f32], stride: usize, count: usize, len: usize) -> Square {
    let mut square = [ChannelBlock::ZERO; BLOCK];
    if len == BLOCK {
        for (i, row) in square.iter_mut().enumerate().take(count) {
            row.0 = *runs[i * stride..].first_chunk().expect("sixteen floats");
        }
    } else {
        for (i, row) in square.iter_mut().enumerate().take(count) {
            row.0[..len].copy_from_slice(&runs[i * stride..][..len]);
        }
    }
    transpose(&mut square);
    square
}

/// The reverse of [`load`], to the columns of a region's rows from `start` on, of its first plane.
#[inline(always)]
pub(crate) fn store(mut square: Square, runs: &mut Region<'_, f32>, start: usize, len: usize) {
    transpose(&mut square);
    for (i, row) in square.iter().enumerate().take(runs.size(Axis::Row)) {
        let run = &mut runs.row(0, i)[start..];
        if len == BLOCK {
            *run.first_chunk_mut().expect("sixteen floats") = row.0;
        } else {
            run[..len].copy_from_slice(&row.0[..len]);
        }
    }
}

/// Fills `to` with each `step`th float.
#[inline(always)]
pub(crate) fn take_every(step: usize, from: &[f32], to: &mut [f32]) {
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

/// Transposes `count` runs of `len` floats, `stride` apart, into `len` rows of blocks.
pub(crate) fn interleave(
    runs: &[f32],
    stride: usize,
    count: usize,
    len: usize,
    out: &mut [ChannelBlock],
) {
    let blocks = count.div_ceil(BLOCK);
    out[..len * blocks]
        .par_chunks_mut(PIECE * blocks)
        .enumerate()
        .for_each(|(i, out)| interleave_piece(&runs[i * PIECE..], stride, count, out));
}

/// The reverse of [`interleave`], to runs one after the other.
pub(crate) fn separate(from: &[ChannelBlock], len: usize, count: usize, runs: &mut [f32]) {
    runs[..len * count]
        .par_chunks_mut(BLOCK * len)
        .enumerate()
        .for_each(|(block, runs)| separate_block(from, len, [block, count.div_ceil(BLOCK)], runs));
}

vectorised! {
    fn interleave_piece(runs: &[f32], stride: usize, count: usize, out: &mut [ChannelBlock]) {
        let blocks = count.div_ceil(BLOCK);
        for block in 0..blocks {
            let runs = &runs[block * BLOCK * stride..];
            let count = BLOCK.min(count - block * BLOCK);
            for (start, len) in steps(0..out.len() / blocks) {
                let square = load(&runs[start..], stride, count, len);
                for (i, value) in square.iter().enumerate().take(len) {
                    out[(start + i) * blocks + block] = *value;
                }
            }
        }
    }
}

vectorised! {
    /// Separates one block of each of `len` rows, in the thread that asks: `place` is which block, and
    /// blocks of a row.
    pub(crate) fn separate_block(from: &[ChannelBlock], len: usize, place: [usize; 2], runs: &mut [f32]) {
        let [block, blocks] = place;
        let count = runs.len() / len;
        let mut runs = Region::whole(runs, [1, count, len]);
        for (start, step) in steps(0..len) {
            let mut square = [ChannelBlock::ZERO; BLOCK];
            for (i, row) in square.iter_mut().enumerate().take(step) {
                *row = from[(start + i) * blocks + block];
            }
            store(square, &mut runs, start, step);
        }
    }
}
