//! The feature pyramid network, and the backbone that it makes of any body.
//!
//! Lin et al. 2016 (<https://arxiv.org/abs/1612.03144>), as in `torchvision.ops`.

use burn::module::{Initializer, Module};
use burn::nn::pool::MaxPool2dConfig;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{ConvEpilogue, DetectionBackend, Forward, max_pool2d};
use rcnn_types::validate::{require, require_within};

use crate::conv_norm::conv_norm_then;
use crate::{
    Backbone, BackboneConfig, BackboneConfigError, Body, ConvNorm, ConvNormConfig, FeatureMaps,
    LevelSpec, MAX_CHANNELS, NormKind, Shapes, Stage, conv_norm,
};

/// A feature pyramid over some stages of a [`Body`].
#[derive(Debug, Clone, PartialEq)]
pub struct FpnConfig {
    /// Stages that feed the pyramid, as ascending positions in [`Body::stages`]. Their maps are named `0`,
    /// `1`, ...
    pub returned_stages: Vec<usize>,
    /// Channels of every level.
    pub out_channels: usize,
    /// Channels of the maps that are merged top-down; `None` for those of the levels.
    pub inner_channels: Option<usize>,
    /// Norm of the convolutions and its epsilon, if there is one.
    pub norm: Option<(NormKind, f64)>,
    /// Whether a level `pool` follows, the last one subsampled by two (`LastLevelMaxPool`).
    pub max_pool_level: bool,
}

impl Default for FpnConfig {
    /// torchvision's pyramid over a ResNet: stages 1 to 4, 256 channels, no norm, a level `pool`.
    fn default() -> Self {
        Self {
            returned_stages: vec![1, 2, 3, 4],
            out_channels: 256,
            inner_channels: None,
            norm: None,
            max_pool_level: true,
        }
    }
}

impl FpnConfig {
    /// Checks that the pyramid fits a body's stages.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self, stages: &[Stage]) -> Result<(), BackboneConfigError> {
        let returned = &self.returned_stages;
        let fits = |&stage: &usize| {
            let stage = stages.get(stage);
            stage.is_some_and(|stage| stage.is_built && stage.is_returnable)
        };
        let known: Vec<String> = (0..stages.len())
            .filter(fits)
            .map(|stage| format!("{stage} ({})", stages[stage].name))
            .collect();
        require(
            !returned.is_empty()
                && returned.iter().all(fits)
                && returned.is_sorted_by(|a, b| a < b),
            "returned_stages",
            returned,
            format_args!("one or more of {}, in ascending order", known.join(", ")),
        )?;
        require_within("out_channels", self.out_channels, 1..=MAX_CHANNELS)?;
        let inner = self.inner_channels.unwrap_or(1);
        require_within("inner_channels", inner, 1..=MAX_CHANNELS)?;
        let eps = self.norm.map_or(0.0, |(_, eps)| eps);
        Ok(require_within(
            "epsilon of the pyramid's norm",
            eps,
            0.0..=1.0,
        )?)
    }

    /// The feature maps, finest first: `0`, `1`, ... and perhaps `pool`.
    pub fn levels(&self, stages: &[Stage]) -> Vec<LevelSpec> {
        let returned = self.returned_stages.iter();
        let returned = returned.filter_map(|&stage| stages.get(stage)).enumerate();
        let level = |name: String, stride| LevelSpec::new(name, self.out_channels, stride);
        let mut levels: Vec<LevelSpec> = returned
            .map(|(i, stage)| level(i.to_string(), stage.stride))
            .collect();
        if self.max_pool_level {
            let pool = levels
                .last()
                .map(|last| level("pool".into(), last.stride * 2));
            levels.extend(pool);
        }
        levels
    }

    /// Makes a backbone of a body, with random weights in the pyramid.
    ///
    /// # Errors
    /// Where [`validate`](Self::validate) fails.
    pub fn init<B: Backend, T: Body<B>>(
        &self,
        body: T,
        device: &B::Device,
    ) -> Result<BackboneWithFpn<B, T>, BackboneConfigError> {
        let stages = body.stages();
        self.validate(&stages)?;
        Ok(self.assemble(body, &stages, BackboneConfig::Custom, device))
    }

    /// Makes the backbone of a body whose stages were validated.
    pub(crate) fn assemble<B: Backend, T>(
        &self,
        body: T,
        stages: &[Stage],
        config: BackboneConfig,
        device: &B::Device,
    ) -> BackboneWithFpn<B, T> {
        let merged = self.inner_channels.unwrap_or(self.out_channels);
        let block = |channels, kernel_size| ConvNormConfig {
            norm: self.norm,
            initializer: Initializer::KaimingUniform {
                gain: 1.0,
                fan_out_only: false,
            },
            ..ConvNormConfig::new(channels, kernel_size)
        };
        let returned = &self.returned_stages;
        let inner = |&stage: &usize| block([stages[stage].channels, merged], 1).init(device);
        let layer = |_: &usize| block([merged, self.out_channels], 3).init(device);
        BackboneWithFpn {
            body,
            fpn: FeaturePyramidNetwork {
                inner_blocks: returned.iter().map(inner).collect(),
                layer_blocks: returned.iter().map(layer).collect(),
            },
            pyramid: self.clone(),
            config,
        }
    }

    /// Takes the channels that are asked for by the layers' paths in the backbone.
    pub(crate) fn asked_channels(
        &self,
        channels: &dyn Fn(&str) -> Option<usize>,
    ) -> (usize, Option<usize>) {
        let out = channels("fpn.layer_blocks.0.0").unwrap_or(self.out_channels);
        let merged = self.inner_channels.unwrap_or(self.out_channels);
        let merged = channels("fpn.inner_blocks.0.0").unwrap_or(merged);
        (out, (merged != out).then_some(merged))
    }

    /// Recognises the pyramid over the stages of a body by its tensors. Whether there is a level `pool` cannot
    /// be inferred.
    ///
    /// # Errors
    /// Says what was seen that is not a pyramid over these stages.
    pub(crate) fn recognize(fpn: &Shapes, body: &str, stages: &[Stage]) -> Result<Self, String> {
        let mut config = Self {
            returned_stages: Vec::new(),
            // torchvision freezes none of these.
            norm: fpn
                .has("inner_blocks.0.1.weight")
                .then(|| fpn.norm("inner_blocks.0.1").or(NormKind::BatchNorm2d, 1e-5)),
            ..Self::default()
        };
        // From the last level back, as several stages may have as many channels.
        let mut before = stages.len();
        for level in (0..fpn.count(|i| format!("inner_blocks.{i}.0.weight"))).rev() {
            let name = format!("inner_blocks.{level}.0.weight");
            let Some(&[merged, input, 1, 1]) = fpn.get(&name) else {
                return Err(format!("{} is not a 1x1 convolution", fpn.path(&name)));
            };
            let takes =
                |stage: &Stage| stage.is_built && stage.is_returnable && stage.channels == input;
            before = stages[..before].iter().rposition(takes).ok_or_else(|| {
                let name = fpn.path(&name);
                format!("{name} takes {input} channels, which no stage of {body} outputs")
            })?;
            config.returned_stages.insert(0, before);
            config.out_channels = match fpn.get(&format!("layer_blocks.{level}.0.weight")) {
                Some(&[out_channels, ..]) => out_channels,
                _ => merged,
            };
            config.inner_channels = (merged != config.out_channels).then_some(merged);
        }
        match config.returned_stages.is_empty() {
            true => Err(format!("no feature pyramid ({}*)", fpn.path(""))),
            false => Ok(config),
        }
    }
}

