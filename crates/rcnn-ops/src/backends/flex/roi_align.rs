//! RoIAlign for Flex.
//!
//! Every bin is a weighted sum over a few rows and a few columns, and the weights of both axes are
//! independent: rows are summed into one line first, from which all bins of a row are read.

use burn::tensor::DType;
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::{Roi, dims, floats, parse_rois, tensor};
use crate::{RoiAlignOptions, roi_align};

pub(super) fn forward(
    features: FlexTensor,
    rois: FlexTensor,
    options: RoiAlignOptions,
) -> FlexTensor {
    if features.dtype() != DType::F32 {
        return roi_align::forward::<Flex>(features, rois, options);
    }
    let shape @ [_, c, h, w] = dims(&features);
    let features = features.to_contiguous();
    let features = features.storage::<f32>();
    let rois = parse_rois(rois);
    let [out_h, out_w] = options.output_size;
    let mut pooled = vec![0.0f32; rois.len() * c * out_h * out_w];
    pooled
        .par_chunks_mut((c * out_h * out_w).max(1))
        .zip(&rois)
        .for_each_init(
            || vec![0.0; w],
            |line, (pooled, roi)| {
                let samples = RoiSamples::new(roi, shape, options);
                for (channel, out) in pooled.chunks_mut(out_h * out_w).enumerate() {
                    let plane = (roi.image * c + channel) * h * w;
                    samples.pool(&features[plane..plane + h * w], line, out);
                }
            },
        );
    tensor(pooled, [rois.len(), c, out_h, out_w])
}

pub(super) fn backward(
    shape: [usize; 4],
    rois: FlexTensor,
    grad: FlexTensor,
    options: RoiAlignOptions,
) -> FlexTensor {
    if grad.dtype() != DType::F32 {
        return roi_align::backward::<Flex>(shape, rois, grad, options);
    }
    let [n, c, h, w] = shape;
    let grad = floats(grad);
    let rois = parse_rois(rois);
    let bins = options.output_size[0] * options.output_size[1];
    let samples: Vec<RoiSamples> = rois
        .par_iter()
        .map(|roi| RoiSamples::new(roi, shape, options))
        .collect();
    let mut out = vec![0.0f32; n * c * h * w];
    out.par_chunks_mut((h * w).max(1))
        .enumerate()
        .for_each_init(
            || vec![0.0; w],
            |line, (plane, out)| {
                let (image, channel) = (plane / c, plane % c);
                for (k, roi) in rois.iter().enumerate() {
                    if roi.image == image {
                        let start = (k * c + channel) * bins;
                        samples[k].spread(&grad[start..start + bins], line, out);
                    }
                }
            },
        );
    tensor(out, shape)
}

/// The pixels that each bin of a box takes along one axis, with their weights.
struct Axis {
    /// Pixel and weight, bin after bin.
    taps: Vec<(usize, f32)>,
    /// Where each bin's taps end.
    ends: Vec<usize>,
    /// The pixels of all bins.
    range: std::ops::Range<usize>,
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
        let mut axis = Self {
            taps: Vec::with_capacity(2 * bins * count),
            ends: Vec::with_capacity(bins),
            range: 0..0,
        };
        for bin in 0..bins {
            let first = axis.taps.len();
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
                    match axis.taps[first..].iter_mut().find(|tap| tap.0 == pixel) {
                        Some(tap) => tap.1 += weight,
                        None => axis.taps.push((pixel, weight)),
                    }
                }
            }
            axis.ends.push(axis.taps.len());
        }
        let pixels = || axis.taps.iter().map(|tap| tap.0);
        axis.range = pixels().min().unwrap_or(0)..pixels().max().map_or(0, |last| last + 1);
        axis
    }

    /// The taps of each bin.
    fn bins(&self) -> impl Iterator<Item = &[(usize, f32)]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = starts.zip(&self.ends);
        ranges.map(|(start, &end)| &self.taps[start..end])
    }
}

/// The samples of one box along both axes.
struct RoiSamples {
    rows: Axis,
    columns: Axis,
}

impl RoiSamples {
    fn new(roi: &Roi, [_, _, h, w]: [usize; 4], options: RoiAlignOptions) -> Self {
        let [out_h, out_w] = options.output_size;
        let [x1, y1, x2, y2] = roi.bounds;
        Self {
            rows: Axis::new(y1, y2, h, out_h, options),
            columns: Axis::new(x1, x2, w, out_w, options),
        }
    }

    /// Averages of the bins over a plane; `line` is room for one of its rows.
    fn pool(&self, plane: &[f32], line: &mut [f32], out: &mut [f32]) {
        let (width, range) = (line.len(), self.columns.range.clone());
        let rows = self
            .rows
            .bins()
            .zip(out.chunks_mut(self.columns.ends.len()));
        for (taps, out) in rows {
            let sum = &mut line[range.clone()];
            sum.fill(0.0);
            for &(y, weight) in taps {
                let row = &plane[y * width..][range.clone()];
                for (sum, value) in sum.iter_mut().zip(row) {
                    *sum += weight * value;
                }
            }
            for (out, taps) in out.iter_mut().zip(self.columns.bins()) {
                *out = taps.iter().map(|&(x, weight)| weight * line[x]).sum();
            }
        }
    }

    /// Adds to a plane what its pixels contributed to the bins, times their gradients.
    fn spread(&self, grad: &[f32], line: &mut [f32], out: &mut [f32]) {
        let (width, range) = (line.len(), self.columns.range.clone());
        let rows = self.rows.bins().zip(grad.chunks(self.columns.ends.len()));
        for (taps, grad) in rows {
            line[range.clone()].fill(0.0);
            for (grad, taps) in grad.iter().zip(self.columns.bins()) {
                for &(x, weight) in taps {
                    line[x] += weight * grad;
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
