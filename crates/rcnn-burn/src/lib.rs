//! Two-stage object detection in pure Rust on [Burn](https://burn.dev): Faster R-CNN with
//! torchvision's weights, torchvision's names and torchvision's numbers.

pub use rcnn_backbone as backbone;
pub use rcnn_ops as ops;
pub use rcnn_roi as roi;
pub use rcnn_rpn as rpn;
pub use weights_import as weights;

pub use rcnn_detector::*;

#[cfg(feature = "image")]
pub mod image;
