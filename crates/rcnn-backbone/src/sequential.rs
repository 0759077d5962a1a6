//! Bodies that torchvision writes as one `nn.Sequential` of layers, such as a MobileNet's `features`.
//!
//! An architecture of this kind is a list of layers in stages ([`SequentialArch`]). Everything else follows from it:
//! the module, what is frozen and dropped, the feature maps, and its recognition by names and shapes.

mod config;
mod error;
mod inverted_residual;
mod module;
mod network;
mod recognize;
mod spec;

pub use config::{PyramidConfig, SequentialArch, SequentialConfig};
pub use error::SequentialError;
pub use inverted_residual::{BlockLayer, InvertedResidual, SqueezeExcitation};
pub use module::{Layer, Sequential};
pub use spec::{BlockNames, InvertedResidualSpec, LayerSpec, StageSpec};

pub(crate) use recognize::recognize_classifier;
