//! RoIAlign: features of boxes, each a grid of bins that average bilinear samples.
//!
//! Every bin is a weighted sum over a few rows and a few columns, and the weights of both axes are
//! independent. Forward, images have their channels last, and a sum is over whole vectors. Backward,
//! images are planes: the bins of a row are scattered over one line, and that over the rows.

use std::iter::repeat_n;
use std::ops::Range;

use rayon::prelude::*;

use crate::arena::Scratch;
use crate::block::{BLOCK, ChannelBlock, floats, floats_mut};
use crate::simd::vectorised;
use crate::transpose::separate_block;

/// A region of interest: a box of one of a batch's images.
#[derive(Clone, Copy, Debug)]
pub struct Roi {
    /// Index of the image in its batch.
    pub image: usize,
    /// xyxy, in pixels of the network's input.
    pub bounds: [f32; 4],
}

/// Options of RoIAlign, in torchvision's terms.
#[derive(Clone, Copy, Debug)]
pub struct RoiAlign {
    /// Rows and columns of bins.
    pub output_size: [usize; 2],
    /// Pixels of the features for one of the network's input.
    pub spatial_scale: f32,
    /// Samples of a bin along each axis; with 0, as many as its side has pixels.
    pub sampling_ratio: usize,
    /// Whether pixel centres are at half coordinates.
    pub aligned: bool,
}

/// Pools each box to its row of `out`, `[rows, C, output height, output width]`; the other rows stay.
///
/// Features are images of shape `[N, C, H, W]`, channels last.
///
/// # Panics
/// If two boxes have the same row, or the image or row of a box does not exist.
pub fn forward(
    options: &RoiAlign,
    features: &[ChannelBlock],
    shape @ [n, c, h, w]: [usize; 4],
    rois: &[Roi],
    rows: &[usize],
    out: &mut [f32],
) {
    let samples = SamplingGrid::from_rois(rois, shape, options);
    let bins = options.output_size.iter().product::<usize>();
    let blocks = c.div_ceil(BLOCK);
    let mut places: Vec<_> = out.chunks_mut((c * bins).max(1)).map(Some).collect();
    let mut by_image: Vec<Vec<(&mut [f32], &SamplingGrid)>> = (0..n).map(|_| Vec::new()).collect();
    for ((roi, samples), &row) in rois.iter().zip(&samples).zip(rows) {
        let place = places[row].take().expect("a row is written once");
        by_image[roi.image].push((place, samples));
    }
    for (image, mut boxes) in by_image.into_iter().enumerate() {
        // Neighbours follow each other, while their pixels are in cache.
        boxes.sort_unstable_by_key(|(_, samples)| {
            (samples.rows.range.start / 16, samples.columns.range.start)
        });
        let map = Map {
            pixels: &features[image * h * w * blocks..],
            blocks,
            width: w,
        };
        boxes.into_par_iter().for_each_init(
            || Scratch::new(bins * blocks),
            |sums, (out, samples)| {
                pool(&map, samples, options.output_size, sums);
                for (block, out) in out.chunks_mut(BLOCK * bins).enumerate() {
                    separate_block(sums, bins, [block, blocks], out);
                }
            },
        );
    }
}

/// An image with the channels of a pixel side by side.
struct Map<'a> {
    pixels: &'a [ChannelBlock],
    /// Channel blocks of a pixel.
    blocks: usize,
    width: usize,
}

vectorised! {
    /// Averages of a box's bins, each with its channels side by side.
    fn pool(map: &Map<'_>, samples: &SamplingGrid, output_size: [usize; 2], sums: &mut [ChannelBlock]) {
        let [out_h, out_w] = output_size;
        let mut sums = sums.chunks_mut(map.blocks);
        for rows in samples.rows.bins(out_h) {
            for columns in samples.columns.bins(out_w) {
                let Some(sums) = sums.next() else { return };
                sums.fill(ChannelBlock::ZERO);
                for &(y, weight_y) in rows {
                    for &(x, weight_x) in columns {
                        let weight = weight_y * weight_x;
                        if weight == 0.0 {
                            continue;
                        }
                        let pixel = (y * map.width + x) * map.blocks;
                        let pixel = floats(&map.pixels[pixel..][..map.blocks]);
                        for (sum, value) in floats_mut(sums).iter_mut().zip(pixel) {
                            *sum += weight * value;
                        }
                    }
                }
            }
        }
    }
}

/// The gradient of features of shape `[N, C, H, W]`, as planes, given that of the pooled boxes: of box
/// `k`, in row `rows[k]` of `grad`, `[rows, C, output height, output width]`.
pub fn backward(
    options: &RoiAlign,
    shape @ [n, c, h, w]: [usize; 4],
    rois: &[Roi],
    rows: &[usize],
    grad: &[f32],
) -> Vec<f32> {
    let [out_h, out_w] = options.output_size;
    let bins = out_h * out_w;
    let samples = SamplingGrid::from_rois(rois, shape, options);
    let mut out = vec![0.0f32; n * c * h * w];
    out.par_chunks_mut((h * w).max(1))
        .enumerate()
        .for_each_init(
            || vec![0.0; w],
            |line, (plane, out)| {
                let (image, channel) = (plane / c, plane % c);
                for (k, roi) in rois.iter().enumerate() {
                    if roi.image == image {
                        let start = (rows[k] * c + channel) * bins;
                        samples[k].scatter(&grad[start..start + bins], line, out, out_w);
                    }
                }
            },
        );
    out
}

