//! The kernel: a few rows meet a panel of weights, and their sums stay in registers.

use std::array::from_fn;
use std::ops::Range;

#[cfg(target_arch = "aarch64")]
use pulp::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{NullaryFnOnce, Scalar128b};

use super::{Output, Product, ROWS, Rows, Starts, share};
use crate::block::{BLOCK, ChannelBlock, Streaming, prefetch};
use crate::epilogue::Activation;
use crate::simd::Vectors;

/// How products are cut for a processor's registers and caches.
pub(crate) trait Tiling: Vectors {
    /// Rows at once, at most [`ROWS`] and a divisor of it: with a panel's blocks they fill the registers.
    const ROWS: usize = ROWS;
    /// Blocks of outputs at once, at most 4.
    const PANEL: usize = 1;
    /// Inputs of a row at once, at most.
    const DEPTH: usize = 512;
    /// Bytes of weights that the second-level cache holds beside other things.
    const L2_BYTES: usize = 256 << 10;
    /// Bytes of rows that meet one panel after the other, if the weights fit into that cache, and if not.
    const CHUNK_BYTES: [usize; 2] = [128 << 10, 128 << 10];
    /// Bytes of panels from which on the next is brought into cache beforehand.
    const FETCHED_BYTES: usize = 0;
    /// See [`tile_bytes`](super::tile_bytes).
    const TILE_BYTES: usize = 1536 << 10;
}

#[cfg(target_arch = "x86_64")]
impl Tiling for V4 {
    const PANEL: usize = 4;
    const DEPTH: usize = usize::MAX;
    const L2_BYTES: usize = 512 << 10;
    const CHUNK_BYTES: [usize; 2] = [48 << 10, 256 << 10];
    const FETCHED_BYTES: usize = 48 << 10;
    const TILE_BYTES: usize = 768 << 10;
}

#[cfg(target_arch = "x86_64")]
impl Tiling for V3 {}

/// Six rows of a block's four vectors, of 32 registers.
#[cfg(target_arch = "aarch64")]
impl Tiling for Neon {}

/// Tiling for 16 registers, where all processors are as x86-64 without extensions.
impl Tiling for Scalar128b {
    const ROWS: usize = 2;
}

pub(super) fn multiply<V: Tiling>(vectors: V, product: &Product<'_>, mut out: Output<'_>) {
    let Rows { count, part, .. } = product.rows;
    let depth = product.rows.depth();
    let streaming = out.streams.then(Streaming::new);
    // Chunks stay close if the weights do; else they are used often once they are there.
    let far = product.panels.blocks * depth * size_of::<ChannelBlock>() > V::L2_BYTES;
    let bytes = V::CHUNK_BYTES[usize::from(far)];
    let most = (bytes / (depth.min(V::DEPTH) * size_of::<f32>())).max(ROWS);
    let rows = count.div_ceil(count.div_ceil(most)).next_multiple_of(ROWS);
    for start in (0..count).step_by(rows) {
        let chunk = start..count.min(start + rows);
        for (parts, inputs) in product.rows.chunks(V::DEPTH) {
            let first = parts.start * part + inputs.start;
            let len = parts.len() * inputs.len();
            let ends = first + len == depth;
            let panels = product.panels.some(product.range.clone());
            let mut column = 0;
            for (i, (block, width)) in panels.enumerate() {
                let weights = &product.weights(block, width)[first * width..][..len * width];
                let row_block = RowBlock {
                    rows: &product.rows,
                    chunk: chunk.clone(),
                    share: share(part, i, product.range.len()),
                    parts: parts.clone(),
                    inputs: inputs.clone(),
                    weights,
                    fetch: product.in_turn && size_of_val(weights) >= V::FETCHED_BYTES,
                    column,
                    adds: out.adds || first > 0,
                    ends,
                    streaming: streaming.as_ref().filter(|_| ends),
                };
                match width {
                    4 if V::PANEL >= 4 => {
                        vectors.enter(Multiply::<V, 4>(vectors, &row_block, &mut out))
                    }
                    3 if V::PANEL >= 3 => {
                        vectors.enter(Multiply::<V, 3>(vectors, &row_block, &mut out))
                    }
                    2 if V::PANEL >= 2 => {
                        vectors.enter(Multiply::<V, 2>(vectors, &row_block, &mut out))
                    }
                    _ => vectors.enter(Multiply::<V, 1>(vectors, &row_block, &mut out)),
                }
                column += width;
            }
        }
    }
}

