//! Max-pool and nearest-neighbour upsampling as operations of [`DetectionBackend`].

use burn::nn::pool::MaxPool2d;
use burn::tensor::Tensor;
use burn::tensor::ops::{FloatTensor, InterpolateMode, InterpolateOptions};

use crate::DetectionBackend;
use crate::channels::{primitive, tensor};
use crate::convolution::symmetric;

/// Applies a max-pool module, as its own `forward` does but with the kernel of
/// [`DetectionBackend::max_pool`].
///
/// # Shapes
/// - input: `[N, C, H, W]`
/// - output: `[N, C, H', W']`
pub fn max_pool2d<B: DetectionBackend>(module: &MaxPool2d, input: Tensor<B, 4>) -> Tensor<B, 4> {
    match symmetric(&module.padding) {
        Some(padding) if module.dilation == [1, 1] && !module.ceil_mode => {
            let (kernel, stride) = (module.kernel_size, module.stride);
            tensor(B::max_pool(primitive(input), kernel, stride, padding))
        }
        _ => module.forward(input),
    }
}

/// Brings maps to another size, each pixel taken from the nearest
/// ([`DetectionBackend::upsample_nearest`]).
///
/// # Shapes
/// - input: `[N, C, H, W]`, size: H' and W'
/// - output: `[N, C, H', W']`
pub fn upsample_nearest<B: DetectionBackend>(
    input: Tensor<B, 4>,
    size: [usize; 2],
) -> Tensor<B, 4> {
    tensor(B::upsample_nearest(primitive(input), size))
}

pub(crate) fn nearest<B: DetectionBackend>(x: FloatTensor<B>, size: [usize; 2]) -> FloatTensor<B> {
    B::interpolate(x, size, InterpolateOptions::new(InterpolateMode::Nearest))
}
