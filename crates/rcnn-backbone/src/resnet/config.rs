//! The configuration of a ResNet with a feature pyramid, and what it answers about itself.

use burn::config::Config;
use derive_setters::Setters;
use std::fmt;

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::{ResNet, ResNetArch, ResNetConfig, ResNetError};
use crate::channels::within;
use crate::{
    Architecture, BackboneConfig, BackboneConfigError, BackboneWithFpn, Channels, FpnConfig,
    LevelSpec, NormKind, Stage,
};

/// A ResNet with a feature pyramid: torchvision's `resnet_fpn_backbone`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default)]
#[setters(prefix = "with_")]
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
    /// Channels of the maps that the pyramid merges; `None` for those of the levels, as in torchvision.
    pub inner_channels: Option<usize>,
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
    /// Output channels of layers of the body that have others than torchvision's, by path, as `layer1.0.conv1`.
    /// `layer2.0.downsample.0` stands for the whole stage. torchvision: none.
    pub channels: Channels,
}

impl Config for ResNetFpnConfig {}

impl Default for ResNetFpnConfig {
    /// `fasterrcnn_resnet50_fpn`'s backbone.
    fn default() -> Self {
        Self {
            arch: ResNetArch::ResNet50,
            norm: NormKind::FrozenBatchNorm2d,
            norm_eps: 1e-5,
            returned_layers: vec![1, 2, 3, 4],
            out_channels: 256,
            inner_channels: None,
            fpn_norm: None,
            max_pool_level: true,
            dropped_stages: Vec::new(),
            dropped_blocks: Vec::new(),
            channels: Channels::default(),
        }
    }
}

impl ResNetFpnConfig {
    /// The body by itself: stages after the last returned one are not built.
    pub fn body(&self) -> ResNetConfig {
        ResNetConfig {
            arch: self.arch,
            norm: self.norm,
            norm_eps: self.norm_eps,
            stages: self.returned_layers.last().copied().unwrap_or(0),
            dropped_stages: self.dropped_stages.clone(),
            dropped_blocks: self.dropped_blocks.clone(),
            channels: self.channels.clone(),
        }
    }

    /// The pyramid by itself.
    pub fn fpn(&self) -> FpnConfig {
        FpnConfig {
            // `layer1` follows the stem, which is stage 0.
            returned_stages: self.returned_layers.clone(),
            out_channels: self.out_channels,
            inner_channels: self.inner_channels,
            norm: self.fpn_norm.map(|kind| (kind, self.norm_eps)),
            max_pool_level: self.max_pool_level,
        }
    }

    /// torchvision's backbone with a body of that name, with or without `_fpn` after it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let arch = name.strip_suffix("_fpn").unwrap_or(name).parse().ok()?;
        Some(Self {
            arch,
            ..Default::default()
        })
    }

    /// Makes the module.
    ///
    /// # Errors
    /// Where [`validate`](Architecture::validate) fails.
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<BackboneWithFpn<B, ResNet<B>>, BackboneConfigError> {
        Architecture::validate(self)?;
        let (body, config) = (self.body(), BackboneConfig::ResnetFpn(self.clone()));
        Ok(self
            .fpn()
            .assemble(body.init(device)?, &body.stages(), config, device))
    }

    /// Removes stages and blocks that are not built from those to drop.
    fn forget_unbuilt(&mut self) {
        let last = self.body().stages;
        self.dropped_stages.retain(|&stage| stage < last);
        let stages = self.body().stages();
        self.dropped_blocks
            .retain(|&(stage, _)| stages[stage].is_built);
    }
}

impl From<ResNetFpnConfig> for BackboneConfig {
    fn from(config: ResNetFpnConfig) -> Self {
        Self::ResnetFpn(config)
    }
}

impl BackboneConfig {
    /// The backbone of `fasterrcnn_resnet50_fpn_v2`: trainable norms, in the pyramid too.
    pub fn resnet50_fpn_v2() -> Self {
        Self::ResnetFpn(ResNetFpnConfig {
            norm: NormKind::BatchNorm2d,
            fpn_norm: Some(NormKind::BatchNorm2d),
            ..Default::default()
        })
    }
}

impl Architecture for ResNetFpnConfig {
    fn name(&self) -> &'static str {
        self.arch.name()
    }

    fn validate(&self) -> Result<(), BackboneConfigError> {
        let layers = &self.returned_layers;
        let valid = layers.iter().all(|l| (1..=4).contains(l)) && layers.is_sorted_by(|a, b| a < b);
        if layers.is_empty() || !valid {
            return Err(ResNetError::ReturnedLayers(layers.clone()).into());
        }
        self.body().validate()?;
        if let Some(&stage) = layers.iter().find(|l| self.dropped_stages.contains(l)) {
            return Err(ResNetError::DroppedReturned { stage }.into());
        }
        self.fpn().validate(&self.body().stages())
    }

    fn levels(&self) -> Vec<LevelSpec> {
        self.fpn().levels(&self.body().stages())
    }

    fn stages(&self) -> Vec<Stage> {
        let stages = self.body().stages().into_iter();
        stages.map(|stage| stage.within("body")).collect()
    }

    fn level_stages(&self) -> Vec<usize> {
        self.returned_layers.clone()
    }

    /// One size on each of five maps.
    fn anchor_sizes(&self) -> Vec<Vec<f32>> {
        [32.0, 64.0, 128.0, 256.0, 512.0]
            .map(|size| vec![size])
            .into()
    }

    fn norm_eps(&self) -> f64 {
        self.norm_eps
    }

    fn set_norm_eps(&mut self, eps: f64) {
        self.norm_eps = eps;
    }

    fn set_norm(&mut self, norm: NormKind) {
        self.norm = norm;
    }

    fn set_levels(&mut self, stages: &[usize], pool: bool) -> Result<(), BackboneConfigError> {
        self.returned_layers = stages.to_vec();
        self.max_pool_level = pool;
        self.forget_unbuilt();
        Ok(())
    }

    fn drop_stage(&mut self, stage: usize) {
        self.dropped_stages.push(stage);
        self.dropped_stages.sort_unstable();
        self.forget_unbuilt();
    }

    fn drop_block(&mut self, stage: usize, block: usize) {
        self.dropped_blocks.push((stage, block));
        self.dropped_blocks.sort_unstable();
    }

    fn set_channels(&mut self, channels: &dyn Fn(&str) -> Option<usize>) {
        let free = self.body().free_layers();
        self.channels.set(&free, &within("body", channels));
        (self.out_channels, self.inner_channels) = self.fpn().asked_channels(channels);
    }

    fn classifier_parameter(&self, name: &str) -> Option<String> {
        (!name.starts_with("fc.")).then(|| format!("body.{name}"))
    }
}

impl fmt::Display for ResNetFpnConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages = self.dropped_stages.iter();
        let stages = stages.map(|stage| format!("layer{stage}"));
        let blocks = self.dropped_blocks.iter();
        let blocks = blocks.map(|(stage, block)| format!("layer{stage}.{block}"));
        let dropped: Vec<String> = stages.chain(blocks).collect();
        let (arch, norm, returned) = (self.arch, self.norm, &self.returned_layers);
        write!(f, "{arch}-FPN ({norm:?}, stages {returned:?}")?;
        if !dropped.is_empty() {
            write!(f, " without {}", dropped.join(", "))?;
        }
        if !self.channels.is_empty() || self.inner_channels.is_some() {
            f.write_str(", pruned")?;
        }
        f.write_str(")")
    }
}
