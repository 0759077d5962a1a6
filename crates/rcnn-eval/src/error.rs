//! Why an evaluation is impossible.

use rcnn_types::validate::InvalidField;
use thiserror::Error;

/// Error of an evaluation; `image` is the id of an image, with its file's name if known.
#[derive(Debug, Error)]
pub enum EvalError {
    /// Two annotated images, or the detections of two, have the same id.
    #[error("image {image}: there are two {what} with this id")]
    DuplicateImage {
        /// The image.
        image: String,
        /// What there are two of.
        what: &'static str,
    },
    /// Detections were made in an image that is not annotated.
    #[error("image {image_id}: there are detections, but the image is not in the data")]
    UnknownImage {
        /// The image's id.
        image_id: u64,
    },
    /// The objects or the detections of an image have a value that cannot be.
    #[error("image {image}: {what}: {fault}")]
    Instances {
        /// The image.
        image: String,
        /// "objects" or "detections".
        what: &'static str,
        /// The problem.
        fault: InvalidField,
    },
    /// A file of results is not COCO's JSON.
    #[error("not an array of COCO results: {0}")]
    Results(#[from] serde_json::Error),
    /// A result has neither box nor mask nor keypoints.
    #[error("result {index} of the array (counted from 0) has no bbox, segmentation or keypoints")]
    Shapeless {
        /// Its place, from 0.
        index: usize,
    },
    /// There are sigmas for another number of keypoints.
    #[error(
        "{found} keypoint sigmas: expected {expected}, one per keypoint, or one for all, above 0"
    )]
    Sigmas {
        /// Number of sigmas.
        found: usize,
        /// Number of keypoints of an object.
        expected: usize,
    },
    /// hotcoco refuses the data.
    #[error(transparent)]
    Engine(#[from] hotcoco::Error),
}
