//! The configuration of a sequential body, with a feature pyramid or without, and what it answers about itself.

use burn::config::Config;
use derive_setters::Setters;
use std::fmt;

use burn::tensor::backend::Backend;
use rcnn_types::validate::require_within;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::module::NormSettings;
use super::{LayerSpec, Sequential, SequentialError, StageSpec};
use crate::channels::within;
use crate::{
    AnyBackbone, Architecture, BackboneConfig, BackboneConfigError, Channels, FpnConfig, LevelSpec,
    NormKind, Stage,
};

/// The members of a family of sequential bodies, as data.
pub trait SequentialArch:
    Copy + PartialEq + fmt::Debug + Serialize + DeserializeOwned + 'static
{
    /// Every member.
    const ALL: &'static [Self];

    /// A tensor of the body that no other family has, by name.
    const MARK: &'static str;

    /// torchvision's builder name.
    fn name(self) -> &'static str;

    /// The stages in the order of the forward pass.
    fn stages(self) -> Vec<StageSpec>;

    /// torchvision's backbone over this member.
    fn backbone(self) -> SequentialConfig<Self>;

    /// Epsilon and momentum of the norms of torchvision's classifier: what users take as a backbone without a pyramid.
    fn classifier_norm() -> (f64, f64) {
        (1e-5, 0.1)
    }

    /// The configuration as one of any architecture.
    fn any(config: SequentialConfig<Self>) -> BackboneConfig;
}

/// A sequential body with a feature pyramid or without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default, bound = "A: SequentialArch")]
#[setters(prefix = "with_")]
pub struct SequentialConfig<A: SequentialArch> {
    /// The body.
    pub arch: A,
    /// The body's norms.
    pub norm: NormKind,
    /// Epsilon of the body's norms.
    pub norm_eps: f64,
    /// How much a batch counts in the running statistics of the body's norms.
    pub norm_momentum: f64,
    /// Stages that feature maps are made of, ascending, from 0; one without a pyramid. Later stages are not built.
    pub returned_layers: Vec<usize>,
    /// The pyramid. Without one, the last layer's output is the one feature map.
    #[setters(skip)]
    pub fpn: Option<PyramidConfig>,
    /// Without a pyramid, whether the last stage that is built ends with the layer that a pyramid would take its map
    /// from: a VGG then lacks its last pooling, as in the paper on Faster R-CNN. torchvision: no.
    pub trim_last_stage: bool,
    /// Stages that are the identity, by name. torchvision: none.
    pub dropped_stages: Vec<String>,
    /// Blocks that are the identity, by name. torchvision: none.
    pub dropped_blocks: Vec<String>,
    /// Output channels of layers of the body that have others than torchvision's, by path, as `4.block.1.0`.
    /// torchvision: none.
    pub channels: Channels,
}

/// A feature pyramid over a sequential body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default)]
#[setters(prefix = "with_")]
pub struct PyramidConfig {
    /// Channels of every level.
    pub out_channels: usize,
    /// Channels of the maps that are merged; `None` for those of the levels, as in torchvision.
    pub inner_channels: Option<usize>,
    /// Norm of the convolutions and its epsilon. torchvision: none.
    pub norm: Option<(NormKind, f64)>,
    /// Whether a level `pool` follows, the last one subsampled by two (`LastLevelMaxPool`).
    pub max_pool_level: bool,
}

impl Config for PyramidConfig {}

impl Default for PyramidConfig {
    fn default() -> Self {
        Self {
            out_channels: 256,
            inner_channels: None,
            norm: None,
            max_pool_level: true,
        }
    }
}

impl<A: SequentialArch> Default for SequentialConfig<A> {
    /// torchvision's backbone over the first member.
    fn default() -> Self {
        A::ALL[0].backbone()
    }
}

impl<A: SequentialArch> SequentialConfig<A> {
    /// A body under torchvision's pyramid, over its last two stages: `mobilenet_backbone(fpn=True)`.
    pub fn with_fpn(arch: A) -> Self {
        let last = arch.stages().len() - 1;
        Self {
            arch,
            norm: NormKind::FrozenBatchNorm2d,
            norm_eps: 1e-5,
            norm_momentum: 0.1,
            returned_layers: vec![last - 1, last],
            fpn: Some(PyramidConfig::default()),
            trim_last_stage: false,
            dropped_stages: Vec::new(),
            dropped_blocks: Vec::new(),
            channels: Channels::default(),
        }
    }

