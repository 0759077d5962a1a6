//! Picture files to RGB pixels, as PIL's `exif_transpose(Image.open(f)).convert("RGB")` gives them.
//!
//! The format is told by the content, never by the name. Alpha is dropped without compositing,
//! palettes are looked up, and of an animation the first frame is read. Two kinds differ from PIL
//! on purpose: 16-bit grey keeps its high byte, as 16-bit colour does (PIL clips it, mostly to
//! white), and float or 32-bit samples, which have no agreed white, are refused as
//! [`ImageError::Unsupported`].

use std::error::Error;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage,
};

use container::{gif_fill, jpeg_ends, png_exif, tiff_palette, webp_ends, xmp_orientation};
use sniff::{Content, sniff};

mod container;
mod sniff;
#[cfg(test)]
mod tests;

/// The largest picture read, in pixels.
const MAX_PIXELS: u64 = 1 << 29;

/// The most a decoder may allocate, in bytes.
const MAX_BYTES: u64 = 1 << 32;

/// How much of a file is looked at to tell what it is.
const HEAD: u64 = 512;

/// Why a file gave no picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file could not be read.
    #[error("cannot read {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file has no bytes.
    #[error("{path} is empty (0 bytes)")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The content is of no known picture format.
    #[error(
        "{path} is not a picture but {looks_like}; formats read: JPEG, PNG, WebP, BMP, TIFF, GIF"
    )]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like, such as `a PDF document`.
        looks_like: String,
    },
    /// A picture, but of a format or variant that is not read.
    #[error("{path}: not supported: {what}; save it as an 8-bit JPEG, PNG, WebP, BMP, TIFF or GIF")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The format or variant.
        what: String,
    },
    /// The file ends before its picture does.
    #[error("{path}: the {format} data is cut short")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The format, such as `JPEG`.
        format: String,
    },
    /// The content is damaged.
    #[error("{path}: damaged {format} data: {reason}")]
    Decode {
        /// The file.
        path: PathBuf,
        /// The format, such as `JPEG`.
        format: String,
        /// What the decoder said.
        reason: String,
    },
    /// The picture is too large to be decoded.
    #[error("{path}: {width}x{height} pixels are more than the {MAX_PIXELS} that are read")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
}

/// Reads a JPEG, PNG, WebP, BMP, TIFF or GIF file as upright 8-bit RGB.
///
/// ```no_run
/// let picture = rcnn_burn::image::open_rgb("blood.jpg")?;
/// println!("{} x {}", picture.width(), picture.height());
/// # Ok::<(), rcnn_burn::image::ImageError>(())
/// ```
pub fn open_rgb(path: impl AsRef<Path>) -> Result<RgbImage, ImageError> {
    let path = path.as_ref();
    let io = |error| ImageError::Io {
        path: path.into(),
        error,
    };
    let mut file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.by_ref()
        .take(HEAD)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    let format = match sniff(&bytes) {
        Content::Empty => return Err(ImageError::Empty { path: path.into() }),
        Content::Readable(format) => format,
        Content::Picture(name) => {
            let what = format!("the {name} format");
            return Err(ImageError::Unsupported {
                path: path.into(),
                what,
            });
        }
        Content::Other(looks_like) => {
            return Err(ImageError::NotAnImage {
                path: path.into(),
                looks_like,
            });
        }
    };
    file.read_to_end(&mut bytes).map_err(io)?;
    decode(path, bytes, format)
}

/// A picture as detectors take it.
///
/// # Shapes
/// - output: `[3, height, width]`, RGB from 0 to 1
pub fn to_tensor<B: Backend>(picture: &RgbImage, device: &B::Device) -> Tensor<B, 3> {
    let (width, height) = picture.dimensions();
    let (pixels, _) = picture.as_raw().as_chunks::<3>();
    let mut values = Vec::with_capacity(picture.as_raw().len());
    for channel in 0..3 {
        values.extend(pixels.iter().map(|pixel| f32::from(pixel[channel]) / 255.0));
    }
    let shape = [3, height as usize, width as usize];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A file being decoded, for its errors.
struct Source<'a> {
    path: &'a Path,
    format: ImageFormat,
}

