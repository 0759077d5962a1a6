//! RoIAlign for Flex.
//!
//! Every bin is a weighted sum over a few rows and a few columns, and the weights of both axes are
//! independent. Forward, the channels of a pixel stand side by side, and a sum is over whole vectors. Backward, the bins of a row are spread over one line, and that over the rows.

use std::iter::repeat_n;
use std::ops::Range;

use burn::tensor::DType;
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::conv2d::separate_lane;
use super::pool::{Floats, LANES, Lane, Scratch, floats, floats_mut};
use super::pooled::pooled;
use super::vector::vectorised;
use super::{Roi, dims, parse_rois, pixels, tensor};
use crate::{RoiAlignOptions, roi_align};

pub(super) fn forward(
    features: FlexTensor,
    rois: FlexTensor,
    options: RoiAlignOptions,
) -> FlexTensor {
    if features.dtype() != DType::F32 {
        return roi_align::forward::<Flex>(features, rois, options);
    }
    let [_, channels, _, _] = dims(&features);
    let rows: Vec<usize> = (0..rois.layout().shape()[0]).collect();
    let [height, width] = options.output_size;
    let size = rows.len() * channels * height * width;
    let pooled = pooled(Floats::new(size), [rows.len(), channels, height, width]);
    forward_into(pooled, &rows, features, rois, options)
}

/// Writes the boxes' features into `rows` of `pooled`.
pub(super) fn forward_into(
    pooled: FlexTensor,
    rows: &[usize],
    features: FlexTensor,
    rois: FlexTensor,
    options: RoiAlignOptions,
) -> FlexTensor {
    if features.dtype() != DType::F32 || pooled.dtype() != DType::F32 {
        return roi_align::forward_into::<Flex>(pooled, rows, features, rois, options);
    }
    let shape @ [n, c, h, w] = dims(&features);
    let features = pixels::to_pixels(features);
    let features = pixels::lanes(&features).expect("just brought there");
    let rois = parse_rois(rois);
    let samples = RoiSamples::of_all(&rois, shape, options);
    let bins = options.output_size.iter().product::<usize>();
    let lanes = c.div_ceil(LANES);
    // Moved, so that nothing else holds the storage and it is written in place.
    let mut pooled = match pooled.is_contiguous() {
        true => pooled,
        false => pooled.to_contiguous(),
    };
    let out = pooled.storage_mut::<f32>();
    let mut places: Vec<_> = out.chunks_mut((c * bins).max(1)).map(Some).collect();
    let mut by_image: Vec<Vec<(&mut [f32], &RoiSamples)>> = (0..n).map(|_| Vec::new()).collect();
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
            pixels: &features[image * h * w * lanes..],
            lanes,
            width: w,
        };
        boxes.into_par_iter().for_each_init(
            || Scratch::new(bins * lanes),
            |sums, (out, samples)| {
                pool(&map, samples, options.output_size, sums);
                for (lane, out) in out.chunks_mut(LANES * bins).enumerate() {
                    separate_lane(sums, bins, [lane, lanes], out);
                }
            },
        );
    }
    pooled
}

/// An image with the channels of a pixel side by side.
struct Map<'a> {
    pixels: &'a [Lane],
    /// Lanes of a pixel.
    lanes: usize,
    width: usize,
}

vectorised! {
    /// Averages of a box's bins, each with its channels side by side.
    fn pool(map: &Map<'_>, samples: &RoiSamples, output_size: [usize; 2], sums: &mut [Lane]) {
        let [out_h, out_w] = output_size;
        let mut sums = sums.chunks_mut(map.lanes);
        for rows in samples.rows.bins(out_h) {
            for columns in samples.columns.bins(out_w) {
                let Some(sums) = sums.next() else { return };
                sums.fill(Lane::ZERO);
                for &(y, weight_y) in rows {
                    for &(x, weight_x) in columns {
                        let weight = weight_y * weight_x;
                        if weight == 0.0 {
                            continue;
                        }
                        let pixel = (y * map.width + x) * map.lanes;
                        let pixel = floats(&map.pixels[pixel..][..map.lanes]);
                        for (sum, value) in floats_mut(sums).iter_mut().zip(pixel) {
                            *sum += weight * value;
                        }
                    }
                }
            }
        }
    }
}

/// The gradient of box `k` is in row `rows[k]` of `grad`.
pub(super) fn backward(
    shape: [usize; 4],
    rois: FlexTensor,
    rows: &[usize],
    grad: FlexTensor,
    options: RoiAlignOptions,
) -> FlexTensor {
    if grad.dtype() != DType::F32 {
        return roi_align::rows_backward::<Flex>(shape, rois, rows, grad, options);
    }
    let [n, c, h, w] = shape;
    let grad = grad.to_contiguous();
    let grad = grad.storage::<f32>();
    let rois = parse_rois(rois);
    let [out_h, out_w] = options.output_size;
    let bins = out_h * out_w;
    let samples = RoiSamples::of_all(&rois, shape, options);
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
                        samples[k].spread(&grad[start..start + bins], line, out, out_w);
                    }
                }
            },
        );
    tensor(out, shape)
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
    /// Of a box from `low` to `high` along an axis of `length` pixels. Samples more than a pixel
    /// outside count as zeros.
    fn new(low: f32, high: f32, length: usize, bins: usize, options: RoiAlignOptions) -> Self {
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

/// The samples of one box along both axes.
struct RoiSamples {
    rows: Axis,
    columns: Axis,
}

impl RoiSamples {
    fn of_all(rois: &[Roi], [_, _, h, w]: [usize; 4], options: RoiAlignOptions) -> Vec<Self> {
        let [out_h, out_w] = options.output_size;
        let of_roi = |roi: &Roi| {
            let [x1, y1, x2, y2] = roi.bounds;
            Self {
                rows: Axis::new(y1, y2, h, out_h, options),
                columns: Axis::new(x1, x2, w, out_w, options),
            }
        };
        rois.par_iter().map(of_roi).collect()
    }

    /// Adds to a plane what its pixels contributed to the bins, times their gradients.
    fn spread(&self, grad: &[f32], line: &mut [f32], out: &mut [f32], out_w: usize) {
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
