//! Images as overlapping tiles, and the passes between planes of pixels and transformed tiles.

use std::ops::Range;

use super::transform::{self, Line, POINTS};
use crate::arena::Scratch;
use crate::block::{BLOCK, ChannelBlock};
use crate::conv2d::Conv2d;
use crate::region::Region;
use crate::simd::{Vectors, vectorised};
use crate::transpose::{load, steps, store};

/// Side of the square of outputs that a tile computes.
pub(crate) const STEP: usize = 4;

/// Bytes of pixels that one pass holds: they are read several times, so they should stay in cache.
const PANEL_BYTES: usize = 128 << 10;

/// A batch of images of one size, cut into tiles.
#[derive(Clone, Copy)]
pub(crate) struct Images {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

/// Consecutive rows of tiles of one image.
#[derive(Clone)]
pub(crate) struct TileBand {
    pub(crate) image: usize,
    pub(crate) rows: Range<usize>,
}

impl Images {
    /// The input and the output of a convolution.
    pub(crate) fn from_conv(conv: &Conv2d) -> [Self; 2] {
        [conv.in_channels, conv.out_channels].map(|channels| Self {
            batch: conv.batch,
            channels,
            height: conv.height,
            width: conv.width,
        })
    }

    pub(crate) fn tile_rows(&self) -> usize {
        self.height.div_ceil(STEP)
    }

    pub(crate) fn tile_cols(&self) -> usize {
        self.width.div_ceil(STEP)
    }

    /// Blocks that hold the channels of a pixel.
    pub(crate) fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK)
    }

    /// Cuts rows of tiles, counted through the batch, into bands.
    pub(crate) fn bands(&self, rows: Range<usize>) -> Vec<TileBand> {
        let row_bytes = STEP * (STEP * self.tile_cols() + 2) * size_of::<ChannelBlock>();
        let most = (PANEL_BYTES / row_bytes).max(1);
        let mut bands = Vec::new();
        let mut row = rows.start;
        while row < rows.end {
            let (image, within) = (row / self.tile_rows(), row % self.tile_rows());
            let len = most.min(rows.end - row).min(self.tile_rows() - within);
            bands.push(TileBand {
                image,
                rows: within..within + len,
            });
            row += len;
        }
        bands
    }

    /// The pixels of a band's rows, without what its tiles reach beyond the image.
    pub(crate) fn pixels(&self, band: &TileBand) -> Range<usize> {
        let last = (band.rows.end * STEP).min(self.height);
        band.rows.start * STEP * self.width..last * self.width
    }
}

/// Walks through the pixels of an image in a panel of wider rows.
struct Cursor {
    width: usize,
    panel_width: usize,
    column: usize,
    next: usize,
}

impl Cursor {
    #[inline(always)]
    fn new(width: usize, panel_width: usize, first: usize) -> Self {
        Self {
            width,
            panel_width,
            column: 0,
            next: first,
        }
    }

    #[inline(always)]
    fn next(&mut self) -> usize {
        let place = self.next;
        self.column += 1;
        self.next += 1;
        if self.column == self.width {
            self.column = 0;
            self.next += self.panel_width - self.width;
        }
        place
    }
}