    /// The `features` of torchvision's classifier as the backbone: one map.
    pub fn features(arch: A) -> Self {
        let (norm_eps, norm_momentum) = A::classifier_norm();
        Self {
            norm: NormKind::BatchNorm2d,
            norm_eps,
            norm_momentum,
            returned_layers: vec![arch.stages().len() - 1],
            fpn: None,
            ..Self::with_fpn(arch)
        }
    }

    /// The usual backbone with a body of that name; with a pyramid for `name_fpn`, without for `name_features`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        A::ALL.iter().find_map(|arch| {
            Some(match name.strip_prefix(arch.name())? {
                "" => arch.backbone(),
                "_fpn" => Self::with_fpn(*arch),
                "_features" => Self::features(*arch),
                _ => return None,
            })
        })
    }

    /// Whether the last stage that is built ends with the layer that its map is made of.
    pub(super) fn ends_at_map(&self) -> bool {
        self.fpn.is_some() || self.trim_last_stage
    }

    /// The pyramid by itself.
    fn pyramid(&self) -> Option<FpnConfig> {
        self.fpn.as_ref().map(|fpn| FpnConfig {
            returned_stages: self.returned_layers.clone(),
            out_channels: fpn.out_channels,
            inner_channels: fpn.inner_channels,
            norm: fpn.norm,
            max_pool_level: fpn.max_pool_level,
        })
    }

    /// Makes the module.
    pub(crate) fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<AnyBackbone<B>, BackboneConfigError> {
        Architecture::validate(self)?;
        let (network, config) = (self.network(), A::any(self.clone()));
        let stages = network.stages.clone();
        let norm = NormSettings {
            kind: self.norm,
            eps: self.norm_eps,
            momentum: self.norm_momentum,
        };
        let body = Sequential::new(network, norm, config.clone(), device);
        Ok(match self.pyramid() {
            Some(fpn) => AnyBackbone::SequentialFpn(fpn.assemble(body, &stages, config, device)),
            None => AnyBackbone::Sequential(body),
        })
    }

    /// Removes stages and blocks that are not built from those to drop.
    fn forget_unbuilt(&mut self) {
        let whole = Self {
            dropped_blocks: Vec::new(),
            ..self.clone()
        };
        let network = whole.network();
        let is_built = |name: &String| {
            let mut stages = network.stages.iter();
            stages.any(|stage| stage.name == *name && stage.is_built)
        };
        let last = self.returned_layers.last().copied().unwrap_or(0);
        let before: Vec<&String> = network.stages[..last]
            .iter()
            .map(|stage| &stage.name)
            .collect();
        self.dropped_stages.retain(|stage| before.contains(&stage));
        let stage_of = |block: &String| {
            let mut stages = network.stages.iter();
            stages.find(|stage| stage.blocks.iter().any(|b| b.name == *block))
        };
        self.dropped_blocks
            .retain(|block| stage_of(block).is_some_and(|stage| is_built(&stage.name)));
    }
}

impl<A: SequentialArch> From<SequentialConfig<A>> for BackboneConfig {
    fn from(config: SequentialConfig<A>) -> Self {
        A::any(config)
    }
}

