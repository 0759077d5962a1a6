//! The CPU engine, [`rcnn_cpu`], behind Flex: its kernels are for f32; other precisions run the reference
//! bodies.

use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, FloatTensor, IntTensor, ModuleOps};
use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;
use rcnn_cpu::BLOCK;
use rcnn_cpu::fit_image::{self, FitImage, Tap};
use rcnn_cpu::pool::{self, Pool};

use crate::{
    Activation, ConvEpilogue, ConvPrecision, Crops, DetectionBackend, ImageFit, LayerPlan,
    RoiAlignOptions, RoiLevel, RoiPoolOptions, channels as channel_operations, image as images,
    nms, same,
};

mod arena;
mod boxes;
mod channels;
mod channels_last;
mod convolution;
mod gate;
mod linear;
pub(crate) mod plan;
mod roi_align;

/// Largest batch, in pixels, whose layers are too small to keep all processors busy.
const SMALL_BATCH: usize = 1 << 18;

impl DetectionBackend for Flex {
    /// A processor that is idle during one batch's small layers works on the other batch.
    fn concurrent_batches(pixels: usize) -> usize {
        match pixels <= SMALL_BATCH {
            true => 2,
            false => 1,
        }
    }

    fn fit_image(image: FloatTensor<Self>, fit: &ImageFit) -> FloatTensor<Self> {
        if image.dtype() != DType::F32 {
            return images::reference::<Self>(image, fit);
        }
        let [_, height, width] = dims(&image);
        let image = image.to_contiguous();
        let taps = |from, to| -> Vec<Tap> {
            let taps = images::taps(from, to, fit.positions)
                .map(|images::Tap { low, high, weight }| Tap { low, high, weight });
            taps.collect()
        };
        let kernel = FitImage {
            mean: fit.mean,
            std: fit.std,
            rows: &taps(height, fit.size.height),
            columns: &taps(width, fit.size.width),
            padded: [fit.padded.height, fit.padded.width],
        };
        let output = fit_image::forward(&kernel, image.storage(), [height, width]);
        arena::tensor(output, [3, fit.padded.height, fit.padded.width])
    }

    fn interpolate_nearest_backward(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        crate::convolution::interpolate_backward::<Self>(x, grad)
    }

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

    fn global_average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gate::means(x)
    }

    fn channel_gate(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        gate::multiply(x, gate)
    }

    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
        epilogue: ConvEpilogue<Self>,
        precision: ConvPrecision,
        plan: Option<&LayerPlan>,
    ) -> FloatTensor<Self> {
        convolution::forward(x, weight, bias, options, epilogue, precision, plan)
    }

    fn convolution_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        convolution::backward(x, weight, grad, options, wanted)
    }

    fn transposed_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvTransposeOptions<2>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        convolution::transposed(x, weight, bias, options, activation)
    }

    fn fully_connected(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        plan: Option<&LayerPlan>,
    ) -> FloatTensor<Self> {
        linear::forward(x, weight, bias, plan)
    }

    fn max_pool(
        x: FloatTensor<Self>,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        ceil_mode: bool,
    ) -> FloatTensor<Self> {
        let [n, c, h, w] = dims(&x);
        let pool = Pool {
            batch: n,
            blocks: c.div_ceil(BLOCK),
            size: [h, w],
            kernel,
            stride,
            padding,
            ceil_mode,
        };
        match pool.output_size() {
            Some(size @ [out_h, out_w]) if x.dtype() == DType::F32 => {
                let x = channels_last::from_planes(x);
                let x = channels_last::blocks(&x).expect("just brought there");
                let output = pool::max(&pool, size, x);
                channels_last::tensor(output, [n, c, out_h, out_w])
            }
            _ => Self::max_pool2d(x, kernel, stride, padding, [1, 1], ceil_mode),
        }
    }

    fn pad_same(
        x: FloatTensor<Self>,
        kernel: [usize; 2],
        stride: [usize; 2],
    ) -> (FloatTensor<Self>, [usize; 2]) {
        let [_, _, h, w] = dims(&x);
        match same::padding([h, w], kernel, stride) {
            (even, margins) if x.dtype() == DType::F32 => (channels_last::pad(x, margins), even),
            _ => same::pad::<Self>(x, kernel, stride),
        }
    }

    fn average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if x.dtype() != DType::F32 {
            return same::average::<Self>(x);
        }
        let shape @ [n, c, h, w] = dims(&x);
        let pool = Pool {
            batch: n,
            blocks: c.div_ceil(BLOCK),
            size: [h, w],
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
            ceil_mode: false,
        };
        let x = channels_last::from_planes(x);
        let x = channels_last::blocks(&x).expect("just brought there");
        channels_last::tensor(pool::average(&pool, [h, w], x), shape)
    }

    fn concat_channels(maps: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        channels_last::concat(&maps).unwrap_or_else(|| channel_operations::concat::<Self>(maps))
    }

    fn nms(
        boxes: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        iou_threshold: f64,
    ) -> IntTensor<Self> {
        let shape @ [_, k] = dims(&scores);
        let (boxes, scores) = (floats(boxes), floats(scores));
        let mut keep = vec![0i32; scores.len()];
        let each = k.max(1);
        let groups = boxes.as_chunks::<4>().0.par_chunks(each);
        let groups = groups.zip(scores.par_chunks(each));
        let groups = groups.zip(keep.par_chunks_mut(each)).with_max_len(1);
        groups.for_each(|((boxes, scores), keep)| nms::mark(boxes, scores, iou_threshold, keep));
        let keep = TensorData::new(keep, shape);
        Tensor::<Self, 2, Int>::from_data(keep, &Default::default()).into_primitive()
    }

    fn roi_align(levels: Vec<RoiLevel<Self>>) -> FloatTensor<Self> {
        roi_align::forward(levels)
    }

    fn roi_align_backward(
        features: [usize; 4],
        rois: FloatTensor<Self>,
        rows: &[usize],
        grad: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        roi_align::backward(features, rois, rows, grad, options)
    }

    fn roi_pool(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiPoolOptions,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        roi_align::pool(features, rois, options)
    }

    fn crop_and_max_pool(map: FloatTensor<Self>, crops: &Crops) -> FloatTensor<Self> {
        roi_align::crop(map, crops)
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

fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

fn floats(tensor: FlexTensor) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.into_vec().expect("converted to f32")
}

fn tensor(values: Vec<f32>, shape: [usize; 4]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
