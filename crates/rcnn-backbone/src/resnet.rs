//! The ResNet family without its classifier: the body of torchvision's detection backbones.
//!
//! He et al. 2015 (<https://arxiv.org/abs/1512.03385>) in torchvision's variant, where the stride
//! of a bottleneck sits on the 3x3 convolution; ResNeXt and Wide ResNet differ in groups and width.

mod arch;
mod body;
mod config;
mod error;
mod published;
mod recognize;
mod stages;

pub use arch::{ResNetArch, UnknownArch};
pub use body::{BasicBlock, Block, Bottleneck, ResNet, ResNetConfig};
pub use config::ResNetFpnConfig;
pub use error::ResNetError;
use stages::ResNetStage;

pub(crate) use published::PUBLISHED;
pub(crate) use recognize::{CLASSIFIER_MODULES, recognize_classifier};
