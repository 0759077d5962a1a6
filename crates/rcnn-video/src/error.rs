//! Why a stream gave no frame.

use std::io;

use rcnn_image::ImageErrorKind;
use rcnn_types::Size;

use crate::reader::MAX_PIXELS;

/// Error of reading or writing a stream of frames.
#[derive(Debug, thiserror::Error)]
#[error("{}{kind}", frame.map(|frame| format!("frame {frame}: ")).unwrap_or_default())]
pub struct VideoError {
    /// Number of the frame, from 0; `None` of the stream's header.
    pub frame: Option<u64>,
    /// Cause of the error.
    pub kind: VideoErrorKind,
}

/// Cause of an error of a stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VideoErrorKind {
    /// The stream cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The stream has no bytes.
    #[error("the stream is empty (0 bytes)")]
    Empty,
    /// The bytes are not what the format begins with, or a value in them cannot be.
    #[error("{0}")]
    Invalid(String),
    /// A kind of the format that is not read.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The frames are too large, or have no pixels.
    #[error("frames of {}x{} pixels; expected from 1 to {MAX_PIXELS} pixels", .0.width, .0.height)]
    Pixels(Size),
    /// The stream ends within a frame; holds what there is of it.
    #[error("the stream is cut short: it ends after {0}")]
    Truncated(String),
    /// The picture of a frame is damaged.
    #[error("{0}")]
    Image(ImageErrorKind),
    /// Frames of one stream have one size.
    #[error("the frame has {}x{} pixels, but the video being written has {}x{}", found.width, found.height, expected.width, expected.height)]
    Size {
        /// Size of this frame.
        found: Size,
        /// Size of those before.
        expected: Size,
    },
}

impl VideoErrorKind {
    pub(crate) fn at(self, frame: impl Into<Option<u64>>) -> VideoError {
        VideoError {
            frame: frame.into(),
            kind: self,
        }
    }
}
