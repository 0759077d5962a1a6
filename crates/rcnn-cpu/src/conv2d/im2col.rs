//! Convolution as products of the weights with columns of patches: any kernel, stride and groups.
//!
//! All the columns of an image can take more scratch than the image, `kernel` times over. They are
//! made by chunks of pixels, counted through the batch, and multiplied while in cache.

use rayon::prelude::*;

use super::Conv2d;
use super::columns::{self, PixelChunk, Run};
use crate::TASKS;
use crate::arena::{Floats, Scratch};
use crate::block::{BLOCK, floats, floats_mut};
use crate::epilogue::Epilogue;
use crate::gemm::{Matrix, gemm_to};
use crate::region::{Axis, Region};
use crate::transpose::{interleave, separate};

/// Bytes of columns that a thread makes at once.
const COLUMN_BYTES: usize = 1 << 20;

/// Pixels of a chunk: enough for the product to run at speed.
const PIXELS: std::ops::RangeInclusive<usize> = 64..=512;

/// Pixels and rows of the columns that a thread makes at once for the gradient of the weights.
const GRAD_PIXELS: usize = 2048;
const GRAD_ROWS: usize = 36;

/// The outputs of a chunk of pixels and a group: of each run, channels by pixels.
type Task<'a> = Vec<(Run, Region<'a, f32>)>;

/// Tasks for chunks of a given number of pixels, each chunk's groups one after the other.
fn tasks<'a>(conv: &Conv2d, output: &'a mut [f32], chunks: &[PixelChunk]) -> Vec<Task<'a>> {
    let outs = conv.out_channels / conv.groups;
    let mut tasks: Vec<_> = (0..chunks.len() * conv.groups)
        .map(|_| Vec::new())
        .collect();
    let whole = Region::whole(output, [conv.batch, conv.out_channels, conv.out_plane()]);
    let mut images = whole.chunks(Axis::Plane, 1);
    let mut groups: Vec<Region<'a, f32>> = Vec::new();
    for (chunk, tasks) in chunks.iter().zip(tasks.chunks_mut(conv.groups)) {
        for run in chunk.runs(conv) {
            if run.start == 0 {
                let image = images.next().expect("a run's image");
                groups = image.chunks(Axis::Row, outs).collect();
            }
            let rest = std::mem::take(&mut groups)
                .into_iter()
                .zip(&mut *tasks)
                .map(|(group, task)| {
                    let (part, rest) = group.split(Axis::Column, run.len);
                    task.push((run, part));
                    rest
                });
            groups = rest.collect();
        }
    }
    tasks
}

pub(crate) fn forward(conv: &Conv2d, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) -> Floats {
    let outs = conv.out_channels / conv.groups;
    let (patch, plane) = (conv.patch(), conv.out_plane());
    let chunks = columns::chunks(conv, chunk_pixels(conv));
    let mut output = Floats::new(conv.output_len());
    let tasks = tasks(conv, &mut output, &chunks);
    tasks.into_par_iter().enumerate().for_each(|(i, task)| {
        let (chunk, group) = (&chunks[i / conv.groups], i % conv.groups);
        let stride = chunk.len.next_multiple_of(BLOCK);
        let mut columns = Scratch::new(patch * stride / BLOCK);
        let columns = floats_mut(&mut columns);
        columns::gather(conv, x, chunk, [group * patch, patch], columns, stride);
        let mut product = Scratch::new(outs * stride / BLOCK);
        let product = floats_mut(&mut product);
        gemm_to(
            product,
            stride,
            [stride, outs, patch],
            Matrix::columns(columns, stride),
            Matrix::columns(&w[group * outs * patch..], patch),
            false,
        );
        for (run, mut pixels) in task {
            for (o, product) in product.chunks_mut(stride).enumerate() {
                let channel = group * outs + o;
                let start = (run.image * conv.out_channels + channel) * plane + run.start;
                let product = &mut product[run.at..][..run.len];
                epilogue.finish(channel, start, product);
                pixels.row(0, o).copy_from_slice(product);
            }
        }
    });
    output
}

