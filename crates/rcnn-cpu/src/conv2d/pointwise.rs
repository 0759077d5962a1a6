//! Convolution by kernels of one pixel: products of the weights with the planes as they lie.
//!
//! With a stride, the pixels that it meets are gathered first; what is left has none.

use rayon::prelude::*;

use super::Conv2d;
use crate::TASKS;
use crate::arena::{Floats, Scratch};
use crate::block::{BLOCK, ChannelBlock, floats, floats_mut};
use crate::epilogue::Epilogue;
use crate::gemm::{Matrix, gemm, gemm_to};
use crate::region::{Axis, Region};
use crate::simd::vectorised;
use crate::transpose::{interleave, separate, take_every};

/// Pixels of a product: enough to run at speed.
const PIXELS: usize = 512;
const MIN_PIXELS: usize = 128;

/// Bytes of pixels that are transposed at once for the gradient of the weights.
const TURNED_BYTES: usize = 4 << 20;

pub(crate) fn applies(conv: &Conv2d) -> bool {
    conv.kernel == [1, 1] && conv.padding == [0, 0] && conv.groups == 1 && !conv.is_empty()
}

pub(crate) fn forward(conv: &Conv2d, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) -> Floats {
    let weights = Matrix::columns(w, conv.in_channels);
    if conv.stride == [1, 1] {
        multiply(conv, x, weights, epilogue)
    } else {
        multiply(conv, &gather(conv, x), weights, epilogue)
    }
}

pub(crate) fn input_grad(conv: &Conv2d, w: &[f32], grad: &[f32]) -> Floats {
    let adjoint = Conv2d {
        in_channels: conv.out_channels,
        out_channels: conv.in_channels,
        ..*conv
    };
    let x = multiply(
        &adjoint,
        grad,
        Matrix::rows(w, conv.in_channels),
        &Epilogue::NONE,
    );
    if conv.stride == [1, 1] {
        x
    } else {
        scatter(conv, &x)
    }
}

pub(crate) fn weight_grad(conv: &Conv2d, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let gathered;
    let x = if conv.stride == [1, 1] {
        x
    } else {
        gathered = gather(conv, x);
        &gathered
    };
    let (ins, outs, plane) = (conv.in_channels, conv.out_channels, conv.out_plane());
    // The product goes along the channels, of whichever side has fewer to turn into pixels of
    // channels; the planes of the other are taken as they lie.
    let ((m, turn), (n, planes)) = if ins < outs {
        ((ins, x), (outs, grad))
    } else {
        ((outs, grad), (ins, x))
    };
    let blocks = m.div_ceil(BLOCK);
    let pixels = (TURNED_BYTES / (m * size_of::<f32>())).clamp(PIXELS, 16 * PIXELS);
    let part = n.div_ceil(TASKS).next_multiple_of(6);
    let mut sums = Scratch::new(n * blocks);
    sums.fill(ChannelBlock::ZERO);
    let mut turned = Scratch::new(pixels.min(conv.batch * plane) * blocks);
    let all: Vec<_> = runs(conv, PIXELS).collect();
    let mut rest = &all[..];
    while !rest.is_empty() {
        // As many runs as fit.
        let mut len = 0;
        let fits = |run: &&Run| {
            len += run.len;
            len <= pixels
        };
        let (chunk, after) = rest.split_at(rest.iter().take_while(fits).count());
        rest = after;
        let mut pieces = Vec::with_capacity(chunk.len());
        let mut free = &mut turned[..];
        for run in chunk {
            let (piece, after) = free.split_at_mut(run.len * blocks);
            pieces.push((&turn[run.image * m * plane + run.start..], run.len, piece));
            free = after;
        }
        pieces
            .into_par_iter()
            .for_each(|(turn, len, piece)| interleave(turn, plane, m, len, piece));
        let turned = floats(&turned);
        let parts = sums.par_chunks_mut(part * blocks).enumerate();
        parts.for_each(|(i, sums)| {
            let (count, mut at) = (sums.len() / blocks, 0);
            for run in chunk {
                let planes = &planes[(run.image * n + i * part) * plane + run.start..];
                gemm_to(
                    floats_mut(sums),
                    blocks * BLOCK,
                    [blocks * BLOCK, count, run.len],
                    Matrix::columns(&turned[at..], blocks * BLOCK),
                    Matrix::columns(planes, plane),
                    true,
                );
                at += run.len * blocks * BLOCK;
            }
        });
    }
    let mut out = vec![0.0; conv.weight_len()];
    if ins < outs {
        let rows = floats(&sums).chunks(blocks * BLOCK);
        for (out, row) in out.chunks_mut(ins).zip(rows) {
            out.copy_from_slice(&row[..ins]);
        }
    } else {
        separate(&sums, ins, outs, &mut out);
    }
    out
}