impl<A: SequentialArch> Architecture for SequentialConfig<A> {
    fn name(&self) -> &'static str {
        self.arch.name()
    }

    fn validate(&self) -> Result<(), BackboneConfigError> {
        let (found, stages) = (&self.returned_layers, self.arch.stages().len());
        let valid = found.iter().all(|l| *l < stages) && found.is_sorted_by(|a, b| a < b);
        if found.is_empty() || !valid {
            return Err(SequentialError::ReturnedLayers {
                found: found.clone(),
                last: stages - 1,
            }
            .into());
        }
        require_within("norm_eps", self.norm_eps, 0.0..=1.0)?;
        require_within("norm_momentum", self.norm_momentum, 0.0..=1.0)?;
        self.channels.validate(&self.free_layers())?;
        self.validate_dropped()?;
        match self.pyramid() {
            Some(fpn) => fpn.validate(&self.network().stages),
            None if found.len() > 1 => Err(SequentialError::OneMap(format!("{found:?}")).into()),
            None => Ok(()),
        }
    }

    fn levels(&self) -> Vec<LevelSpec> {
        let stages = self.network().stages;
        match self.pyramid() {
            Some(fpn) => fpn.levels(&stages),
            None => self.returned_layers.last().map_or(Vec::new(), |&last| {
                let last = stages.get(last);
                last.map(|stage| LevelSpec::new("0", stage.channels, stage.stride))
                    .into_iter()
                    .collect()
            }),
        }
    }

    fn stages(&self) -> Vec<Stage> {
        let stages = self.network().stages;
        match self.fpn {
            Some(_) => stages
                .into_iter()
                .map(|stage| stage.within("body"))
                .collect(),
            None => stages,
        }
    }

    fn level_stages(&self) -> Vec<usize> {
        self.returned_layers.clone()
    }

    /// All five sizes on each map, as torchvision's MobileNet detectors and its tutorial have them.
    fn anchor_sizes(&self) -> Vec<Vec<f32>> {
        vec![vec![32.0, 64.0, 128.0, 256.0, 512.0]; self.levels().len()]
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
        match &mut self.fpn {
            Some(fpn) => fpn.max_pool_level = pool,
            None if pool => return Err(SequentialError::OneMap("pool".into()).into()),
            None => {}
        }
        self.returned_layers = stages.to_vec();
        self.forget_unbuilt();
        Ok(())
    }

    fn drop_stage(&mut self, stage: usize) {
        let name = self.arch.stages()[stage].name.clone();
        self.dropped_stages.push(name);
        self.forget_unbuilt();
    }

    fn drop_block(&mut self, stage: usize, block: usize) {
        let (_, name) = self.arch.stages()[stage].blocks[block].clone();
        self.dropped_blocks.push(name);
    }

    fn set_channels(&mut self, channels: &dyn Fn(&str) -> Option<usize>) {
        let free = self.free_layers();
        let pyramid = self.pyramid().map(|fpn| fpn.asked_channels(channels));
        match (&mut self.fpn, pyramid) {
            (Some(fpn), Some(asked)) => {
                self.channels.set(&free, &within("body", channels));
                (fpn.out_channels, fpn.inner_channels) = asked;
            }
            _ => self.channels.set(&free, channels),
        }
    }

    fn classifier_parameter(&self, name: &str) -> Option<String> {
        let name = name.strip_prefix("features.")?;
        Some(match self.fpn {
            Some(_) => format!("body.{name}"),
            None => name.to_string(),
        })
    }
}

impl<A: SequentialArch> fmt::Display for SequentialConfig<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped = self.dropped_stages.iter().chain(&self.dropped_blocks);
        let dropped: Vec<&str> = dropped.map(String::as_str).collect();
        let specs = self.arch.stages();
        let layers = specs.iter().flat_map(|stage| &stage.layers);
        let norm = match layers.filter_map(LayerSpec::norm).next() {
            Some(_) => format!("{:?}, ", self.norm),
            None => String::new(),
        };
        let (arch, returned) = (self.arch.name(), &self.returned_layers);
        match (&self.fpn, returned.last().and_then(|&last| specs.get(last))) {
            (None, Some(last)) => {
                let trimmed = if self.trim_last_stage {
                    ", trimmed"
                } else {
                    ""
                };
                write!(f, "{arch} ({norm}one map, of {}{trimmed}", last.name)?;
            }
            _ => write!(f, "{arch}-FPN ({norm}stages {returned:?}")?,
        }
        if !dropped.is_empty() {
            write!(f, " without {}", dropped.join(", "))?;
        }
        let merged = self.fpn.as_ref().and_then(|fpn| fpn.inner_channels);
        if !self.channels.is_empty() || merged.is_some() {
            f.write_str(", pruned")?;
        }
        f.write_str(")")
    }
}
