//! Winograd's method on images as pixels.
//!
//! Threads take blocks of tiles through all stages, each its own, and share those of a block only
//! when there are not enough.

use std::ops::Range;

use rayon::prelude::*;

use super::super::Conv2d;
use super::super::epilogue::LaneEpilogue;
use super::super::pool::{Floats, LANES, Lane, Scratch, prefetch};
use super::super::product::{Output, ROWS};
use super::super::shared::{Shared, fence};
use super::super::vector::vectorised;
use super::tiling::{Images, Points, STEP, put};
use super::transform::{self, POINTS};
use super::weights::Weights;

/// Bytes of weights that a cache of all threads holds. What is beyond should not be read so often.
const NEAR_BYTES: usize = 16 << 20;

/// Tiles of a block that a thread transforms at once.
const TILES: usize = 8;

pub(in super::super) fn forward(
    conv: &Conv2d,
    x: &[Lane],
    weights: &Weights,
    epilogue: &LaneEpilogue<'_>,
) -> Floats {
    let [input, output] = Images::of(conv);
    let tiles = conv.batch * input.tile_rows() * input.tile_cols();
    let bytes = weights
        .groups
        .tile_bytes()
        .max(weights.bytes().saturating_sub(NEAR_BYTES) / 4);
    let most = bytes / (POINTS * input.lanes() * size_of::<Lane>());
    let most = (most / ROWS * ROWS).max(ROWS);
    let equal = tiles.div_ceil(tiles.div_ceil(most)).next_multiple_of(ROWS);
    let mut filled = Floats::new(conv.pixels_len());
    let out = Shared::new(filled.lanes_mut());
    let blocks = (0..tiles.div_ceil(equal)).into_par_iter().with_max_len(1);
    blocks.for_each(|block| {
        let tiles = block * equal..tiles.min((block + 1) * equal);
        Block {
            input: &input,
            output: &output,
            tiles,
        }
        .convolve(x, weights, epilogue, &out);
    });
    filled
}

/// Consecutive tiles, counted through the batch.
struct Block<'a> {
    input: &'a Images,
    output: &'a Images,
    tiles: Range<usize>,
}

impl Block<'_> {
    fn convolve(
        &self,
        x: &[Lane],
        weights: &Weights,
        epilogue: &LaneEpilogue<'_>,
        out: &Shared<'_, Lane>,
    ) {
        let (input, output, tiles) = (self.input, self.output, self.tiles.len());
        let stride = tiles * input.lanes() + 1;
        let mut v = Scratch::new(POINTS * stride);
        let data = Shared::new(&mut v);
        let points = Points { data, stride };
        self.each(|tiles, first| spread(input, x, tiles, first, &points));
        let groups: Vec<_> = weights.groups.all().collect();
        let groups = groups.into_par_iter().with_max_len(1);
        groups.for_each(|(first, width)| {
            let stride_out = tiles * width + 1;
            let mut m = Scratch::new(POINTS * stride_out);
            let starts = input.starts(tiles, &v);
            for (e, m) in m.chunks_mut(stride_out).enumerate() {
                let tiles = input.rows(&starts, e * stride * LANES);
                let out = Output {
                    pixels: &Shared::new(m),
                    lanes: width,
                    first_pixel: 0,
                    first_lane: 0,
                    adds: false,
                    epilogue: &LaneEpilogue::NONE,
                };
                // SAFETY: the rows are tiles with all their channels, and `m` is this thread's.
                unsafe { weights.product([first, e], tiles).multiply(&out) };
            }
            collect(
                output,
                &m,
                self.tiles.clone(),
                first..first + width,
                epilogue,
                out,
            );
        });
    }

    /// Calls `work` for some tiles after the other, with the first one's place in the block.
    fn each(&self, work: impl Fn(Range<usize>, usize) + Sync) {
        let Range { start, end } = self.tiles;
        let firsts = (0..self.tiles.len()).into_par_iter().step_by(TILES);
        firsts.for_each(|first| work(start + first..end.min(start + first + TILES), first));
    }
}

