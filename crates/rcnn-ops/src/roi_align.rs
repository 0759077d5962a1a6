//! RoIAlign: crops of a feature map at fractional boxes, resampled to a fixed grid.
//!
//! The reference body. Sampling is separable: a bin's value is a weighted sum over the rows that
//! its samples touch times the columns that they touch. [`taps`] finds those rows (or columns) and
//! their weights for one axis; the forward pass gathers, the backward pass scatters.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{BasicOps, ElementConversion, IndexingUpdateOp, Int, Tensor};

use crate::DetectionBackend;
use crate::channels::{primitive, tensor};

/// Options of RoIAlign, in torchvision's terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiAlignOptions {
    /// Height and width of the output grid.
    pub output_size: [usize; 2],
    /// Feature pixels per unit of the boxes' coordinates: 1/16 for a stride of 16.
    pub spatial_scale: f32,
    /// Samples per bin and axis; 0 takes `ceil(box side / output side)`, box by box.
    pub sampling_ratio: usize,
    /// Whether boxes are shifted by half a feature pixel, so that they line up with pixel centres.
    pub aligned: bool,
}

/// Boxes to pool from one feature map, and where they go.
#[derive(Debug, Clone)]
pub struct RoiLevel<B: Backend> {
    /// Feature map of every image, `[N, C, H, W]`.
    pub features: Tensor<B, 4>,
    /// Boxes, `[K, 5]`: index of the image in the batch, then xyxy.
    pub rois: Tensor<B, 2>,
    /// Each box's row of the output.
    pub rows: Vec<usize>,
    /// Options of the pooling.
    pub options: RoiAlignOptions,
}

impl<B: Backend> RoiLevel<B> {
    /// The only level: each box goes to the row that it has.
    pub(crate) fn only(
        features: Tensor<B, 4>,
        rois: Tensor<B, 2>,
        options: RoiAlignOptions,
    ) -> Self {
        Self {
            rows: (0..rois.dims()[0]).collect(),
            features,
            rois,
            options,
        }
    }
}

/// RoIAlign (`torchvision.ops.roi_align`; He et al. 2017, <https://arxiv.org/abs/1703.06870>).
///
/// Gradients flow to the features, not to the boxes.
///
/// # Shapes
/// - features: `[N, C, H, W]`
/// - rois: `[K, 5]`: index of the image in the batch, then xyxy
/// - output: `[K, C, output height, output width]`
///
/// ```
/// # mod rcnn_burn { pub use burn::tensor::Tensor; pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::ops::{RoiAlignOptions, roi_align};
/// use rcnn_burn::{Flex, Tensor};
///
/// let device = Default::default();
/// let features = Tensor::<Flex, 4>::ones([1, 8, 32, 32], &device);
/// let rois = Tensor::from_floats([[0.0, 16.0, 16.0, 240.0, 128.0]], &device);
/// let options = RoiAlignOptions {
///     output_size: [7, 7],
///     spatial_scale: 1.0 / 8.0,
///     sampling_ratio: 2,
///     aligned: false,
/// };
/// assert_eq!(roi_align(features, rois, options).dims(), [1, 8, 7, 7]);
/// ```
pub fn roi_align<B: DetectionBackend>(
    features: Tensor<B, 4>,
    rois: Tensor<B, 2>,
    options: RoiAlignOptions,
) -> Tensor<B, 4> {
    tensor(B::roi_align(vec![RoiLevel::only(features, rois, options)]))
}

/// [`roi_align`] of boxes that are pooled from several feature maps into one output, as from the levels
/// of a feature pyramid.
///
/// # Shapes
/// - output: `[K, C, output height, output width]` for K boxes on all levels together
///
/// # Panics
/// If there is no level, if levels differ in their channels or output sizes, or if their rows together
/// are not 0 to K - 1, each once.
pub fn multi_scale_roi_align<B: DetectionBackend>(levels: Vec<RoiLevel<B>>) -> Tensor<B, 4> {
    check_levels(&levels);
    tensor(B::roi_align(levels))
}

/// Panics where levels have no output in common.
pub(crate) fn check_levels<B: DetectionBackend>(levels: &[RoiLevel<B>]) {
    let size = |level: &RoiLevel<B>| (level.features.dims()[1], level.options.output_size);
    let sizes: Vec<_> = levels.iter().map(size).collect();
    assert!(
        !sizes.is_empty() && sizes.iter().all(|size| *size == sizes[0]),
        "channels and output sizes of the levels to pool from: {sizes:?}, expected one or more and equal"
    );
    for level in levels {
        let [boxes, _] = level.rois.dims();
        assert_eq!(boxes, level.rows.len(), "boxes and rows of a level");
    }
    let mut rows: Vec<usize> = levels.iter().flat_map(|level| level.rows.clone()).collect();
    rows.sort_unstable();
    assert!(
        rows.iter().copied().eq(0..rows.len()),
        "rows of the boxes: {rows:?}, expected each from 0 on once"
    );
}

