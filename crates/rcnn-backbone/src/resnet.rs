//! The ResNet family without its classifier: the body of torchvision's detection backbones.
//!
//! He et al. 2015 (<https://arxiv.org/abs/1512.03385>) in torchvision's variant, where the stride
//! of a bottleneck sits on the 3x3 convolution; ResNeXt and Wide ResNet differ in groups and width.

use std::fmt;
use std::str::FromStr;

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{Conv2d, DetectionBackend, Forward, Phase, max_pool2d};
use rcnn_types::validate::require_within;
use serde::{Deserialize, Serialize};

use crate::conv_norm::{conv_norm_then, then_relu};
use crate::stages::STEM_CHANNELS;
use crate::{
    BackboneConfigError, BatchNorm2d, ConvNorm, ConvNormConfig, NormKind, ResNetStage, conv_norm,
};

/// A member of the family, under torchvision's builder name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ResNetArch {
    #[serde(rename = "resnet18")]
    ResNet18,
    #[serde(rename = "resnet34")]
    ResNet34,
    #[serde(rename = "resnet50")]
    ResNet50,
    #[serde(rename = "resnet101")]
    ResNet101,
    #[serde(rename = "resnet152")]
    ResNet152,
    #[serde(rename = "resnext50_32x4d")]
    ResNeXt50_32x4d,
    #[serde(rename = "resnext101_32x8d")]
    ResNeXt101_32x8d,
    #[serde(rename = "resnext101_64x4d")]
    ResNeXt101_64x4d,
    #[serde(rename = "wide_resnet50_2")]
    WideResNet50_2,
    #[serde(rename = "wide_resnet101_2")]
    WideResNet101_2,
}

impl ResNetArch {
    /// Every member.
    pub const ALL: [Self; 10] = [
        Self::ResNet18,
        Self::ResNet34,
        Self::ResNet50,
        Self::ResNet101,
        Self::ResNet152,
        Self::ResNeXt50_32x4d,
        Self::ResNeXt101_32x8d,
        Self::ResNeXt101_64x4d,
        Self::WideResNet50_2,
        Self::WideResNet101_2,
    ];

    /// torchvision's builder name, `resnet50` for one.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
            Self::ResNet101 => "resnet101",
            Self::ResNet152 => "resnet152",
            Self::ResNeXt50_32x4d => "resnext50_32x4d",
            Self::ResNeXt101_32x8d => "resnext101_32x8d",
            Self::ResNeXt101_64x4d => "resnext101_64x4d",
            Self::WideResNet50_2 => "wide_resnet50_2",
            Self::WideResNet101_2 => "wide_resnet101_2",
        }
    }

    /// Residual blocks of each of the four stages.
    pub fn blocks(self) -> [usize; 4] {
        match self {
            Self::ResNet18 => [2, 2, 2, 2],
            Self::ResNet34 | Self::ResNet50 | Self::ResNeXt50_32x4d | Self::WideResNet50_2 => {
                [3, 4, 6, 3]
            }
            Self::ResNet101
            | Self::ResNeXt101_32x8d
            | Self::ResNeXt101_64x4d
            | Self::WideResNet101_2 => [3, 4, 23, 3],
            Self::ResNet152 => [3, 8, 36, 3],
        }
    }

    /// Whether blocks are bottlenecks (1x1, 3x3, 1x1) and not two 3x3 convolutions.
    pub fn bottleneck(self) -> bool {
        !matches!(self, Self::ResNet18 | Self::ResNet34)
    }

    /// Groups of the 3x3 convolution of a bottleneck.
    pub fn groups(self) -> usize {
        match self {
            Self::ResNeXt50_32x4d | Self::ResNeXt101_32x8d => 32,
            Self::ResNeXt101_64x4d => 64,
            _ => 1,
        }
    }

    /// Channels of each group in the first stage.
    pub fn width_per_group(self) -> usize {
        match self {
            Self::ResNeXt50_32x4d | Self::ResNeXt101_64x4d => 4,
            Self::ResNeXt101_32x8d => 8,
            Self::WideResNet50_2 | Self::WideResNet101_2 => 128,
            _ => 64,
        }
    }

    /// Channels that stage 1 to 4 puts out.
    pub fn stage_channels(self, stage: usize) -> usize {
        let expansion = if self.bottleneck() { 4 } else { 1 };
        (64 << (stage - 1)) * expansion
    }

    /// Channels of the 3x3 convolution in stage 1 to 4.
    pub fn stage_width(self, stage: usize) -> usize {
        (64 << (stage - 1)) * self.width_per_group() / 64 * self.groups()
    }
}