impl Images {
    /// Image, first row and first column of a tile.
    fn place(&self, tile: usize) -> [usize; 3] {
        let (row, col) = (tile / self.tile_cols(), tile % self.tile_cols());
        let (image, row) = (row / self.tile_rows(), row % self.tile_rows());
        [image, row * STEP, col * STEP]
    }

    /// Which pixel of the batch is at a place.
    fn pixel(&self, image: usize, y: usize, x: usize) -> usize {
        (image * self.height + y) * self.width + x
    }
}

/// Lanes that are brought into cache before they are needed.
const AHEAD: usize = 3;

vectorised! {
    /// Transforms tiles of the input to those from `first` on.
    fn spread<V>(images: &Images, x: &[Lane], tiles: Range<usize>, first: usize, points: &Points<'_>) {
        let lanes = images.lanes();
        let mut around = [Lane::ZERO; POINTS];
        for (i, tile) in tiles.enumerate() {
            let [image, top, left] = images.place(tile);
            let inside = top > 0
                && left > 0
                && top + STEP < images.height
                && left + STEP < images.width;
            let corner = inside.then(|| images.pixel(image, top - 1, left - 1) * lanes);
            for lane in 0..lanes {
                if let Some(corner) = corner {
                    // What the next tile adds to the pixels that are there.
                    for i in 0..6 {
                        for j in 6..6 + STEP {
                            let pixel = corner + (i * images.width + j) * lanes;
                            prefetch(x.as_ptr().wrapping_add(pixel + lane));
                        }
                    }
                }
                points.prefetch((first + i) * lanes + lane + AHEAD);
                let place = (first + i) * lanes + lane;
                let (from, apart) = match corner {
                    Some(corner) => (&x[corner + lane..], [images.width * lanes, lanes]),
                    None => {
                        for (e, value) in around.iter_mut().enumerate() {
                            let y = (top + e / 6).wrapping_sub(1);
                            let x_ = (left + e % 6).wrapping_sub(1);
                            *value = match y < images.height && x_ < images.width {
                                true => x[images.pixel(image, y, x_) * lanes + lane],
                                false => Lane::ZERO,
                            };
                        }
                        (&around[..], [6, 1])
                    }
                };
                // SAFETY: the processor has these vectors, and each tile places of its own.
                unsafe { points.put::<V, transform::Input, 6>(place, from, apart) };
            }
        }
    }
}

vectorised! {
    /// Transforms the products of some lanes of tiles to the output.
    fn collect<V>(
        images: &Images, points: &[Lane], tiles: Range<usize>, lanes: Range<usize>,
        epilogue: &LaneEpilogue<'_>, out: &Shared<'_, Lane>,
    ) {
        let stride = points.len() / POINTS;
        let factors = epilogue.factors(lanes.start, lanes.len());
        let stream = out.streams();
        let mut to = [Lane::ZERO; STEP * STEP];
        let places = tiles.flat_map(|tile| lanes.clone().map(move |lane| (tile, lane)));
        for (place, (tile, lane)) in places.enumerate() {
            let factors = factors.map(|factors| &factors[lane - lanes.start]);
            let [image, top, left] = images.place(tile);
            // SAFETY: the processor has these vectors.
            unsafe {
                transform::tile::<V, transform::Output, 6, STEP>(
                    &points[place..],
                    [6 * stride, stride],
                    |at, part, value| put(&mut to, at, part, value),
                );
            }
            for (y, line) in (top..images.height).zip(to.chunks_mut(STEP)) {
                for (x, value) in (left..images.width).zip(line) {
                    let pixel = images.pixel(image, y, x);
                    if let Some(factors) = factors {
                        let source = epilogue.source(pixel, lane, images.lanes());
                        epilogue.finish(factors, source, value);
                    }
                    let at = pixel * images.lanes() + lane;
                    // SAFETY: each tile has pixels of its own.
                    unsafe {
                        match stream {
                            true => out.stream(at, value),
                            false => out.write(at, &[*value]),
                        }
                    }
                }
            }
        }
        if stream {
            fence();
        }
    }
}
