//! The modules of a ResNet without its classifier.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{Conv2d, DetectionBackend, Forward, Phase, max_pool2d};
use rcnn_types::validate::require_within;

use super::{ResNetArch, ResNetStage};
use crate::conv_norm::{conv_norm_then, then_relu};
use crate::{
    BackboneConfigError, BatchNorm2d, Body, Channels, ConvNorm, ConvNormConfig, NormKind, Stage,
    conv_norm,
};

/// Configuration of a [`ResNet`].
#[derive(Debug, Clone, PartialEq)]
pub struct ResNetConfig {
    /// Member of the family.
    pub arch: ResNetArch,
    /// Frozen or trainable batch norm.
    pub norm: NormKind,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Stages to build, 1 to 4; later ones are left out.
    pub stages: usize,
    /// Stages that are replaced by the identity.
    pub dropped_stages: Vec<usize>,
    /// Blocks that are the identity: stage and position.
    pub dropped_blocks: Vec<(usize, usize)>,
    /// Output channels of layers that have others than torchvision's.
    pub channels: Channels,
}

impl ResNetConfig {
    /// Checks that the configuration describes a network.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), BackboneConfigError> {
        require_within("stages", self.stages, 1..=4)?;
        require_within("norm_eps", self.norm_eps, 0.0..=1.0)?;
        self.channels.validate(&self.free_layers())?;
        self.validate_dropped()
    }

    /// Makes the module with Kaiming's initialisation.
    ///
    /// # Errors
    /// Where [`validate`](Self::validate) fails.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Result<ResNet<B>, BackboneConfigError> {
        self.validate()?;
        let norm = Some((self.norm, self.norm_eps));
        let mut stem = ConvNormConfig::new([3, self.stem_channels()], 7);
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
            stages: self.stages(),
        })
    }

    fn stage<B: Backend>(&self, stage: &ResNetStage, device: &B::Device) -> Vec<Block<B>> {
        let arch = self.arch;
        let out = stage.out_channels;
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
            let inner = self.inner_channels(stage.number, index);
            if arch.bottleneck() {
                let [first, second] = inner.convolutions;
                let (conv1, bn1) = conv([input, first], 1, 1, 1).init_pair(device);
                let conv2 = conv([first, second], 3, stride, inner.groups);
                let (conv2, bn2) = conv2.init_pair(device);
                let (conv3, bn3) = conv([second, out], 1, 1, 1).init_pair(device);
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
                let [width, _] = inner.convolutions;
                let (conv1, bn1) = conv([input, width], 3, stride, 1).init_pair(device);
                let (conv2, bn2) = conv([width, out], 3, 1, 1).init_pair(device);
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
    #[module(skip)]
    stages: Vec<Stage>,
}

impl<B: DetectionBackend> Body<B> for ResNet<B> {
    fn forward(
        &self,
        images: Tensor<B, 4>,
        returned: &[usize],
        cx: &mut Forward<'_, B>,
    ) -> Vec<Tensor<B, 4>> {
        let (conv1, bn1) = (&self.conv1, Some(&self.bn1));
        let stem = conv_norm_then(conv1, bn1, images, then_relu(None), cx.phase);
        cx.layer("conv1", &stem);
        let mut x = max_pool2d(&self.maxpool, stem);
        cx.layer("maxpool", &x);
        let mut outputs = Vec::new();
        for (number, stage) in (1..).zip([&self.layer1, &self.layer2, &self.layer3, &self.layer4]) {
            for (position, block) in stage.iter().enumerate() {
                x = block.forward(x.clone(), cx.phase);
                cx.layer(format_args!("layer{number}.{position}"), &x);
            }
            if returned.contains(&number) {
                outputs.push(x.clone());
            }
        }
        outputs
    }

    fn stages(&self) -> Vec<Stage> {
        self.stages.clone()
    }

    fn drop_block(&mut self, block: &str) -> bool {
        let layers = [
            &mut self.layer1,
            &mut self.layer2,
            &mut self.layer3,
            &mut self.layer4,
        ];
        for (number, layer) in (1..).zip(layers) {
            for (position, module) in layer.iter_mut().enumerate() {
                if block == format!("layer{number}.{position}") && module.keeps_shape() {
                    *module = Block::Identity(0);
                    return true;
                }
            }
        }
        false
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
    /// Whether it could be the identity, and is not.
    fn keeps_shape(&self) -> bool {
        match self {
            Self::Basic(block) => block.downsample.is_none(),
            Self::Bottleneck(block) => block.downsample.is_none(),
            Self::Identity(_) => false,
        }
    }

    /// Applies the block.
    ///
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
#[allow(missing_docs, reason = "torchvision's names")]
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
#[allow(missing_docs, reason = "torchvision's names")]
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
