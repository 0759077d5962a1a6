//! Reads frames from a stream.

use std::fmt;
use std::io::{BufReader, Read};
use std::str::FromStr;

use image::RgbImage;
use rcnn_image::{Header, ImageError};
use rcnn_types::Size;

use crate::yuv::Matrix;
use crate::{Rate, VideoError, VideoErrorKind, VideoInfo, mjpeg, y4m};

/// Most pixels of a frame: four times those of 8K.
pub(crate) const MAX_PIXELS: usize = 1 << 27;

/// The longest side of a frame, in pixels.
const MAX_SIDE: usize = 1 << 20;

/// Format of a stream of frames: `rgb:640x480`, `y4m` or `mjpeg`.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_types::Size; pub use rcnn_video as video; }
/// use rcnn_burn::Size;
/// use rcnn_burn::video::StreamFormat;
///
/// let format: StreamFormat = "rgb:640x480".parse()?;
/// assert_eq!(format, StreamFormat::Rgb(Size::new(480, 640)));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFormat {
    /// Pixels of red, green and blue, a byte each, row by row, of this size: `ffmpeg -f rawvideo -pix_fmt rgb24`.
    Rgb(Size),
    /// YUV4MPEG2 of 8 bits: `ffmpeg -f yuv4mpegpipe`.
    Y4m,
    /// JPEGs one after the other: `ffmpeg -f mjpeg` or `-f image2pipe`; also the multipart streams of cameras.
    Mjpeg,
}

impl fmt::Display for StreamFormat {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Rgb(size) => write!(f, "rgb:{}x{}", size.width, size.height),
            Self::Y4m => f.write_str("y4m"),
            Self::Mjpeg => f.write_str("mjpeg"),
        }
    }
}

impl FromStr for StreamFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = || {
            let (width, height) = text.strip_prefix("rgb:")?.split_once('x')?;
            let size = Size::new(height.parse().ok()?, width.parse().ok()?);
            check_size(size).ok().map(|()| size)
        };
        match text {
            "y4m" => Ok(Self::Y4m),
            "mjpeg" => Ok(Self::Mjpeg),
            _ => size().map(Self::Rgb).ok_or_else(|| {
                format!("expected y4m, mjpeg, or rgb:WIDTHxHEIGHT such as rgb:640x480, not {text}")
            }),
        }
    }
}

/// A frame of a video.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Its number, from 0.
    pub number: u64,
    /// Time at which it is shown, in seconds; `None` if the rate is not known.
    pub time: Option<f64>,
    /// Its picture.
    pub image: RgbImage,
}

/// The frames of a stream, read one by one.
///
/// An error names its frame. After a stream that is cut short, or that makes no sense any more, there are no
/// more frames; after a JPEG that is damaged there are.
pub struct FrameReader<R> {
    input: BufReader<R>,
    format: StreamFormat,
    /// Size of the frames; that of JPEGs is their own affair.
    size: Size,
    info: VideoInfo,
    /// Bytes of the frame being read.
    bytes: Vec<u8>,
    number: u64,
    /// Whether the start of the next JPEG was read within the one before.
    is_begun: bool,
    is_over: bool,
}

impl<R: Read> FrameReader<R> {
    /// Reads the header of the stream, if its format has one.
    ///
    /// # Errors
    /// If the input cannot be read, is empty, or is not of that format; if it is of a kind that is not read, such as
    /// Y4M of 10 bits; if frames have no or too many pixels.
    pub fn new(input: R, format: StreamFormat) -> Result<Self, VideoError> {
        let mut input = BufReader::new(input);
        let (size, info) = match format {
            StreamFormat::Y4m => y4m::read_header(&mut input).map_err(|kind| kind.at(None))?,
            StreamFormat::Rgb(size) => (size, VideoInfo::default()),
            StreamFormat::Mjpeg => Default::default(),
        };
        if format != StreamFormat::Mjpeg {
            check_size(size).map_err(|kind| kind.at(None))?;
        }
        Ok(Self {
            input,
            format,
            size,
            info,
            bytes: Vec::new(),
            number: 0,
            is_begun: false,
            is_over: false,
        })
    }

