//! The kernel by hand: a few rows meet a panel of weights, and their sums stay in registers.

use std::array::from_fn;
use std::ops::Range;

use super::super::epilogue::LaneEpilogue;
use super::super::pool::{self, LANES, Lane};
use super::super::shared::{Shared, fence};
use super::Product;
use super::vector::Vector;

/// Rows at once.
const ROWS: usize = 6;

/// # Safety
///
/// As for [`Product::multiply`], on a processor with these vectors.
pub(super) unsafe fn multiply<V: Vector>(
    product: &Product<'_>,
    panels: Range<usize>,
    out: &Shared<'_, Lane>,
    start: usize,
    epilogue: &LaneEpilogue<'_>,
) {
    let stream = out.streams();
    let lanes = product.panels.lanes;
    let depth = product.depth();
    // Blocks stay close if the weights do; else they are used often once they are there.
    let far = lanes * depth * size_of::<Lane>() > V::NEAR_BYTES;
    let bytes = V::BLOCK_BYTES[usize::from(far)];
    let most = (bytes / (depth.min(V::DEPTH) * size_of::<f32>())).max(ROWS);
    let rows = product
        .count
        .div_ceil(product.count.div_ceil(most))
        .next_multiple_of(ROWS);
    for block in (0..product.count).step_by(rows) {
        let end = product.count.min(block + rows);
        for (parts, inputs) in product.chunks(V::DEPTH) {
            let first = parts.start * product.part + inputs.start;
            let len = parts.len() * inputs.len();
            for (i, (lane, width)) in product.panels(panels.clone()).enumerate() {
                let weights = &product.weights(lane, width)[first * width..][..len * width];
                let ends = first + len == depth;
                let factors = epilogue.factors(lane, width).filter(|_| ends);
                let fetch = product.in_turn && size_of_val(weights) >= V::FETCHED_BYTES;
                let step = match fetch {
                    true => (width * size_of::<Lane>()).div_ceil((end - block).div_ceil(ROWS)),
                    false => 0,
                };
                let mut next = weights.as_ptr_range().end;
                for row in (block..end).step_by(ROWS) {
                    let count = ROWS.min(end - row);
                    product.prefetch(row + rows, count, [i, panels.len()]);
                    let tile = Tile {
                        product,
                        weights,
                        row,
                        parts: parts.clone(),
                        inputs: inputs.clone(),
                        out,
                        pixel: start + row,
                        lane,
                        factors,
                        epilogue,
                        adds: first > 0,
                        stream: stream && ends,
                        next,
                        step,
                    };
                    next = next.wrapping_byte_add(len * step);
                    // SAFETY: `count` rows and `width` lanes are there.
                    unsafe {
                        match width {
                            4 => tile.with_rows::<V, 4>(count),
                            3 => tile.with_rows::<V, 3>(count),
                            2 => tile.with_rows::<V, 2>(count),
                            _ => tile.with_rows::<V, 1>(count),
                        }
                    }
                }
            }
        }
    }
    if stream {
        fence();
    }
}

impl Product<'_> {
    /// Cuts the inputs of a row, so that at most so many are in one piece: of some parts, some inputs
    /// each.
    fn chunks(&self, most: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let (parts, part) = (self.rows.len() / self.count, self.part);
        let each_parts = (most / part).clamp(1, parts);
        let each = part.div_ceil(part.div_ceil(most));
        (0..parts).step_by(each_parts).flat_map(move |first| {
            let parts = first..parts.min(first + each_parts);
            let firsts = (0..part).step_by(each);
            firsts.map(move |first| (parts.clone(), first..part.min(first + each)))
        })
    }

    /// Has a panel's share of some rows brought into cache: so memory is busy all the time.
    #[inline(always)]
    fn prefetch(&self, row: usize, count: usize, [share, shares]: [usize; 2]) {
        let each = self.part.div_ceil(LANES).div_ceil(shares) * LANES;
        let share = share * each..self.part.min((share + 1) * each);
        if row < self.count && share.start < share.end {
            let count = count.min(self.count - row);
            for rows in self.rows.chunks_exact(self.count) {
                for input in &rows[row..row + count] {
                    let input = input.wrapping_add(self.offset);
                    for i in share.clone().step_by(LANES) {
                        pool::prefetch(input.wrapping_add(i));
                    }
                }
            }
        }
    }
}

