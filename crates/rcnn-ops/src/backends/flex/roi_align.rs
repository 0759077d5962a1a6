//! RoIAlign, RoIPool and TensorFlow's crops: Flex's tensors in and out of the engine's kernels.

use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rcnn_cpu::roi_align::Roi;
use rcnn_cpu::{Floats, crop, roi_align as kernel, roi_pool};

use super::{arena, channels_last, dims, floats, tensor};
use crate::channels::primitive;
use crate::{Crops, RoiAlignOptions, RoiLevel, RoiPoolOptions, roi_align};

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

pub(super) fn forward(levels: Vec<RoiLevel<Flex>>) -> FlexTensor {
    let is_other = |level: &RoiLevel<Flex>| level.features.dtype() != DType::F32;
    if levels.iter().any(is_other) {
        return roi_align::gather_levels(levels, roi_align::forward::<Flex>);
    }
    let [_, channels, _, _] = levels[0].features.dims();
    let [height, width] = levels[0].options.output_size;
    let boxes = levels.iter().map(|level| level.rows.len()).sum();
    let shape = [boxes, channels, height, width];
    let mut pooled = Floats::new(shape.iter().product());
    for level in levels {
        let features = channels_last::from_planes(primitive(level.features));
        let shape = dims(&features);
        let features = channels_last::blocks(&features).expect("just brought there");
        let (sizes, rois) = (sizes(level.options), parse(primitive(level.rois)));
        kernel::forward(&sizes, features, shape, &rois, &level.rows, &mut pooled);
    }
    arena::tensor(pooled, shape)
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
        let grad = roi_align::select_rows::<Flex>(grad, rows);
        return roi_align::backward::<Flex>(shape, rois, grad, options);
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

/// Cut boxes, with their channels last as the convolutions after them take them.
pub(super) fn crop(map: FlexTensor, crops: &Crops) -> FlexTensor {
    if map.dtype() != DType::F32 {
        return crate::crop::reference::<Flex>(map, crops);
    }
    let map = channels_last::from_planes(map);
    let shape @ [_, channels, _, _] = dims(&map);
    let features = channels_last::blocks(&map).expect("just brought there");
    let boxes = crops.images.iter().zip(&crops.samples);
    let boxes = boxes.map(|(&image, [rows, columns])| crop::Crop {
        image,
        rows: rows.positions().collect(),
        columns: columns.positions().collect(),
    });
    let boxes: Vec<_> = boxes.collect();
    let [height, width] = crops.bins;
    let pooled = [boxes.len(), channels, height, width];
    let mut values = Floats::new(rcnn_cpu::channels_last::len(pooled));
    crop::forward(features, shape, &boxes, crops.per_bin, values.blocks_mut());
    channels_last::tensor(values, pooled)
}
