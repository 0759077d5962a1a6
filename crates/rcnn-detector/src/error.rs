//! What can be wrong with a configuration, with images and with their targets.

use rcnn_backbone::{BackboneConfigError, FeatureMapsError};
use rcnn_types::validate::InvalidField;

use crate::ImageSize;

/// A configuration that describes no detector.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The backbone's part.
    #[error("backbone: {0}")]
    Backbone(#[from] BackboneConfigError),
    /// The backbone is a custom one, which can't be made from the configuration.
    #[error(
        "the model has a custom backbone: make it yourself and pass it to `init_with_backbone`"
    )]
    CustomBackbone,
    /// A name that no parameter has.
    #[error(
        "unknown parameter {name}{}",
        nearest.as_ref().map_or(String::new(), |nearest| format!("; did you mean {nearest}?"))
    )]
    UnknownParameter {
        /// What was given, with the objects that it stands in: `backbone.arhc`.
        name: String,
        /// The known name that is most like it.
        nearest: Option<String>,
    },
    /// A parameter of the wrong type.
    #[error("not a detector's configuration: {0}")]
    Type(String),
    /// A field with a value that makes no sense.
    #[error(transparent)]
    Field(#[from] InvalidField),
}

/// Images or targets that a detector can't take, or a detector that was changed since it was made so
/// that it takes none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// An image is not `[3, H, W]` with at least one pixel.
    #[error(
        "image {index} has shape {found:?}; expected [3, height, width] with at least one pixel"
    )]
    ImageShape {
        /// Position of the image in the list.
        index: usize,
        /// Its shape.
        found: [usize; 3],
    },
    /// An image would become too large.
    #[error(
        "image {index} of {}x{} pixels (height x width) would be resized to {}x{}, but a batch has at \
         most {limit} pixels: choose a smaller min_size or max_size",
        original.0, original.1, resized.0, resized.1
    )]
    ImageSize {
        /// Position of the image in the list.
        index: usize,
        /// Its height and width.
        original: ImageSize,
        /// Height and width that it would be resized to.
        resized: ImageSize,
        /// Most pixels of a batch.
        limit: usize,
    },
    /// The images of a batch would become too large together.
    #[error(
        "{images} image(s) padded to {}x{} pixels (height x width) are more than the {limit} pixels \
         that a batch may have: take fewer at once, or choose a smaller min_size or max_size",
        padded.0, padded.1
    )]
    BatchSize {
        /// Images of the batch.
        images: usize,
        /// Height and width that they would be padded to.
        padded: ImageSize,
        /// Most pixels of a batch.
        limit: usize,
    },
    /// No images where there must be one.
    #[error("no images: a batch has at least one")]
    NoImages,
    /// Not as many of something as there are images.
    #[error("{found} {what} for {images} images")]
    Count {
        /// What there should be one an image of.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// Images.
        images: usize,
    },
    /// The objects of an image are none to train on.
    #[error("targets of image {index}: {fault}")]
    Target {
        /// Position of the image in the list.
        index: usize,
        /// What is wrong.
        fault: InvalidField,
    },
    /// The backbone returns other feature maps than it says.
    #[error(transparent)]
    FeatureMaps(#[from] FeatureMapsError),
    /// The configuration was changed to one that makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl DetectError {
    /// Position in the list of the image at fault, if it is one image's.
    pub fn image(&self) -> Option<usize> {
        match self {
            Self::ImageShape { index, .. }
            | Self::ImageSize { index, .. }
            | Self::Target { index, .. } => Some(*index),
            _ => None,
        }
    }
}

impl From<InvalidField> for DetectError {
    fn from(fault: InvalidField) -> Self {
        Self::Config(fault.into())
    }
}
