//! Sums and scales of channels, as batch norms need them.

use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rcnn_cpu::channels as kernel;

use super::{arena, channels_last, dims};
use crate::channels;

pub(super) fn affine(x: FlexTensor, scale: FlexTensor, shift: FlexTensor) -> FlexTensor {
    if [&x, &scale, &shift].iter().any(|t| t.dtype() != DType::F32) {
        return channels::affine::<Flex>(x, scale, shift);
    }
    let shape @ [_, _, h, w] = dims(&x);
    let x = channels_last::to_planes(x);
    let [scale, shift] = [scale, shift].map(|t| t.to_contiguous());
    let out = kernel::affine(x.storage(), h * w, scale.storage(), shift.storage());
    arena::tensor(out, shape)
}

pub(super) fn moments(x: FlexTensor) -> FlexTensor {
    if x.dtype() != DType::F32 {
        return channels::moments::<Flex>(x);
    }
    let [n, c, h, w] = dims(&x);
    let x = channels_last::to_planes(x);
    pairs(kernel::moments(x.storage(), [n, c, h * w]))
}

pub(super) fn sums(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    if a.dtype() != DType::F32 || b.dtype() != DType::F32 {
        return channels::sums::<Flex>(a, b);
    }
    let [n, c, h, w] = dims(&a);
    let [a, b] = [a, b].map(channels_last::to_planes);
    pairs(kernel::sums(a.storage(), b.storage(), [n, c, h * w]))
}

/// A `[2, C]` of two values for each channel.
fn pairs(values: Vec<f32>) -> FlexTensor {
    let channels = values.len() / 2;
    FlexTensor::from_data(TensorData::new(values, [2, channels]))
}