    /// Sets the frames per second of a stream that does not state them, or states them wrongly.
    pub fn with_rate(mut self, rate: Rate) -> Self {
        self.info.rate = Some(rate);
        self
    }

    /// Sets the matrix that Y4M is converted by, which its header does not state. BT.601 without this, as in ffmpeg.
    pub fn with_matrix(mut self, matrix: Matrix) -> Self {
        self.info = self.info.with_matrix(matrix);
        self
    }

    /// Format of the stream.
    pub fn format(&self) -> StreamFormat {
        self.format
    }

    /// Rate, pixel format and header tags, as far as the stream has them.
    pub fn info(&self) -> &VideoInfo {
        &self.info
    }

    /// The next picture; `None` at the end.
    fn read(&mut self) -> Result<Option<RgbImage>, VideoErrorKind> {
        let size = self.size;
        match self.format {
            StreamFormat::Mjpeg => {
                let is_first = self.number == 0;
                let bytes = mjpeg::read_jpeg(&mut self.input, is_first, &mut self.is_begun)?;
                let Some(bytes) = bytes else {
                    return Ok(None);
                };
                let damaged = |error: ImageError| VideoErrorKind::Image(error.kind);
                let header = Header::from_bytes("frame", &bytes).map_err(damaged)?;
                check_size(header.stored)?;
                let picture = rcnn_image::decode_rgb("frame", bytes);
                picture.map(Some).map_err(damaged)
            }
            StreamFormat::Y4m => {
                if y4m::read_frame_header(&mut self.input)?.is_none() {
                    return Ok(None);
                }
                let planes = self.info.planes;
                match self.read_bytes(planes.chroma.frame_bytes(size))? {
                    true => Ok(Some(planes.to_rgb(size, &self.bytes))),
                    false => Err(VideoErrorKind::Truncated("the word FRAME".to_string())),
                }
            }
            StreamFormat::Rgb(_) => {
                if !self.read_bytes(3 * size.height * size.width)? {
                    return match self.number {
                        0 => Err(VideoErrorKind::Empty),
                        _ => Ok(None),
                    };
                }
                let (width, height) = size.dimensions();
                let pixels = std::mem::take(&mut self.bytes);
                Ok(RgbImage::from_raw(width, height, pixels))
            }
        }
    }

    /// Reads this many bytes; false if there are none.
    fn read_bytes(&mut self, count: usize) -> Result<bool, VideoErrorKind> {
        self.bytes.clear();
        let read = (&mut self.input)
            .take(count as u64)
            .read_to_end(&mut self.bytes)?;
        match read {
            0 => Ok(false),
            _ if read == count => Ok(true),
            _ => {
                let found = format!("{read} of {count} bytes");
                Err(VideoErrorKind::Truncated(found))
            }
        }
    }
}

impl<R: Read> Iterator for FrameReader<R> {
    type Item = Result<Frame, VideoError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let number = self.number;
        let read = self.read();
        self.number += 1;
        // Where the next JPEG begins is known all the same.
        self.is_over = match &read {
            Ok(picture) => picture.is_none(),
            Err(error) => !matches!(error, VideoErrorKind::Image(_) | VideoErrorKind::Pixels(_)),
        };
        let image = read.map_err(|kind| kind.at(number)).transpose()?;
        Some(image.map(|image| Frame {
            number,
            time: self.info.rate.map(|rate| rate.seconds(number)),
            image,
        }))
    }
}

/// # Errors
/// If frames have no or too many pixels.
pub(crate) fn check_size(size: Size) -> Result<(), VideoErrorKind> {
    let Size { height, width } = size;
    let sides = 1..=MAX_SIDE;
    let valid = sides.contains(&width) && sides.contains(&height) && width * height <= MAX_PIXELS;
    match valid {
        true => Ok(()),
        false => Err(VideoErrorKind::Pixels(size)),
    }
}
