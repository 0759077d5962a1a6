//! Products of rows of floats with panels of weights: the one kernel under Winograd's method and the
//! direct one.

use std::ops::Range;

use super::epilogue::Epilogue;
use super::gemm::{Matrix, gemm_shared};
use super::pool::{self, LANES, Lane, Scratch, floats, floats_mut};
use super::shared::Shared;

/// Lanes of outputs that a product takes at once.
pub(super) const PANEL: usize = 4;

/// The panels of some lanes of outputs: each panel's first lane, and its width in lanes.
pub(super) fn panels(out_lanes: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let firsts = (0..out_lanes).step_by(PANEL);
    firsts.map(move |first| (first, PANEL.min(out_lanes - first)))
}

/// Where lane `out` of input `k` stands in weights for `out_lanes` lanes of outputs: in [`panels`] of
/// outputs, `panel` lanes from one to the next, and within a panel each input's outputs in a row.
#[inline(always)]
pub(super) fn place(panel: usize, out_lanes: usize, k: usize, out: usize) -> usize {
    let within = out % PANEL;
    out / PANEL * panel + k * PANEL.min(out_lanes - (out - within)) + within
}

/// What is multiplied with what.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// In panels: see [`place`].
    pub(super) weights: &'a [Lane],
    /// Lanes from one panel of the weights to the next.
    pub(super) panel: usize,
    /// Whether what follows a panel in memory is to be multiplied with next.
    pub(super) in_turn: bool,
    /// Lanes of outputs of all panels.
    pub(super) out_lanes: usize,
    /// Where each row of inputs starts, or each of its parts: of the first part all rows, then of
    /// the next.
    pub(super) rows: &'a [*const f32],
    /// Floats of a part.
    pub(super) part: usize,
    /// Rows.
    pub(super) count: usize,
    /// Floats from each row to the next, if they are whole and lie in one slice.
    pub(super) pitch: Option<usize>,
}

impl Product<'_> {
    /// Floats of a row.
    fn depth(&self) -> usize {
        self.rows.len() / self.count * self.part
    }

    /// The weights of a panel.
    fn weights(&self, first: usize, width: usize) -> &[Lane] {
        &self.weights[first / PANEL * self.panel..][..width * self.depth()]
    }

    /// Writes to `out`, from lane `start`, for each row the outputs of some panels: those of all
    /// panels are a row.
    ///
    /// # Safety
    ///
    /// The rows have to hold a part's floats and be as far apart as they say, and no other thread may
    /// touch these outputs.
    pub(super) unsafe fn multiply(
        &self,
        panels: Range<usize>,
        out: &Shared<'_, Lane>,
        start: usize,
        epilogue: &Epilogue<'_>,
    ) {
        if self.count == 0 {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has just been asked; the rest is the caller's.
            return unsafe { avx512::multiply(self, panels, out, start, epilogue) };
        }
        // SAFETY: as the caller answers for.
        unsafe { self.multiply_portably(panels, out, start, epilogue) }
    }

    fn panels(&self, range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let panels = panels(self.out_lanes);
        panels.skip(range.start).take(range.len())
    }

    /// The rows one after the other, as a matrix's columns in `room`.
    ///
    /// # Safety
    ///
    /// As for [`multiply`](Self::multiply).
    unsafe fn gather<'a>(&self, room: &'a mut Scratch) -> Matrix<'a> {
        let depth = self.depth();
        *room = Scratch::new((self.count * depth).div_ceil(LANES));
        let gathered = floats_mut(room);
        for (i, part) in self.rows.chunks(self.count).enumerate() {
            for (&row, to) in part.iter().zip(gathered.chunks_mut(depth)) {
                // SAFETY: a row holds a part.
                let row = unsafe { std::slice::from_raw_parts(row, self.part) };
                to[i * self.part..][..self.part].copy_from_slice(row);
            }
        }
        Matrix::columns(gathered, depth)
    }

    /// # Safety
    ///
    /// As for [`multiply`](Self::multiply).
    pub(super) unsafe fn multiply_portably(
        &self,
        panels: Range<usize>,
        out: &Shared<'_, Lane>,
        start: usize,
        epilogue: &Epilogue<'_>,
    ) {
        let depth = self.depth();
        let mut gathered = Scratch::new(0);
        // SAFETY: as the caller answers for, from the first row to the end of the last.
        let rhs = unsafe {
            match self.pitch {
                Some(pitch) => {
                    let len = (self.count - 1) * pitch + self.part;
                    Matrix::columns(std::slice::from_raw_parts(self.rows[0], len), pitch)
                }
                None => self.gather(&mut gathered),
            }
        };
        for (first, width) in self.panels(panels) {
            let size = [width * LANES, self.count, depth];
            let lhs = Matrix::columns(floats(self.weights(first, width)), width * LANES);
            let stride = self.out_lanes * LANES;
            // SAFETY: the caller has these outputs to itself.
            unsafe {
                let (out, at) = (&out.floats(), (start + first) * LANES);
                gemm_shared(size, out, at, stride, lhs, rhs, false);
            }
            if epilogue.is_none() {
                continue;
            }
            for lane in first..first + width {
                let factors = epilogue.lane(lane);
                for row in 0..self.count {
                    let at = start + row * self.out_lanes + lane;
                    // SAFETY: as above.
                    let out = unsafe { &mut out.slice(at, 1)[0] };
                    epilogue.finish_lane(&factors, epilogue.source(at, self.out_lanes), out);
                }
            }
        }
    }
}

