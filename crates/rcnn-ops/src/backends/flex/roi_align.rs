//! RoIAlign and RoIPool: Flex's tensors in and out of the engine's kernels.

use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rcnn_cpu::roi_align::Roi;
use rcnn_cpu::{Floats, roi_align as kernel, roi_pool};

use super::{arena, channels_last, dims, floats, tensor};
use crate::{RoiAlignOptions, RoiPoolOptions, roi_align};

fn sizes(options: RoiAlignOptions) -> kernel::RoiAlign {
    kernel::RoiAlign {
        output_size: options.output_size,
        spatial_scale: options.spatial_scale,
        sampling_ratio: options.sampling_ratio,
        aligned: options.aligned,
    }
}

fn parse(rois: FlexTensor) -> Vec<Roi> {
    let rois = floats(rois);
    let parse = |roi: &[f32]| Roi {
        image: roi[0] as usize,
        bounds: [roi[1], roi[2], roi[3], roi[4]],
    };
    rois.chunks_exact(5).map(parse).collect()
}

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
    let shape = [rows.len(), channels, height, width];
    let pooled = arena::tensor(Floats::new(shape.iter().product()), shape);
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
    let shape = dims(&features);
    let features = channels_last::from_planes(features);
    let features = channels_last::blocks(&features).expect("just brought there");
    // Moved, so that nothing else holds the storage and it is written in place.
    let mut pooled = match pooled.is_contiguous() {
        true => pooled,
        false => pooled.to_contiguous(),
    };
    let out = pooled.storage_mut();
    kernel::forward(&sizes(options), features, shape, &parse(rois), rows, out);
    pooled
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
    let grad = grad.to_contiguous();
    let grad = grad.storage();
    let sums = kernel::backward(&sizes(options), shape, &parse(rois), rows, grad);
    tensor(sums, shape)
}

/// RoIPool's forward pass: pooled values and the positions of the maxima. Its backward pass is the
/// reference body.
pub(super) fn pool(
    features: FlexTensor,
    rois: FlexTensor,
    options: RoiPoolOptions,
) -> (FlexTensor, FlexTensor) {
    if features.dtype() != DType::F32 {
        return crate::roi_pool::forward::<Flex>(features, rois, options);
    }
    let shape @ [_, channels, _, _] = dims(&features);
    let features = channels_last::to_planes(features);
    let rois = parse(rois);
    let [height, width] = options.output_size;
    let sizes = roi_pool::RoiPool {
        output_size: [height, width],
        spatial_scale: options.spatial_scale,
    };
    let (values, positions) = roi_pool::forward(&sizes, features.storage(), shape, &rois);
    let shape = [rois.len(), channels, height, width];
    let positions = FlexTensor::from_data(TensorData::new(positions, shape));
    (tensor(values, shape), positions)
}
