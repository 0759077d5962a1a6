//! Native kernels for Flex, in f32; other precisions run the reference bodies.
//!
//! The forward passes share the boxes between threads, the backward passes the planes of the
//! gradient, so no two threads write the same pixel and every run gives the same bits.

use burn::tensor::ops::{ConvOptions, FloatTensor, IntTensor, ModuleOps};
use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use crate::{ConvEpilogue, DetectionBackend, RoiAlignOptions, RoiPoolOptions, resample, roi_pool};

mod boxes;
mod channels;
mod conv2d;
mod convolution;
mod max_pool;
mod pool;
mod pooled;
mod roi_align;
mod upsample;

use max_pool::MaxPool;
use pooled::pooled;

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

    fn fused_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
        epilogue: ConvEpilogue<Self>,
    ) -> FloatTensor<Self> {
        convolution::fused(x, weight, bias, options, epilogue)
    }

    fn max_pool(
        x: FloatTensor<Self>,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> FloatTensor<Self> {
        let [n, c, h, w] = dims(&x);
        let pool = MaxPool {
            planes: n * c,
            size: [h, w],
            kernel,
            stride,
            padding,
        };
        match pool.output_size() {
            Some(size @ [out_h, out_w]) if x.dtype() == DType::F32 => pooled(
                max_pool::forward(&pool, size, x.to_contiguous().storage()),
                [n, c, out_h, out_w],
            ),
            _ => Self::max_pool2d(x, kernel, stride, padding, [1, 1], false),
        }
    }

    fn upsample_nearest(x: FloatTensor<Self>, to: [usize; 2]) -> FloatTensor<Self> {
        let [n, c, h, w] = dims(&x);
        if x.dtype() != DType::F32 || h * w == 0 {
            return resample::nearest::<Self>(x, to);
        }
        pooled(
            upsample::forward(x.to_contiguous().storage(), [h, w], to),
            [n, c, to[0], to[1]],
        )
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
        roi_align::forward(features, rois, options)
    }

    fn roi_align_into(
        pooled: FloatTensor<Self>,
        rows: &[usize],
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        roi_align::forward_into(pooled, rows, features, rois, options)
    }

    fn roi_align_rows_backward(
        shape: [usize; 4],
        rois: FloatTensor<Self>,
        rows: &[usize],
        grad: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        roi_align::backward(shape, rois, rows, grad, options)
    }

    fn roi_align_backward(
        shape: [usize; 4],
        rois: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        let rows: Vec<usize> = (0..grad.layout().shape()[0]).collect();
        roi_align::backward(shape, rois, &rows, grad, options)
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
