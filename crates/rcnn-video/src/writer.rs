//! Writes frames to a stream.

use std::io::Write;
use std::path::Path;

use image::RgbImage;
use rcnn_types::Size;

use crate::{VideoError, VideoErrorKind, VideoInfo};

/// Format of a video that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// YUV4MPEG2, for `ffmpeg -f yuv4mpegpipe -i -`.
    Y4m,
    /// JPEGs one after the other, for `ffmpeg -f mjpeg -i -`.
    Mjpeg,
}

/// Writes pictures as a stream, each as soon as it is given.
pub struct FrameWriter<W> {
    output: W,
    format: OutputFormat,
    info: VideoInfo,
    /// Size and number of the frames written.
    size: Option<Size>,
    number: u64,
    bytes: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    /// Creates a writer of video with the rate, the kind of chroma and the matrix of `info`, that of a
    /// [`FrameReader`](crate::FrameReader) or the default. Y4M that knows no rate gets 25 frames a second.
    pub fn new(output: W, format: OutputFormat, info: VideoInfo) -> Self {
        Self {
            output,
            format,
            info: info.with_chroma(),
            size: None,
            number: 0,
            bytes: Vec::new(),
        }
    }

    /// Writes the next frame.
    ///
    /// # Errors
    /// If the output doesn't take it; for Y4M, if it is of another size than those before; for JPEGs, if it is too large for one.
    pub fn write(&mut self, image: &RgbImage) -> Result<(), VideoError> {
        let number = self.number;
        self.write_image(image).map_err(|kind| kind.at(number))?;
        self.number += 1;
        Ok(())
    }

    fn write_image(&mut self, image: &RgbImage) -> Result<(), VideoErrorKind> {
        self.bytes.clear();
        match self.format {
            OutputFormat::Mjpeg => {
                let jpeg = rcnn_image::encode(Path::new("frame.jpg"), image);
                self.bytes = jpeg.map_err(|error| VideoErrorKind::Image(error.kind))?;
            }
            OutputFormat::Y4m => {
                let found = Size::from_dimensions(image.dimensions());
                match self.size {
                    Some(expected) if expected != found => {
                        return Err(VideoErrorKind::Size { found, expected });
                    }
                    Some(_) => {}
                    None => self.bytes.extend(self.info.y4m_header(found).bytes()),
                }
                self.size = Some(found);
                self.bytes.extend(b"FRAME\n");
                self.info.planes.append_rgb(image, &mut self.bytes);
            }
        }
        self.output.write_all(&self.bytes)?;
        Ok(self.output.flush()?)
    }
}
