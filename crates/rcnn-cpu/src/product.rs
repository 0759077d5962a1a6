//! Products of rows of floats with panels of weights: the one kernel under Winograd's method, the direct
//! one and linear layers.

mod kernel;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::block::{BLOCK, ChannelBlock};
use crate::epilogue::BlockEpilogue;
use crate::region::{Axis, Region};
use crate::simd::{Arch, with_vectors};
use kernel::Tiling;

/// Rows as a multiple of which every kernel is fastest.
pub(crate) const ROWS: usize = 6;

/// Blocks of outputs, in panels of as many as a kernel takes at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels {
    /// Kernel that multiplies.
    pub(crate) arch: Arch,
    pub(crate) blocks: usize,
}

impl Panels {
    /// For the current instruction set.
    pub(crate) fn new(blocks: usize) -> Self {
        let arch = Arch::current();
        Self { arch, blocks }
    }

    /// Blocks of outputs that a kernel takes at once.
    pub(crate) fn most(self) -> usize {
        fn of<V: Tiling>(_: V) -> usize {
            V::PANEL
        }
        with_vectors!(self.arch, vectors => of(vectors))
    }

    /// Blocks of all panels but the last.
    pub(crate) fn width(self) -> usize {
        self.blocks.min(self.most())
    }

    pub(crate) fn count(self) -> usize {
        self.blocks.div_ceil(self.most())
    }

    /// The first block of some panels each, and its width in blocks.
    pub(crate) fn some(self, range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let most = self.most();
        let firsts = range.map(move |panel| panel * most);
        firsts.map(move |first| (first, most.min(self.blocks - first)))
    }
}

/// Bytes of transformed tiles of a task of Winograd's method. Those of AVX-512 stay in a thread's own
/// cache; other kernels are slower than the next one, and gain more by fewer passes over the weights.
pub(crate) fn tile_bytes(arch: Arch) -> usize {
    fn of<V: Tiling>(_: V) -> usize {
        V::TILE_BYTES
    }
    with_vectors!(arch, vectors => of(vectors))
}

/// Where the parts of rows start in a slice.
#[derive(Clone, Copy)]
pub(crate) enum Starts<'a> {
    /// Rows that are whole, the first at the beginning and each this many floats after the one before.
    Even(usize),
    /// The first part of each row, then the second part of each; [`ZEROS`](Self::ZEROS) for zeros.
    Table(&'a [usize]),
}

impl Starts<'_> {
    /// The start of a part that is all zeros.
    pub(crate) const ZEROS: usize = usize::MAX;
}

/// Rows of inputs, in one part or several.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) starts: Starts<'a>,
    /// A part's floats, if they are zeros; as many as a part's.
    pub(crate) zeros: &'a [f32],
    /// Floats of a part.
    pub(crate) part: usize,
    /// Rows.
    pub(crate) count: usize,
}

impl<'a> Rows<'a> {
    /// Whole rows, `pitch` floats apart.
    pub(crate) fn even(data: &'a [f32], pitch: usize, part: usize, count: usize) -> Self {
        Self {
            data,
            starts: Starts::Even(pitch),
            zeros: &[],
            part,
            count,
        }
    }

    /// Parts of a row.
    fn parts(&self) -> usize {
        match self.starts {
            Starts::Even(_) => 1,
            Starts::Table(starts) => starts.len() / self.count,
        }
    }

    /// Floats of a row.
    fn depth(&self) -> usize {
        self.parts() * self.part
    }

    #[inline(always)]
    fn start(&self, row: usize, part: usize) -> usize {
        match self.starts {
            Starts::Even(pitch) => row * pitch,
            Starts::Table(starts) => starts[part * self.count + row],
        }
    }

    /// A part of a row, and what follows it.
    #[inline(always)]
    fn part(&self, row: usize, part: usize) -> &'a [f32] {
        match self.start(row, part) {
            Starts::ZEROS => self.zeros,
            start => &self.data[start..],
        }
    }
}

/// Rows of inputs times some panels of weights.
pub(crate) struct Product<'a> {
    pub(crate) rows: Rows<'a>,
    /// Panel after panel, and in each the outputs of one input after those of the other.
    pub(crate) weights: &'a [ChannelBlock],
    pub(crate) panels: Panels,
    /// Which of the panels.
    pub(crate) range: Range<usize>,
    /// Blocks from one panel of the weights to the next.
    pub(crate) panel: usize,
    /// Whether what follows a panel in memory is to be multiplied with next.
    pub(crate) in_turn: bool,
}

/// Where sums go.
pub(crate) struct Output<'a> {
    /// A row for each of the product's, with the blocks of its panels.
    pub(crate) region: Region<'a, ChannelBlock>,
    /// Which pixel the first row is of the whole output, and which of a pixel's blocks the first column.
    pub(crate) first_pixel: usize,
    pub(crate) first_block: usize,
    /// Blocks of a pixel of the whole output.
    pub(crate) blocks: usize,
    /// Whether sums are added to what is there.
    pub(crate) adds: bool,
    /// Whether they are written past the cache.
    pub(crate) streams: bool,
    pub(crate) epilogue: &'a BlockEpilogue<'a>,
}

impl<'a> Output<'a> {
    /// Sums that replace what is in a region, and nothing follows.
    pub(crate) fn sums(region: Region<'a, ChannelBlock>) -> Self {
        Self {
            first_pixel: 0,
            first_block: 0,
            blocks: region.size(Axis::Column),
            region,
            adds: false,
            streams: false,
            epilogue: BlockEpilogue::none(),
        }
    }
}

impl Product<'_> {
    /// The weights of a panel.
    fn weights(&self, first: usize, width: usize) -> &[ChannelBlock] {
        let panel = first / self.panels.most() * self.panel;
        &self.weights[panel..][..width * self.rows.depth()]
    }

    /// Writes for each row the outputs of some panels.
    pub(crate) fn multiply(&self, out: Output<'_>) {
        if self.rows.count > 0 {
            with_vectors!(self.panels.arch, vectors => kernel::multiply(vectors, self, out));
        }
    }
}

/// Inputs of a part in whole cache lines, as shares of several panels.
fn share(part: usize, panel: usize, panels: usize) -> Range<usize> {
    let each = part.div_ceil(BLOCK).div_ceil(panels) * BLOCK;
    panel * each..part.min((panel + 1) * each)
}