/// Consecutive pixels of one image of the output.
struct Run {
    image: usize,
    start: usize,
    len: usize,
}

/// Cuts the output into runs of at most `pixels`.
fn runs(conv: &Conv2d, pixels: usize) -> impl Iterator<Item = Run> {
    let plane = conv.out_plane();
    (0..conv.batch).flat_map(move |image| {
        let starts = (0..plane).step_by(pixels);
        starts.map(move |start| Run {
            image,
            start,
            len: pixels.min(plane - start),
        })
    })
}

/// Multiplies planes of the size of the output with weights, a matrix of inputs by outputs.
fn multiply(conv: &Conv2d, x: &[f32], weights: Matrix<'_>, epilogue: &Epilogue<'_>) -> Floats {
    let (ins, outs, plane) = (conv.in_channels, conv.out_channels, conv.out_plane());
    // Of about one length, so that no thread waits long for another.
    let count = plane.div_ceil(PIXELS).max(TASKS.div_ceil(conv.batch));
    let equal = plane.div_ceil(count).max(MIN_PIXELS);
    let equal = equal.next_multiple_of(4 * BLOCK);
    let parts = TASKS.div_ceil(conv.batch * plane.div_ceil(equal));
    let part = outs.div_ceil(parts).next_multiple_of(6);
    let mut output = Floats::new(conv.output_len());
    let images = Region::whole(&mut output[..], [conv.batch, outs, plane]);
    let mut tasks = Vec::new();
    for (image, channels) in images.chunks(Axis::Plane, 1).enumerate() {
        for (i, pixels) in channels.chunks(Axis::Column, equal).enumerate() {
            for (j, pixels) in pixels.chunks(Axis::Row, part).enumerate() {
                tasks.push((image, i * equal, j * part, pixels));
            }
        }
    }
    let tasks = tasks.into_par_iter().with_max_len(1);
    tasks.for_each(|(image, start, first, mut pixels)| {
        let x = Matrix::columns(&x[image * ins * plane + start..], plane);
        gemm(&mut pixels, ins, x, weights.skip_columns(first), false);
        for o in 0..pixels.size(Axis::Row) {
            let at = (image * outs + first + o) * plane + start;
            epilogue.finish(first + o, at, pixels.row(0, o));
        }
    });
    output
}

/// The pixels that a strided kernel meets.
fn gather(conv: &Conv2d, x: &[f32]) -> Floats {
    let mut out = Floats::new(conv.batch * conv.in_channels * conv.out_plane());
    out.par_chunks_mut(conv.out_plane())
        .zip(x.par_chunks(conv.in_plane()))
        .for_each(|(out, x)| gather_plane(conv, x, out));
    out
}

vectorised! {
    fn gather_plane(conv: &Conv2d, x: &[f32], out: &mut [f32]) {
        let rows = x.chunks(conv.width).step_by(conv.stride[0]);
        for (out, x) in out.chunks_mut(conv.out_width()).zip(rows) {
            take_every(conv.stride[1], x, out);
        }
    }
}

/// The reverse of [`gather`], with zeros in between.
fn scatter(conv: &Conv2d, pixels: &[f32]) -> Floats {
    let (width, [down, right]) = (conv.out_width(), conv.stride);
    let mut out = Floats::zeros(conv.input_len());
    out.par_chunks_mut(conv.in_plane())
        .zip(pixels.par_chunks(conv.out_plane()))
        .for_each(|(out, pixels)| {
            let rows = out.chunks_mut(conv.width).step_by(down);
            for (out, pixels) in rows.zip(pixels.chunks(width)) {
                for (out, pixel) in out.iter_mut().step_by(right).zip(pixels) {
                    *out = *pixel;
                }
            }
        });
    out
}