/// A body and a pyramid over it (`torchvision.models.detection.backbone_utils.BackboneWithFPN`). Made by
/// [`FpnConfig::init`] and by the configurations of the architectures.
#[derive(Module, Debug)]
pub struct BackboneWithFpn<B: Backend, T> {
    /// The body.
    pub body: T,
    /// The pyramid.
    pub fpn: FeaturePyramidNetwork<B>,
    #[module(skip)]
    pyramid: FpnConfig,
    #[module(skip)]
    config: BackboneConfig,
}

impl<B: DetectionBackend, T: Body<B>> Backbone<B> for BackboneWithFpn<B, T> {
    fn forward(&self, images: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
        let returned = &self.pyramid.returned_stages;
        let stages = self.body.forward(images, returned, &mut cx.scope("body"));
        let mut levels = self.fpn.forward(stages, &mut cx.scope("fpn"));
        let mut names: Vec<String> = (0..levels.len()).map(|i| i.to_string()).collect();
        if self.pyramid.max_pool_level {
            let pool = MaxPool2dConfig::new([1, 1]).with_strides([2, 2]).init();
            levels.push(max_pool2d(&pool, levels[levels.len() - 1].clone()));
            names.push("pool".to_string());
        }
        FeatureMaps::new(names.into_iter().zip(levels).collect())
    }

    fn levels(&self) -> Vec<LevelSpec> {
        self.pyramid.levels(&self.body.stages())
    }

    fn stages(&self) -> Vec<Stage> {
        let stages = self.body.stages().into_iter();
        stages.map(|stage| stage.within("body")).collect()
    }

    /// The pyramid upsamples to the size of the finer map, whatever it is.
    fn size_divisibility(&self) -> usize {
        1
    }

    fn config(&self) -> BackboneConfig {
        self.config.clone()
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
    /// Computes the maps of the pyramid, finest first.
    ///
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ResNetFpnConfig;

    #[test]
    fn a_pyramid_over_stages_that_there_are_not_is_refused() {
        let cut = ResNetFpnConfig {
            returned_layers: vec![1, 3],
            dropped_stages: vec![2],
            ..Default::default()
        };
        let stages = cut.body().stages();
        let error = |returned_stages: &[usize], out_channels| {
            let config = FpnConfig {
                returned_stages: returned_stages.to_vec(),
                out_channels,
                ..Default::default()
            };
            let validated = config.validate(&stages);
            validated.map_err(|error| error.to_string())
        };
        assert_eq!(error(&[1, 3], 256), Ok(()));
        // Nothing, no order, the stem, a stage that is dropped, one that is cut off, one too many.
        for returned in [&[][..], &[3, 1], &[0], &[1, 2], &[3, 4], &[5]] {
            assert_eq!(
                error(returned, 256),
                Err(format!(
                    "returned_stages = {returned:?}: expected one or more of 1 (layer1), 3 (layer3), in \
                     ascending order"
                ))
            );
        }
        assert!(error(&[1], 0).is_err_and(|error| error.contains("out_channels = 0")));
    }
}
