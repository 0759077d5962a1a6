//! Convolution as an operation of [`DetectionBackend`], so that a backend's own kernels serve
//! inference and training.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, TensorPrimitive};

use crate::DetectionBackend;

/// Applies a convolution module, as its own `forward` does but with the kernels of
/// [`DetectionBackend::convolution`].
///
/// # Shapes
/// - input: `[N, C, H, W]`
/// - output: `[N, C', H', W']`
pub fn conv2d<B: DetectionBackend>(module: &Conv2d<B>, input: Tensor<B, 4>) -> Tensor<B, 4> {
    let padding = match module.padding {
        PaddingConfig2d::Valid => [0, 0],
        PaddingConfig2d::Explicit(top, left, bottom, right) if [top, left] == [bottom, right] => {
            [top, left]
        }
        // Padding on one side more is nobody's in detection.
        _ => return module.forward(input),
    };
    let options = ConvOptions::new(module.stride, padding, module.dilation, module.groups);
    let float = |tensor: Tensor<B, 4>| tensor.into_primitive().tensor();
    let bias = module.bias.as_ref();
    Tensor::from_primitive(TensorPrimitive::Float(B::convolution(
        float(input),
        float(module.weight.val()),
        bias.map(|bias| bias.val().into_primitive().tensor()),
        options,
    )))
}