impl fmt::Display for ResNetArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An unknown architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown ResNet '{name}'; known are {}", ResNetArch::ALL.map(ResNetArch::name).join(", "))]
pub struct UnknownArch {
    /// The text that was given.
    pub name: String,
}

impl FromStr for ResNetArch {
    type Err = UnknownArch;

    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        let unknown = || UnknownArch { name: name.into() };
        let mut all = Self::ALL.into_iter();
        all.find(|arch| arch.name() == name).ok_or_else(unknown)
    }
}

/// Makes a [`ResNet`].
#[derive(Debug, Clone, PartialEq)]
pub struct ResNetConfig {
    /// Which member of the family.
    pub arch: ResNetArch,
    /// Frozen or trainable batch norm.
    pub norm: NormKind,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Stages to build, 1 to 4; later ones are left out.
    pub stages: usize,
    /// Stages among them that are the identity.
    pub dropped_stages: Vec<usize>,
    /// Blocks that are the identity: stage and position.
    pub dropped_blocks: Vec<(usize, usize)>,
}

impl ResNetConfig {
    /// Checks that the configuration describes a network.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), BackboneConfigError> {
        require_within("stages", self.stages, 1..=4)?;
        require_within("norm_eps", self.norm_eps, 0.0..=1.0)?;
        self.validate_dropped()
    }

    /// Makes the module with Kaiming's initialisation.
    ///
    /// # Errors
    /// Where [`validate`](Self::validate) fails.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Result<ResNet<B>, BackboneConfigError> {
        self.validate()?;
        let norm = Some((self.norm, self.norm_eps));
        let mut stem = ConvNormConfig::new([3, STEM_CHANNELS], 7);
        stem.stride = 2;
        stem.norm = norm;
        let (conv1, bn1) = stem.init_pair(device);
        let built = self.built_stages();
        let stage = |number: usize| match built.iter().find(|stage| stage.number == number) {
            Some(stage) => self.stage(stage, device),
            None => Vec::new(),
        };
        Ok(ResNet {
            conv1,
            bn1,
            maxpool: MaxPool2dConfig::new([3, 3])
                .with_strides([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(),
            layer1: stage(1),
            layer2: stage(2),
            layer3: stage(3),
            layer4: stage(4),
        })
    }

    fn stage<B: Backend>(&self, stage: &ResNetStage, device: &B::Device) -> Vec<Block<B>> {
        let arch = self.arch;
        let out = stage.out_channels;
        let width = arch.stage_width(stage.number);
        let block = |index: usize| {
            if !stage.blocks.contains(&index) {
                return Block::Identity(0);
            }
            let (input, stride) = match index {
                0 => (stage.in_channels, stage.stride),
                _ => (out, 1),
            };
            let conv = |channels, kernel_size, stride, groups| ConvNormConfig {
                stride,
                groups,
                norm: Some((self.norm, self.norm_eps)),
                ..ConvNormConfig::new(channels, kernel_size)
            };
            let downsample = (index == 0 && stage.has_downsample())
                .then(|| conv([input, out], 1, stride, 1).init(device));
            if arch.bottleneck() {
                let (conv1, bn1) = conv([input, width], 1, 1, 1).init_pair(device);
                let (conv2, bn2) = conv([width, width], 3, stride, arch.groups()).init_pair(device);
                let (conv3, bn3) = conv([width, out], 1, 1, 1).init_pair(device);
                Block::Bottleneck(Bottleneck {
                    conv1,
                    bn1,
                    conv2,
                    bn2,
                    conv3,
                    bn3,
                    downsample,
                })
            } else {
                let (conv1, bn1) = conv([input, out], 3, stride, 1).init_pair(device);
                let (conv2, bn2) = conv([out, out], 3, 1, 1).init_pair(device);
                Block::Basic(BasicBlock {
                    conv1,
                    bn1,
                    conv2,
                    bn2,
                    downsample,
                })
            }
        };
        (0..arch.blocks()[stage.number - 1]).map(block).collect()
    }
}

impl ConvNormConfig {
    /// Convolution and norm apart, for blocks where torchvision names them apart.
    fn init_pair<B: Backend>(&self, device: &B::Device) -> (Conv2d<B>, BatchNorm2d<B>) {
        let (conv, norm) = self.init(device);
        (conv, norm.expect("a ResNet's convolutions have norms"))
    }
}