/// Sums stay in registers until they are whole.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_loadu_ps, _mm512_max_ps,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps, _mm512_stream_ps,
    };
    use std::array::from_fn;
    use std::ops::Range;

    use super::super::shared::fence;
    use super::{Epilogue, LANES, Lane, PANEL, Product, Shared, pool};

    /// Bytes of weights that the second cache holds beside other things.
    const NEAR_BYTES: usize = 512 << 10;

    /// Bytes of rows that meet one panel after the other, if the weights are near, and if not.
    const NEAR_BLOCK_BYTES: usize = 48 << 10;
    const FAR_BLOCK_BYTES: usize = 256 << 10;

    /// Bytes of panels from which on the next is brought into cache beforehand.
    const FETCHED_BYTES: usize = 48 << 10;

    /// Rows at once: with a panel's four lanes, 24 of the 32 registers hold sums.
    const ROWS: usize = 6;

    /// # Safety
    ///
    /// As for [`Product::multiply`], on a processor with AVX-512.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn multiply(
        product: &Product<'_>,
        panels: Range<usize>,
        out: &Shared<'_, Lane>,
        start: usize,
        epilogue: &Epilogue<'_>,
    ) {
        let stream = out.streams();
        let depth = product.depth();
        // Blocks stay close if the weights do; else they are used often once they are there.
        let weights = product.out_lanes * depth * size_of::<Lane>();
        let bytes = if weights <= NEAR_BYTES {
            NEAR_BLOCK_BYTES
        } else {
            FAR_BLOCK_BYTES
        };
        let most = (bytes / (depth * size_of::<f32>())).max(ROWS);
        let rows = product
            .count
            .div_ceil(product.count.div_ceil(most))
            .next_multiple_of(ROWS);
        for block in (0..product.count).step_by(rows) {
            let end = product.count.min(block + rows);
            for (i, (first, width)) in product.panels(panels.clone()).enumerate() {
                let weights = product.weights(first, width);
                let mut factors = [[Lane::ZERO; 2]; PANEL];
                for (i, factors) in factors.iter_mut().enumerate().take(width) {
                    *factors = epilogue.lane(first + i);
                }
                let fetch = product.in_turn && size_of_val(weights) >= FETCHED_BYTES;
                let step = (width * size_of::<Lane>()).div_ceil((end - block).div_ceil(ROWS));
                let mut next = weights.as_ptr_range().end;
                for row in (block..end).step_by(ROWS) {
                    let count = ROWS.min(end - row);
                    product.prefetch(row + rows, count, [i, panels.len()]);
                    let tile = Tile {
                        product,
                        weights,
                        row,
                        out,
                        start: start + row * product.out_lanes + first,
                        factors: &factors,
                        epilogue,
                        stream,
                        next,
                        step,
                    };
                    next = next.wrapping_byte_add(depth * step);
                    // SAFETY: `count` rows and `width` lanes are there.
                    unsafe {
                        match (width, count) {
                            (4, 6) if fetch => tile.run::<4, 6, true>(),
                            (4, 6) => tile.run::<4, 6, false>(),
                            (4, 5) => tile.run::<4, 5, false>(),
                            (4, 4) => tile.run::<4, 4, false>(),
                            (4, 3) => tile.run::<4, 3, false>(),
                            (4, 2) => tile.run::<4, 2, false>(),
                            (4, _) => tile.run::<4, 1, false>(),
                            (_, 6) => tile.each_width::<6>(width),
                            (_, 5) => tile.each_width::<5>(width),
                            (_, 4) => tile.each_width::<4>(width),
                            (_, 3) => tile.each_width::<3>(width),
                            (_, 2) => tile.each_width::<2>(width),
                            (_, _) => tile.each_width::<1>(width),
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
        /// Has a panel's share of some rows brought into cache: so memory is busy all the time.
        #[inline(always)]
        fn prefetch(&self, row: usize, count: usize, [share, shares]: [usize; 2]) {
            let each = self.part.div_ceil(LANES).div_ceil(shares) * LANES;
            let share = share * each..self.part.min((share + 1) * each);
            if row < self.count && share.start < share.end {
                let count = count.min(self.count - row);
                for rows in self.rows.chunks_exact(self.count) {
                    for input in &rows[row..row + count] {
                        // SAFETY: rows hold a part.
                        let input = unsafe { std::slice::from_raw_parts(*input, self.part) };
                        prefetch(&input[share.clone()]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch(values: &[f32]) {
        values
            .chunks(LANES)
            .for_each(|line| pool::prefetch(line.as_ptr()));
    }

    /// A few rows and a panel.
    struct Tile<'a> {
        product: &'a Product<'a>,
        weights: &'a [Lane],
        row: usize,
        out: &'a Shared<'a, Lane>,
        start: usize,
        factors: &'a [[Lane; 2]; PANEL],
        epilogue: &'a Epilogue<'a>,
        /// Whether the outputs bypass the cache.
        stream: bool,
        /// Weights to bring into cache for later, so many bytes with each input.
        next: *const Lane,
        step: usize,
    }

    impl Tile<'_> {
        /// A panel of fewer lanes than four.
        #[target_feature(enable = "avx512f")]
        unsafe fn each_width<const T: usize>(&self, width: usize) {
            // SAFETY: as the caller answers for.
            unsafe {
                match width {
                    3 => self.run::<3, T, false>(),
                    2 => self.run::<2, T, false>(),
                    _ => self.run::<1, T, false>(),
                }
            }
        }

        #[target_feature(enable = "avx512f")]
        unsafe fn run<const W: usize, const T: usize, const FETCH: bool>(&self) {
            let Product {
                rows, count, part, ..
            } = *self.product;
            if let Some(residual) = self.epilogue.residual {
                for t in 0..T {
                    let at = self.start + t * self.product.out_lanes;
                    let at = self.epilogue.source(at, self.product.out_lanes);
                    prefetch(&residual[at..][..W * LANES]);
                }
            }
            let mut sums: [[__m512; W]; T] = [[_mm512_setzero_ps(); W]; T];
            let mut weights = self.weights.as_ptr().cast::<f32>();
            let mut next = self.next;
            for rows in rows.chunks_exact(count) {
                let rows: [*const f32; T] = from_fn(|t| rows[self.row + t]);
                for k in 0..part {
                    if FETCH {
                        pool::prefetch(next);
                        next = next.wrapping_byte_add(self.step);
                    }
                    // SAFETY: the panel has a row for each input, aligned, and rows hold a part.
                    unsafe {
                        let row: [__m512; W] = from_fn(|w| _mm512_load_ps(weights.add(w * LANES)));
                        for (sums, input) in sums.iter_mut().zip(&rows) {
                            let value = _mm512_set1_ps(*input.add(k));
                            for (sum, weight) in sums.iter_mut().zip(&row) {
                                *sum = _mm512_fmadd_ps(*weight, value, *sum);
                            }
                        }
                        weights = weights.add(W * LANES);
                    }
                }
            }
            // By way of memory, or the compiler would not keep them in registers before.
            let mut lanes = [[Lane::ZERO; W]; T];
            for (lanes, sums) in lanes.iter_mut().zip(&sums) {
                for (lane, sum) in lanes.iter_mut().zip(sums) {
                    // SAFETY: a lane is sixteen floats, aligned.
                    unsafe { _mm512_store_ps(lane.0.as_mut_ptr(), *sum) };
                }
            }
            let Epilogue { residual, relu, .. } = *self.epilogue;
            let plain = self.epilogue.is_none();
            let factors: [[__m512; 2]; W] = from_fn(|w| {
                // SAFETY: a lane is sixteen floats, aligned.
                self.factors[w]
                    .each_ref()
                    .map(|lane| unsafe { _mm512_load_ps(lane.0.as_ptr()) })
            });
            for (t, lanes) in lanes.iter().enumerate() {
                let at = self.start + t * self.product.out_lanes;
                let out = self.out.range(at, W).cast::<f32>();
                let residual = residual.map(|residual| {
                    let at = self.epilogue.source(at, self.product.out_lanes);
                    residual[at..][..W * LANES].as_ptr()
                });
                for (w, lane) in lanes.iter().enumerate() {
                    // SAFETY: as above, and the caller has these outputs to itself.
                    unsafe {
                        let mut value = _mm512_load_ps(lane.0.as_ptr());
                        if !plain {
                            let [scale, shift] = factors[w];
                            value = _mm512_fmadd_ps(value, scale, shift);
                            if let Some(residual) = residual {
                                value =
                                    _mm512_add_ps(value, _mm512_loadu_ps(residual.add(w * LANES)));
                            }
                            if relu {
                                // The second of the two where there is a NaN.
                                value = _mm512_max_ps(_mm512_setzero_ps(), value);
                            }
                        }
                        let out = out.add(w * LANES);
                        match self.stream {
                            true => _mm512_stream_ps(out, value),
                            false => _mm512_store_ps(out, value),
                        }
                    }
                }
            }
        }
    }
}
