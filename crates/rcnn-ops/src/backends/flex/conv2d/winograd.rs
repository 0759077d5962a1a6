//! Winograd's minimal filtering F(4x4, 3x3), after Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks" (2015), <https://arxiv.org/abs/1509.09308>.
//!
//! A tile of 6x6 inputs gives 4x4 outputs: Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, which is 36 products
//! instead of 144. Over channels and tiles each of the 36 points is a matrix product. The
//! gradient of the input is a convolution again, with the kernels turned; that of the weights
//! is the adjoint, dg = Gᵀ[Σ (A dY Aᵀ) ⊙ (Bᵀ d B)]G.
//!
//! Tiles are taken in blocks that stay in cache from one stage to the next: transform, multiply, and
//! transform back. In inference each thread has its own blocks; with gradients, the threads share the
//! rows and channels, or the points, of a stage. Each element is written once.
//!
//! Against f64 the largest error is 1e-6 (64 channels) to 3e-6 (512) of the largest value; plain sums
//! in f32 have 6e-7. The tests print and bound both.

mod pixels;
mod tiling;
mod transform;
mod weights;

use std::ops::Range;

use rayon::prelude::*;

use super::Conv2d;
use super::epilogue::LaneEpilogue;
use super::gemm::{Matrix, gemm};
use super::pool::{Floats, LANES, Lane, Scratch, floats, floats_mut};
use super::product::{Output, Rows};
use super::shared::Shared;
pub(super) use pixels::forward;
use tiling::{Images, Points, Strip};
use transform::POINTS;
use weights::Gradient;
pub(in super::super) use weights::Weights;

/// Bytes of transformed tiles, of input and output together, in a block: at least so many, and at
/// most where there are weights to sum for each block.
const BLOCK_BYTES: std::ops::RangeInclusive<usize> = 4 << 20..=16 << 20;

/// Whether this method applies and pays. As measured, it needs the tiles to be worth the
/// transformed weights, four times the room of the weights, and the channels to fill a lane.
pub(super) fn is_faster(conv: &Conv2d) -> bool {
    let tiles = conv.batch * conv.height.div_ceil(4) * conv.width.div_ceil(4);
    conv.kernel == [3, 3]
        && conv.stride == [1, 1]
        && conv.padding == [1, 1]
        && conv.groups == 1
        && !conv.exact
        && conv.in_channels >= LANES
        && tiles * 12288 >= conv.in_channels * conv.out_channels
        && !conv.is_empty()
}

/// As a convolution of the gradient, with the kernels turned by half a circle and in and out
/// exchanged.
pub(super) fn input_grad(conv: &Conv2d, w: &[f32], grad: &[f32]) -> Floats {
    let adjoint = Conv2d {
        in_channels: conv.out_channels,
        out_channels: conv.in_channels,
        ..*conv
    };
    let weights = Weights::spread_adjoint(adjoint.in_channels, adjoint.out_channels, w);
    let blocks = Blocks::new(&adjoint, *BLOCK_BYTES.start());
    let Blocks { input, output, .. } = &blocks;
    let mut filled = Floats::new(adjoint.output_len());
    let out = Shared::new(&mut filled[..]);
    let [mut v, mut m] = blocks.room();
    for rows in blocks.all() {
        let [_, tiles, _] = blocks.sizes(&rows);
        let [stride_in, stride_out] = blocks.strides(&rows);
        let strips = input.strips(rows);
        spread(
            tiling::spread_input,
            input,
            &strips,
            grad,
            &mut v,
            stride_in,
        );
        let points = m[..POINTS * stride_out].par_chunks_mut(stride_out);
        points.enumerate().with_max_len(1).for_each(|(e, m)| {
            let starts = input.starts(tiles, &v[e * stride_in..]);
            for (first, _) in weights.groups.all() {
                let product = weights.product([first, e], input.rows(&starts, 0));
                let out = Output {
                    pixels: &Shared::new(m),
                    lanes: output.lanes(),
                    first_pixel: 0,
                    first_lane: first,
                    adds: false,
                    epilogue: &LaneEpilogue::NONE,
                };
                // SAFETY: the rows are tiles with all their channels, and `m` is this thread's.
                unsafe { product.multiply(&out) };
            }
        });
        each(&strips, output.lanes(), |strip, lane| {
            tiling::collect_output(output, &m, stride_out, strip, lane, &out);
        });
    }
    filled
}

