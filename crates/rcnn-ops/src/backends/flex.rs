//! Native kernels for Flex, in f32; other precisions run the reference bodies.
//!
//! The forward passes share the boxes between threads, the backward passes the planes of the
//! gradient, so no two threads write the same pixel and every run gives the same bits.

use burn::tensor::ops::{ConvOptions, FloatTensor, IntTensor};
use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use crate::{DetectionBackend, RoiAlignOptions, RoiPoolOptions, roi_align, roi_pool};

mod boxes;
mod channels;
mod conv2d;
mod convolution;

impl DetectionBackend for Flex {
    fn channel_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        channels::affine(x, scale, shift)
    }

    fn channel_moments(x: FloatTensor<Self>) -> FloatTensor<Self> {
        channels::moments(x)
    }

    fn channel_sums(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        channels::sums(a, b)
    }

    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        convolution::forward(x, weight, bias, options, conv2d::forward)
    }

    fn tracked_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        convolution::forward(x, weight, bias, options, conv2d::exact_forward)
    }

    fn convolution_input_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        convolution::input_grad(x, weight, grad, options)
    }

    fn convolution_weight_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        convolution::weight_grad(x, weight, grad, options)
    }

    fn convolution_bias_grad(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        convolution::bias_grad(x, bias, grad)
    }

    fn roi_align(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        if features.dtype() != DType::F32 {
            return roi_align::forward::<Self>(features, rois, options);
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
            .for_each(|(pooled, roi)| {
                let samples = RoiSamples::new(roi, shape, options);
                for (channel, out) in pooled.chunks_mut(out_h * out_w).enumerate() {
                    let plane = (roi.image * c + channel) * h * w;
                    samples.pool(&features[plane..plane + h * w], w, out);
                }
            });
        tensor(pooled, [rois.len(), c, out_h, out_w])
    }

    fn roi_align_backward(
        shape: [usize; 4],
        rois: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        if grad.dtype() != DType::F32 {
            return roi_align::backward::<Self>(shape, rois, grad, options);
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
        out.par_chunks_mut(h * w)
            .enumerate()
            .for_each(|(plane, out)| {
                let (image, channel) = (plane / c, plane % c);
                for (k, roi) in rois.iter().enumerate() {
                    if roi.image == image {
                        let start = (k * c + channel) * bins;
                        samples[k].spread(&grad[start..start + bins], w, out);
                    }
                }
            });
        tensor(out, shape)
    }

    fn roi_pool(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiPoolOptions,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        if features.dtype() != DType::F32 {
            return roi_pool::forward::<Self>(features, rois, options);
        }
        let [_, c, h, w] = dims(&features);
        let features = features.to_contiguous();
        let features = features.storage::<f32>();
        let rois = parse_rois(rois);
        let [out_h, out_w] = options.output_size;
        let size = rois.len() * c * out_h * out_w;
        let (mut values, mut positions) = (vec![0.0f32; size], vec![-1i32; size]);
        let per_roi = (c * out_h * out_w).max(1);
        values
            .par_chunks_mut(per_roi)
            .zip(positions.par_chunks_mut(per_roi))
            .zip(&rois)
            .for_each(|((values, positions), roi)| {
                let rows = windows(
                    roi.bounds[1],
                    roi.bounds[3],
                    h,
                    out_h,
                    options.spatial_scale,
                );
                let columns = windows(
                    roi.bounds[0],
                    roi.bounds[2],
                    w,
                    out_w,
                    options.spatial_scale,
                );
                for channel in 0..c {
                    let plane = (roi.image * c + channel) * h * w;
                    let plane = &features[plane..plane + h * w];
                    for bin in 0..out_h * out_w {
                        let at = channel * out_h * out_w + bin;
                        let (rows, columns) = (rows[bin / out_w], columns[bin % out_w]);
                        if let Some(best) = first_max(plane, w, rows, columns) {
                            values[at] = plane[best];
                            positions[at] = best as i32;
                        }
                    }
                }
            });
        let shape = [rois.len(), c, out_h, out_w];
        let positions = FlexTensor::from_data(TensorData::new(positions, shape));
        (tensor(values, shape), positions)
    }

    fn decode_boxes(
        deltas: FloatTensor<Self>,
        references: FloatTensor<Self>,
        sizes: FloatTensor<Self>,
        weights: [f32; 4],
    ) -> FloatTensor<Self> {
        boxes::decode(deltas, references, sizes, weights)
    }

    fn box_iou(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        boxes::iou(a, b)
    }
}

/// A parsed row of `rois`.
struct Roi {
    image: usize,
    bounds: [f32; 4],
}

fn parse_rois(rois: FlexTensor) -> Vec<Roi> {
    let rois = floats(rois);
    let parse = |roi: &[f32]| Roi {
        image: roi[0] as usize,
        bounds: [roi[1], roi[2], roi[3], roi[4]],
    };
    rois.chunks_exact(5).map(parse).collect()
}

fn dims(tensor: &FlexTensor) -> [usize; 4] {
    tensor.layout().shape().dims()
}

fn floats(tensor: FlexTensor) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.into_vec().expect("converted to f32")
}

