//! Image files to RGB pixels, as Pillow's `exif_transpose(Image.open(f)).convert("RGB")` gives them,
//! and to the size of those pixels alone.
//!
//! The format is recognised by the content, never by the name. Alpha is dropped without compositing,
//! palettes are looked up, and of an animation the first frame is read. Two kinds differ from Pillow
//! on purpose: 16-bit grey keeps its high byte, as 16-bit colour does (Pillow clips it, mostly to
//! white), and float or 32-bit samples, which have no agreed white, are
//! [`ImageErrorKind::Unsupported`].

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage,
    RgbaImage,
};

use rcnn_files::Content;
use rcnn_types::Size;

use crate::container::{
    exif_orientation, gif_fill, jpeg_ends, jpeg_header_end, png_exif, tiff_palette,
    webp_chunks_fit, webp_ends, xmp_orientation,
};
use crate::jpeg::{self, Jpeg};
use crate::tiff::Tiff;
use crate::{ImageError, ImageErrorKind};

/// The largest image read, in pixels.
pub(crate) const MAX_PIXELS: u64 = 1 << 29;

/// The most a decoder may allocate, in bytes.
pub(crate) const MAX_BYTES: u64 = 1 << 32;

/// Reads a JPEG, PNG, WebP, BMP, TIFF or GIF file as upright 8-bit RGB.
///
/// # Errors
/// When the file cannot be read, or is not a whole image of a supported kind.
///
/// # Examples
/// ```no_run
/// # mod rcnn_burn { pub use rcnn_image as image; }
/// use rcnn_burn::image::open_rgb;
///
/// let picture = open_rgb("blood.jpg")?;
/// println!("{} x {}", picture.width(), picture.height());
/// # Ok::<(), rcnn_image::ImageError>(())
/// ```
pub fn open_rgb(path: impl AsRef<Path>) -> Result<RgbImage, ImageError> {
    let path = path.as_ref();
    let mut file = File::open(path).map_err(io_error(path))?;
    let (mut bytes, format) = recognize(path, &mut file)?;
    file.read_to_end(&mut bytes).map_err(io_error(path))?;
    decode(path, bytes, format)
}

/// Opens a file that may be opened again afterwards; `None` for a pipe, which gives its bytes once.
pub(crate) fn open_first(path: &Path) -> Result<Option<File>, ImageError> {
    let kind = std::fs::metadata(path).map_err(io_error(path))?;
    let file = kind.is_file().then(|| File::open(path));
    file.transpose().map_err(io_error(path))
}

/// Decodes the bytes of a file as [`open_rgb`] does; errors call it by `name`.
///
/// # Errors
/// When they are not a whole image of a supported kind.
pub fn decode_rgb(name: impl AsRef<Path>, bytes: Vec<u8>) -> Result<RgbImage, ImageError> {
    let name = name.as_ref();
    let (_, format) = recognize(name, &mut bytes.as_slice())?;
    decode(name, bytes, format)
}

/// Size and orientation of an image, read without its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Size of the pixels as they are stored.
    pub stored: Size,
    /// Turn and flip that [`open_rgb`] applies to the stored pixels.
    pub orientation: Orientation,
}

impl Header {
    /// Reads the header of a file. Damage to the pixels, which are not decoded, goes unnoticed.
    ///
    /// # Errors
    /// When the file cannot be read, or does not begin as an image of a supported kind.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ImageError> {
        let path = path.as_ref();
        Self::read_from(path, File::open(path).map_err(io_error(path))?)
    }

    /// Reads the header in the bytes of a file, which errors call by `name`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_bytes(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Self, ImageError> {
        Self::read_from(name.as_ref(), Cursor::new(bytes))
    }

    fn read_from(path: &Path, mut file: impl Read + Seek) -> Result<Self, ImageError> {
        let (mut bytes, format) = recognize(path, &mut file)?;
        let source = Source { path, format };
        match format {
            ImageFormat::Jpeg => {
                while jpeg_header_end(&bytes).is_none() {
                    let more = bytes.len().max(16 << 10) as u64;
                    let read = file.by_ref().take(more).read_to_end(&mut bytes);
                    if read.map_err(io_error(path))? == 0 {
                        return Err(source.truncated());
                    }
                }
                let header = jpeg::header(&bytes).ok_or_else(|| source.truncated())?;
                let read = |bytes: &[u8]| {
                    source.guard(|| {
                        let jpeg = Jpeg::open(&source, bytes)?;
                        Ok(Self::new(jpeg.size(), jpeg.orientation()))
                    })
                };
                read(&header).or_else(|_| {
                    // Of damage behind the size, the whole file decides: what opens has a size.
                    file.read_to_end(&mut bytes).map_err(io_error(path))?;
                    read(&bytes)
                })
            }
            ImageFormat::Tiff => source.guard(|| {
                file.rewind().map_err(io_error(path))?;
                let mut tiff = Tiff::open(&source, BufReader::new(&mut file), MAX_PIXELS)?;
                Ok(Self::new(tiff.size(), tiff.orientation()))
            }),
            _ => source.guard(|| {
                let (decoder, orientation) = source.decoder(BufReader::new(&mut file))?;
                Ok(Self::new(decoder.dimensions(), orientation))
            }),
        }
    }

    fn new(stored: (u32, u32), orientation: Option<Orientation>) -> Self {
        Self {
            stored: Size::from_dimensions(stored),
            orientation: orientation.unwrap_or(Orientation::NoTransforms),
        }
    }

    /// Size of the image that [`open_rgb`] returns.
    pub fn upright_size(&self) -> Size {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        let Size { height, width } = self.stored;
        match self.orientation {
            Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH => Size::new(width, height),
            _ => self.stored,
        }
    }
}

