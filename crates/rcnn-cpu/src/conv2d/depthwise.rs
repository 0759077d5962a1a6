//! Depthwise convolution: one kernel for each channel, over images with their channels last.
//!
//! A tile of consecutive pixels of the output meets a tap of all kernels of a channel block at once, so
//! that every load is a whole block and sums stay in registers. There are few sums for each value that is
//! read, and memory is what it waits for: rows of the input are shared by the rows that a thread computes
//! after each other.

pub(crate) mod planes;

use std::ops::Range;

use rayon::prelude::*;

use super::Conv2d;
use crate::arena::{Floats, Scratch};
use crate::block::{BLOCK, ChannelBlock};
use crate::epilogue::BlockEpilogue;
use crate::simd::{InstructionSet, Vectors, instruction_set, vectorised};

pub(crate) fn applies(conv: &Conv2d) -> bool {
    conv.groups > 1 && [conv.in_channels, conv.out_channels] == [conv.groups; 2] && !conv.is_empty()
}

/// Kernels tap after tap, with the channels of a tap side by side.
pub(crate) struct Weights {
    values: Scratch,
    instruction_set: InstructionSet,
}

impl Weights {
    /// Arranges weights, channels by taps.
    pub(crate) fn new(conv: &Conv2d, w: &[f32]) -> Self {
        let (taps, blocks) = (conv.patch(), conv.groups.div_ceil(BLOCK));
        let mut values = Scratch::new(taps * blocks);
        values.fill(ChannelBlock::ZERO);
        for (channel, kernel) in w.chunks(taps).enumerate() {
            let (block, lane) = (channel / BLOCK, channel % BLOCK);
            for (tap, &weight) in kernel.iter().enumerate() {
                values[tap * blocks + block].0[lane] = weight;
            }
        }
        Self {
            values,
            instruction_set: instruction_set(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.values)
    }

    pub(crate) fn instruction_set(&self) -> InstructionSet {
        self.instruction_set
    }
}

pub(crate) fn forward(
    conv: &Conv2d,
    x: &[ChannelBlock],
    w: &Weights,
    epilogue: &BlockEpilogue<'_>,
) -> Floats {
    let (blocks, out_h) = (conv.groups.div_ceil(BLOCK), conv.out_height());
    let mut output = Floats::new(conv.channels_last_len());
    let rows = output
        .blocks_mut()
        .par_chunks_mut(conv.out_width() * blocks);
    rows.enumerate().for_each(|(i, out)| {
        let (image, row) = (i / out_h, i % out_h);
        let line = Line {
            conv,
            x: &x[image * conv.in_plane() * blocks..],
            weights: &w.values,
            blocks,
            top: row * conv.stride[0],
            taps_y: taps(conv, 0, row),
            first_pixel: i * conv.out_width(),
            epilogue,
        };
        convolve(&line, out);
    });
    output
}

/// Which taps along an axis lie within the input for a place along that axis of the output.
fn taps(conv: &Conv2d, axis: usize, place: usize) -> Range<usize> {
    let side = [conv.height, conv.width][axis];
    let (start, padding) = (place * conv.stride[axis], conv.padding[axis]);
    let end = conv.kernel[axis].min((side + padding).saturating_sub(start));
    padding.saturating_sub(start).min(end)..end
}

/// A row of the output.
struct Line<'a> {
    conv: &'a Conv2d,
    /// From the row's image on.
    x: &'a [ChannelBlock],
    weights: &'a [ChannelBlock],
    /// Channel blocks of a pixel.
    blocks: usize,
    /// The row that the first tap meets, counted through the padding, and the taps that lie within.
    top: usize,
    taps_y: Range<usize>,
    /// The row's first pixel, counted through the batch.
    first_pixel: usize,
    epilogue: &'a BlockEpilogue<'a>,
}

vectorised! {
    fn convolve<V>(vectors; line: &Line<'_>, out: &mut [ChannelBlock]) {
        // As many sums as the processor adds to at the same time.
        match V::PARTS {
            1 => line.tiles::<V, 8>(vectors, out),
            2 => line.tiles::<V, 4>(vectors, out),
            _ => line.tiles::<V, 2>(vectors, out),
        }
    }
}

impl Line<'_> {
    /// The row in tiles of `T` pixels, but for those that are not within the input with all taps.
    #[inline(always)]
    fn tiles<V: Vectors, const T: usize>(&self, vectors: V, out: &mut [ChannelBlock]) {
        let (conv, width) = (self.conv, self.conv.out_width());
        let (stride, padding, kernel) = (conv.stride[1], conv.padding[1], conv.kernel[1]);
        // The first column of which all taps are within, and the first thereafter of which not all are.
        let first = padding.div_ceil(stride);
        let end = match (conv.width + padding).checked_sub(kernel) {
            Some(last) => last / stride + 1,
            None => 0,
        };
        let mut column = 0;
        while column < width {
            if column >= first && column + T <= end {
                self.tile::<V, T>(vectors, column, 0..kernel, out);
                column += T;
            } else {
                self.tile::<V, 1>(vectors, column, taps(conv, 1, column), out);
                column += 1;
            }
        }
    }

    /// `T` pixels from a column on.
    #[inline(always)]
    fn tile<V: Vectors, const T: usize>(
        &self,
        vectors: V,
        column: usize,
        taps_x: Range<usize>,
        out: &mut [ChannelBlock],
    ) {
        let (conv, blocks) = (self.conv, self.blocks);
        let left = column * conv.stride[1];
        let step = conv.stride[1] * blocks;
        let factors = self.epilogue.factors(0, blocks);
        for block in 0..blocks {
            let mut sums = [vectors.load(&ChannelBlock::ZERO.0); T];
            for y in self.taps_y.clone() {
                let row = (self.top + y - conv.padding[0]) * conv.width;
                for x in taps_x.clone() {
                    let tap = (y * conv.kernel[1] + x) * blocks + block;
                    let weight = vectors.load(&self.weights[tap].0);
                    let at = (row + left + x - conv.padding[1]) * blocks + block;
                    for (t, sum) in sums.iter_mut().enumerate() {
                        let value = vectors.load(&self.x[at + t * step].0);
                        for p in 0..V::PARTS {
                            let sum = &mut sum.as_mut()[p];
                            *sum = vectors.fused(value.as_ref()[p], weight.as_ref()[p], *sum);
                        }
                    }
                }
            }
            for (t, sum) in sums.into_iter().enumerate() {
                let mut pixel = ChannelBlock(vectors.unload(sum));
                if let Some(factors) = factors {
                    let source = self.first_pixel + column + t;
                    let source = self.epilogue.source(source, block, blocks);
                    self.epilogue.finish(&factors[block], source, &mut pixel);
                }
                out[(column + t) * blocks + block] = pixel;
            }
        }
    }
}
