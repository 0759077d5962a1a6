//! The bundled architectures: the trait that each implements, and the enums over all of them.
//!
//! An architecture is a folder with its configuration, its module and its recognition; here it has a variant
//! of [`BackboneConfig`] and one of [`AnyBackbone`], and everything else asks.

use std::fmt;

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{DetectionBackend, Forward};
use rcnn_types::validate::InvalidField;
use serde::{Deserialize, Serialize};

use crate::inception_v2::{InceptionV2, InceptionV2Config, InceptionV2Head, InceptionV2HeadConfig};
use crate::mobilenet_v2::MobileNetV2Arch;
use crate::mobilenet_v3::MobileNetV3Arch;
use crate::resnet::{self, ResNet, ResNetFpnConfig};
use crate::sequential::{self, Sequential, SequentialArch, SequentialConfig};
use crate::vgg::VggArch;
use crate::{
    Backbone, BackboneWithFpn, Body, Boxed, FeatureMaps, LevelSpec, NormKind, Shapes, Stage,
};

/// Description of an architecture besides its module: names, levels, stages, changes. Its configuration
/// implements this.
///
/// `Display` describes the network in one line.
pub trait Architecture: fmt::Display {
    /// torchvision's name of the network, such as `resnet50`.
    fn name(&self) -> &'static str;

    /// Checks that the configuration describes a network.
    ///
    /// # Errors
    /// Names the field, stage or block at fault.
    fn validate(&self) -> Result<(), BackboneConfigError>;

    /// The feature maps that the backbone returns, finest first.
    fn levels(&self) -> Vec<LevelSpec>;

    /// The stages in the order of the forward pass, with the paths of their modules in the backbone.
    fn stages(&self) -> Vec<Stage>;

    /// Position in [`stages`](Self::stages) of the stage that each feature map is made of, finest first.
    /// A level `pool`, which is made of the last map, is not among them.
    fn level_stages(&self) -> Vec<usize>;

    /// Sizes in pixels of the anchors of each feature map, as in torchvision's detectors over the architecture.
    fn anchor_sizes(&self) -> Vec<Vec<f32>>;

    /// Epsilon of the norms.
    fn norm_eps(&self) -> f64;

    /// Replaces the epsilon of the norms.
    fn set_norm_eps(&mut self, eps: f64);

    /// Replaces the norms of the body.
    fn set_norm(&mut self, norm: NormKind);

    /// Makes feature maps of these stages alone, given as ascending positions, and perhaps a level `pool`.
    /// Stages after the last are not built.
    ///
    /// # Errors
    /// When the backbone has no place for such a level.
    fn set_levels(&mut self, stages: &[usize], pool: bool) -> Result<(), BackboneConfigError>;

    /// Makes a stage the identity, of which no feature map is made.
    fn drop_stage(&mut self, stage: usize);

    /// Makes a block of the stage at a position the identity.
    fn drop_block(&mut self, stage: usize, block: usize);

    /// Gives layers the output channels that `channels` says by their paths in the backbone. It is asked only for
    /// layers whose channels are free: those of others, such as the last of a residual block, follow.
    fn set_channels(&mut self, channels: &dyn Fn(&str) -> Option<usize>);

    /// The backbone's name of a parameter of the image classifier that the body is taken from; nothing for
    /// those of the classifier's head.
    fn classifier_parameter(&self, name: &str) -> Option<String>;
}

/// Configuration of a backbone: a bundled architecture, or a custom one.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_backbone as backbone; }
/// use rcnn_burn::backbone::BackboneConfig;
///
/// let config = BackboneConfig::named("resnet18")?;
/// let stages = config.architecture().expect("a bundled architecture").stages();
/// let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
/// assert_eq!(names, ["stem", "layer1", "layer2", "layer3", "layer4"]);
/// # Ok::<(), rcnn_backbone::UnknownArchitecture>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackboneConfig {
    /// A ResNet with a feature pyramid network.
    ResnetFpn(ResNetFpnConfig),
    /// A MobileNetV3, with a feature pyramid network or without.
    MobilenetV3(SequentialConfig<MobileNetV3Arch>),
    /// A MobileNetV2, with a feature pyramid network or without.
    MobilenetV2(SequentialConfig<MobileNetV2Arch>),
    /// A VGG, with a feature pyramid network or without.
    Vgg(SequentialConfig<VggArch>),
    /// TensorFlow's Inception v2 up to `Mixed_4e`.
    InceptionV2(InceptionV2Config),
    /// A custom backbone, which is passed in as a module.
    Custom,
}

impl Default for BackboneConfig {
    /// The backbone of `fasterrcnn_resnet50_fpn`.
    fn default() -> Self {
        Self::ResnetFpn(ResNetFpnConfig::default())
    }
}

impl From<InceptionV2Config> for BackboneConfig {
    fn from(config: InceptionV2Config) -> Self {
        Self::InceptionV2(config)
    }
}

