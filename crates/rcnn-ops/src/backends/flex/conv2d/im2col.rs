//! Convolution as products of the weights with columns of patches: any kernel, stride and groups.
//!
//! All the columns of an image can take more room than the image, `kernel` times over. They are
//! made by blocks of pixels, counted through the batch, and multiplied while in cache.

use rayon::prelude::*;

use super::columns::{self, Block};
use super::epilogue::Epilogue;
use super::gemm::{Matrix, gemm};
use super::lanes::{interleave, separate};
use super::pool::{Floats, LANES, Scratch, floats, floats_mut};
use super::shared::Shared;
use super::{Conv2d, TASKS};

/// Bytes of columns that a thread makes at once.
const COLUMN_BYTES: usize = 1 << 20;

/// Pixels of a block: enough for the product to run at speed.
const PIXELS: std::ops::RangeInclusive<usize> = 64..=512;

/// Pixels and rows of the columns that a thread makes at once for the gradient of the weights.
const GRAD_PIXELS: usize = 2048;
const GRAD_ROWS: usize = 36;

pub(super) fn forward(conv: &Conv2d, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) -> Floats {
    let outs = conv.out_channels / conv.groups;
    let (patch, plane) = (conv.patch(), conv.out_plane());
    let blocks = columns::blocks(conv, block_pixels(conv));
    let mut output = Floats::new(conv.output_len());
    let out = &Shared::new(&mut output);
    (0..blocks.len() * conv.groups)
        .into_par_iter()
        .for_each(|task| {
            let (block, group) = (&blocks[task / conv.groups], task % conv.groups);
            let stride = block.len.next_multiple_of(LANES);
            let mut columns = Scratch::new(patch * stride / LANES);
            let columns = floats_mut(&mut columns);
            columns::gather(conv, x, block, [group * patch, patch], columns, stride);
            let mut product = Scratch::new(outs * stride / LANES);
            let product = floats_mut(&mut product);
            gemm(
                [stride, outs, patch],
                product,
                stride,
                Matrix::columns(columns, stride),
                Matrix::columns(&w[group * outs * patch..], patch),
                false,
            );
            let runs = block.runs(conv);
            for (o, product) in product.chunks_mut(stride).enumerate() {
                let channel = group * outs + o;
                for run in &runs {
                    let start = (run.image * conv.out_channels + channel) * plane + run.start;
                    epilogue.finish(channel, start, &mut product[run.at..][..run.len]);
                    // SAFETY: each block and channel has pixels of its own.
                    unsafe { out.write(start, &product[run.at..][..run.len]) };
                }
            }
        });
    output
}

pub(super) fn input_grad(conv: &Conv2d, w: &[f32], grad: &[f32]) -> Floats {
    let mut out = Floats::zeros(conv.input_len());
    if conv.is_empty() {
        return out;
    }
    let (ins, outs) = (
        conv.in_channels / conv.groups,
        conv.out_channels / conv.groups,
    );
    let taps = conv.kernel[0] * conv.kernel[1];
    let (in_plane, out_plane, patch) = (conv.in_plane(), conv.out_plane(), conv.patch());
    let out_stride = outs.next_multiple_of(LANES);
    let mut turned = Scratch::new(conv.groups * patch * out_stride / LANES);
    turned
        .par_chunks_mut(patch * out_stride / LANES)
        .zip(w.par_chunks(outs * patch))
        .for_each(|(turned, w)| interleave(w, patch, outs, patch, turned));

    // Threads share the channels of the input, so that none adds to the pixels of another.
    let part = ins
        .div_ceil(TASKS.div_ceil(conv.batch * conv.groups))
        .max(1);
    let pixels = out_plane.div_ceil(out_plane.div_ceil(*PIXELS.end()));
    let pixels = pixels.next_multiple_of(LANES);
    out.par_chunks_mut(ins * in_plane)
        .enumerate()
        .for_each(|(i, out)| {
            let (image, group) = (i / conv.groups, i % conv.groups);
            let grad = &grad[(image * conv.out_channels + group * outs) * out_plane..];
            let turned = floats(&turned[group * patch * out_stride / LANES..]);
            let parts = out.par_chunks_mut(part * in_plane).enumerate();
            parts.for_each(|(i, out)| {
                let count = out.len() / in_plane * taps;
                let mut columns = Scratch::new(count * pixels / LANES);
                let columns = floats_mut(&mut columns);
                for start in (0..out_plane).step_by(pixels) {
                    let block = Block::new(start, pixels.min(out_plane - start));
                    gemm(
                        [block.len, count, outs],
                        columns,
                        pixels,
                        Matrix::columns(&grad[start..], out_plane),
                        Matrix::columns(&turned[i * part * taps * out_stride..], out_stride),
                        false,
                    );
                    columns::scatter(conv, &block, columns, pixels, out);
                }
            });
        });
    out
}

pub(super) fn weight_grad(conv: &Conv2d, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; conv.weight_len()];
    if conv.is_empty() {
        return out;
    }
    let outs = conv.out_channels / conv.groups;
    let (patch, plane) = (conv.patch(), conv.out_plane());
    let out_lanes = outs.div_ceil(LANES);
    let pixels = GRAD_PIXELS.min(conv.batch * plane);
    let mut sums = Scratch::new(conv.groups * patch * out_lanes);
    let mut turned = Scratch::new(conv.groups * pixels * out_lanes);
    for block in &columns::blocks(conv, pixels) {
        // The gradient as pixels of channels: the product goes along the channels.
        turned
            .par_chunks_mut(pixels * out_lanes)
            .enumerate()
            .for_each(|(group, turned)| {
                for run in &block.runs(conv) {
                    let start = (run.image * conv.out_channels + group * outs) * plane + run.start;
                    let runs = &grad[start..];
                    interleave(
                        runs,
                        plane,
                        outs,
                        run.len,
                        &mut turned[run.at * out_lanes..],
                    );
                }
            });
        let part = GRAD_ROWS * out_lanes;
        sums.par_chunks_mut(patch * out_lanes)
            .enumerate()
            .for_each(|(group, sums)| {
                let turned = floats(&turned[group * pixels * out_lanes..]);
                let parts = sums.par_chunks_mut(part).enumerate();
                parts.for_each(|(i, sums)| {
                    let count = sums.len() / out_lanes;
                    let stride = block.len.next_multiple_of(LANES);
                    let mut columns = Scratch::new(count * stride / LANES);
                    let columns = floats_mut(&mut columns);
                    let rows = [group * patch + i * GRAD_ROWS, count];
                    columns::gather(conv, x, block, rows, columns, stride);
                    gemm(
                        [out_lanes * LANES, count, block.len],
                        floats_mut(sums),
                        out_lanes * LANES,
                        Matrix::columns(turned, out_lanes * LANES),
                        Matrix::columns(columns, stride),
                        block.start > 0,
                    );
                });
            });
    }
    out.par_chunks_mut(outs * patch)
        .zip(sums.par_chunks(patch * out_lanes))
        .for_each(|(out, sums)| separate(sums, patch, outs, out));
    out
}

fn block_pixels(conv: &Conv2d) -> usize {
    let most = COLUMN_BYTES / (conv.patch().max(1) * size_of::<f32>());
    let shared = (conv.batch * conv.out_plane()).div_ceil(TASKS);
    let pixels = most.min(shared).clamp(*PIXELS.start(), *PIXELS.end());
    pixels.next_multiple_of(*PIXELS.start())
}
