//! Plain values that detectors, data sets and evaluations share. No tensors.

mod coco_result;
pub mod validate;

pub use coco_result::CocoResult;