impl BackboneConfig {
    /// The bundled architecture; `None` for a custom backbone.
    pub fn architecture(&self) -> Option<&dyn Architecture> {
        match self {
            Self::ResnetFpn(config) => Some(config),
            Self::MobilenetV3(config) => Some(config),
            Self::MobilenetV2(config) => Some(config),
            Self::Vgg(config) => Some(config),
            Self::InceptionV2(config) => Some(config),
            Self::Custom => None,
        }
    }

    /// The bundled architecture, mutably; `None` for a custom backbone.
    pub fn architecture_mut(&mut self) -> Option<&mut dyn Architecture> {
        match self {
            Self::ResnetFpn(config) => Some(config),
            Self::MobilenetV3(config) => Some(config),
            Self::MobilenetV2(config) => Some(config),
            Self::Vgg(config) => Some(config),
            Self::InceptionV2(config) => Some(config),
            Self::Custom => None,
        }
    }

    /// The default configuration of the architecture of that name. With the suffix `_fpn` it has a feature pyramid, where
    /// the architecture can; with `_features`, none.
    ///
    /// # Errors
    /// Lists the known names.
    pub fn named(name: &str) -> Result<Self, UnknownArchitecture> {
        let found = (ResNetFpnConfig::named(name).map(Self::ResnetFpn))
            .or_else(|| SequentialConfig::named(name).map(Self::MobilenetV3))
            .or_else(|| SequentialConfig::named(name).map(Self::MobilenetV2))
            .or_else(|| SequentialConfig::named(name).map(Self::Vgg))
            .or_else(|| InceptionV2Config::named(name).map(Self::InceptionV2));
        found.ok_or_else(|| UnknownArchitecture { name: name.into() })
    }

    /// Names of all bundled architectures.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let resnets = resnet::ResNetArch::ALL.into_iter();
        let resnets = resnets.map(resnet::ResNetArch::name);
        resnets
            .chain(MobileNetV3Arch::ALL.iter().map(|arch| arch.name()))
            .chain(MobileNetV2Arch::ALL.iter().map(|arch| arch.name()))
            .chain(VggArch::ALL.iter().map(|arch| arch.name()))
            .chain([InceptionV2Config::NAME])
    }

    /// Recognises an architecture by the names and shapes of a backbone's tensors; `None` where no
    /// architecture knows the names.
    ///
    /// # Errors
    /// Says what was seen that does not fit the architecture.
    pub fn recognize(backbone: &Shapes) -> Option<Result<Self, String>> {
        let resnet = ResNetFpnConfig::recognize(backbone);
        let resnet = resnet.map(|config| config.map(Self::ResnetFpn));
        resnet
            .or_else(|| sequential::<MobileNetV3Arch>(backbone))
            .or_else(|| sequential::<MobileNetV2Arch>(backbone))
            .or_else(|| sequential::<VggArch>(backbone))
            .or_else(|| Some(InceptionV2Config::recognize(backbone)?.map(Self::InceptionV2)))
    }

    /// Recognises the image classifier of an architecture, and returns its name; `None` where no
    /// architecture knows the names.
    ///
    /// # Errors
    /// As [`recognize`](Self::recognize).
    pub fn recognize_classifier(classifier: &Shapes) -> Option<Result<&'static str, String>> {
        resnet::recognize_classifier(classifier)
            .or_else(|| sequential::recognize_classifier::<MobileNetV3Arch>(classifier))
            .or_else(|| sequential::recognize_classifier::<MobileNetV2Arch>(classifier))
            .or_else(|| sequential::recognize_classifier::<VggArch>(classifier))
    }

    /// Prefixes of the names of image classifiers' tensors, of all architectures.
    pub fn classifier_modules() -> &'static [&'static str] {
        &resnet::CLASSIFIER_MODULES
    }

    /// Makes the module with random weights; `None` for a custom backbone.
    ///
    /// # Errors
    /// Where the configuration describes no network.
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<Option<AnyBackbone<B>>, BackboneConfigError> {
        Ok(match self {
            Self::ResnetFpn(config) => Some(AnyBackbone::ResNetFpn(config.init(device)?.into())),
            Self::MobilenetV3(config) => Some(config.init(device)?),
            Self::MobilenetV2(config) => Some(config.init(device)?),
            Self::Vgg(config) => Some(config.init(device)?),
            Self::InceptionV2(config) => {
                Some(AnyBackbone::InceptionV2(config.init(device)?.into()))
            }
            Self::Custom => None,
        })
    }
}

fn sequential<A: SequentialArch>(backbone: &Shapes) -> Option<Result<BackboneConfig, String>> {
    Some(SequentialConfig::<A>::recognize(backbone)?.map(BackboneConfig::from))
}

impl fmt::Display for BackboneConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.architecture() {
            Some(architecture) => architecture.fmt(f),
            None => f.write_str("a custom backbone"),
        }
    }
}

