//! Products of rows of floats with panels of weights: the one kernel under Winograd's method and the
//! direct one.

#[cfg(target_arch = "x86_64")]
mod kernel;

use std::ops::Range;

use super::epilogue::LaneEpilogue;
use super::gemm::{Matrix, gemm_shared};
use super::pool::{LANES, Lane, Scratch, floats, floats_mut};
use super::shared::Shared;
#[cfg(target_arch = "x86_64")]
use super::vector::{Avx2, Avx512};

/// Rows that a kernel takes at once, as a multiple of which it is fastest.
pub(super) const ROWS: usize = 6;

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

    /// Bytes of transformed tiles of a block of Winograd's method. Those of AVX-512 stay in a thread's
    /// own cache; other kernels are slower than the next one, and gain more by fewer passes over the
    /// weights.
    pub(super) fn tile_bytes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 768 << 10,
            _ => 1536 << 10,
        }
    }

    /// Lanes of outputs at once.
    fn panel(self) -> usize {
        match self {
            Self::Portable => 4,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => <Avx2 as kernel::Cut>::PANEL,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => <Avx512 as kernel::Cut>::PANEL,
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

    /// The first lane of some panels each, and its width in lanes.
    fn some(self, range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let most = self.kernel.panel();
        let firsts = range.map(move |panel| panel * most);
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

/// Rows of inputs, or parts of such.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Where each row's first part starts, then where each one's second does.
    pub(super) starts: &'a [*const f32],
    /// Floats from there to what is meant.
    pub(super) offset: usize,
    /// Floats of a part.
    pub(super) part: usize,
    /// Rows.
    pub(super) count: usize,
    /// Floats from each row to the next, if they are whole and lie in one slice.
    pub(super) pitch: Option<usize>,
}

impl Rows<'_> {
    /// Parts of a row.
    fn parts(&self) -> usize {
        self.starts.len() / self.count
    }

    /// Floats of a row.
    fn depth(&self) -> usize {
        self.parts() * self.part
    }
}

/// What is multiplied with what.
pub(super) struct Product<'a> {
    pub(super) rows: Rows<'a>,
    /// See [`Panels::place`].
    pub(super) weights: &'a [Lane],
    pub(super) panels: Panels,
    /// Which of the panels.
    pub(super) range: Range<usize>,
    /// Lanes from one panel of the weights to the next.
    pub(super) panel: usize,
    /// Whether what follows a panel in memory is to be multiplied with next.
    pub(super) in_turn: bool,
}

/// Where sums go: pixels of so many lanes, from a pixel on, of each from a lane on.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    pub(super) pixels: &'a Shared<'a, Lane>,
    pub(super) lanes: usize,
    pub(super) first_pixel: usize,
    pub(super) first_lane: usize,
    /// Whether they are added to what is there.
    pub(super) adds: bool,
    pub(super) epilogue: &'a LaneEpilogue<'a>,
}

impl Product<'_> {
    /// The weights of a panel.
    fn weights(&self, first: usize, width: usize) -> &[Lane] {
        let panel = first / self.panels.kernel.panel() * self.panel;
        &self.weights[panel..][..width * self.rows.depth()]
    }

    /// Writes for each row the outputs of some panels.
    ///
    /// # Safety
    ///
    /// The rows have to hold a part's floats and be as far apart as they say, no other thread may
    /// touch these outputs, and the processor has to have the kernel.
    pub(super) unsafe fn multiply(&self, out: &Output<'_>) {
        if self.rows.count == 0 {
            return;
        }
        // SAFETY: as the caller answers for.
        unsafe {
            match self.panels.kernel {
                Kernel::Portable => self.multiply_portably(out),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2 => kernel::multiply::<Avx2>(self, out),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx512 => kernel::multiply::<Avx512>(self, out),
            }
        }
    }

    /// The rows one after the other, as a matrix's columns in `room`.
    ///
    /// # Safety
    ///
    /// As for [`multiply`](Self::multiply).
    unsafe fn gather<'a>(&self, room: &'a mut Scratch) -> Matrix<'a> {
        let Rows {
            offset,
            part,
            count,
            ..
        } = self.rows;
        let depth = self.rows.depth();
        *room = Scratch::new((count * depth).div_ceil(LANES));
        let gathered = floats_mut(room);
        for (i, starts) in self.rows.starts.chunks(count).enumerate() {
            for (&start, to) in starts.iter().zip(gathered.chunks_mut(depth)) {
                // SAFETY: a row holds a part.
                let row = unsafe { std::slice::from_raw_parts(start.add(offset), part) };
                to[i * part..][..part].copy_from_slice(row);
            }
        }
        Matrix::columns(gathered, depth)
    }

    /// # Safety
    ///
    /// As for [`multiply`](Self::multiply).
    unsafe fn multiply_portably(&self, out: &Output<'_>) {
        let Rows {
            starts,
            offset,
            part,
            count,
            ..
        } = self.rows;
        let depth = self.rows.depth();
        let mut gathered = Scratch::new(0);
        // SAFETY: as the caller answers for, from the first row to the end of the last.
        let rhs = unsafe {
            match self.rows.pitch {
                Some(pitch) => {
                    let len = (count - 1) * pitch + part;
                    let rows = std::slice::from_raw_parts(starts[0].add(offset), len);
                    Matrix::columns(rows, pitch)
                }
                None => self.gather(&mut gathered),
            }
        };
        let Output {
            pixels,
            lanes,
            first_pixel,
            first_lane,
            adds,
            epilogue,
        } = *out;
        for (first, width) in self.panels.some(self.range.clone()) {
            let size = [width * LANES, count, depth];
            let lhs = Matrix::columns(floats(self.weights(first, width)), width * LANES);
            let lane = first_lane + first;
            let at = (first_pixel * lanes + lane) * LANES;
            // SAFETY: the caller has these outputs to itself.
            unsafe { gemm_shared(size, &pixels.floats(), at, lanes * LANES, lhs, rhs, adds) };
            for (lane, factors) in (lane..).zip(epilogue.factors(lane, width).into_iter().flatten())
            {
                for pixel in first_pixel..first_pixel + count {
                    let source = epilogue.source(pixel, lane, lanes);
                    // SAFETY: as above.
                    let sum = unsafe { pixels.slice(pixel * lanes + lane, 1) };
                    epilogue.finish(factors, source, &mut sum[0]);
                }
            }
        }
    }
}
