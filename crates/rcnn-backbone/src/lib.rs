//! Backbones: the networks that turn a batch of images into feature maps.
//!
//! The first stage of a two-stage detector. [`Backbone`] is the trait for a custom one, and
//! [`BackboneWithFpn`] puts torchvision's feature pyramid on any [`Body`]. The architectures that come with
//! the project are a folder each ([`resnet`], [`mobilenet_v3`], [`mobilenet_v2`], [`vgg`], [`inception_v2`]), described by
//! [`BackboneConfig`] and run by [`AnyBackbone`]; [`Architecture`] is what the rest of the project asks of them. Modules carry torchvision's parameter names,
//! so that its checkpoints fit as they are.

mod architecture;
mod backbone;
mod body;
mod boxed;
mod channels;
mod conv_norm;
mod fpn;
pub mod inception_v2;
mod levels;
mod mobilenet;
pub mod mobilenet_v2;
pub mod mobilenet_v3;
mod norm;
mod parameters;
pub mod published;
pub mod resnet;
pub mod sequential;
mod shapes;
mod stage;
pub mod vgg;

pub use architecture::{
    AnyBackbone, Architecture, BackboneConfig, BackboneConfigError, StageHead, StageHeadConfig,
    UnknownArchitecture,
};
pub use backbone::{Backbone, FeatureMaps};
pub use body::Body;
pub use boxed::Boxed;
pub use channels::Channels;
pub use conv_norm::{ConvNorm, ConvNormConfig, conv_norm, conv_norm_activation, conv_norm_relu};
pub use fpn::{BackboneWithFpn, FeaturePyramidNetwork, FpnConfig};
pub use inception_v2::tensorflow;
pub use levels::{FeatureMapsError, LevelSpec, MAX_CHANNELS, validate_levels};
pub use mobilenet_v2::MobileNetV2Arch;
pub use mobilenet_v3::MobileNetV3Arch;
pub use norm::{BatchNorm2d, BatchNorm2dConfig, Norm, NormKind};
pub use parameters::{NamedParameter, named_parameters};
pub use resnet::{ResNet, ResNetArch, ResNetConfig, ResNetFpnConfig};
pub use sequential::{Sequential, SequentialArch, SequentialConfig};
pub use shapes::{NormFacts, Shapes};
pub use stage::{Block, BlockState, Stage};
pub use vgg::VggArch;

pub use rcnn_ops::{Forward, Phase};