/// The four stages of a ResNet (`torchvision.models.resnet.ResNet`, up to `layer4`).
#[derive(Module, Debug)]
pub struct ResNet<B: Backend> {
    /// 7x7 convolution, stride 2.
    pub conv1: Conv2d<B>,
    /// Norm of the stem.
    pub bn1: BatchNorm2d<B>,
    /// 3x3 maximum, stride 2.
    pub maxpool: MaxPool2d,
    /// Stage of stride 4.
    pub layer1: Vec<Block<B>>,
    /// Stage of stride 8.
    pub layer2: Vec<Block<B>>,
    /// Stage of stride 16.
    pub layer3: Vec<Block<B>>,
    /// Stage of stride 32.
    pub layer4: Vec<Block<B>>,
}

impl<B: DetectionBackend> ResNet<B> {
    /// Computes the output of every stage, first to last. Stages that are not built are the identity.
    ///
    /// # Shapes
    /// - images: `[N, 3, H, W]`
    /// - output: one `[N, C, H / stride, W / stride]` a stage
    pub fn forward(&self, images: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Vec<Tensor<B, 4>> {
        let (conv1, bn1) = (&self.conv1, Some(&self.bn1));
        let stem = conv_norm_then(conv1, bn1, images, then_relu(None), cx.phase);
        cx.layer("conv1", &stem);
        let mut x = max_pool2d(&self.maxpool, stem);
        cx.layer("maxpool", &x);
        (1..)
            .zip([&self.layer1, &self.layer2, &self.layer3, &self.layer4])
            .map(|(number, stage)| {
                for (position, block) in stage.iter().enumerate() {
                    x = block.forward(x.clone(), cx.phase);
                    cx.layer(format_args!("layer{number}.{position}"), &x);
                }
                x.clone()
            })
            .collect()
    }
}

/// A residual block.
#[derive(Module, Debug)]
pub enum Block<B: Backend> {
    /// Two 3x3 convolutions.
    Basic(BasicBlock<B>),
    /// 1x1, 3x3, 1x1.
    Bottleneck(Bottleneck<B>),
    /// Nothing, in the place of a block that was dropped; the number means nothing.
    Identity(usize),
}

impl<B: DetectionBackend> Block<B> {
    /// # Shapes
    /// - input: `[N, C, H, W]`
    /// - output: `[N, C', H / stride, W / stride]`
    pub fn forward(&self, input: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        match self {
            Self::Basic(block) => block.forward(input, phase),
            Self::Bottleneck(block) => block.forward(input, phase),
            Self::Identity(_) => input,
        }
    }
}

/// Two 3x3 convolutions with a shortcut (`torchvision.models.resnet.BasicBlock`).
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct BasicBlock<B: Backend> {
    pub conv1: Conv2d<B>,
    pub bn1: BatchNorm2d<B>,
    pub conv2: Conv2d<B>,
    pub bn2: BatchNorm2d<B>,
    pub downsample: Option<ConvNorm<B>>,
}

impl<B: DetectionBackend> BasicBlock<B> {
    fn forward(&self, input: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        let [bn1, bn2] = [&self.bn1, &self.bn2].map(Some);
        let x = conv_norm_then(&self.conv1, bn1, input.clone(), then_relu(None), phase);
        let shortcut = shortcut(&self.downsample, input, phase);
        conv_norm_then(&self.conv2, bn2, x, then_relu(Some(shortcut)), phase)
    }
}

/// 1x1, 3x3 and 1x1 convolutions with a shortcut (`torchvision.models.resnet.Bottleneck`).
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct Bottleneck<B: Backend> {
    pub conv1: Conv2d<B>,
    pub bn1: BatchNorm2d<B>,
    pub conv2: Conv2d<B>,
    pub bn2: BatchNorm2d<B>,
    pub conv3: Conv2d<B>,
    pub bn3: BatchNorm2d<B>,
    pub downsample: Option<ConvNorm<B>>,
}

impl<B: DetectionBackend> Bottleneck<B> {
    fn forward(&self, input: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        let [bn1, bn2, bn3] = [&self.bn1, &self.bn2, &self.bn3].map(Some);
        let x = conv_norm_then(&self.conv1, bn1, input.clone(), then_relu(None), phase);
        let x = conv_norm_then(&self.conv2, bn2, x, then_relu(None), phase);
        let shortcut = shortcut(&self.downsample, input, phase);
        conv_norm_then(&self.conv3, bn3, x, then_relu(Some(shortcut)), phase)
    }
}

fn shortcut<B: DetectionBackend>(
    downsample: &Option<ConvNorm<B>>,
    input: Tensor<B, 4>,
    phase: Phase,
) -> Tensor<B, 4> {
    match downsample {
        Some(downsample) => conv_norm(downsample, input, phase),
        None => input,
    }
}
