//! Images as overlapping tiles, and the passes between planes of pixels and transformed tiles.

use std::ops::Range;

use super::super::Conv2d;
use super::super::lanes::{load, steps, store};
use super::super::pool::{LANES, Lane, Scratch, prefetch};
use super::super::shared::Shared;
use super::super::vector::{Vector, vectorised};
use super::transform::{self, Line, POINTS};

/// Side of the square of outputs that a tile computes.
pub(super) const STEP: usize = 4;

/// Bytes of pixels that one pass holds: they are read several times, so they should stay in cache.
const PANEL_BYTES: usize = 128 << 10;

/// A batch of images of one size, cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Images {
    pub(super) batch: usize,
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

/// Consecutive rows of tiles of one image.
#[derive(Clone)]
pub(super) struct Strip {
    image: usize,
    rows: Range<usize>,
    /// Where its tiles start among those of the block.
    first: usize,
}

impl Images {
    /// The input and the output of a convolution.
    pub(super) fn of(conv: &Conv2d) -> [Self; 2] {
        [conv.in_channels, conv.out_channels].map(|channels| Self {
            batch: conv.batch,
            channels,
            height: conv.height,
            width: conv.width,
        })
    }

    pub(super) fn tile_rows(&self) -> usize {
        self.height.div_ceil(STEP)
    }

    pub(super) fn tile_cols(&self) -> usize {
        self.width.div_ceil(STEP)
    }

    /// Lanes that hold the channels of a pixel.
    pub(super) fn lanes(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// Cuts rows of tiles, counted through the batch, into strips.
    pub(super) fn strips(&self, rows: Range<usize>) -> Vec<Strip> {
        let row_bytes = STEP * (STEP * self.tile_cols() + 2) * size_of::<Lane>();
        let most = (PANEL_BYTES / row_bytes).max(1);
        let mut strips = Vec::new();
        let mut row = rows.start;
        while row < rows.end {
            let (image, within) = (row / self.tile_rows(), row % self.tile_rows());
            let len = most.min(rows.end - row).min(self.tile_rows() - within);
            strips.push(Strip {
                image,
                rows: within..within + len,
                first: (row - rows.start) * self.tile_cols(),
            });
            row += len;
        }
        strips
    }
}

/// Transformed tiles: for each point of the transform, a matrix of tiles by channels.
pub(super) struct Points<'a> {
    pub(super) data: Shared<'a, Lane>,
    /// Lanes from one point to the next. Not a power of two, or all points of a tile would
    /// compete for the same few lines of the cache.
    pub(super) stride: usize,
}

impl Points<'_> {
    /// Has a place in all the matrices brought into cache.
    #[inline(always)]
    pub(super) fn prefetch(&self, place: usize) {
        for e in 0..POINTS {
            prefetch(self.data.range(0, 0).wrapping_add(e * self.stride + place));
        }
    }

    /// Transforms a tile, given as to [`transform::tile`], to its place in all the matrices.
    ///
    /// # Safety
    ///
    /// No other thread may touch this place; the rest is as for [`Vector`].
    #[inline(always)]
    pub(super) unsafe fn put<V: Vector, L: Line<I, 6>, const I: usize>(
        &self,
        place: usize,
        from: &[Lane],
        apart: [usize; 2],
    ) {
        let to = self
            .data
            .range(place, (POINTS - 1) * self.stride + 1)
            .cast::<f32>();
        // SAFETY: within the matrices, as just checked, and the caller's.
        unsafe {
            transform::tile::<V, L, I, 6>(from, apart, |e, part, value| {
                value.store(to.add(e * self.stride * LANES + part));
            });
        }
    }
}

