//! Parts of batch norms: a scale and a shift for each channel, and each channel's mean and variance.
//! Composed operations would walk over the feature maps many times.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};

use crate::DetectionBackend;

/// `x * scale + shift`, with one scale and one shift for each channel.
///
/// # Shapes
/// - x: `[N, C, H, W]`, scale and shift: `[C]`
/// - output: `[N, C, H, W]`
pub fn channel_affine<B: DetectionBackend>(
    x: Tensor<B, 4>,
    scale: Tensor<B, 1>,
    shift: Tensor<B, 1>,
) -> Tensor<B, 4> {
    let [x, scale, shift] = [primitive(x), primitive(scale), primitive(shift)];
    tensor(B::channel_affine(x, scale, shift))
}

/// Mean and (biased) variance of each channel.
///
/// # Shapes
/// - x: `[N, C, H, W]`
/// - outputs: `[C]`
pub fn channel_moments<B: DetectionBackend>(x: Tensor<B, 4>) -> (Tensor<B, 1>, Tensor<B, 1>) {
    rows(tensor(B::channel_moments(primitive(x))))
}

/// The channels of several maps of one size, one after another.
///
/// # Shapes
/// - maps: each `[N, C, H, W]`, of any C; at least one
/// - output: `[N, sum of C, H, W]`
pub fn concat_channels<B: DetectionBackend>(maps: Vec<Tensor<B, 4>>) -> Tensor<B, 4> {
    tensor(B::concat_channels(
        maps.into_iter().map(primitive).collect(),
    ))
}

pub(crate) fn concat<B: DetectionBackend>(maps: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    primitive(Tensor::cat(
        maps.into_iter().map(tensor::<B, 4>).collect(),
        1,
    ))
}

/// The two rows of a `[2, C]`.
pub(crate) fn rows<B: DetectionBackend>(both: Tensor<B, 2>) -> (Tensor<B, 1>, Tensor<B, 1>) {
    let [_, channels] = both.dims();
    let row = |row: usize| {
        let row = both.clone().slice([row..row + 1, 0..channels]);
        row.reshape([channels])
    };
    (row(0), row(1))
}

pub(crate) fn primitive<B: DetectionBackend, const D: usize>(
    tensor: Tensor<B, D>,
) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

pub(crate) fn tensor<B: DetectionBackend, const D: usize>(
    primitive: FloatTensor<B>,
) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

pub(crate) fn affine<B: DetectionBackend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
) -> FloatTensor<B> {
    let x = tensor::<B, 4>(x);
    let channels = x.dims()[1];
    let per_channel = |values| tensor::<B, 1>(values).reshape([1, channels, 1, 1]);
    primitive(x * per_channel(scale) + per_channel(shift))
}

pub(crate) fn moments<B: DetectionBackend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let x = channels_first(tensor::<B, 4>(x));
    let mean = x.clone().mean_dim(1);
    let var = (x - mean.clone()).powi_scalar(2).mean_dim(1);
    primitive(Tensor::cat(vec![mean, var], 1).transpose())
}

pub(crate) fn sums<B: DetectionBackend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    let (a, b) = (
        channels_first(tensor::<B, 4>(a)),
        channels_first(tensor::<B, 4>(b)),
    );
    let sums = vec![a.clone().sum_dim(1), (a * b).sum_dim(1)];
    primitive(Tensor::cat(sums, 1).transpose())
}

/// `[C, N * H * W]`.
fn channels_first<B: DetectionBackend>(x: Tensor<B, 4>) -> Tensor<B, 2> {
    let [n, channels, h, w] = x.dims();
    x.swap_dims(0, 1).reshape([channels, n * h * w])
}
