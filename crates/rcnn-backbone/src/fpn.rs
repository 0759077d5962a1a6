//! The feature pyramid network, and the backbone that it makes of a ResNet.
//!
//! Lin et al. 2016 (<https://arxiv.org/abs/1612.03144>), as in `torchvision.ops`.

use burn::module::{Initializer, Module};
use burn::nn::pool::MaxPool2dConfig;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{ConvEpilogue, DetectionBackend, Forward, max_pool2d};
use rcnn_types::validate::require_within;
use serde::{Deserialize, Serialize};

use crate::conv_norm::conv_norm_then;
use crate::{
    Backbone, BackboneConfig, BackboneConfigError, ConvNorm, ConvNormConfig, FeatureMaps,
    LevelSpec, MAX_CHANNELS, NormKind, ResNet, ResNetArch, ResNetConfig, conv_norm,
};

/// A ResNet with a feature pyramid: torchvision's `resnet_fpn_backbone`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResNetFpnConfig {
    /// The body.
    pub arch: ResNetArch,
    /// The body's norms.
    pub norm: NormKind,
    /// Epsilon of all norms.
    pub norm_eps: f64,
    /// Stages that feed the pyramid, ascending, of 1 to 4.
    pub returned_layers: Vec<usize>,
    /// Channels of every level.
    pub out_channels: usize,
    /// Norm of the pyramid's convolutions: none, or `BatchNorm2d` in `fasterrcnn_resnet50_fpn_v2`.
    pub fpn_norm: Option<NormKind>,
    /// Whether a level `pool` follows, the last one subsampled by two (`LastLevelMaxPool`).
    pub max_pool_level: bool,
    /// Stages that are the identity, ascending, of 1 to 4: what follows has the channels and the
    /// stride of the stage before. torchvision: none.
    pub dropped_stages: Vec<usize>,
    /// Residual blocks that are the identity, as stage and position: `[3, 1]` is `layer3.1`. The
    /// others keep their names. torchvision: none.
    pub dropped_blocks: Vec<(usize, usize)>,
}

impl Default for ResNetFpnConfig {
    /// `fasterrcnn_resnet50_fpn`'s backbone.
    fn default() -> Self {
        Self {
            arch: ResNetArch::ResNet50,
            norm: NormKind::FrozenBatchNorm2d,
            norm_eps: 1e-5,
            returned_layers: vec![1, 2, 3, 4],
            out_channels: 256,
            fpn_norm: None,
            max_pool_level: true,
            dropped_stages: Vec::new(),
            dropped_blocks: Vec::new(),
        }
    }
}

impl ResNetFpnConfig {
    /// Checks that the configuration describes a network.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), BackboneConfigError> {
        let layers = &self.returned_layers;
        let valid = layers.iter().all(|l| (1..=4).contains(l)) && layers.is_sorted_by(|a, b| a < b);
        if layers.is_empty() || !valid {
            return Err(BackboneConfigError::ReturnedLayers(layers.clone()));
        }
        require_within("out_channels", self.out_channels, 1..=MAX_CHANNELS)?;
        self.body().validate()?;
        match layers.iter().find(|l| self.dropped_stages.contains(l)) {
            Some(&stage) => Err(BackboneConfigError::DroppedReturned { stage }),
            None => Ok(()),
        }
    }

    /// The body by itself: stages after the last returned one are not built.
    pub fn body(&self) -> ResNetConfig {
        ResNetConfig {
            arch: self.arch,
            norm: self.norm,
            norm_eps: self.norm_eps,
            stages: self.returned_layers.last().copied().unwrap_or(0),
            dropped_stages: self.dropped_stages.clone(),
            dropped_blocks: self.dropped_blocks.clone(),
        }
    }

    /// The feature maps that the backbone returns, finest first: `0`, `1`, ... and perhaps `pool`.
    pub fn levels(&self) -> Vec<LevelSpec> {
        let stages = self.body().built_stages().into_iter();
        let returned = stages.filter(|stage| self.returned_layers.contains(&stage.number));
        let level = |name: String, stride| LevelSpec::new(name, self.out_channels, stride);
        let mut levels: Vec<LevelSpec> = (returned.enumerate())
            .map(|(i, stage)| level(i.to_string(), stage.total_stride))
            .collect();
        if self.max_pool_level {
            let pool = levels
                .last()
                .map(|last| level("pool".into(), last.stride * 2));
            levels.extend(pool);
        }
        levels
    }

    /// Feature maps that the backbone returns.
    pub fn num_levels(&self) -> usize {
        self.returned_layers.len() + usize::from(self.max_pool_level)
    }

    /// Makes the module.
    ///
    /// # Errors
    /// Where [`validate`](Self::validate) fails.
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<BackboneWithFpn<B>, BackboneConfigError> {
        self.validate()?;
        let block = |channels, kernel_size| ConvNormConfig {
            norm: self.fpn_norm.map(|kind| (kind, self.norm_eps)),
            initializer: Initializer::KaimingUniform {
                gain: 1.0,
                fan_out_only: false,
            },
            ..ConvNormConfig::new([channels, self.out_channels], kernel_size)
        };
        let inner = |&stage: &usize| block(self.arch.stage_channels(stage), 1).init(device);
        let layer = |_: &usize| block(self.out_channels, 3).init(device);
        Ok(BackboneWithFpn {
            body: self.body().init(device)?,
            fpn: FeaturePyramidNetwork {
                inner_blocks: self.returned_layers.iter().map(inner).collect(),
                layer_blocks: self.returned_layers.iter().map(layer).collect(),
            },
            config: self.clone(),
        })
    }
}

