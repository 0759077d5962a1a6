//! Errors of configurations, and of images and their targets.

use rcnn_backbone::{BackboneConfigError, FeatureMapsError};
use rcnn_types::Size;
use rcnn_types::validate::InvalidField;

/// Error in a detector's configuration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The backbone's part.
    #[error("backbone: {0}")]
    Backbone(#[from] BackboneConfigError),
    /// The backbone is a custom one, which cannot be made from the configuration.
    #[error(
        "the model has a custom backbone: only a program that builds the backbone can load it, with \
         `init_with_backbone`"
    )]
    CustomBackbone,
    /// An unknown parameter.
    #[error(
        "unknown parameter {name}{}",
        nearest.as_ref().map_or(String::new(), |nearest| format!("; did you mean {nearest}?"))
    )]
    UnknownParameter {
        /// The name with that of the object around it, as in `backbone.arhc`.
        name: String,
        /// The most similar known name.
        nearest: Option<String>,
    },
    /// A parameter of the wrong type: its name, what was found and what was expected.
    #[error("{0}")]
    Type(String),
    /// A field has an invalid value.
    #[error(transparent)]
    Field(#[from] InvalidField),
}

/// Error for images or targets that a detector cannot take, or a detector whose configuration was changed to an
/// invalid one.
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
    /// An image is too large after resizing.
    #[error(
        "image {index} of {}x{} pixels (height x width) would be resized to {}x{}, but a batch has at \
         most {limit} pixels: choose a smaller min_size or max_size",
        original.height, original.width, resized.height, resized.width
    )]
    ImageSize {
        /// Position of the image in the list.
        index: usize,
        /// Its height and width.
        original: Size,
        /// Height and width that it would be resized to.
        resized: Size,
        /// Largest number of pixels of a batch.
        limit: usize,
    },
    /// A batch is too large after resizing and padding.
    #[error(
        "{images} image(s) padded to {}x{} pixels (height x width) are more than the {limit} pixels \
         that a batch may have: take fewer at once, or choose a smaller min_size or max_size",
        padded.height, padded.width
    )]
    BatchSize {
        /// Number of images.
        images: usize,
        /// Height and width that they would be padded to.
        padded: Size,
        /// Largest number of pixels of a batch.
        limit: usize,
    },
    /// The batch is empty.
    #[error("no images: a batch has at least one")]
    NoImages,
    /// The number of targets or sizes differs from the number of images.
    #[error("{found} {what} for {images} images")]
    Count {
        /// What is counted.
        what: &'static str,
        /// Its number.
        found: usize,
        /// Number of images.
        images: usize,
    },
    /// The objects of an image are invalid.
    #[error("targets of image {index}: {fault}")]
    Target {
        /// Position of the image in the list.
        index: usize,
        /// The problem.
        fault: InvalidField,
    },
    /// The backbone's feature maps contradict its levels.
    #[error(transparent)]
    FeatureMaps(#[from] FeatureMapsError),
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl DetectError {
    /// Position of the image at fault in the list, if a single image is.
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
