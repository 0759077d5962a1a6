//! The two ends of squeeze and excitation: the mean of each channel, and each channel multiplied by a number.

use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;

use crate::DetectionBackend;
use crate::channels::{primitive, tensor};

/// The mean of each channel over the whole map.
///
/// # Shapes
/// - x: `[N, C, H, W]`
/// - output: `[N, C, 1, 1]`
pub fn global_average_pool<B: DetectionBackend>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    tensor(B::global_average_pool(primitive(x)))
}

/// Each channel of each image multiplied by a number.
///
/// # Shapes
/// - x: `[N, C, H, W]`, gate: `[N, C, 1, 1]`
/// - output: `[N, C, H, W]`
pub fn channel_gate<B: DetectionBackend>(x: Tensor<B, 4>, gate: Tensor<B, 4>) -> Tensor<B, 4> {
    tensor(B::channel_gate(primitive(x), primitive(gate)))
}

pub(crate) fn means<B: DetectionBackend>(x: FloatTensor<B>) -> FloatTensor<B> {
    primitive(tensor::<B, 4>(x).mean_dim(3).mean_dim(2))
}

pub(crate) fn multiply<B: DetectionBackend>(
    x: FloatTensor<B>,
    gate: FloatTensor<B>,
) -> FloatTensor<B> {
    primitive(tensor::<B, 4>(x) * tensor::<B, 4>(gate))
}