/// A backbone configuration that describes no network.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BackboneConfigError {
    /// A ResNet's stages or blocks do not go together.
    #[error(transparent)]
    ResNet(#[from] crate::resnet::ResNetError),
    /// Stages or blocks of a sequential body do not go together.
    #[error(transparent)]
    Sequential(#[from] sequential::SequentialError),
    /// A field has an invalid value.
    #[error(transparent)]
    Field(#[from] InvalidField),
}

/// A name that no architecture has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown backbone '{name}'; known are {}, some of them with _fpn or _features after it",
    BackboneConfig::names().collect::<Vec<_>>().join(", ")
)]
pub struct UnknownArchitecture {
    /// The name that was given.
    pub name: String,
}

/// Configuration of a box head that is the last stage of a network whose first stages are the backbone. One bundled
/// architecture has such a head.
pub type StageHeadConfig = InceptionV2HeadConfig;

/// A box head that is the last stage of a network. Made by [`StageHeadConfig::init`].
pub type StageHead<B> = InceptionV2Head<B>;

/// A backbone of any bundled architecture. Made by [`BackboneConfig::init`].
///
/// The names of parameters do not contain the name of the variant.
#[derive(Module, Debug)]
pub enum AnyBackbone<B: Backend> {
    /// A ResNet with a feature pyramid network.
    ResNetFpn(Boxed<BackboneWithFpn<B, ResNet<B>>>),
    /// A sequential body with a feature pyramid network.
    SequentialFpn(BackboneWithFpn<B, Sequential<B>>),
    /// A sequential body by itself.
    Sequential(Sequential<B>),
    /// TensorFlow's Inception v2.
    InceptionV2(Boxed<InceptionV2<B>>),
}

impl<B: DetectionBackend> AnyBackbone<B> {
    /// Replaces a block of the body by the identity, in this module alone, and says whether there is such a block
    /// and it keeps the shape of its input. The configuration stays.
    pub fn drop_block(&mut self, block: &str) -> bool {
        match self {
            Self::ResNetFpn(backbone) => backbone.body.drop_block(block),
            Self::SequentialFpn(backbone) => backbone.body.drop_block(block),
            Self::Sequential(backbone) => backbone.drop_block(block),
            Self::InceptionV2(backbone) => backbone.drop_block(block),
        }
    }
}

/// An expression over the backbone of whatever architecture it is.
macro_rules! of_any {
    ($any:expr, $backbone:ident => $value:expr) => {
        match $any {
            AnyBackbone::ResNetFpn(boxed) => {
                let $backbone = &**boxed;
                $value
            }
            AnyBackbone::SequentialFpn($backbone) => $value,
            AnyBackbone::Sequential($backbone) => $value,
            AnyBackbone::InceptionV2(boxed) => {
                let $backbone = &**boxed;
                $value
            }
        }
    };
}

impl<B: DetectionBackend> Backbone<B> for AnyBackbone<B> {
    fn forward(&self, images: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
        of_any!(self, backbone => Backbone::forward(backbone, images, cx))
    }

    fn levels(&self) -> Vec<LevelSpec> {
        of_any!(self, backbone => Backbone::levels(backbone))
    }

    fn stages(&self) -> Vec<Stage> {
        of_any!(self, backbone => Backbone::stages(backbone))
    }

    fn size_divisibility(&self) -> usize {
        of_any!(self, backbone => Backbone::size_divisibility(backbone))
    }

    fn config(&self) -> BackboneConfig {
        of_any!(self, backbone => Backbone::config(backbone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_makes_its_own_backbone() {
        for name in BackboneConfig::names() {
            let with_fpn = BackboneConfig::named(&format!("{name}_fpn")).ok();
            assert_eq!(with_fpn.is_none(), name == InceptionV2Config::NAME);
            let usual = BackboneConfig::named(name).expect("a known name");
            for config in [usual].into_iter().chain(with_fpn) {
                let network = config.architecture().expect("no custom backbone");
                assert_eq!((network.name(), network.validate()), (name, Ok(())));
                let json = serde_json::to_value(&config).expect("plain data");
                assert_eq!(json["arch"], name, "the command line sets it by this name");
            }
        }
        let unknown = BackboneConfig::named("resnet19").unwrap_err().to_string();
        assert!(
            unknown.contains("'resnet19'; known are resnet18, "),
            "{unknown}"
        );
    }

    #[test]
    fn parameters_of_stages_and_dropped_blocks_are_known() {
        let mut config = BackboneConfig::default();
        let network = config.architecture_mut().expect("a ResNet");
        network.drop_block(3, 1);
        network.set_levels(&[1, 3], true).expect("a pyramid");
        let stages = network.stages();
        let is_dropped = |parameter: &str| {
            let stage = stages.iter().find(|stage| stage.owns(parameter));
            stage.map(|stage| stage.is_dropped(parameter))
        };
        for (parameter, expected) in [
            ("body.bn1.weight", Some(false)),
            ("body.layer1.0.conv1.weight", Some(false)),
            ("body.layer3.1.conv1.weight", Some(true)),
            ("body.layer3.10.conv1.weight", Some(false)),
            ("body.layer4.0.conv1.weight", Some(true)),
            ("fpn.inner_blocks.0.0.weight", None),
        ] {
            assert_eq!(is_dropped(parameter), expected, "{parameter}");
        }
    }
}
