//! Why a file gave no image.

use std::io;
use std::path::{Path, PathBuf};

use crate::read::{MAX_BYTES, MAX_PIXELS};

/// Error of reading or writing an image file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct ImageError {
    /// The file.
    pub path: PathBuf,
    /// Cause of the error.
    pub kind: ImageErrorKind,
}

/// Cause of an image error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageErrorKind {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(io::Error),
    /// The file has no bytes.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// The content is of no known image format; holds what the first bytes look like, such as
    /// `a PDF document`.
    #[error(
        "this is not a picture but {0}; supported formats are JPEG, PNG, WebP, BMP, TIFF and GIF"
    )]
    NotAnImage(String),
    /// An image, but of a format or variant that is not read.
    #[error("not supported: {0}; save it as an 8-bit JPEG, PNG, WebP, BMP, TIFF or GIF")]
    Unsupported(String),
    /// The file ends before its image does; holds the format, such as `JPEG`.
    #[error("the {0} data is cut short")]
    Truncated(String),
    /// The content is damaged.
    #[error("damaged {format} data: {reason}")]
    Damaged {
        /// The format, such as `JPEG`.
        format: String,
        /// What the decoder said.
        reason: String,
    },
    /// The image is too large to be decoded.
    #[error("{width}x{height} pixels are more than the supported {MAX_PIXELS}")]
    TooLarge {
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// The image takes too much memory to be decoded; holds the format, such as `PNG`.
    #[error("decoding this {0} would take more than {gib} GiB", gib = MAX_BYTES >> 30)]
    Memory(String),
    /// The image cannot be written in a format; holds what the encoder said.
    #[error("cannot be written: {0}")]
    Encode(String),
}

impl ImageErrorKind {
    pub(crate) fn at(self, path: &Path) -> ImageError {
        ImageError {
            path: path.into(),
            kind: self,
        }
    }
}