impl Images {
    /// Where the channels of some tiles start, in the matrix of a point.
    fn starts(&self, tiles: usize, points: &[Lane]) -> Vec<*const f32> {
        let tiles = points[..tiles * self.lanes()].chunks(self.lanes());
        tiles.map(|tile| tile.as_ptr().cast()).collect()
    }

    /// The tiles `offset` floats further.
    fn rows<'a>(&self, starts: &'a [*const f32], offset: usize) -> Rows<'a> {
        Rows {
            starts,
            offset,
            part: self.channels,
            count: starts.len(),
            pitch: Some(self.lanes() * LANES),
        }
    }
}

pub(super) fn weight_grad(conv: &Conv2d, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut weights = Gradient::new(conv.in_channels, conv.out_channels);
    let bytes = (2 * weights.bytes()).clamp(*BLOCK_BYTES.start(), *BLOCK_BYTES.end());
    let blocks = Blocks::new(conv, bytes);
    let Blocks { input, output, .. } = &blocks;
    let [mut v, mut m] = blocks.room();
    for rows in blocks.all() {
        let [outs, tiles, ins] = blocks.sizes(&rows);
        let [stride_in, stride_out] = blocks.strides(&rows);
        let strips = input.strips(rows.clone());
        spread(tiling::spread_input, input, &strips, x, &mut v, stride_in);
        spread(
            tiling::spread_grad,
            output,
            &strips,
            grad,
            &mut m,
            stride_out,
        );
        weights.points_mut().enumerate().for_each(|(e, u)| {
            let v = Matrix::rows(floats(&v[e * stride_in..]), ins);
            let m = Matrix::columns(floats(&m[e * stride_out..]), outs);
            let sizes = [outs, ins, tiles];
            gemm(sizes, floats_mut(u), outs, m, v, rows.start > 0);
        });
    }
    weights.collect()
}

/// A batch in blocks of rows of tiles.
struct Blocks {
    input: Images,
    output: Images,
    rows: usize,
}

impl Blocks {
    fn new(conv: &Conv2d, bytes: usize) -> Self {
        let [input, output] = Images::of(conv);
        let tile_bytes = POINTS * (input.lanes() + output.lanes()) * size_of::<Lane>();
        let rows = bytes / (tile_bytes * input.tile_cols());
        let rows = rows.clamp(1, input.batch * input.tile_rows());
        Self {
            input,
            output,
            rows,
        }
    }

    /// Room for the transformed tiles of a block, of input and output.
    fn room(&self) -> [Scratch; 2] {
        [&self.input, &self.output].map(|images| Scratch::new(POINTS * stride(images, self.rows)))
    }

    fn all(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (step, all) = (self.rows, self.input.batch * self.input.tile_rows());
        let starts = (0..all).step_by(step);
        starts.map(move |row| row..all.min(row + step))
    }

    /// Output channels, tiles and input channels of a block, with channels rounded up to lanes.
    fn sizes(&self, rows: &Range<usize>) -> [usize; 3] {
        let tiles = rows.len() * self.input.tile_cols();
        [
            self.output.lanes() * LANES,
            tiles,
            self.input.lanes() * LANES,
        ]
    }

    /// Lanes from one point to the next, of input and output: see [`Points`].
    fn strides(&self, rows: &Range<usize>) -> [usize; 2] {
        [&self.input, &self.output].map(|images| stride(images, rows.len()))
    }
}

fn stride(images: &Images, rows: usize) -> usize {
    rows * images.tile_cols() * images.lanes() + 1
}

/// Transforms all channels of some strips.
fn spread(
    kernel: fn(&Images, &[f32], &Strip, usize, &Points<'_>),
    images: &Images,
    strips: &[Strip],
    x: &[f32],
    points: &mut [Lane],
    stride: usize,
) {
    let data = Shared::new(points);
    let points = Points { data, stride };
    each(strips, images.lanes(), |strip, lane| {
        kernel(images, x, strip, lane, &points);
    });
}

/// Calls `work` for each strip and lane, from all threads.
fn each(strips: &[Strip], lanes: usize, work: impl Fn(&Strip, usize) + Sync) {
    (0..strips.len() * lanes)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|i| work(&strips[i / lanes], i % lanes));
}
