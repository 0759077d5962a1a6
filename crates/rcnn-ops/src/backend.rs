//! The extension of Burn's [`Backend`] that detectors are generic over.

use burn::tensor::backend::Backend;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, FloatTensor, IntTensor};

use crate::{
    Activation, ConvEpilogue, ConvPrecision, Crops, ImageFit, LayerPlan, RoiAlignOptions, RoiLevel,
    RoiPoolOptions, box_coder, boxes, channels, conv_transpose2d, convolution, crop, gate, image,
    nms, roi_align, roi_pool, same, top_k,
};

/// A Burn backend that can run detectors.
///
/// Every method has a default body, composed of Burn operations or computed on the host, so a backend
/// of your own needs nothing but `impl DetectionBackend for MyBackend {}`. Those bodies are also the
/// [`reference`](crate::reference) that hand-written kernels are tested against.
pub trait DetectionBackend: Backend {
    /// Number of batches of this many pixels that are best computed at the same time, each on its own thread.
    /// Memory grows with it. It is 1 where a single batch keeps the device busy.
    fn concurrent_batches(_pixels: usize) -> usize {
        1
    }

    /// An image as a network takes it; see [`fit_image`](crate::fit_image).
    ///
    /// # Shapes
    /// - image: `[3, H, W]`
    /// - output: `[3, padded height, padded width]`
    fn fit_image(image: FloatTensor<Self>, fit: &ImageFit) -> FloatTensor<Self> {
        image::reference::<Self>(image, fit)
    }

