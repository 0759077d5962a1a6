//! RoIPool: the maximum over each bin of a box, as Fast R-CNN had it. The reference body.

use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{ElementConversion, IndexingUpdateOp, Int, Tensor};

use crate::channels::{primitive, tensor};
use crate::roi_align::{check_levels, concat, gather_levels};
use crate::{DetectionBackend, RoiLevel};

/// Options of [`roi_pool`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiPoolOptions {
    /// Height and width of the output grid.
    pub output_size: [usize; 2],
    /// Feature pixels per unit of the boxes' coordinates: 1/16 for a stride of 16.
    pub spatial_scale: f32,
}

/// RoIPool (`torchvision.ops.roi_pool`; Girshick 2015, <https://arxiv.org/abs/1504.08083>).
///
/// Gradients flow to the features, not to the boxes.
///
/// # Shapes
/// - features: `[N, C, H, W]`
/// - rois: `[K, 5]`: index of the image in the batch, then xyxy
/// - output: `[K, C, output height, output width]`
pub fn roi_pool<B: DetectionBackend>(
    features: Tensor<B, 4>,
    rois: Tensor<B, 2>,
    options: RoiPoolOptions,
) -> Tensor<B, 4> {
    let (values, _) = B::roi_pool(primitive(features), primitive(rois), options);
    tensor(values)
}

/// [`roi_pool`] of boxes that are pooled from several feature maps into one output, as
/// [`multi_scale_roi_align`](crate::multi_scale_roi_align) does. `sampling_ratio` and `aligned` mean nothing here.
///
/// # Shapes
/// - output: `[K, C, output height, output width]` for K boxes on all levels together
///
/// # Panics
/// As `multi_scale_roi_align`.
pub fn multi_scale_roi_pool<B: DetectionBackend>(levels: Vec<RoiLevel<B>>) -> Tensor<B, 4> {
    check_levels(&levels);
    tensor(gather_levels::<B>(levels, |features, rois, options| {
        let options = RoiPoolOptions {
            output_size: options.output_size,
            spatial_scale: options.spatial_scale,
        };
        B::roi_pool(features, rois, options).0
    }))
}

/// [`DetectionBackend::roi_pool`], composed of Burn's operations.
pub fn forward<B: DetectionBackend>(
    features: FloatTensor<B>,
    rois: FloatTensor<B>,
    options: RoiPoolOptions,
) -> (FloatTensor<B>, IntTensor<B>) {
    let features = tensor::<B, 4>(features);
    let rois = tensor::<B, 2>(rois);
    let [n, c, h, w] = features.dims();
    let [k, _] = rois.dims();
    let [out_h, out_w] = options.output_size;
    let device = features.device();
    let pixels = features.permute([0, 2, 3, 1]).reshape([n * h * w, c]);
    let mut values = vec![Tensor::<B, 4>::zeros([0, c, out_h, out_w], &device)];
    let mut positions = vec![Tensor::<B, 4, Int>::zeros([0, c, out_h, out_w], &device)];
    // One box at a time: how many pixels a bin covers differs from box to box.
    for i in 0..k {
        let roi = rois.clone().narrow(0, i, 1);
        let image = roi.clone().narrow(1, 0, 1).int().reshape([1]) * (h * w) as i64;
        let (y, valid_y) = window(&roi, 1, h, out_h, options.spatial_scale);
        let (x, valid_x) = window(&roi, 0, w, out_w, options.spatial_scale);
        let ([_, rows], [_, columns]) = (y.dims(), x.dims());
        let grid = [out_h, out_w, rows, columns];
        let y = y.reshape([out_h, 1, rows, 1]).expand(grid);
        let x = x.reshape([1, out_w, 1, columns]).expand(grid);
        let position = (y * w as i64 + x).reshape([out_h * out_w * rows * columns]);
        let valid = valid_y.reshape([out_h, 1, rows, 1]).expand(grid)
            * valid_x.reshape([1, out_w, 1, columns]).expand(grid);
        let bins = [out_h * out_w, rows * columns, c];
        let valid = valid.reshape([bins[0], bins[1], 1]).expand(bins);
        let window = pixels
            .clone()
            .select(0, position.clone() + image)
            .reshape(bins);
        let window = window.mask_fill(valid.clone().equal_elem(0), f32::MIN);
        let (value, index) = window.max_dim_with_indices(1);
        let empty = valid.sum_dim(1).equal_elem(0);
        let position = position
            .reshape([bins[0], bins[1], 1])
            .expand(bins)
            .gather(1, index);
        let value = value.mask_fill(empty.clone(), 0.0);
        let position = position.mask_fill(empty, -1);
        values.push(value.reshape([1, out_h, out_w, c]).permute([0, 3, 1, 2]));
        positions.push(position.reshape([1, out_h, out_w, c]).permute([0, 3, 1, 2]));
    }
    let values = primitive(concat(values));
    (values, concat(positions).into_primitive())
}