/// A pass from planes to transformed tiles of sixteen channels: for each point, a row for each tile of a
/// band, of which this is one column.
pub(crate) type FromPlanes = fn(&Images, &[f32], &TileBand, usize, Region<'_, ChannelBlock>);

vectorised! {
    /// Transforms sixteen channels of a band of the input.
    pub(crate) fn transform_input<V>(
        vectors;
        images: &Images,
        x: &[f32],
        band: &TileBand,
        block: usize,
        points: Region<'_, ChannelBlock>,
    ) {
        transform_planes::<V, transform::Input, 6>(vectors, images, x, band, block, points);
    }
}

vectorised! {
    /// Transforms sixteen channels of a band of the gradient of the output.
    pub(crate) fn transform_output_grad<V>(
        vectors;
        images: &Images,
        x: &[f32],
        band: &TileBand,
        block: usize,
        points: Region<'_, ChannelBlock>,
    ) {
        transform_planes::<V, transform::OutputGrad, 4>(vectors, images, x, band, block, points);
    }
}

#[inline(always)]
fn transform_planes<V: Vectors, L: Line<SIDE, 6>, const SIDE: usize>(
    vectors: V,
    images: &Images,
    x: &[f32],
    band: &TileBand,
    block: usize,
    mut points: Region<'_, ChannelBlock>,
) {
    let halo = (SIDE - STEP) / 2;
    let (cols, width) = (images.tile_cols(), images.width);
    let panel_width = cols * STEP + 2 * halo;
    let panel_height = band.rows.len() * STEP + 2 * halo;
    let panel = &mut *Scratch::new(panel_width * panel_height);
    let top = band.rows.start * STEP;
    let rows = top.saturating_sub(halo)..(band.rows.end * STEP + halo).min(images.height);
    // Zeros around the pixels.
    let first_row = rows.start + halo - top;
    let (above, rest) = panel.split_at_mut(first_row * panel_width);
    let (within, below) = rest.split_at_mut(rows.len() * panel_width);
    above.fill(ChannelBlock::ZERO);
    below.fill(ChannelBlock::ZERO);
    for row in within.chunks_mut(panel_width) {
        row[..halo].fill(ChannelBlock::ZERO);
        row[halo + width..].fill(ChannelBlock::ZERO);
    }
    let plane = images.height * width;
    let channels = BLOCK.min(images.channels - block * BLOCK);
    let first_plane = band.image * images.channels + block * BLOCK;
    let mut pixel = Cursor::new(width, panel_width, first_row * panel_width + halo);
    for (start, len) in steps(rows.start * width..rows.end * width) {
        let square = load(&x[first_plane * plane + start..], plane, channels, len);
        for value in &square[..len] {
            panel[pixel.next()] = *value;
        }
    }

    for row in 0..band.rows.len() {
        for col in 0..cols {
            let corner = row * STEP * panel_width + col * STEP;
            let mut points = points.pillar::<POINTS>(row * cols + col, 0);
            transform::tile::<V, L, SIDE, 6>(
                vectors,
                &panel[corner..],
                [panel_width, 1],
                |e, part, value| vectors.store_part(&mut points.get(e).0, part, value),
            );
        }
    }
}

vectorised! {
    /// Transforms sixteen channels of a band of products to the output. Its first tile is the first of
    /// `points`, `stride` blocks from one point to the next; of `out`, the rows are channels and the
    /// columns pixels.
    pub(crate) fn transform_output<V>(
        vectors;
        images: &Images,
        points: &[ChannelBlock],
        stride: usize,
        band: &TileBand,
        block: usize,
        out: Region<'_, f32>,
    ) {
        let mut out = out;
        let cols = images.tile_cols();
        let panel_width = cols * STEP;
        let panel = &mut *Scratch::new(band.rows.len() * STEP * panel_width);
        for row in 0..band.rows.len() {
            for col in 0..cols {
                let tile = &points[(row * cols + col) * images.blocks() + block..];
                let to = &mut panel[row * STEP * panel_width + col * STEP..];
                transform::tile::<V, transform::Output, 6, STEP>(
                    vectors,
                    tile,
                    [6 * stride, stride],
                    |at, part, value| {
                        let to = &mut to[at / STEP * panel_width + at % STEP];
                        vectors.store_part(&mut to.0, part, value);
                    },
                );
            }
        }

        let mut pixel = Cursor::new(images.width, panel_width, 0);
        for (start, len) in steps(0..images.pixels(band).len()) {
            let mut square = [ChannelBlock::ZERO; BLOCK];
            for value in &mut square[..len] {
                *value = panel[pixel.next()];
            }
            store(square, &mut out, start, len);
        }
    }
}
