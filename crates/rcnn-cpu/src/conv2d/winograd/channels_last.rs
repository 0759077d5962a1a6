//! Winograd's method on images with their channels last.
//!
//! Threads take chunks of tiles through all stages, each its own, and share those of a chunk only
//! when there are not enough.

use std::ops::Range;

use rayon::prelude::*;

use super::tiling::{Images, STEP};
use super::transform::{self, POINTS};
use super::weights::Weights;
use crate::arena::{Floats, Scratch};
use crate::block::{ChannelBlock, Streaming, prefetch};
use crate::conv2d::Conv2d;
use crate::epilogue::BlockEpilogue;
use crate::product::{Output, ROWS};
use crate::region::{Axis, Region};
use crate::simd::vectorised;

/// Bytes of weights that a cache of all threads holds. What is beyond should not be read so often.
const SHARED_CACHE_BYTES: usize = 16 << 20;

/// Tiles of a chunk that a thread transforms at once.
const TILES: usize = 8;

pub(crate) fn forward(
    conv: &Conv2d,
    x: &[ChannelBlock],
    weights: &Weights,
    epilogue: &BlockEpilogue<'_>,
) -> Floats {
    let [input, output] = Images::from_conv(conv);
    let tiles = conv.batch * input.tile_rows() * input.tile_cols();
    let bytes = weights
        .groups
        .tile_bytes()
        .max(weights.bytes().saturating_sub(SHARED_CACHE_BYTES) / 4);
    let most = bytes / (POINTS * input.blocks() * size_of::<ChannelBlock>());
    let most = (most / ROWS * ROWS).max(ROWS);
    let equal = tiles.div_ceil(tiles.div_ceil(most)).next_multiple_of(ROWS);
    let mut filled = Floats::new(conv.channels_last_len());
    let blocks = filled.blocks_mut();
    let streams = Streaming::pays(blocks.len());
    let chunks: Vec<_> = output.tile_chunks(blocks, equal).collect();
    let chunks = chunks.into_par_iter().enumerate().with_max_len(1);
    chunks.for_each(|(chunk, runs)| {
        let chunk = TileChunk {
            input: &input,
            output: &output,
            tiles: chunk * equal..tiles.min((chunk + 1) * equal),
            streams,
        };
        chunk.convolve(x, weights, epilogue, runs);
    });
    filled
}

/// Consecutive tiles of a row of tiles: which they are, and the pixels that they compute. The planes are
/// rows of pixels, the rows pixels, and the columns their channels.
struct TileRun<'a> {
    tiles: Range<usize>,
    pixels: Region<'a, ChannelBlock>,
}

impl Images {
    /// The tiles of all images in chunks of `each`, as runs.
    fn tile_chunks<'a>(
        &self,
        pixels: &'a mut [ChannelBlock],
        each: usize,
    ) -> impl Iterator<Item = Vec<TileRun<'a>>> {
        let (width, blocks) = (self.width, self.blocks());
        let (tile_rows, tile_cols, height) = (self.tile_rows(), self.tile_cols(), self.height);
        let images = Region::whole(pixels, [self.batch * height, width, blocks]);
        let images = images.chunks(Axis::Plane, height);
        let rows = images.flat_map(|image| image.chunks(Axis::Plane, STEP));
        let runs = rows.enumerate().flat_map(move |(row, pixels)| {
            let (mut tile, end) = (row * tile_cols, (row + 1) * tile_cols);
            let mut rest = Some(pixels);
            std::iter::from_fn(move || {
                let pixels = rest.take()?;
                let tiles = tile..end.min((tile / each + 1) * each);
                tile = tiles.end;
                if tile == end {
                    return Some(TileRun { tiles, pixels });
                }
                let (pixels, after) = pixels.split(Axis::Row, tiles.len() * STEP);
                rest = Some(after);
                Some(TileRun { tiles, pixels })
            })
        });
        let mut runs = runs.peekable();
        let all = self.batch * tile_rows * tile_cols;
        (0..all.div_ceil(each)).map(move |chunk| {
            let of_chunk = |run: &TileRun<'_>| run.tiles.start / each == chunk;
            std::iter::from_fn(|| runs.next_if(of_chunk)).collect()
        })
    }

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

/// Consecutive tiles, counted through the batch.
struct TileChunk<'a> {
    input: &'a Images,
    output: &'a Images,
    tiles: Range<usize>,
    /// Whether the output is written past the cache.
    streams: bool,
}