/// [`DetectionBackend::roi_pool_backward`], composed of Burn's operations.
pub fn backward<B: DetectionBackend>(
    [n, c, h, w]: [usize; 4],
    rois: FloatTensor<B>,
    positions: IntTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let rois = tensor::<B, 2>(rois);
    let positions = Tensor::<B, 4, Int>::from_primitive(positions);
    let grad = tensor::<B, 4>(grad);
    let shape @ [k, ..] = grad.dims();
    let device = grad.device();
    if k == 0 {
        return primitive(Tensor::<B, 4>::zeros([n, c, h, w], &device));
    }
    let empty = positions.clone().lower_elem(0);
    let grad = grad.mask_fill(empty, 0.0);
    let image = rois.narrow(1, 0, 1).int().reshape([k, 1, 1, 1]) * (c * h * w) as i64;
    let channel = Tensor::<B, 1, Int>::arange(0..c as i64, &device) * (h * w) as i64;
    let base = image.expand(shape) + channel.reshape([1, c, 1, 1]).expand(shape);
    let index = (positions.clamp_min(0) + base).reshape([-1]);
    let pixels = Tensor::<B, 1>::zeros([n * c * h * w], &device);
    let pixels = pixels.select_assign(0, index, grad.reshape([-1]), IndexingUpdateOp::Add);
    primitive(pixels.reshape([n, c, h, w]))
}

/// The positions along one axis (0 is x, 1 is y) of `length` pixels that each bin of a box covers,
/// and 1 where a position counts, 0 where the bin has ended; both `[bins, longest bin]`.
fn window<B: DetectionBackend>(
    roi: &Tensor<B, 2>,
    axis: usize,
    length: usize,
    bins: usize,
    spatial_scale: f32,
) -> (Tensor<B, 2, Int>, Tensor<B, 2, Int>) {
    let device = roi.device();
    // C's round: half away from zero, where Burn rounds half to even.
    let edge = |i: usize| {
        let scaled = roi.clone().narrow(1, 1 + axis + i, 1) * spatial_scale;
        scaled.clone().sign() * (scaled.abs() + 0.5).floor()
    };
    let start = edge(0);
    let bin = (edge(2) - start.clone() + 1.0).clamp_min(1.0) / bins as f32;
    let index = Tensor::<B, 1, Int>::arange(0..bins as i64, &device)
        .float()
        .reshape([bins, 1]);
    let length = length as f32;
    let low = (index.clone() * bin.clone()).floor() + start.clone();
    let high = ((index + 1.0) * bin).ceil() + start;
    let low = low.clamp(0.0, length);
    let high = high.clamp(0.0, length);
    let longest = (high.clone() - low.clone())
        .max()
        .into_scalar()
        .elem::<f32>();
    let steps = longest.max(1.0) as usize;
    let step = Tensor::<B, 1, Int>::arange(0..steps as i64, &device)
        .float()
        .reshape([1, steps]);
    let position = low + step;
    let valid = position.clone().lower(high.expand([bins, steps])).int();
    (position.clamp(0.0, length - 1.0).int(), valid)
}
