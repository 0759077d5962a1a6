//! A convolution and, perhaps, a norm: torchvision's `Conv2dNormActivation` without the activation.

use burn::module::Initializer;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{Activation, Conv2d, ConvEpilogue, DetectionBackend, Phase};

use crate::{BatchNorm2d, BatchNorm2dConfig, NormKind};

/// An `nn.Sequential` of convolution (`0`) and norm (`1`). A tuple, because Burn names its parts
/// `0` and `1` as torchvision does.
pub type ConvNorm<B> = (Conv2d<B>, Option<BatchNorm2d<B>>);

/// Applies a [`ConvNorm`].
///
/// # Shapes
/// - input: `[N, C, H, W]`
/// - output: `[N, C', H', W']`
pub fn conv_norm<B: DetectionBackend>(
    (conv, norm): &ConvNorm<B>,
    input: Tensor<B, 4>,
    phase: Phase,
) -> Tensor<B, 4> {
    conv_norm_then(conv, norm.as_ref(), input, ConvEpilogue::default(), phase)
}

/// Applies a convolution, its norm and a ReLU.
pub fn conv_norm_relu<B: DetectionBackend>(
    layer: &ConvNorm<B>,
    input: Tensor<B, 4>,
    phase: Phase,
) -> Tensor<B, 4> {
    conv_norm_activation(layer, input, Activation::Relu, phase)
}

/// Applies a convolution, its norm and an activation.
pub fn conv_norm_activation<B: DetectionBackend>(
    (conv, norm): &ConvNorm<B>,
    input: Tensor<B, 4>,
    activation: Activation,
    phase: Phase,
) -> Tensor<B, 4> {
    let then = ConvEpilogue {
        activation,
        ..Default::default()
    };
    conv_norm_then(conv, norm.as_ref(), input, then, phase)
}

/// A ReLU, of the sum with `residual` if there is one.
pub(crate) fn then_relu<B: Backend>(residual: Option<Tensor<B, 4>>) -> ConvEpilogue<B> {
    ConvEpilogue {
        residual,
        activation: Activation::Relu,
        ..Default::default()
    }
}

/// Applies a convolution, a norm and what follows, fused unless the norm has to see the batch
/// first. The norm takes the place of the epilogue's own scale and shift.
pub(crate) fn conv_norm_then<B: DetectionBackend>(
    conv: &Conv2d<B>,
    norm: Option<&BatchNorm2d<B>>,
    input: Tensor<B, 4>,
    then: ConvEpilogue<B>,
    phase: Phase,
) -> Tensor<B, 4> {
    let Some(norm) = norm else {
        return conv.forward_fused(input, then);
    };
    match norm.fixed(phase) {
        Some(affine) => {
            let affine = Some(affine);
            conv.forward_fused(input, ConvEpilogue { affine, ..then })
        }
        None => then.apply(norm.forward(conv.forward(input), phase)),
    }
}

/// Configuration of a [`ConvNorm`] that keeps the image size (divided by the stride). The convolution has a
/// bias only where there is no norm.
#[derive(Debug, Clone)]
pub struct ConvNormConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Side of the kernel, odd.
    pub kernel_size: usize,
    /// Stride along both axes.
    pub stride: usize,
    /// Groups of the convolution.
    pub groups: usize,
    /// Kind and epsilon of the norm, if there is one.
    pub norm: Option<(NormKind, f64)>,
    /// How much a batch counts in the running statistics of the norm.
    pub momentum: f64,
    /// Initial weights of the convolution.
    pub initializer: Initializer,
}

impl ConvNormConfig {
    /// Creates a configuration with stride 1, one group, no norm and Kaiming's normal initialisation.
    pub fn new(channels: [usize; 2], kernel_size: usize) -> Self {
        Self {
            channels,
            kernel_size,
            stride: 1,
            groups: 1,
            norm: None,
            momentum: 0.1,
            initializer: Initializer::KaimingNormal {
                gain: std::f64::consts::SQRT_2,
                fan_out_only: true,
            },
        }
    }

    /// Makes the module.
    pub fn init<B: Backend>(&self, device: &B::Device) -> ConvNorm<B> {
        let padding = self.kernel_size / 2;
        let conv = Conv2dConfig::new(self.channels, [self.kernel_size; 2])
            .with_stride([self.stride; 2])
            .with_groups(self.groups)
            .with_padding(PaddingConfig2d::Explicit(
                padding, padding, padding, padding,
            ))
            .with_bias(false)
            .with_initializer(self.initializer.clone());
        let mut conv = conv.init(device);
        let num_features = self.channels[1];
        let norm = self.norm.map(|(kind, eps)| {
            BatchNorm2dConfig {
                num_features,
                kind,
                eps,
                momentum: self.momentum,
            }
            .init(device)
        });
        if norm.is_none() {
            // torchvision starts these at zero.
            conv.bias = Some(Initializer::Zeros.init([num_features], device));
        }
        (conv.into(), norm)
    }
}
