//! A MobileNet's block (`torchvision.models.mobilenetv3.InvertedResidual`).

use burn::module::Module;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{Activation, Conv2d, ConvEpilogue, DetectionBackend, Phase};
use rcnn_ops::{channel_gate, global_average_pool};

use super::InvertedResidualSpec;
use super::module::NormSettings;
use crate::conv_norm::conv_norm_then;
use crate::{ConvNorm, ConvNormConfig};

/// An inverted residual block.
#[derive(Module, Debug)]
pub struct InvertedResidual<B: Backend> {
    /// The layers one after another.
    pub block: Vec<BlockLayer<B>>,
    /// Whether the input is added to the output.
    #[module(skip)]
    has_shortcut: bool,
    #[module(skip)]
    activation: Activation,
}

/// A layer of an [`InvertedResidual`].
#[derive(Module, Debug)]
pub enum BlockLayer<B: Backend> {
    /// A convolution with its norm.
    ConvNorm(ConvNorm<B>),
    /// Squeeze and excitation.
    SqueezeExcitation(SqueezeExcitation<B>),
}

impl InvertedResidualSpec {
    pub(super) fn init<B: Backend>(
        &self,
        input: usize,
        has_shortcut: bool,
        norm: NormSettings,
        device: &B::Device,
    ) -> InvertedResidual<B> {
        let expanded = self.expanded;
        let conv = |channels, kernel, stride, groups| {
            let config = ConvNormConfig {
                stride,
                groups,
                ..norm.conv(channels, kernel)
            };
            BlockLayer::ConvNorm(config.init(device))
        };
        let mut block = Vec::new();
        if self.has_expansion {
            block.push(conv([input, expanded], 1, 1, 1));
        }
        block.push(conv([expanded; 2], self.kernel, self.stride, expanded));
        block.extend(self.squeeze.map(|squeeze| {
            let fc = |channels| Conv2dConfig::new(channels, [1, 1]).init(device).into();
            BlockLayer::SqueezeExcitation(SqueezeExcitation {
                fc1: fc([expanded, squeeze]),
                fc2: fc([squeeze, expanded]),
            })
        }));
        block.push(conv([expanded, self.out], 1, 1, 1));
        InvertedResidual {
            block,
            has_shortcut,
            activation: self.activation,
        }
    }
}

impl<B: DetectionBackend> InvertedResidual<B> {
    /// # Shapes
    /// - input: `[N, C, H, W]`
    /// - output: `[N, C', H / stride, W / stride]`
    pub fn forward(&self, input: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        let mut x = input.clone();
        for (position, layer) in self.block.iter().enumerate() {
            x = match layer {
                BlockLayer::ConvNorm((conv, norm)) => {
                    let is_last = position + 1 == self.block.len();
                    let then = ConvEpilogue {
                        residual: (is_last && self.has_shortcut).then(|| input.clone()),
                        activation: if is_last {
                            Activation::None
                        } else {
                            self.activation
                        },
                        ..Default::default()
                    };
                    conv_norm_then(conv, norm.as_ref(), x, then, phase)
                }
                BlockLayer::SqueezeExcitation(squeeze) => squeeze.forward(x),
            };
        }
        x
    }
}

/// Squeeze and excitation (`torchvision.ops.SqueezeExcitation`): each channel is multiplied by a number from 0 to 1
/// that the means of all channels tell.
#[derive(Module, Debug)]
pub struct SqueezeExcitation<B: Backend> {
    /// From all channels to a few.
    pub fc1: Conv2d<B>,
    /// And back.
    pub fc2: Conv2d<B>,
}

impl<B: DetectionBackend> SqueezeExcitation<B> {
    /// # Shapes
    /// - input, output: `[N, C, H, W]`
    pub fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        let then = |activation| ConvEpilogue {
            activation,
            ..Default::default()
        };
        let means = global_average_pool(input.clone());
        let squeezed = self.fc1.forward_fused(means, then(Activation::Relu));
        let gate = self
            .fc2
            .forward_fused(squeezed, then(Activation::Hardsigmoid));
        channel_gate(input, gate)
    }
}
