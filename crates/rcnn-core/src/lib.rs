//! The detector with its weights, freezing and export in one crate, which training, analysis and the `rcnn`
//! command build on. Programs depend on [`rcnn-burn`](https://docs.rs/rcnn-burn), which adds those.

pub use rcnn_backbone as backbone;
pub use rcnn_freeze as freeze;
#[cfg(feature = "export")]
pub use rcnn_onnx as export;
pub use rcnn_ops as ops;
#[cfg(feature = "flex")]
pub use rcnn_ops::cpu;
pub use rcnn_roi as roi;
pub use rcnn_rpn as rpn;
pub use rcnn_tile as tile;
pub use rcnn_types as types;
#[cfg(feature = "weights")]
pub use weights_import as weights;

pub use burn::tensor::{FloatDType, Tensor, backend::Backend};
pub use rcnn_detector::*;
#[allow(
    unused_imports,
    unreachable_pub,
    reason = "a build may have no backend"
)]
pub use rcnn_ops::backend_types::*;
pub use rcnn_types::{BBox, Instance, Instances, Size};

#[cfg(feature = "bundled")]
pub mod bundled;
#[cfg(feature = "image")]
pub mod image;
#[cfg(feature = "weights")]
mod load;

#[cfg(feature = "weights")]
pub use load::{LoadError, load};