/// A few rows and a panel.
pub(super) struct Tile<'a> {
    product: &'a Product<'a>,
    /// Of these inputs.
    weights: &'a [Lane],
    row: usize,
    /// Which parts of the rows are multiplied, and which inputs of each.
    parts: Range<usize>,
    inputs: Range<usize>,
    out: &'a Shared<'a, Lane>,
    pixel: usize,
    lane: usize,
    /// Scale and shift of each lane, if these are the last inputs and something follows.
    factors: Option<&'a [[Lane; 2]]>,
    epilogue: &'a LaneEpilogue<'a>,
    /// Whether the output holds the sums of the inputs before.
    adds: bool,
    /// Whether the outputs bypass the cache.
    stream: bool,
    /// Weights to bring into cache for later, so many bytes with each input.
    next: *const Lane,
    step: usize,
}

impl Tile<'_> {
    /// # Safety
    ///
    /// As for [`multiply`], with so many lanes and rows there.
    unsafe fn with_rows<V: Vector, const W: usize>(&self, count: usize) {
        // SAFETY: as the caller answers for.
        unsafe {
            match count {
                6 => V::sum::<W, 6>(self),
                5 => V::sum::<W, 5>(self),
                4 => V::sum::<W, 4>(self),
                3 => V::sum::<W, 3>(self),
                2 => V::sum::<W, 2>(self),
                _ => V::sum::<W, 1>(self),
            }
        }
    }

    /// The sums of `T` rows and `W` lanes.
    ///
    /// # Safety
    ///
    /// As for [`multiply`], with so many lanes and rows there.
    #[inline(always)]
    pub(super) unsafe fn sum<V: Vector, const W: usize, const T: usize>(&self) {
        match LANES / V::LEN {
            1 => unsafe { self.pieces::<V, W, 1, T>() },
            _ => unsafe { self.pieces::<V, W, 2, T>() },
        }
    }

    /// As [`sum`](Self::sum), where so many vectors are a lane.
    #[inline(always)]
    unsafe fn pieces<V: Vector, const W: usize, const P: usize, const T: usize>(&self) {
        let lanes = self.product.panels.lanes;
        let residual = self.epilogue.residual.filter(|_| self.factors.is_some());
        let residual = residual.map(|residual| -> [&[f32]; T] {
            from_fn(|t| {
                let at = self.epilogue.source(self.pixel + t, self.lane, lanes);
                let residual = &residual[at..][..W * LANES];
                (0..W).for_each(|w| pool::prefetch(residual[w * LANES..].as_ptr()));
                residual
            })
        });
        unsafe {
            let mut sums: [[[V; P]; W]; T] = self.multiply();
            for (t, sums) in sums.iter_mut().enumerate() {
                let out = self
                    .out
                    .range((self.pixel + t) * lanes + self.lane, W)
                    .cast::<f32>();
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
                    if self.epilogue.relu {
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
    unsafe fn multiply<V: Vector, const W: usize, const P: usize, const T: usize>(
        &self,
    ) -> [[[V; P]; W]; T] {
        let Product {
            rows,
            count,
            offset,
            ..
        } = *self.product;
        unsafe {
            let mut sums = [[[V::zero(); P]; W]; T];
            let mut weights = self.weights.as_ptr().cast::<f32>();
            let mut next = self.next;
            let parts = rows.chunks_exact(count).skip(self.parts.start);
            for rows in parts.take(self.parts.len()) {
                let rows: [*const f32; T] = from_fn(|t| rows[self.row + t].add(offset));
                for k in self.inputs.clone() {
                    pool::prefetch(next);
                    next = next.wrapping_byte_add(self.step);
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