fn tensor(values: Vec<f32>, shape: [usize; 4]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// One sample along one axis: the two pixels it lies between and their weights.
#[derive(Clone, Copy)]
struct Tap {
    low: usize,
    high: usize,
    weight_low: f32,
    weight_high: f32,
}

/// The samples of one box along both axes, bin by bin.
struct RoiSamples {
    rows: Vec<Vec<Tap>>,
    columns: Vec<Vec<Tap>>,
    count: f32,
}

impl RoiSamples {
    fn new(roi: &Roi, [_, _, h, w]: [usize; 4], options: RoiAlignOptions) -> Self {
        let [out_h, out_w] = options.output_size;
        let [x1, y1, x2, y2] = roi.bounds;
        let (rows, count_y) = taps(y1, y2, h, out_h, options);
        let (columns, count_x) = taps(x1, x2, w, out_w, options);
        let count = (count_y * count_x).max(1) as f32;
        Self {
            rows,
            columns,
            count,
        }
    }

    fn pool(&self, plane: &[f32], width: usize, out: &mut [f32]) {
        let bins = self
            .rows
            .iter()
            .flat_map(|r| self.columns.iter().map(move |c| (r, c)));
        for (out, (rows, columns)) in out.iter_mut().zip(bins) {
            let mut sum = 0.0;
            for row in rows {
                let (low, high) = (&plane[row.low * width..], &plane[row.high * width..]);
                for column in columns {
                    let along = |line: &[f32]| {
                        line[column.low] * column.weight_low
                            + line[column.high] * column.weight_high
                    };
                    sum += row.weight_low * along(low) + row.weight_high * along(high);
                }
            }
            *out = sum / self.count;
        }
    }

    fn spread(&self, grad: &[f32], width: usize, out: &mut [f32]) {
        let bins = self
            .rows
            .iter()
            .flat_map(|r| self.columns.iter().map(move |c| (r, c)));
        for (grad, (rows, columns)) in grad.iter().zip(bins) {
            let grad = grad / self.count;
            for row in rows {
                for column in columns {
                    for (y, weight_y) in [(row.low, row.weight_low), (row.high, row.weight_high)] {
                        out[y * width + column.low] += grad * weight_y * column.weight_low;
                        out[y * width + column.high] += grad * weight_y * column.weight_high;
                    }
                }
            }
        }
    }
}

/// Samples of a box from `low` to `high` along an axis of `length` pixels, by bin, leaving out those
/// more than a pixel outside; and how many a bin has with them.
fn taps(
    low: f32,
    high: f32,
    length: usize,
    bins: usize,
    options: RoiAlignOptions,
) -> (Vec<Vec<Tap>>, usize) {
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
    let tap = |bin: usize, sample: usize| {
        let within = (sample as f32 + 0.5) * bin_size / count as f32;
        let position = start + bin as f32 * bin_size + within;
        // Not `contains`: a NaN position must be left out too.
        (position >= -1.0 && position <= length as f32).then(|| {
            let position = position.clamp(0.0, last as f32);
            let low = position as usize;
            let fraction = position - low as f32;
            let high = (low + 1).min(last);
            Tap {
                low,
                high,
                weight_low: 1.0 - fraction,
                weight_high: fraction,
            }
        })
    };
    let taps = (0..bins)
        .map(|bin| (0..count).filter_map(|sample| tap(bin, sample)).collect())
        .collect();
    (taps, count)
}

/// First and last-but-one pixel of each of RoIPool's bins along an axis of `length` pixels.
fn windows(low: f32, high: f32, length: usize, bins: usize, scale: f32) -> Vec<(usize, usize)> {
    let start = (low * scale).round();
    let size = ((high * scale).round() - start + 1.0).max(1.0) / bins as f32;
    let clip = |edge: f32| (edge + start).clamp(0.0, length as f32) as usize;
    (0..bins)
        .map(|bin| {
            let bin = bin as f32;
            (
                clip((bin * size).floor()),
                clip(((bin + 1.0) * size).ceil()),
            )
        })
        .collect()
}

fn first_max(
    plane: &[f32],
    width: usize,
    (top, bottom): (usize, usize),
    (left, right): (usize, usize),
) -> Option<usize> {
    let mut best = None;
    for y in top..bottom {
        for position in y * width + left..y * width + right {
            if best.is_none_or(|b: usize| plane[position] > plane[b]) {
                best = Some(position);
            }
        }
    }
    best
}