impl TileChunk<'_> {
    fn convolve(
        &self,
        x: &[ChannelBlock],
        weights: &Weights,
        epilogue: &BlockEpilogue<'_>,
        runs: Vec<TileRun<'_>>,
    ) {
        let (input, output, tiles) = (self.input, self.output, self.tiles.len());
        let blocks = input.blocks();
        let stride = tiles * blocks + 1;
        let mut v = Scratch::new(POINTS * stride);
        let points = Region::new(&mut v, [POINTS, tiles, blocks], [stride, blocks]);
        let parts: Vec<_> = points.chunks(Axis::Row, TILES).collect();
        parts.into_par_iter().enumerate().for_each(|(i, part)| {
            let first = self.tiles.start + i * TILES;
            transform_input(input, x, first, part);
        });
        let mut groups: Vec<_> = weights
            .groups
            .all()
            .map(|group| (group, Vec::new()))
            .collect();
        for TileRun { tiles, mut pixels } in runs {
            for ((_, width), runs) in groups.iter_mut().map(|(group, runs)| (*group, runs)) {
                let (pixels_here, rest) = pixels.split(Axis::Column, width);
                pixels = rest;
                let tiles = tiles.clone();
                runs.push(TileRun {
                    tiles,
                    pixels: pixels_here,
                });
            }
        }
        let groups = groups.into_par_iter().with_max_len(1);
        groups.for_each(|((first, width), runs)| {
            let stride_out = tiles * width + 1;
            let mut m = Scratch::new(POINTS * stride_out);
            for (e, m) in m.chunks_mut(stride_out).enumerate() {
                let sums = Output::sums(Region::whole(m, [1, tiles, width]));
                let tiles = input.tiles(&v[e * stride..], tiles);
                weights.product([first, e], tiles).multiply(sums);
            }
            let streaming = self.streams.then(Streaming::new);
            let mut products = Products {
                points: &m,
                stride: stride_out,
                blocks: first..first + width,
            };
            for run in runs {
                let count = run.tiles.len();
                transform_output(output, &products, run, epilogue, streaming.as_ref());
                products.points = &products.points[count * width..];
            }
        });
    }
}

/// Products of tiles with a group's weights.
struct Products<'a> {
    /// From the first tile's of the first point on.
    points: &'a [ChannelBlock],
    /// Blocks from one point to the next.
    stride: usize,
    /// Which of the output's channel blocks they are.
    blocks: Range<usize>,
}

/// Blocks that are brought into cache before they are needed.
const AHEAD: usize = 3;

vectorised! {
    /// Transforms tiles of the input, from `first` on, to the rows of all points.
    fn transform_input<V>(
        vectors;
        images: &Images,
        x: &[ChannelBlock],
        first: usize,
        points: Region<'_, ChannelBlock>,
    ) {
        let mut points = points;
        let blocks = images.blocks();
        let mut around = [ChannelBlock::ZERO; POINTS];
        for row in 0..points.size(Axis::Row) {
            let [image, top, left] = images.place(first + row);
            let inside = top > 0
                && left > 0
                && top + STEP < images.height
                && left + STEP < images.width;
            let corner = inside.then(|| images.pixel(image, top - 1, left - 1) * blocks);
            for block in 0..blocks {
                if let Some(corner) = corner {
                    // What the next tile adds to the pixels that are there.
                    for i in 0..6 {
                        for j in 6..6 + STEP {
                            let pixel = corner + (i * images.width + j) * blocks;
                            prefetch(x.as_ptr().wrapping_add(pixel + block));
                        }
                    }
                }
                points.prefetch::<POINTS>(row, block + AHEAD);
                let (from, apart) = match corner {
                    Some(corner) => (&x[corner + block..], [images.width * blocks, blocks]),
                    None => {
                        for (e, value) in around.iter_mut().enumerate() {
                            let y = (top + e / 6).wrapping_sub(1);
                            let x_ = (left + e % 6).wrapping_sub(1);
                            *value = match y < images.height && x_ < images.width {
                                true => x[images.pixel(image, y, x_) * blocks + block],
                                false => ChannelBlock::ZERO,
                            };
                        }
                        (&around[..], [6, 1])
                    }
                };
                let mut points = points.pillar::<POINTS>(row, block);
                transform::tile::<V, transform::Input, 6, 6>(
                    vectors,
                    from,
                    apart,
                    |e, part, value| vectors.store_part(&mut points.get(e).0, part, value),
                );
            }
        }
    }
}

vectorised! {
    /// Transforms the products of a run's tiles to the output.
    fn transform_output<V>(
        vectors;
        images: &Images,
        products: &Products<'_>,
        run: TileRun<'_>,
        epilogue: &BlockEpilogue<'_>,
        streaming: Option<&Streaming>,
    ) {
        let Products { points, stride, ref blocks } = *products;
        let TileRun { tiles, mut pixels } = run;
        let factors = epilogue.factors(blocks.start, blocks.len());
        let mut to = [ChannelBlock::ZERO; STEP * STEP];
        let places = (0..tiles.len()).flat_map(|i| (0..blocks.len()).map(move |block| (i, block)));
        for (place, (i, block)) in places.enumerate() {
            let [image, top, left] = images.place(tiles.start + i);
            transform::tile::<V, transform::Output, 6, STEP>(
                vectors,
                &points[place..],
                [6 * stride, stride],
                |at, part, value| vectors.store_part(&mut to[at].0, part, value),
            );
            for (y, line) in (0..pixels.size(Axis::Plane)).zip(to.chunks_mut(STEP)) {
                for (x, value) in (i * STEP..pixels.size(Axis::Row)).zip(line) {
                    if let Some(factors) = factors {
                        let pixel = images.pixel(image, top + y, left + x - i * STEP);
                        let source = epilogue.source(pixel, blocks.start + block, images.blocks());
                        epilogue.finish(&factors[block], source, value);
                    }
                    let place = &mut pixels.row(y, x)[block];
                    match streaming {
                        Some(streaming) => {
                            vectors.stream(streaming, place, vectors.load(&value.0));
                        }
                        None => *place = *value,
                    }
                }
            }
        }
    }
}
