//! Flex's tensors in and out of the convolution kernels. What these do not compute, dilations and
//! other precisions, Flex's own operations do.

use std::sync::Arc;

use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rcnn_cpu::conv_transpose2d::{self, ConvTranspose2d};
use rcnn_cpu::conv2d::{self, Conv2d, Image, Weights};
use rcnn_cpu::{BLOCK, Epilogue};

use super::{arena, channels_last, dims, plan};
use crate::channels::{primitive, tensor};
use crate::convolution::{self, nearest};
use crate::{Activation, ConvEpilogue, ConvPrecision, LayerPlan};

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

pub(super) fn forward(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    options: ConvOptions<2>,
    epilogue: ConvEpilogue<Flex>,
    precision: ConvPrecision,
    plan: Option<&LayerPlan>,
) -> FlexTensor {
    let other = |tensor: &FlexTensor| tensor.dtype() != DType::F32;
    let affine = epilogue.affine.clone();
    let affine = affine.map(|(scale, shift)| [scale, shift].map(primitive));
    let residual = epilogue.residual.clone().map(primitive);
    let mut operands = bias.iter().chain(affine.iter().flatten()).chain(&residual);
    let sizes = sizes(&x, &weight, &options).filter(|_| !operands.any(other));
    let Some(mut sizes) = sizes else {
        return convolution::forward::<Flex>(x, weight, bias, options, epilogue);
    };
    sizes.exact = precision == ConvPrecision::Exact;
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
    // The layout that gradients need, where they are what the convolution is exact for.
    let planes = sizes.exact && plan.is_none();
    let [batch, channels_out, height, width] = sizes.output_shape();
    let sources = residual.as_ref().and_then(|residual| {
        let [n, c, h, w] = dims(residual);
        assert_eq!(
            [n, c],
            [batch, channels_out],
            "images and channels of a residual"
        );
        let other = !planes && [h, w] != [height, width];
        other.then(|| rcnn_cpu::channels_last::nearest(batch, [h, w], [height, width]))
    });
    let residual = residual.map(|residual| match planes {
        true => {
            let residual = nearest::<Flex>(tensor(residual), [height, width]);
            channels_last::to_planes(primitive(residual))
        }
        false => channels_last::from_planes(residual),
    });
    let epilogue = Epilogue {
        scale: scale.as_deref(),
        shift: shift.as_deref(),
        residual: residual.as_ref().map(|residual| residual.storage()),
        sources: sources.as_deref(),
        activation: activation(epilogue.activation),
    };
    if planes {
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
    let weights = match plan {
        Some(plan) => plan::prepared(&sizes, &weight, plan),
        None => Arc::new(Weights::new(&sizes, weight.storage())),
    };
    let output = conv2d::forward(&sizes, image, &weights, &epilogue);
    channels_last::tensor(output, sizes.output_shape())
}

fn activation(activation: Activation) -> rcnn_cpu::Activation {
    match activation {
        Activation::None => rcnn_cpu::Activation::None,
        Activation::Relu => rcnn_cpu::Activation::Relu,
        Activation::Relu6 => rcnn_cpu::Activation::Relu6,
        Activation::Hardswish => rcnn_cpu::Activation::Hardswish,
        Activation::Hardsigmoid => rcnn_cpu::Activation::Hardsigmoid,
    }
}

pub(super) fn transposed(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    options: ConvTransposeOptions<2>,
    activation: Activation,
) -> FlexTensor {
    let [batch, in_channels, height, width] = dims(&x);
    let [_, out_channels, kernel_height, kernel_width] = dims(&weight);
    let sizes = ConvTranspose2d {
        batch,
        in_channels,
        out_channels,
        height,
        width,
        kernel: [kernel_height, kernel_width],
        stride: options.stride,
        padding: options.padding,
        padding_out: options.padding_out,
    };
    let operands = [Some(&x), Some(&weight), bias.as_ref()];
    let is_f32 = |operand: Option<&FlexTensor>| operand.is_none_or(|t| t.dtype() == DType::F32);
    let plain = options.dilation == [1, 1] && options.groups == 1;
    if !plain || !sizes.supports() || !operands.into_iter().all(is_f32) {
        return crate::conv_transpose2d::forward::<Flex>(x, weight, bias, options, activation);
    }
    let (weight, bias) = (
        weight.to_contiguous(),
        bias.map(|bias| bias.to_contiguous()),
    );
    let epilogue = Epilogue {
        shift: bias.as_ref().map(|bias| bias.storage()),
        activation: self::activation(activation),
        ..Epilogue::NONE
    };
    let x = channels_last::from_planes(x);
    let x = channels_last::blocks(&x).expect("just brought there");
    let output = conv_transpose2d::forward(&sizes, x, weight.storage(), &epilogue);
    channels_last::tensor(output, sizes.output_shape())
}

pub(super) fn backward(
    x: FlexTensor,
    weight: FlexTensor,
    grad: FlexTensor,
    options: ConvOptions<2>,
    [of_x, of_weight, of_bias]: [bool; 3],
) -> [Option<FlexTensor>; 3] {
    let sizes = sizes(&x, &weight, &options).filter(|_| grad.dtype() == DType::F32);
    let Some(sizes) = sizes else {
        let wanted = [of_x, of_weight, of_bias];
        return convolution::backward::<Flex>(x, weight, grad, options, wanted);
    };
    let grad = channels_last::to_planes(grad);
    let grad = grad.storage();
    let x_grad = of_x.then(|| {
        let weight = weight.to_contiguous();
        let values = conv2d::input_grad(&sizes, weight.storage(), grad);
        arena::tensor(values, dims::<4>(&x))
    });
    let shape: [usize; 4] = dims(&weight);
    let weight_grad = of_weight.then(|| {
        let x = channels_last::to_planes(x);
        super::tensor(conv2d::weight_grad(&sizes, x.storage(), grad), shape)
    });
    let bias_grad = of_bias.then(|| {
        let [_, channels, height, width] = sizes.output_shape();
        let sums = conv2d::bias_grad(grad, channels, height * width);
        FlexTensor::from_data(TensorData::new(sums, [channels]))
    });
    [x_grad, weight_grad, bias_grad]
}
