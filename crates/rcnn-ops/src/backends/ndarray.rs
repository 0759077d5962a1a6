//! NdArray runs the reference bodies.
//!
//! For its usual elements alone, and by methods that only repeat the default ones: so they are compiled
//! here, once and optimised, and not wherever they are called.

use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, FloatTensor, ModuleOps};
use burn_ndarray::NdArray;

use crate::{
    Activation, ConvEpilogue, ConvPrecision, DetectionBackend, ImageFit, LayerPlan,
    RoiAlignOptions, RoiLevel, channels, conv_transpose2d, convolution, image, roi_align,
};

impl DetectionBackend for NdArray {
    fn fit_image(image: FloatTensor<Self>, fit: &ImageFit) -> FloatTensor<Self> {
        image::reference::<Self>(image, fit)
    }

    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
        epilogue: ConvEpilogue<Self>,
        _: ConvPrecision,
        _: Option<&LayerPlan>,
    ) -> FloatTensor<Self> {
        convolution::forward::<Self>(x, weight, bias, options, epilogue)
    }

    fn convolution_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        convolution::backward::<Self>(x, weight, grad, options, wanted)
    }

    fn transposed_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvTransposeOptions<2>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        conv_transpose2d::forward::<Self>(x, weight, bias, options, activation)
    }

    fn fully_connected(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        _: Option<&LayerPlan>,
    ) -> FloatTensor<Self> {
        Self::linear(x, weight, bias)
    }

    fn interpolate_nearest_backward(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        convolution::interpolate_backward::<Self>(x, grad)
    }

    fn channel_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        channels::affine::<Self>(x, scale, shift)
    }

    fn channel_moments(x: FloatTensor<Self>) -> FloatTensor<Self> {
        channels::moments::<Self>(x)
    }

    fn channel_sums(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        channels::sums::<Self>(a, b)
    }

    fn max_pool(
        x: FloatTensor<Self>,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        ceil_mode: bool,
    ) -> FloatTensor<Self> {
        Self::max_pool2d(x, kernel, stride, padding, [1, 1], ceil_mode)
    }

    fn roi_align(levels: Vec<RoiLevel<Self>>) -> FloatTensor<Self> {
        roi_align::gather_levels(levels, roi_align::forward::<Self>)
    }

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
}
