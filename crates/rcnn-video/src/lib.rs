//! Frames of videos, in and out of pipes: raw RGB, Y4M and motion JPEG.
//!
//! Decoding and encoding videos is the work of ffmpeg or GStreamer, beside which a program stands in a pipe. [`FrameReader`]
//! is an iterator over the pictures of a stream, one in memory at a time; [`FrameWriter`] writes
//! pictures as a stream again.
//!
//! ```
//! # mod rcnn_burn { pub use rcnn_video as video; }
//! use rcnn_burn::video::{FrameReader, FrameWriter, OutputFormat, StreamFormat};
//!
//! // Two grey frames of 2x2 pixels, as `ffmpeg -f yuv4mpegpipe` writes them.
//! let input = b"YUV4MPEG2 W2 H2 F25:1 C420jpeg\nFRAME\nssss\x80\x80FRAME\n~~~~\x80\x80".as_slice();
//!
//! let frames = FrameReader::new(input, StreamFormat::Y4m)?;
//! let mut output = Vec::new();
//! let mut writer = FrameWriter::new(&mut output, OutputFormat::Y4m, frames.info().clone());
//! for frame in frames {
//!     let frame = frame?;
//!     assert_eq!(frame.time, Some(frame.number as f64 / 25.0));
//!     writer.write(&frame.image)?;
//! }
//! assert_eq!(output, input);
//! # Ok::<(), rcnn_video::VideoError>(())
//! ```

mod error;
mod mjpeg;
mod rate;
mod reader;
#[cfg(test)]
mod tests;
mod writer;
mod y4m;
mod yuv;

pub use error::{VideoError, VideoErrorKind};
pub use rate::Rate;
pub use reader::{Frame, FrameReader, StreamFormat};
pub use writer::{FrameWriter, OutputFormat};
pub use y4m::VideoInfo;
pub use yuv::Matrix;
