//! Two-stage object detection in pure Rust on [Burn](https://burn.dev): Faster R-CNN with
//! torchvision's weights, torchvision's names and torchvision's numbers.
//!
//! ```no_run
//! use rcnn_burn::weights::Weights;
//! use rcnn_burn::{Flex, image};
//!
//! let device = Default::default();
//! let model = Weights::open("fasterrcnn.pth")?.load::<Flex>(&device)?;
//! let photo = image::open_rgb("photo.jpg")?;
//! let found = model.detect(&[image::to_tensor(&photo, &device)])?;
//! for object in found[0].iter() {
//!     println!("class {} at {:?}: {:.2}", object.label, object.bbox, object.score);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This crate is the front of several: [`ops`] (boxes, NMS, RoIAlign), [`backbone`] (ResNets, FPN,
//! and the trait for a custom one), [`rpn`], [`roi`], [`weights`] (checkpoints in and out) and
//! [`freeze`] (which parameters are trained).
//! [`export`] writes ONNX files.
//! The detector itself, [`FasterRcnn`], and what describes it, [`FasterRcnnConfig`], stand here.

pub use rcnn_backbone as backbone;
pub use rcnn_freeze as freeze;
#[cfg(feature = "export")]
pub use rcnn_onnx as export;
pub use rcnn_ops as ops;
#[cfg(feature = "flex")]
pub use rcnn_ops::cpu;
pub use rcnn_roi as roi;
pub use rcnn_rpn as rpn;
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

#[cfg(feature = "image")]
pub mod image;