impl Rows<'_> {
    /// Cuts the inputs of a row, so that at most `most` are in one piece: of some parts, some inputs
    /// each.
    fn chunks(&self, most: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let (parts, part) = (self.parts(), self.part);
        let each_parts = (most / part).clamp(1, parts);
        let each = part.div_ceil(part.div_ceil(most));
        (0..parts).step_by(each_parts).flat_map(move |first| {
            let parts = first..parts.min(first + each_parts);
            let firsts = (0..part).step_by(each);
            firsts.map(move |first| (parts.clone(), first..part.min(first + each)))
        })
    }

    /// Has a share of each part of some rows brought into cache.
    #[inline(always)]
    fn prefetch(&self, rows: Range<usize>, share: &Range<usize>) {
        for part in 0..self.parts() {
            for row in rows.clone() {
                let row = match self.start(row, part) {
                    Starts::ZEROS => continue,
                    start => self.data.as_ptr().wrapping_add(start),
                };
                for i in share.clone().step_by(BLOCK) {
                    prefetch(row.wrapping_add(i));
                }
            }
        }
    }
}

/// A chunk of rows and a panel.
struct RowBlock<'a> {
    rows: &'a Rows<'a>,
    chunk: Range<usize>,
    /// Part of the next chunk's rows that is brought into cache meanwhile, so that memory is busy all the
    /// time.
    share: Range<usize>,
    /// Which parts of the rows are multiplied, and which inputs of each.
    parts: Range<usize>,
    inputs: Range<usize>,
    /// Weights of these inputs.
    weights: &'a [ChannelBlock],
    /// Whether what follows the weights is brought into cache meanwhile.
    fetch: bool,
    /// The first block of the outputs.
    column: usize,
    /// Whether the output holds the sums of the inputs before.
    adds: bool,
    /// Whether these are the last inputs, so that the epilogue follows.
    ends: bool,
    /// If the outputs bypass the cache.
    streaming: Option<&'a Streaming>,
}

/// [`RowBlock::multiply`] of `W` blocks, to be done with vector instructions enabled.
struct Multiply<'a, 'b, V, const W: usize>(V, &'a RowBlock<'a>, &'a mut Output<'b>);

impl<V: Tiling, const W: usize> NullaryFnOnce for Multiply<'_, '_, V, W> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self(vectors, row_block, out) = self;
        row_block.multiply::<V, W>(vectors, out);
    }
}

/// Replaces each vector of the sums of some rows. Not a function of a closure, which may not be inlined,
/// and then has been compiled without the vectors' instructions.
macro_rules! each_part {
    ($sums:expr, |$part:ident| $value:expr) => {
        for sums in &mut $sums {
            for sum in sums {
                for p in 0..V::PARTS {
                    let $part = sum.as_ref()[p];
                    sum.as_mut()[p] = $value;
                }
            }
        }
    };
}