/// Size of the image that [`open_rgb`] returns, read without decoding the pixels.
///
/// # Errors
/// As [`Header::read`].
pub fn upright_size(path: impl AsRef<Path>) -> Result<Size, ImageError> {
    Ok(Header::read(path)?.upright_size())
}

/// Reads the first bytes of a file and recognises its format by them.
pub(crate) fn recognize(
    path: &Path,
    file: &mut impl Read,
) -> Result<(Vec<u8>, ImageFormat), ImageError> {
    let mut bytes = Vec::new();
    file.take(Content::HEAD as u64)
        .read_to_end(&mut bytes)
        .map_err(io_error(path))?;
    let format = format_of(path, &bytes)?;
    Ok((bytes, format))
}

/// The format of the file that begins with `head`.
pub(super) fn format_of(path: &Path, head: &[u8]) -> Result<ImageFormat, ImageError> {
    let kind = match Content::sniff(head) {
        Content::Image("JPEG") => return Ok(ImageFormat::Jpeg),
        Content::Image("PNG") => return Ok(ImageFormat::Png),
        Content::Image("GIF") => return Ok(ImageFormat::Gif),
        Content::Image("TIFF") => return Ok(ImageFormat::Tiff),
        Content::Image("WebP") => return Ok(ImageFormat::WebP),
        Content::Image("BMP") => return Ok(ImageFormat::Bmp),
        Content::Image(name) => ImageErrorKind::Unsupported(format!("the {name} format")),
        Content::Empty => ImageErrorKind::Empty,
        Content::Other(looks_like) => ImageErrorKind::NotAnImage(looks_like.into_owned()),
    };
    Err(kind.at(path))
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    move |error| ImageErrorKind::Io(error).at(path)
}

/// A file being decoded, for its errors.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) format: ImageFormat,
}

impl Source<'_> {
    pub(crate) fn truncated(&self) -> ImageError {
        ImageErrorKind::Truncated(self.name()).at(self.path)
    }

    pub(crate) fn damaged(&self, reason: impl ToString) -> ImageError {
        let format = self.name();
        let reason = reason.to_string();
        ImageErrorKind::Damaged { format, reason }.at(self.path)
    }

    pub(crate) fn unsupported(&self, what: impl ToString) -> ImageError {
        ImageErrorKind::Unsupported(what.to_string()).at(self.path)
    }

    /// Runs a decoder. No bytes may bring down the caller, so its panic is an error of the file.
    pub(crate) fn guard<T>(
        &self,
        decode: impl FnOnce() -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        catch_unwind(AssertUnwindSafe(decode))
            .unwrap_or_else(|_| Err(self.damaged("the decoder gave up")))
    }

    /// A decoder that has read everything but the pixels, and how these are to be turned.
    fn decoder<'a, R: BufRead + Seek + 'a>(
        &self,
        mut reader: R,
    ) -> Result<(impl ImageDecoder + use<'a, R>, Option<Orientation>), ImageError> {
        let late_exif = match self.format {
            ImageFormat::Png => png_exif(&mut reader),
            _ => None,
        };
        let readable = self.format != ImageFormat::WebP || webp_chunks_fit(&mut reader);
        reader.rewind().map_err(io_error(self.path))?;
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_BYTES);
        let mut reader = ImageReader::with_format(reader, self.format);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(|e| self.error(e))?;

        let (width, height) = decoder.dimensions();
        self.check_size(width, height)?;
        // An image is worth more than its metadata: what cannot be read of those is ignored.
        if !readable {
            return Ok((decoder, None));
        }
        let exif = match self.format {
            ImageFormat::Png => late_exif,
            _ => decoder.exif_metadata().ok().flatten(),
        };
        let orientation = exif.and_then(|exif| exif_orientation(&exif));
        let orientation =
            orientation.or_else(|| xmp_orientation(&decoder.xmp_metadata().ok().flatten()?));
        Ok((decoder, orientation))
    }

    pub(crate) fn check_size(&self, width: u32, height: u32) -> Result<(), ImageError> {
        self.check_pixels(width, height, MAX_PIXELS)
    }

    pub(crate) fn check_pixels(
        &self,
        width: u32,
        height: u32,
        most: u64,
    ) -> Result<(), ImageError> {
        match u64::from(width) * u64::from(height) {
            0 => Err(self.damaged("it has no pixels")),
            pixels if pixels <= most => Ok(()),
            _ => Err(ImageErrorKind::TooLarge { width, height }.at(self.path)),
        }
    }

    pub(crate) fn error(&self, error: image::ImageError) -> ImageError {
        use image::ImageError as E;
        use image::error::UnsupportedErrorKind as Kind;
        match error {
            E::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => self.truncated(),
            E::Unsupported(e) => self.unsupported(match e.kind() {
                Kind::GenericFeature(feature) => format!("{} ({feature})", self.name()),
                Kind::Color(ExtendedColorType::Unknown(bits)) => {
                    format!("{} with {bits}-bit pixels of this kind", self.name())
                }
                _ => e.to_string(),
            }),
            // A size so large that the decoder refuses it before it is checked here.
            E::Limits(_) => ImageErrorKind::Memory(self.name()).at(self.path),
            // Without the preamble, which repeats the format.
            E::Decoding(e) => {
                self.damaged(e.source().map_or_else(|| e.to_string(), |e| e.to_string()))
            }
            e => self.damaged(e),
        }
    }

    fn name(&self) -> String {
        format!("{:?}", self.format).to_uppercase()
    }
}

