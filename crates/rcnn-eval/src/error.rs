//! Why an evaluation is impossible.

use thiserror::Error;

/// Why an evaluation is impossible; `image` is the id of an image, with its file's name if known.
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
    /// Values that belong together differ in number.
    #[error("image {image}: {boxes} {what}s, but {found} {values}")]
    Length {
        /// The image.
        image: String,
        /// "object" or "detection".
        what: &'static str,
        /// The number of boxes.
        boxes: usize,
        /// What there are more or fewer of.
        values: &'static str,
        /// How many of those.
        found: usize,
    },
    /// A box is not finite, or its right or lower edge lies before the other.
    #[error("image {image}: the box of {what} {index} is {bounds:?}")]
    Box {
        /// The image.
        image: String,
        /// "object" or "detection".
        what: &'static str,
        /// Which of the image's, from 0.
        index: usize,
        /// Left, top, right and bottom in pixels.
        bounds: [f64; 4],
    },
    /// A label is that of the background or of no class.
    #[error("image {image}: {what} {index} has label {label}, which is not in 1..{classes}")]
    Label {
        /// The image.
        image: String,
        /// "object" or "detection".
        what: &'static str,
        /// Which of the image's, from 0.
        index: usize,
        /// The label.
        label: usize,
        /// The number of classes, with the background.
        classes: usize,
    },
    /// A score or an area is not finite, or an area is negative.
    #[error("image {image}: the {value} of {what} {index} is {number}")]
    Number {
        /// The image.
        image: String,
        /// "object" or "detection".
        what: &'static str,
        /// Which of the image's, from 0.
        index: usize,
        /// "score" or "area".
        value: &'static str,
        /// The number.
        number: f64,
    },
    /// A file of results is not COCO's JSON.
    #[error("not an array of COCO results: {0}")]
    Results(#[from] serde_json::Error),
    /// hotcoco refuses the data.
    #[error(transparent)]
    Engine(#[from] hotcoco::Error),
}
