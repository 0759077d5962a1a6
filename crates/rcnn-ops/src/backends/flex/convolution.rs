//! Flex's tensors in and out of the convolution kernels. What these do not compute, dilations and
//! other precisions, Flex's own operations do.

use burn::tensor::ops::{ConvOptions, ModuleOps};
use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rcnn_cpu::conv2d::{self, Conv2d, Image};
use rcnn_cpu::{BLOCK, Epilogue};

use super::prepared::prepared;
use super::{arena, channels_last, dims, tensor};
use crate::convolution::nearest;
use crate::{ConvEpilogue, channels};

/// The sizes of a convolution that the kernels compute.
fn sizes(x: &FlexTensor, weight: &FlexTensor, options: &ConvOptions<2>) -> Option<Conv2d> {
    let [batch, in_channels, height, width] = dims(x);
    let [out_channels, _, kernel_height, kernel_width] = dims(weight);
    let sizes = Conv2d {
        batch,
        in_channels,
        out_channels,
        height,
        width,
        kernel: [kernel_height, kernel_width],
        stride: options.stride,
        padding: options.padding,
        groups: options.groups,
        exact: false,
    };
    let plain = x.dtype() == DType::F32 && weight.dtype() == DType::F32;
    (plain && options.dilation == [1, 1] && sizes.supports()).then_some(sizes)
}

/// By plain sums, in the layout that gradients need.
pub(super) fn exact(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    options: ConvOptions<2>,
) -> FlexTensor {
    let Some(sizes) = sizes(&x, &weight, &options) else {
        return Flex::conv2d(x, weight, bias, options);
    };
    let (x, weight) = (channels_last::to_planes(x), weight.to_contiguous());
    let bias = bias.map(|bias| bias.to_contiguous());
    let epilogue = Epilogue {
        shift: bias.as_ref().map(|bias| bias.storage::<f32>()),
        ..Epilogue::NONE
    };
    let output = conv2d::exact_forward(&sizes, x.storage(), weight.storage(), &epilogue);
    arena::tensor(output, sizes.output_shape())
}

pub(super) fn fused(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    options: ConvOptions<2>,
    epilogue: ConvEpilogue<Flex>,
) -> FlexTensor {
    let other = |tensor: &FlexTensor| tensor.dtype() != DType::F32;
    let affine = epilogue.affine.clone();
    let affine = affine.map(|(scale, shift)| [scale, shift].map(channels::primitive));
    let residual = epilogue.residual.clone().map(channels::primitive);
    let mut operands = bias.iter().chain(affine.iter().flatten()).chain(&residual);
    let sizes = sizes(&x, &weight, &options).filter(|_| !operands.any(other));
    let Some(mut sizes) = sizes else {
        let output = Flex::conv2d(x, weight, bias, options);
        return channels::primitive(epilogue.apply(channels::tensor(output)));
    };
    sizes.exact = epilogue.exact;
    let floats = |tensor: FlexTensor| tensor.to_contiguous().storage::<f32>().to_vec();
    let mut shift = bias.map(floats);
    let mut scale = None;
    if let Some([by, and]) = affine {
        let (by, mut and) = (floats(by), floats(and));
        for ((and, by), bias) in and.iter_mut().zip(&by).zip(shift.iter().flatten()) {
            *and += by * bias;
        }
        (scale, shift) = (Some(by), Some(and));
    }
    let weight = weight.to_contiguous();
    let grouped = sizes.groups > 1;
    let [batch, channels_out, height, width] = sizes.output_shape();
    let sources = residual.as_ref().and_then(|residual| {
        let [n, c, h, w] = dims(residual);
        assert_eq!(
            [n, c],
            [batch, channels_out],
            "images and channels of a residual"
        );
        let other = !grouped && [h, w] != [height, width];
        other.then(|| rcnn_cpu::channels_last::nearest(batch, [h, w], [height, width]))
    });
    let residual = residual.map(|residual| match grouped {
        true => {
            let residual = nearest::<Flex>(channels::tensor(residual), [height, width]);
            channels_last::to_planes(channels::primitive(residual))
        }
        false => channels_last::from_planes(residual),
    });
    let epilogue = Epilogue {
        scale: scale.as_deref(),
        shift: shift.as_deref(),
        residual: residual.as_ref().map(|residual| residual.storage()),
        sources: sources.as_deref(),
        relu: epilogue.relu,
    };
    if grouped {
        let x = channels_last::to_planes(x);
        let output = conv2d::exact_forward(&sizes, x.storage(), weight.storage(), &epilogue);
        return arena::tensor(output, sizes.output_shape());
    }
    // Few channels would be mostly padding.
    let x = match sizes.in_channels < BLOCK {
        true => x,
        false => channels_last::from_planes(x),
    };
    let planes;
    let image = match channels_last::blocks(&x) {
        Some(blocks) => Image::ChannelsLast(blocks),
        None => {
            planes = x.to_contiguous();
            Image::Planes(planes.storage())
        }
    };
    let output = conv2d::forward(&sizes, image, &prepared(&sizes, &weight), &epilogue);
    channels_last::tensor(output, sizes.output_shape())
}

pub(super) fn input_grad(
    x: FlexTensor,
    weight: FlexTensor,
    grad: FlexTensor,
    options: ConvOptions<2>,
) -> FlexTensor {
    let Some(sizes) = sizes(&x, &weight, &options) else {
        return Flex::conv2d_x_backward(x, weight, grad, options);
    };
    let shape: [usize; 4] = dims(&x);
    let (weight, grad) = (weight.to_contiguous(), channels_last::to_planes(grad));
    arena::tensor(
        conv2d::input_grad(&sizes, weight.storage(), grad.storage()),
        shape,
    )
}

pub(super) fn weight_grad(
    x: FlexTensor,
    weight: FlexTensor,
    grad: FlexTensor,
    options: ConvOptions<2>,
) -> FlexTensor {
    let Some(sizes) = sizes(&x, &weight, &options) else {
        return Flex::conv2d_weight_backward(x, weight, grad, options);
    };
    let shape: [usize; 4] = dims(&weight);
    let (x, grad) = (channels_last::to_planes(x), channels_last::to_planes(grad));
    tensor(
        conv2d::weight_grad(&sizes, x.storage(), grad.storage()),
        shape,
    )
}

pub(super) fn bias_grad(x: FlexTensor, bias: FlexTensor, grad: FlexTensor) -> FlexTensor {
    if grad.dtype() != DType::F32 {
        return Flex::conv2d_bias_backward(x, bias, grad);
    }
    let shape: [usize; 4] = dims(&grad);
    let grad = channels_last::to_planes(grad);
    let sums = conv2d::bias_grad(grad.storage(), shape[1], shape[2] * shape[3]);
    FlexTensor::from_data(TensorData::new(sums, [shape[1]]))
}
