//! Winograd's minimal filtering F(4x4, 3x3), after Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks" (2015), <https://arxiv.org/abs/1509.09308>.
//!
//! A tile of 6x6 inputs gives 4x4 outputs: Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, which is 36 products
//! instead of 144. Over channels and tiles each of the 36 points is a matrix product. The
//! gradient of the input is a convolution again, with the kernels turned; that of the weights
//! is the adjoint, dg = Gᵀ[Σ (A dY Aᵀ) ⊙ (Bᵀ d B)]G.
//!
//! Tiles are taken in chunks that stay in cache from one stage to the next: transform, multiply, and
//! transform back. In inference each thread has its own chunks; with gradients, the threads share the
//! rows and channels, or the points, of a stage. Each element is written once.
//!
//! Against f64 the largest error is 1e-6 (64 channels) to 3e-6 (512) of the largest value; plain sums
//! in f32 have 6e-7. The tests print and bound both.

mod channels_last;
mod tiling;
mod transform;
mod weights;

use std::ops::Range;

use rayon::prelude::*;

use super::Conv2d;
use crate::arena::{Floats, Scratch};
use crate::block::{BLOCK, ChannelBlock, floats, floats_mut};
use crate::gemm::{Matrix, gemm_to};
use crate::product::{Output, Rows};
use crate::region::{Axis, Region};
pub(crate) use channels_last::forward;
use tiling::{FromPlanes, Images, TileBand};
use transform::POINTS;
use weights::Gradient;
pub(crate) use weights::Weights;

/// Bytes of transformed tiles, of input and output together, in a chunk: the start of the range, or
/// up to its end where there are weights to sum for each chunk.
const CHUNK_BYTES: std::ops::RangeInclusive<usize> = 4 << 20..=16 << 20;

/// Whether this method applies and pays. As measured, it needs the tiles to be worth the
/// transformed weights, four times the scratch of the weights, and the channels to fill a block.
pub(crate) fn is_faster(conv: &Conv2d) -> bool {
    let tiles = conv.batch * conv.height.div_ceil(4) * conv.width.div_ceil(4);
    conv.kernel == [3, 3]
        && conv.stride == [1, 1]
        && conv.padding == [1, 1]
        && conv.groups == 1
        && !conv.exact
        && conv.in_channels >= BLOCK
        && tiles * 12288 >= conv.in_channels * conv.out_channels
        && !conv.is_empty()
}

/// As a convolution of the gradient, with the kernels turned by half a circle and in and out
/// exchanged.
pub(crate) fn input_grad(conv: &Conv2d, w: &[f32], grad: &[f32]) -> Floats {
    let adjoint = Conv2d {
        in_channels: conv.out_channels,
        out_channels: conv.in_channels,
        ..*conv
    };
    let weights = Weights::transform_adjoint(adjoint.in_channels, adjoint.out_channels, w);
    let chunks = TileChunks::new(&adjoint, *CHUNK_BYTES.start());
    let TileChunks { input, output, .. } = &chunks;
    let mut filled = Floats::new(adjoint.output_len());
    let sizes = [output.batch, output.channels, output.height * output.width];
    let mut out = Region::whole(&mut filled[..], sizes).chunks(Axis::Plane, 1);
    // What is not written yet of the image that the bands have come to.
    let mut image = None;
    let [mut v, mut m] = chunks.scratch();
    for rows in chunks.all() {
        let tiles = rows.len() * input.tile_cols();
        let [stride_in, stride_out] = chunks.strides(&rows);
        let bands = input.bands(rows);
        transform_planes(
            tiling::transform_input,
            input,
            &bands,
            grad,
            &mut v,
            stride_in,
        );
        let points = m[..POINTS * stride_out].par_chunks_mut(stride_out);
        points.enumerate().with_max_len(1).for_each(|(e, m)| {
            let mut sums = Region::whole(m, [1, tiles, output.blocks()]);
            for (first, width) in weights.groups.all() {
                let tiles = input.tiles(&v[e * stride_in..], tiles);
                let sums = sums.part(Axis::Column, first..first + width);
                weights
                    .product([first, e], tiles)
                    .multiply(Output::sums(sums));
            }
        });
        let mut tasks = Vec::new();
        let mut first = 0;
        for band in &bands {
            if band.rows.start == 0 {
                image = out.next();
            }
            let whole = image.take().expect("bands begin with an image's first");
            let (part, rest) = whole.split(Axis::Column, output.pixels(band).len());
            image = Some(rest);
            for (block, part) in part.chunks(Axis::Row, BLOCK).enumerate() {
                tasks.push((band, block, &m[first * output.blocks()..], part));
            }
            first += band.rows.len() * output.tile_cols();
        }
        let tasks = tasks.into_par_iter().with_max_len(1);
        tasks.for_each(|(band, block, points, part)| {
            tiling::transform_output(output, points, stride_out, band, block, part);
        });
    }
    drop((out, image));
    filled
}

