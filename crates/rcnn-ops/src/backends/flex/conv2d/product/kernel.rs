//! The kernel by hand: a few rows meet a panel of weights, and their sums stay in registers.

use std::array::from_fn;
use std::ops::Range;

use super::super::pool::{self, LANES, Lane};
use super::super::shared::fence;
use super::super::vector::{Avx2, Avx512, Vector};
use super::{Output, Product, ROWS, Rows};

/// How the kernel is cut for a processor's registers and caches.
pub(super) trait Cut: Vector {
    /// Lanes of outputs at once: with its rows they fill the registers.
    const PANEL: usize;
    /// Inputs of a row at once, at most.
    const DEPTH: usize;
    /// Bytes of weights that the second cache holds beside other things.
    const NEAR_BYTES: usize;
    /// Bytes of rows that meet one panel after the other, if the weights are near, and if not.
    const BLOCK_BYTES: [usize; 2];
    /// Bytes of panels from which on the next is brought into cache beforehand.
    const FETCHED_BYTES: usize;

    /// [`Strip::multiply`] with these instructions enabled.
    unsafe fn multiply<const W: usize>(strip: &Strip<'_>);
}

impl Cut for Avx512 {
    const PANEL: usize = 4;
    const DEPTH: usize = usize::MAX;
    const NEAR_BYTES: usize = 512 << 10;
    const BLOCK_BYTES: [usize; 2] = [48 << 10, 256 << 10];
    const FETCHED_BYTES: usize = 48 << 10;

    #[target_feature(enable = "avx512f")]
    unsafe fn multiply<const W: usize>(strip: &Strip<'_>) {
        // SAFETY: as the caller answers for.
        unsafe { strip.multiply::<Self, W>() }
    }
}

impl Cut for Avx2 {
    const PANEL: usize = 1;
    const DEPTH: usize = 512;
    const NEAR_BYTES: usize = 256 << 10;
    const BLOCK_BYTES: [usize; 2] = [128 << 10, 128 << 10];
    const FETCHED_BYTES: usize = 0;

    #[target_feature(enable = "avx2,fma")]
    unsafe fn multiply<const W: usize>(strip: &Strip<'_>) {
        // SAFETY: as the caller answers for.
        unsafe { strip.multiply::<Self, W>() }
    }
}

/// # Safety
///
/// As for [`Product::multiply`], on a processor with these vectors.
pub(super) unsafe fn multiply<V: Cut>(product: &Product<'_>, out: &Output<'_>) {
    let Rows { count, part, .. } = product.rows;
    let depth = product.rows.depth();
    let stream = out.pixels.streams();
    // Blocks stay close if the weights do; else they are used often once they are there.
    let far = product.panels.lanes * depth * size_of::<Lane>() > V::NEAR_BYTES;
    let bytes = V::BLOCK_BYTES[usize::from(far)];
    let most = (bytes / (depth.min(V::DEPTH) * size_of::<f32>())).max(ROWS);
    let rows = count.div_ceil(count.div_ceil(most)).next_multiple_of(ROWS);
    for start in (0..count).step_by(rows) {
        let block = start..count.min(start + rows);
        for (parts, inputs) in product.rows.chunks(V::DEPTH) {
            let first = parts.start * part + inputs.start;
            let len = parts.len() * inputs.len();
            let ends = first + len == depth;
            for (i, (lane, width)) in product.panels.some(product.range.clone()).enumerate() {
                let weights = &product.weights(lane, width)[first * width..][..len * width];
                let lane = out.first_lane + lane;
                let strip = Strip {
                    rows: &product.rows,
                    block: block.clone(),
                    share: product.rows.share(i, product.range.len()),
                    parts: parts.clone(),
                    inputs: inputs.clone(),
                    weights,
                    fetch: product.in_turn && size_of_val(weights) >= V::FETCHED_BYTES,
                    out,
                    lane,
                    factors: out.epilogue.factors(lane, width).filter(|_| ends),
                    adds: out.adds || first > 0,
                    stream: stream && ends,
                };
                // SAFETY: as the caller answers for.
                unsafe {
                    match width {
                        4 => V::multiply::<4>(&strip),
                        3 => V::multiply::<3>(&strip),
                        2 => V::multiply::<2>(&strip),
                        _ => V::multiply::<1>(&strip),
                    }
                }
            }
        }
    }
    if stream {
        fence();
    }
}

impl Rows<'_> {
    /// Cuts the inputs of a row, so that at most so many are in one piece: of some parts, some inputs
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