/// Pooling from several levels by a function that pools from one.
pub(crate) fn gather_levels<B: DetectionBackend>(
    levels: Vec<RoiLevel<B>>,
    forward: impl Fn(FloatTensor<B>, FloatTensor<B>, RoiAlignOptions) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let device = levels[0].features.device();
    let rows: Vec<usize> = levels.iter().flat_map(|level| level.rows.clone()).collect();
    let pooled = levels.into_iter().map(|level| {
        let (features, rois) = (primitive(level.features), primitive(level.rois));
        tensor::<B, 4>(forward(features, rois, level.options))
    });
    let pooled = concat(pooled.collect());
    if rows.is_sorted() {
        return primitive(pooled);
    }
    let mut boxes = vec![0; rows.len()];
    for (roi, &row) in rows.iter().enumerate() {
        boxes[row] = roi;
    }
    primitive(pooled.select(0, indices(&boxes, &device)))
}

/// These rows of `[K, C, H, W]`.
pub(crate) fn select_rows<B: DetectionBackend>(
    values: FloatTensor<B>,
    rows: &[usize],
) -> FloatTensor<B> {
    let values = tensor::<B, 4>(values);
    if rows.iter().copied().eq(0..values.dims()[0]) {
        return primitive(values);
    }
    let device = values.device();
    primitive(values.select(0, indices(rows, &device)))
}

fn indices<B: DetectionBackend>(rows: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    Tensor::from_ints(rows.as_slice(), device)
}

/// Rows of gathered features held at once, in elements: bounds the reference's memory.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// [`DetectionBackend::roi_align`], composed of Burn's operations.
pub fn forward<B: DetectionBackend>(
    features: FloatTensor<B>,
    rois: FloatTensor<B>,
    options: RoiAlignOptions,
) -> FloatTensor<B> {
    let features = tensor::<B, 4>(features);
    let rois = tensor::<B, 2>(rois);
    // Features may be in half precision; positions are as exact as the boxes.
    let dtype = features.dtype();
    let features = features.cast(rois.dtype());
    let shape @ [n, c, h, w] = features.dims();
    let [out_h, out_w] = options.output_size;
    let pixels = features.permute([0, 2, 3, 1]).reshape([n * h * w, c]);
    let none = Tensor::<B, 4>::zeros([0, c, out_h, out_w], &pixels.device());
    let mut pooled = vec![none.cast(pixels.dtype())];
    for rois in chunks(rois, shape, options) {
        let (index, weight) = taps_2d(rois, shape, options);
        let [bins, taps_y, _, taps_x] = weight.dims();
        let values = pixels
            .clone()
            .select(0, index)
            .reshape([bins, taps_y, out_w, taps_x * c]);
        let weight = weight
            .unsqueeze_dim::<5>(4)
            .expand([bins, taps_y, out_w, taps_x, c]);
        let values = values * weight.reshape([bins, taps_y, out_w, taps_x * c]);
        let rows: Tensor<B, 4> = values.sum_dim(1);
        let columns: Tensor<B, 3> = rows.reshape([bins * out_w, taps_x, c]).sum_dim(1);
        let k = bins / out_h;
        pooled.push(columns.reshape([k, out_h, out_w, c]).permute([0, 3, 1, 2]));
    }
    primitive(concat(pooled).cast(dtype))
}

/// [`DetectionBackend::roi_align_backward`], composed of Burn's operations.
pub fn backward<B: DetectionBackend>(
    shape: [usize; 4],
    rois: FloatTensor<B>,
    grad: FloatTensor<B>,
    options: RoiAlignOptions,
) -> FloatTensor<B> {
    let rois = tensor::<B, 2>(rois);
    let grad = tensor::<B, 4>(grad);
    let dtype = grad.dtype();
    let grad = grad.cast(rois.dtype());
    let [n, c, h, w] = shape;
    let [out_h, out_w] = options.output_size;
    let mut pixels = Tensor::<B, 2>::zeros([n * h * w, c], &grad.device());
    let mut start = 0;
    for rois in chunks(rois, shape, options) {
        let [k, _] = rois.dims();
        let (index, weight) = taps_2d(rois, shape, options);
        let [bins, taps_y, _, taps_x] = weight.dims();
        let grad = grad.clone().narrow(0, start, k).permute([0, 2, 3, 1]);
        let grad = grad
            .reshape([k * out_h, 1, out_w, 1, c])
            .expand([bins, taps_y, out_w, taps_x, c]);
        let scattered = grad * weight.unsqueeze_dim(4);
        let scattered = scattered.reshape([bins * taps_y * out_w * taps_x, c]);
        pixels = pixels.select_assign(0, index, scattered, IndexingUpdateOp::Add);
        start += k;
    }
    let grad = pixels.reshape([n, h, w, c]).permute([0, 3, 1, 2]);
    primitive(grad.cast(dtype))
}