impl Images {
    /// Tiles with their channels as rows of a product, from the first one's of a point.
    fn tiles<'a>(&self, point: &'a [ChannelBlock], count: usize) -> Rows<'a> {
        Rows::even(floats(point), self.blocks() * BLOCK, self.channels, count)
    }
}

pub(crate) fn weight_grad(conv: &Conv2d, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut weights = Gradient::new(conv.in_channels, conv.out_channels);
    let bytes = (2 * weights.bytes()).clamp(*CHUNK_BYTES.start(), *CHUNK_BYTES.end());
    let chunks = TileChunks::new(conv, bytes);
    let TileChunks { input, output, .. } = &chunks;
    let [mut v, mut m] = chunks.scratch();
    for rows in chunks.all() {
        let [ins, outs] = [input, output].map(|images| images.blocks() * BLOCK);
        let tiles = rows.len() * input.tile_cols();
        let [stride_in, stride_out] = chunks.strides(&rows);
        let bands = input.bands(rows.clone());
        transform_planes(tiling::transform_input, input, &bands, x, &mut v, stride_in);
        transform_planes(
            tiling::transform_output_grad,
            output,
            &bands,
            grad,
            &mut m,
            stride_out,
        );
        weights.points_mut().enumerate().for_each(|(e, u)| {
            let v = Matrix::rows(floats(&v[e * stride_in..]), ins);
            let m = Matrix::columns(floats(&m[e * stride_out..]), outs);
            let sizes = [outs, ins, tiles];
            gemm_to(floats_mut(u), outs, sizes, m, v, rows.start > 0);
        });
    }
    weights.transform_back()
}

/// A batch in chunks of rows of tiles.
struct TileChunks {
    input: Images,
    output: Images,
    rows: usize,
}

impl TileChunks {
    fn new(conv: &Conv2d, bytes: usize) -> Self {
        let [input, output] = Images::from_conv(conv);
        let tile_bytes = POINTS * (input.blocks() + output.blocks()) * size_of::<ChannelBlock>();
        let rows = bytes / (tile_bytes * input.tile_cols());
        let rows = rows.clamp(1, input.batch * input.tile_rows());
        Self {
            input,
            output,
            rows,
        }
    }

    /// For the transformed tiles of a chunk, of input and output.
    fn scratch(&self) -> [Scratch; 2] {
        [&self.input, &self.output].map(|images| Scratch::new(POINTS * stride(images, self.rows)))
    }

    fn all(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (step, all) = (self.rows, self.input.batch * self.input.tile_rows());
        let starts = (0..all).step_by(step);
        starts.map(move |row| row..all.min(row + step))
    }

    /// Blocks from one point to the next, of input and output.
    fn strides(&self, rows: &Range<usize>) -> [usize; 2] {
        [&self.input, &self.output].map(|images| stride(images, rows.len()))
    }
}

/// Blocks from one point of transformed tiles to the next. Not a power of two, or all points of a tile
/// would compete for the same few lines of the cache.
fn stride(images: &Images, rows: usize) -> usize {
    rows * images.tile_cols() * images.blocks() + 1
}

/// Transforms all channels of some bands, which follow each other.
fn transform_planes(
    kernel: FromPlanes,
    images: &Images,
    bands: &[TileBand],
    x: &[f32],
    points: &mut [ChannelBlock],
    stride: usize,
) {
    let (blocks, cols) = (images.blocks(), images.tile_cols());
    let tiles = bands.iter().map(|band| band.rows.len() * cols).sum();
    let mut rest = Region::new(points, [POINTS, tiles, blocks], [stride, blocks]);
    let mut tasks = Vec::new();
    for band in bands {
        let (points, after) = rest.split(Axis::Row, band.rows.len() * cols);
        rest = after;
        for (block, points) in points.chunks(Axis::Column, 1).enumerate() {
            tasks.push((band, block, points));
        }
    }
    let tasks = tasks.into_par_iter().with_max_len(1);
    tasks.for_each(|(band, block, points)| kernel(images, x, band, block, points));
}