pub(crate) fn input_grad(conv: &Conv2d, w: &[f32], grad: &[f32]) -> Floats {
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
    let out_stride = outs.next_multiple_of(BLOCK);
    let mut turned = Scratch::new(conv.groups * patch * out_stride / BLOCK);
    turned
        .par_chunks_mut(patch * out_stride / BLOCK)
        .zip(w.par_chunks(outs * patch))
        .for_each(|(turned, w)| interleave(w, patch, outs, patch, turned));

    // Threads share the channels of the input, so that none adds to the pixels of another.
    let part = ins
        .div_ceil(TASKS.div_ceil(conv.batch * conv.groups))
        .max(1);
    let pixels = out_plane.div_ceil(out_plane.div_ceil(*PIXELS.end()));
    let pixels = pixels.next_multiple_of(BLOCK);
    out.par_chunks_mut(ins * in_plane)
        .enumerate()
        .for_each(|(i, out)| {
            let (image, group) = (i / conv.groups, i % conv.groups);
            let grad = &grad[(image * conv.out_channels + group * outs) * out_plane..];
            let turned = floats(&turned[group * patch * out_stride / BLOCK..]);
            let parts = out.par_chunks_mut(part * in_plane).enumerate();
            parts.for_each(|(i, out)| {
                let count = out.len() / in_plane * taps;
                let mut columns = Scratch::new(count * pixels / BLOCK);
                let columns = floats_mut(&mut columns);
                for start in (0..out_plane).step_by(pixels) {
                    let chunk = PixelChunk::new(start, pixels.min(out_plane - start));
                    gemm_to(
                        columns,
                        pixels,
                        [chunk.len, count, outs],
                        Matrix::columns(&grad[start..], out_plane),
                        Matrix::columns(&turned[i * part * taps * out_stride..], out_stride),
                        false,
                    );
                    columns::scatter(conv, &chunk, columns, pixels, out);
                }
            });
        });
    out
}

pub(crate) fn weight_grad(conv: &Conv2d, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; conv.weight_len()];
    if conv.is_empty() {
        return out;
    }
    let outs = conv.out_channels / conv.groups;
    let (patch, plane) = (conv.patch(), conv.out_plane());
    let out_blocks = outs.div_ceil(BLOCK);
    let pixels = GRAD_PIXELS.min(conv.batch * plane);
    let mut sums = Scratch::new(conv.groups * patch * out_blocks);
    let mut turned = Scratch::new(conv.groups * pixels * out_blocks);
    for chunk in &columns::chunks(conv, pixels) {
        // The gradient as pixels of channels: the product goes along the channels.
        turned
            .par_chunks_mut(pixels * out_blocks)
            .enumerate()
            .for_each(|(group, turned)| {
                for run in &chunk.runs(conv) {
                    let start = (run.image * conv.out_channels + group * outs) * plane + run.start;
                    let runs = &grad[start..];
                    interleave(
                        runs,
                        plane,
                        outs,
                        run.len,
                        &mut turned[run.at * out_blocks..],
                    );
                }
            });
        let part = GRAD_ROWS * out_blocks;
        sums.par_chunks_mut(patch * out_blocks)
            .enumerate()
            .for_each(|(group, sums)| {
                let turned = floats(&turned[group * pixels * out_blocks..]);
                let parts = sums.par_chunks_mut(part).enumerate();
                parts.for_each(|(i, sums)| {
                    let count = sums.len() / out_blocks;
                    let stride = chunk.len.next_multiple_of(BLOCK);
                    let mut columns = Scratch::new(count * stride / BLOCK);
                    let columns = floats_mut(&mut columns);
                    let rows = [group * patch + i * GRAD_ROWS, count];
                    columns::gather(conv, x, chunk, rows, columns, stride);
                    gemm_to(
                        floats_mut(sums),
                        out_blocks * BLOCK,
                        [out_blocks * BLOCK, count, chunk.len],
                        Matrix::columns(turned, out_blocks * BLOCK),
                        Matrix::columns(columns, stride),
                        chunk.start > 0,
                    );
                });
            });
    }
    out.par_chunks_mut(outs * patch)
        .zip(sums.par_chunks(patch * out_blocks))
        .for_each(|(out, sums)| separate(sums, patch, outs, out));
    out
}

fn chunk_pixels(conv: &Conv2d) -> usize {
    let most = COLUMN_BYTES / (conv.patch().max(1) * size_of::<f32>());
    let shared = (conv.batch * conv.out_plane()).div_ceil(TASKS);
    let pixels = most.min(shared).clamp(*PIXELS.start(), *PIXELS.end());
    pixels.next_multiple_of(*PIXELS.start())
}