    /// Convolution and what follows it; the forward pass of [`Conv2d`](crate::Conv2d).
    ///
    /// `plan` is the layer's place for what is prepared of its weight. Without one, the weight is taken
    /// to be about to change, so that to prepare it pays less.
    ///
    /// # Shapes
    /// - x: `[N, C, H, W]`, weight: `[C', C / groups, kernel height, kernel width]`, bias: `[C']`
    /// - output: `[N, C', H', W']`; of the epilogue, see [`ConvEpilogue`]
    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
        epilogue: ConvEpilogue<Self>,
        _precision: ConvPrecision,
        _plan: Option<&LayerPlan>,
    ) -> FloatTensor<Self> {
        convolution::forward::<Self>(x, weight, bias, options, epilogue)
    }

    /// A convolution's gradients with respect to input, weight and bias, given that of its output: those
    /// that are wanted.
    fn convolution_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        convolution::backward::<Self>(x, weight, grad, options, wanted)
    }

    /// Transposed convolution and an activation; see [`conv_transpose2d`](crate::conv_transpose2d()).
    ///
    /// # Shapes
    /// - x: `[N, C, H, W]`, weight: `[C, C' / groups, kernel height, kernel width]`, bias: `[C']`
    /// - output: `[N, C', H', W']`
    fn transposed_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvTransposeOptions<2>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        conv_transpose2d::forward::<Self>(x, weight, bias, options, activation)
    }

    /// Rows times a matrix, plus a bias; the forward pass of [`Linear`](crate::Linear).
    ///
    /// `plan` is the layer's place for what is prepared of its weight.
    ///
    /// # Shapes
    /// - x: `[K, in features]`, weight: `[in features, out features]`, bias: `[out features]`
    /// - output: `[K, out features]`
    fn fully_connected(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        _plan: Option<&LayerPlan>,
    ) -> FloatTensor<Self> {
        Self::linear(x, weight, bias)
    }

    /// A map at another size, each pixel taken from the nearest: a pyramid's upsampling.
    ///
    /// # Shapes
    /// - x: `[N, C, H, W]`; size: height and width
    /// - output: `[N, C, height, width]`
    fn interpolate_nearest(x: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self> {
        convolution::interpolate::<Self>(x, size)
    }

    /// The gradient of [`interpolate_nearest`](Self::interpolate_nearest) with respect to its input.
    ///
    /// # Shapes
    /// - x: `[N, C, H, W]`, of which only the shape matters, grad: `[N, C, height, width]`
    /// - output: `[N, C, H, W]`
    fn interpolate_nearest_backward(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        convolution::nearest_backward::<Self>(x, grad)
    }

    /// A scale and a shift for each channel; see [`channel_affine`](crate::channel_affine).
    fn channel_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        channels::affine::<Self>(x, scale, shift)
    }

    /// Mean and variance of each channel, `[2, C]`; see
    /// [`channel_moments`](crate::channel_moments).
    fn channel_moments(x: FloatTensor<Self>) -> FloatTensor<Self> {
        channels::moments::<Self>(x)
    }

    /// Sums over each channel of `a` and of `a * b`, both `[N, C, H, W]`, as `[2, C]`: the gradients
    /// of a shift and a scale. Not differentiable itself.
    fn channel_sums(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        channels::sums::<Self>(a, b)
    }

    /// The mean of each channel; see [`global_average_pool`](crate::global_average_pool).
    ///
    /// # Shapes
    /// - x: `[N, C, H, W]`
    /// - output: `[N, C, 1, 1]`
    fn global_average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gate::means::<Self>(x)
    }

    /// Each channel multiplied by a number; see [`channel_gate`](crate::channel_gate).
    ///
    /// # Shapes
    /// - x: `[N, C, H, W]`, gate: `[N, C, 1, 1]`
    /// - output: `[N, C, H, W]`
    fn channel_gate(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        gate::multiply::<Self>(x, gate)
    }

    /// The largest value of each window; see [`max_pool2d`](crate::max_pool2d).
    ///
    /// # Shapes
    /// - x: `[N, C, H, W]`; sizes are vertical, then horizontal
    /// - output: `[N, C, H', W']`
    fn max_pool(
        x: FloatTensor<Self>,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        ceil_mode: bool,
    ) -> FloatTensor<Self> {
        Self::max_pool2d(x, kernel, stride, padding, [1, 1], ceil_mode)
    }

    /// The input of a convolution with zeros where TensorFlow's `SAME` padding has them at one end, and how many the
    /// convolution is still to add at both.
    ///
    /// # Shapes
    /// - x: `[N, C, H, W]`; kernel, the dilation in it, stride and padding are vertical, then horizontal
    fn pad_same(
        x: FloatTensor<Self>,
        kernel: [usize; 2],
        stride: [usize; 2],
    ) -> (FloatTensor<Self>, [usize; 2]) {
        same::pad::<Self>(x, kernel, stride)
    }

    /// The largest value of each window, with TensorFlow's `SAME` padding; see
    /// [`max_pool_same`](crate::max_pool_same).
    ///
    /// # Shapes
    /// - x: `[N, C, H, W]`
    /// - output: `[N, C, ceil(H / stride), ceil(W / stride)]`
    fn max_pool_same(x: FloatTensor<Self>, kernel: usize, stride: usize) -> FloatTensor<Self> {
        same::max_pool::<Self>(x, kernel, stride)
    }

    /// The mean of each 3x3 window, with a stride of 1; see [`average_pool3x3`](crate::average_pool3x3).
    ///
    /// # Shapes
    /// - x, output: `[N, C, H, W]`
    fn average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        same::average::<Self>(x)
    }

    /// The channels of several maps, one after another; see [`concat_channels`](crate::concat_channels).
    ///
    /// # Shapes
    /// - maps: each `[N, C, H, W]`, of any C
    /// - output: `[N, sum of C, H, W]`
    fn concat_channels(maps: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        channels::concat::<Self>(maps)
    }

    /// RoIAlign's forward pass; see [`multi_scale_roi_align`](crate::multi_scale_roi_align()).
    ///
    /// # Shapes
    /// - output: `[K, C, output height, output width]` for K boxes on all levels together
    fn roi_align(levels: Vec<RoiLevel<Self>>) -> FloatTensor<Self> {
        roi_align::gather_levels(levels, roi_align::forward::<Self>)
    }

    /// RoIAlign's gradient with respect to a level's features, which have the shape `features`.
    ///
    /// # Shapes
    /// - rois: `[K', 5]`, of which box `k` has row `rows[k]` of grad:
    ///   `[K, C, output height, output width]`
    /// - output: `[N, C, H, W]`
    fn roi_align_backward(
        features: [usize; 4],
        rois: FloatTensor<Self>,
        rows: &[usize],
        grad: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        let grad = roi_align::select_rows::<Self>(grad, rows);
        roi_align::backward::<Self>(features, rois, grad, options)
    }

    /// TensorFlow's `crop_and_resize` with a max-pool of its samples; see
    /// [`crop_and_max_pool`](crate::crop_and_max_pool).
    ///
    /// # Shapes
    /// - map: `[N, C, H, W]`
    /// - output: `[K, C, bins vertical, bins horizontal]`
    fn crop_and_max_pool(map: FloatTensor<Self>, crops: &Crops) -> FloatTensor<Self> {
        crop::reference::<Self>(map, crops)
    }

    /// RoIPool's forward pass with the position of each maximum; see [`roi_pool`](crate::roi_pool()).
    ///
    /// # Shapes
    /// - features: `[N, C, H, W]`, rois: `[K, 5]` (image index, then xyxy)
    /// - outputs: values and positions `y * W + x` (-1 for an empty bin),
    ///   both `[K, C, output height, output width]`
    fn roi_pool(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiPoolOptions,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        roi_pool::forward::<Self>(features, rois, options)
    }

    /// RoIPool's gradient with respect to features of shape `features`, given the positions of the
    /// maxima from [`DetectionBackend::roi_pool`].
    ///
    /// # Shapes
    /// - rois: `[K, 5]`, positions and grad: `[K, C, output height, output width]`
    /// - output: `[N, C, H, W]`
    fn roi_pool_backward(
        features: [usize; 4],
        rois: FloatTensor<Self>,
        positions: IntTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        roi_pool::backward::<Self>(features, rois, positions, grad)
    }

    /// The highest values of each row; see [`top_k`](crate::top_k()).
    ///
    /// # Shapes
    /// - values: `[R, N]`
    /// - outputs: values and their positions, `[R, k]`
    fn top_k(values: FloatTensor<Self>, k: usize) -> (FloatTensor<Self>, IntTensor<Self>) {
        top_k::reference::<Self>(values, k)
    }

    /// Boxes that deltas make of reference boxes, clipped to the images; see
    /// [`BoxCoder::decode_clipped`](crate::BoxCoder::decode_clipped).
    ///
    /// # Shapes
    /// - deltas: `[N, 4 * C]`, references: `[N, 4]`, sizes: `[N, 2]` (height, width)
    /// - output: `[N, C, 4]`
    fn decode_boxes(
        deltas: FloatTensor<Self>,
        references: FloatTensor<Self>,
        sizes: FloatTensor<Self>,
        weights: [f32; 4],
    ) -> FloatTensor<Self> {
        box_coder::reference::<Self>(deltas, references, sizes, weights)
    }

    /// IoU of every box with every other; see [`box_iou_matrix`](crate::box_iou_matrix).
    ///
    /// # Shapes
    /// - a: `[M, 4]`, b: `[N, 4]`
    /// - output: `[M, N]`
    fn box_iou(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        boxes::iou_reference::<Self>(a, b)
    }

    /// Non-maximum suppression within each group; see [`grouped_nms`](crate::grouped_nms).
    ///
    /// # Shapes
    /// - boxes: `[G, K, 4]`, scores: `[G, K]`
    /// - output: `[G, K]`, 1 where a box is kept, else 0
    fn nms(
        boxes: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        iou_threshold: f64,
    ) -> IntTensor<Self> {
        nms::reference::<Self>(boxes, scores, iou_threshold)
    }
}