/// A body and a pyramid over it (`torchvision.models.detection.backbone_utils.BackboneWithFPN`).
#[derive(Module, Debug)]
pub struct BackboneWithFpn<B: Backend> {
    /// The ResNet.
    pub body: ResNet<B>,
    /// The pyramid.
    pub fpn: FeaturePyramidNetwork<B>,
    #[module(skip)]
    config: ResNetFpnConfig,
}

impl<B: DetectionBackend> Backbone<B> for BackboneWithFpn<B> {
    fn forward(&self, images: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
        let stages = self.body.forward(images, &mut cx.scope("body"));
        let returned = &self.config.returned_layers;
        let inputs = (1..)
            .zip(stages)
            .filter(|(layer, _)| returned.contains(layer))
            .map(|(_, stage)| stage)
            .collect();
        let mut levels = self.fpn.forward(inputs, &mut cx.scope("fpn"));
        let mut names: Vec<String> = (0..levels.len()).map(|i| i.to_string()).collect();
        if self.config.max_pool_level {
            let pool = MaxPool2dConfig::new([1, 1]).with_strides([2, 2]).init();
            levels.push(max_pool2d(&pool, levels[levels.len() - 1].clone()));
            names.push("pool".to_string());
        }
        FeatureMaps::new(names.into_iter().zip(levels).collect())
    }

    fn levels(&self) -> Vec<LevelSpec> {
        self.config.levels()
    }

    /// The pyramid upsamples to the size of the finer map, whatever it is.
    fn size_divisibility(&self) -> usize {
        1
    }

    fn config(&self) -> BackboneConfig {
        BackboneConfig::ResnetFpn(self.config.clone())
    }
}

/// Merges maps of several strides top-down (`torchvision.ops.FeaturePyramidNetwork`).
#[derive(Module, Debug)]
pub struct FeaturePyramidNetwork<B: Backend> {
    /// 1x1 convolutions that bring each input to the common number of channels.
    pub inner_blocks: Vec<ConvNorm<B>>,
    /// 3x3 convolutions that smooth each merged map.
    pub layer_blocks: Vec<ConvNorm<B>>,
}

impl<B: DetectionBackend> FeaturePyramidNetwork<B> {
    /// # Shapes
    /// - inputs: one `[N, C, H, W]` a level, highest resolution first
    /// - output: as many maps of the same sizes, all with `out_channels` channels
    pub fn forward(&self, inputs: Vec<Tensor<B, 4>>, cx: &mut Forward<'_, B>) -> Vec<Tensor<B, 4>> {
        let mut merged: Option<Tensor<B, 4>> = None;
        let blocks = self.inner_blocks.iter().zip(&self.layer_blocks);
        let mut levels: Vec<_> = inputs
            .into_iter()
            .zip(blocks)
            .enumerate()
            .rev()
            .map(|(level, (input, (inner, layer)))| {
                let then = ConvEpilogue {
                    residual: merged.take(),
                    ..Default::default()
                };
                let sum = conv_norm_then(&inner.0, inner.1.as_ref(), input, then, cx.phase);
                cx.layer(format_args!("inner_blocks.{level}"), &sum);
                merged = Some(sum.clone());
                let output = conv_norm(layer, sum, cx.phase);
                cx.layer(format_args!("layer_blocks.{level}"), &output);
                output
            })
            .collect();
        levels.reverse();
        levels
    }
}
