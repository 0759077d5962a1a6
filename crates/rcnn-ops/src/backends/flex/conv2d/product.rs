//! Products of rows of floats with panels of weights: the one kernel under Winograd's method and the
//! direct one.

#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod vector;

use std::ops::Range;

use super::epilogue::LaneEpilogue;
use super::gemm::{Matrix, gemm_shared};
use super::pool::{LANES, Lane, Scratch, floats, floats_mut};
use super::shared::Shared;

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kernel {
    /// The `gemm` crate, for which rows may have to be copied.
    Portable,
    /// The kernel of [`kernel`], with the instructions of that name.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    /// Those that the processor has, the fastest last.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let all = [
            (Self::Portable, true),
            #[cfg(target_arch = "x86_64")]
            (
                Self::Avx2,
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            ),
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512, is_x86_feature_detected!("avx512f")),
        ];
        all.into_iter()
            .filter_map(|(kernel, there)| there.then_some(kernel))
    }

    pub(super) fn fastest() -> Self {
        Self::all().last().expect("one is portable")
    }

    /// Lanes of outputs at once.
    fn panel(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => <vector::Avx2 as vector::Vector>::PANEL,
            _ => 4,
        }
    }
}

/// Lanes of outputs, in panels of as many as a kernel takes at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels {
    pub(super) kernel: Kernel,
    pub(super) lanes: usize,
}

impl Panels {
    /// Of all panels but the last.
    pub(super) fn width(self) -> usize {
        self.lanes.min(self.kernel.panel())
    }

    pub(super) fn count(self) -> usize {
        self.lanes.div_ceil(self.kernel.panel())
    }

    /// Each panel's first lane, and its width in lanes.
    pub(super) fn all(self) -> impl Iterator<Item = (usize, usize)> {
        let most = self.kernel.panel();
        let firsts = (0..self.lanes).step_by(most);
        firsts.map(move |first| (first, most.min(self.lanes - first)))
    }

    /// Where lane `out` of input `k` stands in weights: `panel` lanes from one panel to the next, and
    /// within a panel each input's outputs in a row.
    #[inline(always)]
    pub(super) fn place(self, panel: usize, k: usize, out: usize) -> usize {
        let most = self.kernel.panel();
        let within = out % most;
        out / most * panel + k * most.min(self.lanes - (out - within)) + within
    }
}

/// What is multiplied with what.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// The outputs.
    pub(super) panels: Panels,
    /// See [`Panels::place`].
    pub(super) weights: &'a [Lane],
    /// Lanes from one panel of the weights to the next.
    pub(super) panel: usize,
    /// Whether what follows a panel in memory is to be multiplied with next.
    pub(super) in_turn: bool,
    /// Where each row of inputs starts, or each of its parts: of the first part all rows, then of
    /// the next.
    pub(super) rows: &'a [*const f32],
    /// Floats from there to what is meant.
    pub(super) offset: usize,
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
        &self.weights[first / self.panels.kernel.panel() * self.panel..][..width * self.depth()]
    }

    /// Writes to `out`, from pixel `start`, for each row the outputs of some panels: those of all
    /// panels are a pixel.
    ///
    /// # Safety
    ///
    /// The rows have to hold a part's floats and be as far apart as they say, no other thread may
    /// touch these outputs, and the processor has to have the kernel.
    pub(super) unsafe fn multiply(
        &self,
        panels: Range<usize>,
        out: &Shared<'_, Lane>,
        start: usize,
        epilogue: &LaneEpilogue<'_>,
    ) {
        if self.count == 0 {
            return;
        }
        // SAFETY: as the caller answers for.
        unsafe {
            match self.panels.kernel {
                Kernel::Portable => self.multiply_portably(panels, out, start, epilogue),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2 => {
                    kernel::multiply::<vector::Avx2>(self, panels, out, start, epilogue)
                }
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx512 => {
                    kernel::multiply::<vector::Avx512>(self, panels, out, start, epilogue)
                }
            }
        }
    }

    fn panels(&self, range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        self.panels.all().skip(range.start).take(range.len())
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
                let row = unsafe { std::slice::from_raw_parts(row.add(self.offset), self.part) };
                to[i * self.part..][..self.part].copy_from_slice(row);
            }
        }
        Matrix::columns(gathered, depth)
    }

    /// # Safety
    ///
    /// As for [`multiply`](Self::multiply).
    unsafe fn multiply_portably(
        &self,
        panels: Range<usize>,
        out: &Shared<'_, Lane>,
        start: usize,
        epilogue: &LaneEpilogue<'_>,
    ) {
        let depth = self.depth();
        let mut gathered = Scratch::new(0);
        // SAFETY: as the caller answers for, from the first row to the end of the last.
        let rhs = unsafe {
            match self.pitch {
                Some(pitch) => {
                    let len = (self.count - 1) * pitch + self.part;
                    let first = self.rows[0].add(self.offset);
                    Matrix::columns(std::slice::from_raw_parts(first, len), pitch)
                }
                None => self.gather(&mut gathered),
            }
        };
        for (first, width) in self.panels(panels) {
            let size = [width * LANES, self.count, depth];
            let lhs = Matrix::columns(floats(self.weights(first, width)), width * LANES);
            let stride = self.panels.lanes * LANES;
            // SAFETY: the caller has these outputs to itself.
            unsafe {
                let at = (start * self.panels.lanes + first) * LANES;
                gemm_shared(size, &out.floats(), at, stride, lhs, rhs, false);
            }
            for (lane, factors) in
                (first..).zip(epilogue.factors(first, width).into_iter().flatten())
            {
                for pixel in start..start + self.count {
                    let source = epilogue.source(pixel, lane, self.panels.lanes);
                    // SAFETY: as above.
                    let out = unsafe { out.slice(pixel * self.panels.lanes + lane, 1) };
                    epilogue.finish(factors, source, &mut out[0]);
                }
            }
        }
    }
}
