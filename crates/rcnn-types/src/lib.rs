//! Plain values that detectors, data sets and evaluations share. No tensors.
//!
//! [`Instances`] are the objects of an image wherever they occur: annotations, training targets,
//! detections.

pub mod boxes;
mod class_names;
mod coco_result;
mod columns;
mod decimal;
mod image_record;
mod instances;
mod keypoints;
mod mask;
mod size;
mod tiles;
pub mod validate;

pub use boxes::{BBox, BoxRules};
pub use class_names::{
    BACKGROUND, ClassNamesError, UNUSED, class_name, find_class, parse_class_names,
};
pub use coco_result::CocoResult;
pub use columns::{pad_to_columns, text_columns};
pub use decimal::decimal;
pub use image_record::{ImageRecord, MaskFormat, Segmentation};
pub use instances::{ImageInstances, Instance, Instances};
pub use keypoints::{Keypoints, Skeleton};
pub use mask::{MASK_THRESHOLD, Mask, MaskError, MaskProbabilities};
pub use size::Size;
pub use tiles::{TileGrid, Window};
