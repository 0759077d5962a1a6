//! All frames of an animated GIF or WebP.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{
    AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageFormat, ImageResult, Limits,
    RgbImage, RgbaImage,
};

use crate::ImageError;
use crate::container::{exif_orientation, gif_fill, gif_frames, webp_ends, webp_frames};
use crate::read::{MAX_BYTES, Source, fill_transparent, io_error, open_first, recognize};

/// Frames shown for less than this last `USUAL` instead, as in browsers and in ffmpeg.
const SHORTEST: Duration = Duration::from_millis(20);
const USUAL: Duration = Duration::from_millis(100);

/// The frames of an animated GIF or WebP, decoded one by one.
///
/// Each is a whole upright picture with the frames before it applied, as [`open_rgb`](crate::open_rgb) gives the first; with it comes
/// how long it is shown. A damaged frame ends the animation with an error.
///
/// ```no_run
/// # mod rcnn_burn { pub use rcnn_image as image; }
/// use rcnn_burn::image::Animation;
///
/// if let Some(frames) = Animation::open("walk.gif")? {
///     for frame in frames {
///         let (picture, duration) = frame?;
///         println!("{} x {} for {duration:?}", picture.width(), picture.height());
///     }
/// }
/// # Ok::<(), rcnn_image::ImageError>(())
/// ```
pub struct Animation {
    path: PathBuf,
    format: ImageFormat,
    /// The colour of pixels that are transparent.
    fill: Option<[u8; 3]>,
    orientation: Orientation,
    /// `None` after the end and after an error.
    frames: Option<Frames<'static>>,
}

impl Animation {
    /// Opens a file. `None` if it is another kind of picture, has one frame only, or is a pipe.
    ///
    /// # Errors
    /// When the file cannot be read, is not a picture, or its header is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Option<Self>, ImageError> {
        let path = path.as_ref();
        let Some((bytes, format)) = read_animated(path)? else {
            return Ok(None);
        };
        let source = Source { path, format };
        if format == ImageFormat::WebP && !webp_ends(&bytes) {
            return Err(source.truncated());
        }
        let fill = match format {
            ImageFormat::Gif => gif_fill(&bytes),
            _ => None,
        };
        let (frames, orientation) = source.guard(|| frames(&source, bytes))?;
        Ok(Some(Self {
            path: path.into(),
            format,
            fill,
            orientation,
            frames: Some(frames),
        }))
    }
}

/// Number of frames of a picture file: more than one in an animated GIF or WebP. A pipe is not looked into, and counts as one.
///
/// # Errors
/// When the file cannot be read or is not a picture.
pub fn frame_count(path: impl AsRef<Path>) -> Result<usize, ImageError> {
    let animated = read_animated(path.as_ref())?;
    Ok(animated.map_or(1, |(bytes, format)| count(&bytes, format)))
}

/// The bytes of a file with several frames.
fn read_animated(path: &Path) -> Result<Option<(Vec<u8>, ImageFormat)>, ImageError> {
    let Some(mut file) = open_first(path)? else {
        return Ok(None);
    };
    let (mut bytes, format) = recognize(path, &mut file)?;
    if !matches!(format, ImageFormat::Gif | ImageFormat::WebP) {
        return Ok(None);
    }
    file.read_to_end(&mut bytes).map_err(io_error(path))?;
    Ok((count(&bytes, format) > 1).then_some((bytes, format)))
}

fn count(bytes: &[u8], format: ImageFormat) -> usize {
    match format {
        ImageFormat::Gif => gif_frames(bytes),
        _ => webp_frames(bytes),
    }
}

fn frames(source: &Source, bytes: Vec<u8>) -> Result<(Frames<'static>, Orientation), ImageError> {
    let bytes = Cursor::new(bytes);
    match source.format {
        ImageFormat::Gif => {
            let decoder = limited(source, GifDecoder::new(bytes))?;
            Ok((decoder.into_frames(), Orientation::NoTransforms))
        }
        _ => {
            let mut decoder = limited(source, WebPDecoder::new(bytes))?;
            let exif = decoder.exif_metadata().ok().flatten();
            let orientation = exif.and_then(|exif| exif_orientation(&exif));
            let orientation = orientation.unwrap_or(Orientation::NoTransforms);
            Ok((decoder.into_frames(), orientation))
        }
    }
}

/// A decoder of pictures of the sizes that are read, with the limits for them.
fn limited<D: ImageDecoder>(source: &Source, decoder: ImageResult<D>) -> Result<D, ImageError> {
    let mut decoder = decoder.map_err(|e| source.error(e))?;
    let (width, height) = decoder.dimensions();
    source.check_size(width, height)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BYTES);
    decoder.set_limits(limits).map_err(|e| source.error(e))?;
    Ok(decoder)
}

impl Iterator for Animation {
    type Item = Result<(RgbImage, Duration), ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut frames = self.frames.take()?;
        let source = Source {
            path: &self.path,
            format: self.format,
        };
        let next = source.guard(|| match frames.next() {
            Some(frame) => frame.map(Some).map_err(|e| source.error(e)),
            None => Ok(None),
        });
        let frame = match next {
            Ok(frame) => frame?,
            Err(error) => return Some(Err(error)),
        };
        self.frames = Some(frames);
        let shown = Duration::from(frame.delay());
        let shown = if shown < SHORTEST { USUAL } else { shown };
        let mut pixels: RgbaImage = frame.into_buffer();
        if let Some(fill) = self.fill {
            fill_transparent(&mut pixels, fill);
        }
        let mut picture = DynamicImage::from(pixels);
        picture.apply_orientation(self.orientation);
        Some(Ok((picture.into_rgb8(), shown)))
    }
}