/// The upright image in the bytes of a whole file.
pub(crate) fn decode(
    path: &Path,
    mut bytes: Vec<u8>,
    format: ImageFormat,
) -> Result<RgbImage, ImageError> {
    let source = Source { path, format };
    // Cut short, the one decoder would fill up with grey and the other overlook the orientation.
    let whole = match format {
        ImageFormat::Jpeg => jpeg_ends(&bytes),
        ImageFormat::WebP => webp_ends(&bytes),
        _ => true,
    };
    if !whole {
        return Err(source.truncated());
    }
    source.guard(|| decode_with(&source, &mut bytes))
}

fn decode_with(source: &Source, bytes: &mut [u8]) -> Result<RgbImage, ImageError> {
    let ((width, height), orientation, pixels) = match source.format {
        ImageFormat::Jpeg => {
            let jpeg = Jpeg::open(source, bytes)?;
            (jpeg.size(), jpeg.orientation(), jpeg.pixels()?)
        }
        ImageFormat::Tiff => {
            let palette = tiff_palette(bytes);
            let mut tiff = Tiff::open(source, Cursor::new(&*bytes), MAX_PIXELS)?;
            let orientation = tiff.orientation();
            (tiff.size(), orientation, tiff.pixels(palette.as_ref())?)
        }
        _ => decode_pixels(source, bytes)?,
    };
    let mut picture = DynamicImage::from(
        RgbImage::from_raw(width, height, pixels).expect("three bytes per pixel"),
    );
    picture.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(picture.into_rgb8())
}

/// Size and RGB pixels as they are stored, and how these are to be turned.
type Stored = ((u32, u32), Option<Orientation>, Vec<u8>);

fn decode_pixels(source: &Source, bytes: &[u8]) -> Result<Stored, ImageError> {
    let (decoder, orientation) = source.decoder(Cursor::new(bytes))?;
    let size = decoder.dimensions();
    let decoded = DynamicImage::from_decoder(decoder).map_err(|e| source.error(e))?;
    let high = |v: u16| (v >> 8) as u8;
    let pixels = match decoded {
        DynamicImage::ImageRgb8(i) => i.into_raw(),
        DynamicImage::ImageLuma8(i) => rgb(&i, 1, |v| v),
        DynamicImage::ImageLumaA8(i) => rgb(&i, 2, |v| v),
        DynamicImage::ImageRgba8(mut i) => {
            if source.format == ImageFormat::Gif
                && let Some(fill) = gif_fill(bytes)
            {
                fill_transparent(&mut i, fill);
            }
            rgb(&i, 4, |v| v)
        }
        DynamicImage::ImageLuma16(i) => rgb(&i, 1, high),
        DynamicImage::ImageLumaA16(i) => rgb(&i, 2, high),
        DynamicImage::ImageRgb16(i) => rgb(&i, 3, high),
        DynamicImage::ImageRgba16(i) => rgb(&i, 4, high),
        _ => return Err(source.unsupported("float samples, which have no agreed white")),
    };
    Ok((size, orientation, pixels))
}

/// Gives transparent pixels a colour.
pub(crate) fn fill_transparent(pixels: &mut RgbaImage, fill: [u8; 3]) {
    let transparent = pixels.pixels_mut().filter(|p| p[3] == 0);
    transparent.for_each(|p| p.0[..3].copy_from_slice(&fill));
}

/// The colour part of interleaved samples.
fn rgb<T: Copy>(samples: &[T], channels: usize, to_u8: impl Fn(T) -> u8) -> Vec<u8> {
    let colours = if channels < 3 { [0, 0, 0] } else { [0, 1, 2] };
    samples
        .chunks_exact(channels)
        .flat_map(|pixel| colours.map(|c| to_u8(pixel[c])))
        .collect()
}
