//! A MobileNet's block (`InvertedResidual` of `torchvision.models.mobilenetv3` and `mobilenetv2`).

use burn::module::Module;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{Activation, Conv2d, ConvEpilogue, DetectionBackend, Phase};
use rcnn_ops::{channel_gate, global_average_pool};

use super::module::NormSettings;
use super::{BlockNames, InvertedResidualSpec};
use crate::conv_norm::conv_norm_then;
use crate::{BatchNorm2d, ConvNorm, ConvNormConfig, conv_norm_activation};

/// An inverted residual block. Its layers are in one of two lists, under the name that the architecture has for them.
#[derive(Module, Debug)]
pub struct InvertedResidual<B: Backend> {
    /// The layers of a MobileNetV3's block.
    pub block: Vec<BlockLayer<B>>,
    /// The layers of a MobileNetV2's block.
    pub conv: Vec<BlockLayer<B>>,
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
    /// Squeeze and excitation (`torchvision.ops.SqueezeExcitation`): multiplies each channel by a factor from 0
    /// to 1 that is computed from the means of all channels.
    SqueezeExcitation(SqueezeExcitation<B>),
    /// The last convolution of a MobileNetV2's block, whose norm is the next layer.
    Conv(Conv2d<B>),
    /// The norm of the convolution before.
    Norm(BatchNorm2d<B>),
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
        let project = norm.conv([expanded, self.out], 1).init(device);
        let (block, conv) = match (self.names, project) {
            (BlockNames::Conv, (conv, Some(norm))) => {
                block.extend([BlockLayer::Conv(conv), BlockLayer::Norm(norm)]);
                (Vec::new(), block)
            }
            (_, project) => {
                block.push(BlockLayer::ConvNorm(project));
                (block, Vec::new())
            }
        };
        InvertedResidual {
            block,
            conv,
            has_shortcut,
            activation: self.activation,
        }
    }
}

impl<B: DetectionBackend> InvertedResidual<B> {
    /// Applies the block.
    ///
    /// # Shapes
    /// - input: `[N, C, H, W]`
    /// - output: `[N, C', H / stride, W / stride]`
    pub fn forward(&self, input: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        let mut x = input.clone();
        let mut layers = self.block.iter().chain(&self.conv).peekable();
        while let Some(layer) = layers.next() {
            x = match layer {
                BlockLayer::ConvNorm(layer) if layers.peek().is_some() => {
                    conv_norm_activation(layer, x, self.activation, phase)
                }
                BlockLayer::ConvNorm((conv, norm)) => {
                    self.project(conv, norm.as_ref(), x, &input, phase)
                }
                BlockLayer::Conv(conv) => {
                    let norm = match layers.next() {
                        Some(BlockLayer::Norm(norm)) => Some(norm),
                        _ => None,
                    };
                    self.project(conv, norm, x, &input, phase)
                }
                BlockLayer::SqueezeExcitation(squeeze) => squeeze.forward(x),
                BlockLayer::Norm(_) => x,
            };
        }
        x
    }

    /// The last convolution, without an activation.
    fn project(
        &self,
        conv: &Conv2d<B>,
        norm: Option<&BatchNorm2d<B>>,
        x: Tensor<B, 4>,
        input: &Tensor<B, 4>,
        phase: Phase,
    ) -> Tensor<B, 4> {
        let then = ConvEpilogue {
            residual: self.has_shortcut.then(|| input.clone()),
            ..Default::default()
        };
        conv_norm_then(conv, norm, x, then, phase)
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
    /// Multiplies each channel by its weight.
    ///
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