    /// The inputs of a part that one of so many panels has brought into cache.
    fn share(&self, panel: usize, panels: usize) -> Range<usize> {
        let each = self.part.div_ceil(LANES).div_ceil(panels) * LANES;
        panel * each..self.part.min((panel + 1) * each)
    }

    /// Has a share of some rows brought into cache.
    #[inline(always)]
    fn prefetch(&self, rows: Range<usize>, share: &Range<usize>) {
        for starts in self.starts.chunks_exact(self.count) {
            for start in &starts[rows.clone()] {
                let row = start.wrapping_add(self.offset);
                for i in share.clone().step_by(LANES) {
                    pool::prefetch(row.wrapping_add(i));
                }
            }
        }
    }
}

/// A block of rows and a panel.
pub(super) struct Strip<'a> {
    rows: &'a Rows<'a>,
    block: Range<usize>,
    /// What of the next block's rows is brought into cache meanwhile, so that memory is busy all the
    /// time.
    share: Range<usize>,
    /// Which parts of the rows are multiplied, and which inputs of each.
    parts: Range<usize>,
    inputs: Range<usize>,
    /// Of these inputs.
    weights: &'a [Lane],
    /// Whether what follows the weights is brought into cache meanwhile.
    fetch: bool,
    out: &'a Output<'a>,
    lane: usize,
    /// Scale and shift of each lane, if these are the last inputs and something follows.
    factors: Option<&'a [[Lane; 2]]>,
    /// Whether the output holds the sums of the inputs before.
    adds: bool,
    /// Whether the outputs bypass the cache.
    stream: bool,
}