impl RowBlock<'_> {
    /// The sums of all rows with `W` blocks.
    #[inline(always)]
    fn multiply<V: Tiling, const W: usize>(&self, vectors: V, out: &mut Output<'_>) {
        const { assert!(matches!(V::ROWS, 2 | 3 | ROWS) && V::PANEL <= 4) };
        let inputs = self.parts.len() * self.inputs.len();
        let tiles = self.chunk.len().div_ceil(V::ROWS);
        let step = match self.fetch {
            true => (W * size_of::<ChannelBlock>()).div_ceil(tiles),
            false => 0,
        };
        let mut next = self.weights.as_ptr_range().end;
        for row in self.chunk.clone().step_by(V::ROWS) {
            let ahead = row + self.chunk.len();
            if ahead < self.rows.count && !self.share.is_empty() {
                let end = self.rows.count.min(ahead + V::ROWS);
                self.rows.prefetch(ahead..end, &self.share);
            }
            let next_weights = Next { at: next, step };
            match self.chunk.end - row {
                1 => self.tile::<V, W, 1>(vectors, row, next_weights, out),
                _ if V::ROWS == 2 => self.tile::<V, W, 2>(vectors, row, next_weights, out),
                2 => self.tile::<V, W, 2>(vectors, row, next_weights, out),
                _ if V::ROWS == 3 => self.tile::<V, W, 3>(vectors, row, next_weights, out),
                3 => self.tile::<V, W, 3>(vectors, row, next_weights, out),
                4 => self.tile::<V, W, 4>(vectors, row, next_weights, out),
                5 => self.tile::<V, W, 5>(vectors, row, next_weights, out),
                _ => self.tile::<V, W, 6>(vectors, row, next_weights, out),
            }
            next = next.wrapping_byte_add(inputs * step);
        }
    }

    /// The sums of `T` rows.
    #[inline(always)]
    fn tile<V: Vectors, const W: usize, const T: usize>(
        &self,
        vectors: V,
        row: usize,
        next: Next,
        out: &mut Output<'_>,
    ) {
        let epilogue = out.epilogue;
        let block = out.first_block + self.column;
        let factors = epilogue.factors(block, W).filter(|_| self.ends);
        let factors = factors.and_then(|factors| factors.first_chunk::<W>());
        let residual = epilogue.residual.filter(|_| factors.is_some());
        let residual = residual.map(|residual| -> [&[[f32; BLOCK]; W]; T] {
            from_fn(|t| {
                let at = epilogue.source(out.first_pixel + row + t, block, out.blocks);
                let (residual, _) = residual[at..].as_chunks();
                let residual = residual.first_chunk().expect("a panel's blocks");
                residual.iter().for_each(|block| prefetch(block));
                residual
            })
        });
        let outs: [&mut [ChannelBlock; W]; T] = out.region.parts(row, self.column);
        if self.adds {
            for out in &outs {
                out.iter().for_each(|block| prefetch(block));
            }
        }
        // Loops of few operations each, which are unrolled, so that sums stay in registers.
        let mut sums: [[V::Block; W]; T] = self.sums(vectors, row, next);
        if self.adds {
            for t in 0..T {
                for w in 0..W {
                    add(vectors, &mut sums[t][w], &outs[t][w].0);
                }
            }
        }
        if let Some(factors) = factors {
            for w in 0..W {
                let [scale, shift] = &factors[w];
                let (scale, shift) = (vectors.load(&scale.0), vectors.load(&shift.0));
                for sums in &mut sums {
                    for p in 0..V::PARTS {
                        let sum = &mut sums[w].as_mut()[p];
                        *sum = vectors.fused(*sum, scale.as_ref()[p], shift.as_ref()[p]);
                    }
                }
            }
            if let Some(residual) = residual {
                for t in 0..T {
                    for w in 0..W {
                        add(vectors, &mut sums[t][w], &residual[t][w]);
                    }
                }
            }
            match epilogue.activation {
                Activation::None => {}
                Activation::Relu => each_part!(sums, |sum| vectors.relu(sum)),
                Activation::Relu6 => each_part!(sums, |sum| vectors.clamp(sum, 6.0)),
                Activation::Hardswish => {
                    each_part!(sums, |sum| vectors.mul_f32s(sum, vectors.gate(sum)))
                }
                Activation::Hardsigmoid => each_part!(sums, |sum| vectors.gate(sum)),
            }
        }
        match self.streaming {
            Some(streaming) => {
                for t in 0..T {
                    for w in 0..W {
                        vectors.stream(streaming, &mut outs[t][w], sums[t][w]);
                    }
                }
            }
            None => {
                for t in 0..T {
                    for w in 0..W {
                        outs[t][w].0 = vectors.unload(sums[t][w]);
                    }
                }
            }
        }
    }

    /// The sums of products.
    #[inline(always)]
    fn sums<V: Vectors, const W: usize, const T: usize>(
        &self,
        vectors: V,
        row: usize,
        mut next: Next,
    ) -> [[V::Block; W]; T] {
        let zero = vectors.load(&ChannelBlock::ZERO.0);
        let (mut sums, mut loaded) = ([[zero; W]; T], [zero; W]);
        let (mut weights, _) = self.weights.as_chunks::<W>();
        for part in self.parts.clone() {
            let these;
            (these, weights) = weights.split_at(self.inputs.len());
            // Of a length that the compiler sees to be these weights', so that nothing is checked below.
            let mut rows: [&[f32]; T] = [&[]; T];
            for (t, inputs) in rows.iter_mut().enumerate() {
                let part = self.rows.part(row + t, part);
                *inputs = &part[self.inputs.start..][..these.len()];
            }
            for k in 0..these.len() {
                prefetch(next.at);
                next.at = next.at.wrapping_byte_add(next.step);
                for w in 0..W {
                    loaded[w] = vectors.load(&these[k][w].0);
                }
                for t in 0..T {
                    let value = vectors.splat_f32s(rows[t][k]);
                    for w in 0..W {
                        for p in 0..V::PARTS {
                            let sum = &mut sums[t][w].as_mut()[p];
                            *sum = vectors.fused(loaded[w].as_ref()[p], value, *sum);
                        }
                    }
                }
            }
        }
        sums
    }
}

/// Adds what is in memory to a block.
#[inline(always)]
fn add<V: Vectors>(vectors: V, block: &mut V::Block, other: &[f32; BLOCK]) {
    let other = vectors.load(other);
    for p in 0..V::PARTS {
        let sum = &mut block.as_mut()[p];
        *sum = vectors.add_f32s(*sum, other.as_ref()[p]);
    }
}

/// Weights to bring into cache for later, `step` bytes with each input.
#[derive(Clone, Copy)]
struct Next {
    at: *const ChannelBlock,
    step: usize,
}