impl Source<'_> {
    fn truncated(&self) -> ImageError {
        ImageError::Truncated {
            path: self.path.into(),
            format: self.name(),
        }
    }

    fn damaged(&self, reason: impl ToString) -> ImageError {
        ImageError::Decode {
            path: self.path.into(),
            format: self.name(),
            reason: reason.to_string(),
        }
    }

    fn unsupported(&self, what: impl ToString) -> ImageError {
        ImageError::Unsupported {
            path: self.path.into(),
            what: what.to_string(),
        }
    }

    fn error(&self, error: image::ImageError) -> ImageError {
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

/// The upright picture in the bytes of a whole file.
fn decode(path: &Path, mut bytes: Vec<u8>, format: ImageFormat) -> Result<RgbImage, ImageError> {
    let source = Source { path, format };
    // Cut short, the one decoder would fill up with grey and the other overlook the orientation.
    if !match format {
        ImageFormat::Jpeg => jpeg_ends(&bytes),
        ImageFormat::WebP => webp_ends(&bytes),
        _ => true,
    } {
        return Err(source.truncated());
    }
    // No bytes may bring down the caller, so a panic in a decoder is an error of the file.
    catch_unwind(AssertUnwindSafe(|| decode_with(&source, &mut bytes)))
        .unwrap_or_else(|_| Err(source.damaged("the decoder gave up")))
}

fn decode_with(source: &Source, bytes: &mut [u8]) -> Result<RgbImage, ImageError> {
    let palette = match source.format {
        ImageFormat::Tiff => tiff_palette(bytes),
        _ => None,
    };
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(&*bytes), source.format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| source.error(e))?;

    let (width, height) = decoder.dimensions();
    match u64::from(width) * u64::from(height) {
        0 => return Err(source.damaged("it has no pixels")),
        1..=MAX_PIXELS => {}
        _ => {
            return Err(ImageError::TooLarge {
                path: source.path.into(),
                width,
                height,
            });
        }
    }
    // A picture is worth more than its metadata: what cannot be read of those is ignored.
    let orientation = match source.format {
        ImageFormat::Tiff => decoder.orientation().ok(),
        ImageFormat::Png => png_exif(bytes).and_then(Orientation::from_exif_chunk),
        _ => decoder.exif_metadata().ok().flatten().and_then(|exif| {
            Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif))
        }),
    };
    let orientation =
        orientation.or_else(|| xmp_orientation(&decoder.xmp_metadata().ok().flatten()?));

    let decoded = DynamicImage::from_decoder(decoder).map_err(|e| source.error(e))?;
    let high = |v: u16| (v >> 8) as u8;
    let pixels = match decoded {
        DynamicImage::ImageRgb8(i) => i.into_raw(),
        DynamicImage::ImageLuma8(i) => match palette {
            Some(palette) => i.iter().flat_map(|&v| palette[usize::from(v)]).collect(),
            None => rgb(&i, 1, |v| v),
        },
        DynamicImage::ImageLumaA8(i) => rgb(&i, 2, |v| v),
        DynamicImage::ImageRgba8(mut i) => {
            if source.format == ImageFormat::Gif
                && let Some(fill) = gif_fill(bytes)
            {
                i.pixels_mut()
                    .filter(|p| p[3] == 0)
                    .for_each(|p| p.0[..3].copy_from_slice(&fill));
            }
            rgb(&i, 4, |v| v)
        }
        DynamicImage::ImageLuma16(i) => rgb(&i, 1, high),
        DynamicImage::ImageLumaA16(i) => rgb(&i, 2, high),
        DynamicImage::ImageRgb16(i) => rgb(&i, 3, high),
        DynamicImage::ImageRgba16(i) => rgb(&i, 4, high),
        _ => return Err(source.unsupported("float samples, which have no agreed white")),
    };
    let mut picture = DynamicImage::from(
        RgbImage::from_raw(width, height, pixels).expect("three bytes per pixel"),
    );
    picture.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(picture.into_rgb8())
}

/// The colour part of interleaved samples.
fn rgb<T: Copy>(samples: &[T], channels: usize, to_u8: impl Fn(T) -> u8) -> Vec<u8> {
    let colours = if channels < 3 { [0, 0, 0] } else { [0, 1, 2] };
    samples
        .chunks_exact(channels)
        .flat_map(|pixel| colours.map(|c| to_u8(pixel[c])))
        .collect()
}