impl Strip<'_> {
    /// The sums of all rows with `W` lanes.
    ///
    /// # Safety
    ///
    /// As for [`multiply`], with so many lanes there.
    #[inline(always)]
    pub(super) unsafe fn multiply<V: Vector, const W: usize>(&self) {
        // SAFETY: as the caller answers for.
        unsafe {
            match LANES / V::LEN {
                1 => self.multiply_by::<V, W, 1>(),
                _ => self.multiply_by::<V, W, 2>(),
            }
        }
    }

    /// As [`multiply`](Self::multiply), where so many vectors are a lane.
    #[inline(always)]
    unsafe fn multiply_by<V: Vector, const W: usize, const P: usize>(&self) {
        let inputs = self.parts.len() * self.inputs.len();
        let tiles = self.block.len().div_ceil(ROWS);
        let step = match self.fetch {
            true => (W * size_of::<Lane>()).div_ceil(tiles),
            false => 0,
        };
        let mut next = self.weights.as_ptr_range().end;
        for row in self.block.clone().step_by(ROWS) {
            let ahead = row + self.block.len();
            if ahead < self.rows.count && !self.share.is_empty() {
                let end = self.rows.count.min(ahead + ROWS);
                self.rows.prefetch(ahead..end, &self.share);
            }
            let next_weights = Next { at: next, step };
            // SAFETY: as the caller answers for.
            unsafe {
                match self.block.end - row {
                    1 => self.tile::<V, W, P, 1>(row, next_weights),
                    2 => self.tile::<V, W, P, 2>(row, next_weights),
                    3 => self.tile::<V, W, P, 3>(row, next_weights),
                    4 => self.tile::<V, W, P, 4>(row, next_weights),
                    5 => self.tile::<V, W, P, 5>(row, next_weights),
                    _ => self.tile::<V, W, P, 6>(row, next_weights),
                }
            }
            next = next.wrapping_byte_add(inputs * step);
        }
    }

    /// The sums of `T` rows.
    #[inline(always)]
    unsafe fn tile<V: Vector, const W: usize, const P: usize, const T: usize>(
        &self,
        row: usize,
        next: Next,
    ) {
        let Output {
            pixels,
            lanes,
            first_pixel,
            epilogue,
            ..
        } = *self.out;
        let pixel = first_pixel + row;
        let residual = epilogue.residual.filter(|_| self.factors.is_some());
        let residual = residual.map(|residual| -> [&[f32]; T] {
            from_fn(|t| {
                let at = epilogue.source(pixel + t, self.lane, lanes);
                let residual = &residual[at..][..W * LANES];
                (0..W).for_each(|w| pool::prefetch(residual[w * LANES..].as_ptr()));
                residual
            })
        });
        let outs: [*mut Lane; T] = from_fn(|t| pixels.range((pixel + t) * lanes + self.lane, W));
        if self.adds {
            for out in outs {
                (0..W).for_each(|w| pool::prefetch(out.wrapping_add(w)));
            }
        }
        unsafe {
            let mut sums: [[[V; P]; W]; T] = self.sums(row, next);
            for (sums, (t, out)) in sums.iter_mut().zip(outs.into_iter().enumerate()) {
                let out = out.cast::<f32>();
                if self.adds {
                    each(sums, |at, sum| sum.add(V::load(out.add(at))));
                }
                if let Some(factors) = self.factors {
                    let factors: *const f32 = factors[..W].as_ptr().cast();
                    each(sums, |at, sum| {
                        // Scale and shift of a lane follow each other.
                        let scale = factors.add(at + at / LANES * LANES);
                        sum.mul_add(V::load(scale), V::load(scale.add(LANES)))
                    });
                    if let Some(residual) = residual {
                        let residual = residual[t].as_ptr();
                        each(sums, |at, sum| sum.add(V::load(residual.add(at))));
                    }
                    if epilogue.relu {
                        each(sums, |_, sum| sum.relu());
                    }
                }
                each(sums, |at, sum| {
                    match self.stream {
                        true => sum.stream(out.add(at)),
                        false => sum.store(out.add(at)),
                    }
                    sum
                });
            }
        }
    }

    /// The sums of products.
    #[inline(always)]
    unsafe fn sums<V: Vector, const W: usize, const P: usize, const T: usize>(
        &self,
        row: usize,
        mut next: Next,
    ) -> [[[V; P]; W]; T] {
        let Rows {
            starts,
            count,
            offset,
            ..
        } = *self.rows;
        unsafe {
            let mut sums = [[[V::splat(0.0); P]; W]; T];
            let mut weights = self.weights.as_ptr().cast::<f32>();
            let parts = starts.chunks_exact(count).skip(self.parts.start);
            for rows in parts.take(self.parts.len()) {
                let rows: [*const f32; T] = from_fn(|t| rows[row + t].add(offset));
                for k in self.inputs.clone() {
                    pool::prefetch(next.at);
                    next.at = next.at.wrapping_byte_add(next.step);
                    let row: [[V; P]; W] =
                        from_fn(|w| from_fn(|p| V::load(weights.add(w * LANES + p * V::LEN))));
                    for (sums, input) in sums.iter_mut().zip(&rows) {
                        let value = V::splat(*input.add(k));
                        let weights = row.as_flattened().iter();
                        for (sum, weight) in sums.as_flattened_mut().iter_mut().zip(weights) {
                            *sum = weight.mul_add(value, *sum);
                        }
                    }
                    weights = weights.add(W * LANES);
                }
            }
            sums
        }
    }
}

/// Weights to bring into cache for later, so many bytes with each input.
#[derive(Clone, Copy)]
struct Next {
    at: *const Lane,
    step: usize,
}

/// Changes each vector of some lanes, given where it stands in them.
#[inline(always)]
fn each<V: Copy, const W: usize, const P: usize>(
    lanes: &mut [[V; P]; W],
    change: impl Fn(usize, V) -> V,
) {
    for (w, lane) in lanes.iter_mut().enumerate() {
        for (p, vector) in lane.iter_mut().enumerate() {
            *vector = change((w * P + p) * (LANES / P), *vector);
        }
    }
}
