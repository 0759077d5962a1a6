//! The extension of Burn's [`Backend`] that detectors are generic over.

use burn::tensor::FloatDType;
use burn::tensor::backend::Backend;
use burn::tensor::ops::{ConvOptions, FloatTensor, IntTensor};

use crate::{
    ConvEpilogue, ImageFit, RoiAlignOptions, RoiPoolOptions, box_coder, boxes, channels,
    convolution, image, nms, roi_align, roi_pool, top_k,
};

/// A Burn backend that can run detectors.
///
/// Every method has a default body, composed of Burn operations or computed on the host, so a backend
/// of your own needs nothing but `impl DetectionBackend for MyBackend {}`. Those bodies are also the
/// [`reference`](crate::reference) that hand-written kernels are tested against.
pub trait DetectionBackend: Backend {
    /// An image as a network takes it; see [`fit_image`](crate::fit_image).
    ///
    /// # Shapes
    /// - image: `[3, H, W]`
    /// - output: `[3, padded height, padded width]`
    fn fit_image(image: FloatTensor<Self>, fit: &ImageFit) -> FloatTensor<Self> {
        image::reference::<Self>(image, fit)
    }

    /// Convolution's forward pass; see [`conv2d`](crate::conv2d).
    ///
    /// # Shapes
    /// - x: `[N, C, H, W]`, weight: `[C', C / groups, kernel height, kernel width]`, bias: `[C']`
    /// - output: `[N, C', H', W']`
    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d(x, weight, bias, options)
    }

    /// Convolution and what follows it; see [`fused_conv2d`](crate::fused_conv2d).
    ///
    /// # Shapes
    /// As [`convolution`](Self::convolution); of the epilogue, see [`ConvEpilogue`].
    fn fused_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
        epilogue: ConvEpilogue<Self>,
    ) -> FloatTensor<Self> {
        convolution::fused::<Self>(x, weight, bias, options, epilogue)
    }

    /// As [`convolution`](Self::convolution), for a pass that gradients are wanted of: no less exact
    /// than plain sums. Where errors tip a ReLU, gradients jump.
    fn tracked_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::convolution(x, weight, bias, options)
    }

    /// Convolution's gradient with respect to `x`.
    fn convolution_input_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d_x_backward(x, weight, grad, options)
    }

    /// Convolution's gradient with respect to `weight`.
    fn convolution_weight_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d_weight_backward(x, weight, grad, options)
    }

    /// Convolution's gradient with respect to `bias`.
    fn convolution_bias_grad(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::conv2d_bias_backward(x, bias, grad)
    }

    /// Rows times a matrix, plus a bias; see [`linear`](crate::linear).
    ///
    /// # Shapes
    /// - x: `[K, in features]`, weight: `[in features, out features]`, bias: `[out features]`
    /// - output: `[K, out features]`
    fn fully_connected(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
    ) -> FloatTensor<Self> {
        Self::linear(x, weight, bias)
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
    ) -> FloatTensor<Self> {
        Self::max_pool2d(x, kernel, stride, padding, [1, 1], false)
    }

    /// RoIAlign's forward pass; see [`roi_align`](crate::roi_align()).
    ///
    /// # Shapes
    /// - features: `[N, C, H, W]`, rois: `[K, 5]` (image index, then xyxy)
    /// - output: `[K, C, output height, output width]`
    fn roi_align(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        roi_align::forward::<Self>(features, rois, options)
    }

    /// What [`roi_align_into`](Self::roi_align_into) fills; see
    /// [`roi_align_room`](crate::roi_align_room()).
    fn roi_align_room(
        shape: [usize; 4],
        dtype: FloatDType,
        device: &Self::Device,
    ) -> FloatTensor<Self> {
        Self::float_zeros(shape.into(), device, dtype)
    }

    /// RoIAlign into some rows of a result for boxes on several feature maps; see
    /// [`roi_align_into`](crate::roi_align_into()).
    fn roi_align_into(
        pooled: FloatTensor<Self>,
        rows: &[usize],
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        roi_align::forward_into::<Self>(pooled, rows, features, rois, options)
    }

    /// [`roi_align_backward`](Self::roi_align_backward) where each box has its gradient in one of
    /// `rows` of a larger one.
    fn roi_align_rows_backward(
        features: [usize; 4],
        rois: FloatTensor<Self>,
        rows: &[usize],
        grad: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        roi_align::rows_backward::<Self>(features, rois, rows, grad, options)
    }

    /// RoIAlign's gradient with respect to features of shape `features`.
    ///
    /// # Shapes
    /// - rois: `[K, 5]`, grad: `[K, C, output height, output width]`
    /// - output: `[N, C, H, W]`
    fn roi_align_backward(
        features: [usize; 4],
        rois: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        roi_align::backward::<Self>(features, rois, grad, options)
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