/// Concatenates along the first axis, leaving out empty parts unless there are no others.
pub(crate) fn concat<B: DetectionBackend, K: BasicOps<B>>(
    mut parts: Vec<Tensor<B, 4, K>>,
) -> Tensor<B, 4, K> {
    let is_empty = |part: &Tensor<B, 4, K>| part.dims()[0] == 0;
    if parts.iter().all(is_empty) {
        parts.truncate(1);
    } else {
        parts.retain(|part| !is_empty(part));
    }
    Tensor::cat(parts, 0)
}

fn chunks<B: DetectionBackend>(
    rois: Tensor<B, 2>,
    [_, c, _, _]: [usize; 4],
    options: RoiAlignOptions,
) -> Vec<Tensor<B, 2>> {
    let [k, _] = rois.dims();
    let [out_h, out_w] = options.output_size;
    let samples = options.sampling_ratio.max(4);
    let per_roi = out_h * out_w * 4 * samples * samples * c;
    let size = (CHUNK_ELEMENTS / per_roi.max(1)).max(1);
    (0..k)
        .step_by(size)
        .map(|start| rois.clone().narrow(0, start, size.min(k - start)))
        .collect()
}

/// The pixels that each bin reads, as row indices into `[N * H * W, C]`, flattened, and their
/// weights `[K * output height, taps y, output width, taps x]`, which the indices follow in order.
fn taps_2d<B: DetectionBackend>(
    rois: Tensor<B, 2>,
    [_, _, h, w]: [usize; 4],
    options: RoiAlignOptions,
) -> (Tensor<B, 1, Int>, Tensor<B, 4>) {
    let [k, _] = rois.dims();
    let [out_h, out_w] = options.output_size;
    let image = rois.clone().narrow(1, 0, 1).int().reshape([k, 1, 1]) * (h * w) as i64;
    let (y, weight_y) = taps(&rois, 1, h, out_h, options);
    let (x, weight_x) = taps(&rois, 0, w, out_w, options);
    let ([_, _, taps_y], [_, _, taps_x]) = (y.dims(), x.dims());
    let rows = (y * w as i64 + image).reshape([k, out_h * taps_y, 1]);
    let index = rows.expand([k, out_h * taps_y, out_w * taps_x])
        + x.reshape([k, 1, out_w * taps_x])
            .expand([k, out_h * taps_y, out_w * taps_x]);
    let weight =
        weight_y.reshape([k, out_h * taps_y, 1]) * weight_x.reshape([k, 1, out_w * taps_x]);
    (
        index.reshape([k * out_h * taps_y * out_w * taps_x]),
        weight.reshape([k * out_h, taps_y, out_w, taps_x]),
    )
}

/// The positions along one axis (0 is x, 1 is y) of `length` pixels that each bin reads, and their
/// weights; both `[K, bins, 2 * samples]`.
fn taps<B: DetectionBackend>(
    rois: &Tensor<B, 2>,
    axis: usize,
    length: usize,
    bins: usize,
    options: RoiAlignOptions,
) -> (Tensor<B, 3, Int>, Tensor<B, 3>) {
    let [k, _] = rois.dims();
    let device = rois.device();
    let offset = if options.aligned { 0.5 } else { 0.0 };
    let edge = |i: usize| {
        let column = rois.clone().narrow(1, 1 + axis + i, 1) * options.spatial_scale - offset;
        column.reshape([k, 1, 1])
    };
    let start = edge(0);
    let mut size = edge(2) - start.clone();
    if !options.aligned {
        // torchvision's legacy mode: a box is at least one pixel.
        size = size.clamp_min(1.0);
    }
    let bin = size / bins as f32;
    let (samples, count) = match options.sampling_ratio {
        0 => {
            let count = bin.clone().ceil();
            let most = count.clone().max().into_scalar();
            (most.elem::<f32>().max(1.0) as usize, count)
        }
        ratio => (ratio, Tensor::full([k, 1, 1], ratio as f32, &device)),
    };

    let steps = |n: usize| Tensor::<B, 1, Int>::arange(0..n as i64, &device).float();
    let bin_index = steps(bins).reshape([1, bins, 1]);
    let sample_index = steps(samples).reshape([1, 1, samples]);
    let within = (sample_index.clone() + 0.5) * (bin.clone() / count.clone().clamp_min(1.0));
    let position = start + bin_index * bin + within;

    let last = (length - 1) as f32;
    let inside = position.clone().greater_equal_elem(-1.0).int()
        * position.clone().lower_equal_elem(length as f32).int()
        * sample_index
            .lower(count.clone())
            .int()
            .expand([k, bins, samples]);
    let weight = inside.float() / count.clamp_min(1.0);
    let position = position.clamp(0.0, last);
    let low = position.clone().floor();
    let fraction = position - low.clone();
    let high = (low.clone() + 1.0).clamp_max(last);
    (
        Tensor::cat(vec![low.int(), high.int()], 2),
        Tensor::cat(
            vec![
                weight.clone() * (fraction.clone() * -1.0 + 1.0),
                weight * fraction,
            ],
            2,
        ),
    )
}