/// What came out of a transform, by place and part of a lane.
///
/// # Safety
///
/// As for [`Vector`].
#[inline(always)]
pub(super) unsafe fn put<V: Vector>(to: &mut [Lane], at: usize, part: usize, value: V) {
    let to = &mut to[at].0[part..part + V::LEN];
    // SAFETY: there is room, as just checked; the rest is the caller's.
    unsafe { value.store(to.as_mut_ptr()) };
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

vectorised! {
    /// Transforms sixteen channels of a strip of the input.
    pub(super) fn spread_input<V>(
        images: &Images, x: &[f32], strip: &Strip, lane: usize, points: &Points<'_>,
    ) {
        // SAFETY: the processor has these vectors.
        unsafe { spread::<V, transform::Input, 6>(images, x, strip, lane, points) };
    }
}

vectorised! {
    /// Transforms sixteen channels of a strip of the gradient of the output.
    pub(super) fn spread_grad<V>(
        images: &Images, x: &[f32], strip: &Strip, lane: usize, points: &Points<'_>,
    ) {
        // SAFETY: the processor has these vectors.
        unsafe { spread::<V, transform::OutputGrad, 4>(images, x, strip, lane, points) };
    }
}

/// # Safety
///
/// As for [`Vector`].
#[inline(always)]
unsafe fn spread<V: Vector, L: Line<SIDE, 6>, const SIDE: usize>(
    images: &Images,
    x: &[f32],
    strip: &Strip,
    lane: usize,
    points: &Points<'_>,
) {
    let halo = (SIDE - STEP) / 2;
    let (cols, width) = (images.tile_cols(), images.width);
    let panel_width = cols * STEP + 2 * halo;
    let panel_height = strip.rows.len() * STEP + 2 * halo;
    let panel = &mut *Scratch::new(panel_width * panel_height);
    let top = strip.rows.start * STEP;
    let rows = top.saturating_sub(halo)..(strip.rows.end * STEP + halo).min(images.height);
    // Zeros around the pixels.
    let first_row = rows.start + halo - top;
    let (above, rest) = panel.split_at_mut(first_row * panel_width);
    let (within, below) = rest.split_at_mut(rows.len() * panel_width);
    above.fill(Lane::ZERO);
    below.fill(Lane::ZERO);
    for row in within.chunks_mut(panel_width) {
        row[..halo].fill(Lane::ZERO);
        row[halo + width..].fill(Lane::ZERO);
    }
    let plane = images.height * width;
    let channels = LANES.min(images.channels - lane * LANES);
    let first_plane = strip.image * images.channels + lane * LANES;
    let mut pixel = Cursor::new(width, panel_width, first_row * panel_width + halo);
    for (start, len) in steps(rows.start * width..rows.end * width) {
        let block = load(&x[first_plane * plane + start..], plane, channels, len);
        for value in &block[..len] {
            panel[pixel.next()] = *value;
        }
    }

    for row in 0..strip.rows.len() {
        for col in 0..cols {
            let corner = row * STEP * panel_width + col * STEP;
            let tile = strip.first + row * cols + col;
            let place = tile * images.lanes() + lane;
            // SAFETY: each strip and lane has elements of its own; the rest is the caller's.
            unsafe { points.put::<V, L, SIDE>(place, &panel[corner..], [panel_width, 1]) };
        }
    }
}

vectorised! {
    /// Transforms sixteen channels of a strip of products to the output.
    pub(super) fn collect_output<V>(
        images: &Images, points: &[Lane], stride: usize, strip: &Strip, lane: usize,
        out: &Shared<'_, f32>,
    ) {
        let cols = images.tile_cols();
        let panel_width = cols * STEP;
        let panel = &mut *Scratch::new(strip.rows.len() * STEP * panel_width);
        for row in 0..strip.rows.len() {
            for col in 0..cols {
                let tile = strip.first + row * cols + col;
                let tile = &points[tile * images.lanes() + lane..];
                let to = &mut panel[row * STEP * panel_width + col * STEP..];
                // SAFETY: the processor has these vectors.
                unsafe {
                    transform::tile::<V, transform::Output, 6, STEP>(
                        tile,
                        [6 * stride, stride],
                        |at, part, value| {
                            put(to, at / STEP * panel_width + at % STEP, part, value);
                        },
                    );
                }
            }
        }

        let width = images.width;
        let rows = strip.rows.start * STEP..(strip.rows.end * STEP).min(images.height);
        let plane = images.height * width;
        let channels = LANES.min(images.channels - lane * LANES);
        let offset = (strip.image * images.channels + lane * LANES) * plane;
        let mut pixel = Cursor::new(width, panel_width, 0);
        for (start, len) in steps(rows.start * width..rows.end * width) {
            let mut block = [Lane::ZERO; LANES];
            for value in &mut block[..len] {
                *value = panel[pixel.next()];
            }
            // SAFETY: each strip and lane has rows of the output of its own.
            unsafe { store(block, out, offset + start, plane, channels, len) };
        }
    }
}
