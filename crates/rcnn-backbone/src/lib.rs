//! Backbones: what turns a batch of images into feature maps.
//!
//! The first stage of a two-stage detector. [`Backbone`] is the seam where a network of your own
//! plugs in; [`BackboneWithFpn`] over [`ResNet`] is what torchvision's detectors use.
//! Modules carry torchvision's parameter names, so that its checkpoints fit as they are.

mod backbone;
mod conv_norm;
mod fpn;
mod levels;
mod norm;
mod resnet;
mod stages;

pub use backbone::{Backbone, BackboneConfig, BackboneConfigError, FeatureMaps};
pub use conv_norm::{ConvNorm, ConvNormConfig, conv_norm, conv_norm_relu};
pub use fpn::{BackboneWithFpn, FeaturePyramidNetwork, ResNetFpnConfig};
pub use levels::{FeatureMapsError, LevelSpec, MAX_CHANNELS, validate_levels};
pub use norm::{BatchNorm2d, BatchNorm2dConfig, Norm, NormKind};
pub use resnet::{BasicBlock, Block, Bottleneck, ResNet, ResNetArch, ResNetConfig, UnknownArch};
pub use stages::ResNetStage;

pub use rcnn_ops::{Forward, Phase};
