//! Faster R-CNN, assembled from its stages, with the configuration that describes it.
//!
//! The pipeline of `torchvision.models.detection.FasterRCNN` in inference:
//! images -> [`GeneralizedRcnnTransform`] -> backbone -> RPN -> RoI heads -> boxes in the pixels of
//! the original images. [`FasterRcnn::detect`] runs it whole; every stage can be called by itself.

mod config;
#[cfg(feature = "record")]
pub mod cost;
mod error;
mod faster_rcnn;
mod losses;
mod precision;
#[cfg(feature = "record")]
mod record;
pub mod surgery;
mod transform;

pub use config::{FasterRcnnConfig, UnknownModel};
pub use error::{ConfigError, DetectError};
pub use faster_rcnn::{FasterRcnn, StandardFasterRcnn};
pub use losses::TrainingPass;
pub use precision::PrecisionError;
pub use transform::{GeneralizedRcnnTransform, ImageList, MAX_BATCH_PIXELS, ResizeRule};

pub use rcnn_ops::Losses;
pub use rcnn_types::validate::InvalidField;