/// The pixels that each bin of a box takes along one axis, with their weights.
struct Axis {
    /// Pixel and weight, bin after bin, and as many for each: those too few are filled up with a
    /// weight of zero.
    taps: Vec<(usize, f32)>,
    taps_per_bin: usize,
    /// The pixels of all bins.
    range: Range<usize>,
}

impl Axis {
    /// Samples of a box from `low` to `high` along an axis of `length` pixels. Samples more than a pixel
    /// outside count as zeros.
    fn new(low: f32, high: f32, length: usize, bins: usize, options: &RoiAlign) -> Self {
        let offset = if options.aligned { 0.5 } else { 0.0 };
        let start = low * options.spatial_scale - offset;
        let mut size = high * options.spatial_scale - offset - start;
        if !options.aligned {
            size = size.max(1.0);
        }
        let bin_size = size / bins as f32;
        let count = match options.sampling_ratio {
            0 => bin_size.ceil().max(0.0) as usize,
            ratio => ratio,
        };
        let last = length - 1;
        let bin_taps = |bin: usize| {
            let mut taps: Vec<(usize, f32)> = Vec::with_capacity(2 * count);
            for sample in 0..count {
                let within = (sample as f32 + 0.5) * bin_size / count as f32;
                let position = start + bin as f32 * bin_size + within;
                // Not `contains`: a NaN position must be left out too.
                if !(position >= -1.0 && position <= length as f32) {
                    continue;
                }
                let position = position.clamp(0.0, last as f32);
                let pixel = position as usize;
                let fraction = position - pixel as f32;
                for (pixel, weight) in [(pixel, 1.0 - fraction), ((pixel + 1).min(last), fraction)]
                {
                    let weight = weight / count as f32;
                    match taps.iter_mut().find(|tap| tap.0 == pixel) {
                        Some(tap) => tap.1 += weight,
                        None => taps.push((pixel, weight)),
                    }
                }
            }
            taps
        };
        let bins: Vec<_> = (0..bins).map(bin_taps).collect();
        let pixels = || bins.iter().flatten().map(|tap| tap.0);
        let range = pixels().min().unwrap_or(0)..pixels().max().map_or(0, |last| last + 1);
        let taps_per_bin = bins.iter().map(Vec::len).max().unwrap_or(0);
        let mut taps = Vec::with_capacity(bins.len() * taps_per_bin);
        for bin in bins {
            let missing = taps_per_bin - bin.len();
            taps.extend(bin);
            taps.extend(repeat_n((range.start, 0.0), missing));
        }
        Self {
            taps,
            taps_per_bin,
            range,
        }
    }

    /// The taps of each of some bins.
    fn bins(&self, count: usize) -> impl Iterator<Item = &[(usize, f32)]> {
        (0..count).map(|bin| &self.taps[bin * self.taps_per_bin..][..self.taps_per_bin])
    }
}

/// Adds each bin's value to the pixels of a line that it is a sum of.
fn scatter<const N: usize>(taps: &[(usize, f32)], values: &[f32], line: &mut [f32]) {
    let (taps, _) = taps.as_chunks::<N>();
    for (value, taps) in values.iter().zip(taps) {
        for &(x, weight) in taps {
            line[x] += weight * value;
        }
    }
}

/// Sampling points of one box along both axes.
struct SamplingGrid {
    rows: Axis,
    columns: Axis,
}

impl SamplingGrid {
    fn from_rois(rois: &[Roi], [_, _, h, w]: [usize; 4], options: &RoiAlign) -> Vec<Self> {
        let [out_h, out_w] = options.output_size;
        let from_roi = |roi: &Roi| {
            let [x1, y1, x2, y2] = roi.bounds;
            Self {
                rows: Axis::new(y1, y2, h, out_h, options),
                columns: Axis::new(x1, x2, w, out_w, options),
            }
        };
        rois.par_iter().map(from_roi).collect()
    }

    /// Adds to a plane what its pixels contributed to the bins, times their gradients.
    fn scatter(&self, grad: &[f32], line: &mut [f32], out: &mut [f32], out_w: usize) {
        let (width, range) = (line.len(), self.columns.range.clone());
        let columns = &self.columns.taps;
        for (taps, grad) in self.rows.bins(grad.len() / out_w).zip(grad.chunks(out_w)) {
            line[range.clone()].fill(0.0);
            match self.columns.taps_per_bin {
                2 => scatter::<2>(columns, grad, line),
                3 => scatter::<3>(columns, grad, line),
                4 => scatter::<4>(columns, grad, line),
                _ => {
                    for (grad, taps) in grad.iter().zip(self.columns.bins(out_w)) {
                        for &(x, weight) in taps {
                            line[x] += weight * grad;
                        }
                    }
                }
            }
            for &(y, weight) in taps {
                let row = &mut out[y * width..][range.clone()];
                for (out, value) in row.iter_mut().zip(&line[range.clone()]) {
                    *out += weight * value;
                }
            }
        }
    }
}
