//! JPEG by libjpeg-turbo's rules, which are Pillow's: every pixel is the same.
//!
//! As in Pillow, data that are damaged within a whole file decode as far as they can, and Huffman
//! tables that are missing, as in the frames of webcams, are the standard's.

use image::metadata::Orientation;
use libjpeg_turbo_rs::{
    ComponentInfo, DecodeWarning, Decoder, Encoder, JpegError, PixelFormat, Subsampling,
};

use crate::container::{exif_orientation, jpeg_header_end, xmp_orientation};
use crate::read::{MAX_BYTES, Source};
use crate::{ImageError, cmyk};

/// A JPEG file up to its pixels: all of what [`Jpeg::open`] needs for the size, however many scans
/// would follow.
pub(crate) fn header(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = jpeg_header_end(bytes)?;
    Some([&bytes[..end], b"\xff\xd9"].concat())
}

/// A JPEG whose header has been read.
pub(crate) struct Jpeg<'a> {
    source: &'a Source<'a>,
    decoder: Decoder<'a>,
}

impl<'a> Jpeg<'a> {
    /// Reads the header.
    pub(crate) fn open(source: &'a Source<'a>, bytes: &'a [u8]) -> Result<Self, ImageError> {
        let decoder = Decoder::new(bytes).map_err(|e| error(source, e))?;
        let jpeg = Self { source, decoder };
        let (width, height) = jpeg.size();
        source.check_size(width, height)?;
        let frame = jpeg.decoder.header();
        match (frame.precision, frame.components.len()) {
            (8, 4) if !is_usual_cmyk(&frame.components) => {
                Err(source.unsupported("CMYK JPEG whose channels are subsampled in an unusual way"))
            }
            (8, 1 | 3 | 4) => Ok(jpeg),
            (8, channels) => Err(source.unsupported(format!("JPEG with {channels} channels"))),
            (bits, _) => Err(source.unsupported(format!("JPEG with {bits}-bit samples"))),
        }
    }

    /// Width and height in pixels, as they are stored.
    pub(crate) fn size(&self) -> (u32, u32) {
        let frame = self.decoder.header();
        (frame.width() as u32, frame.height() as u32)
    }

    /// How the pixels are to be turned.
    pub(crate) fn orientation(&self) -> Option<Orientation> {
        let exif = self.decoder.exif_data();
        exif.and_then(exif_orientation)
            .or_else(|| xmp_orientation(self.decoder.xmp_data()?))
    }

    /// The pixels as they are stored, in RGB.
    pub(crate) fn pixels(mut self) -> Result<Vec<u8>, ImageError> {
        let cmyk = self.decoder.header().components.len() == 4;
        self.decoder.set_output_format(match cmyk {
            true => PixelFormat::Cmyk,
            false => PixelFormat::Rgb,
        });
        self.decoder.set_lenient(true);
        self.decoder.set_block_smoothing(true);
        self.decoder.set_max_memory(MAX_BYTES as usize);
        let image = self.decoder.decode_image();
        let image = image.map_err(|e| error(self.source, e))?;
        for warning in &image.warnings {
            if let DecodeWarning::UnsupportedRecovered { detail } = warning {
                return Err(self.source.unsupported(format!("JPEG with {detail}")));
            }
        }
        Ok(match cmyk {
            // As programs of Adobe write it, which Pillow takes all CMYK in JPEG for: 255 is no ink.
            true => {
                let (inks, _) = image.data.as_chunks();
                inks.iter()
                    .flat_map(|inks: &[u8; 4]| cmyk::to_rgb(inks.map(|v| 255 - v)))
                    .collect()
            }
            false => image.data,
        })
    }
}

/// Whether four channels are sampled as the decoder supposes: the second and third alike, and none
/// finer than the first and last.
fn is_usual_cmyk(channels: &[ComponentInfo]) -> bool {
    let [c, m, y, k] = [0, 1, 2, 3].map(|i| {
        let channel = &channels[i];
        (channel.horizontal_sampling, channel.vertical_sampling)
    });
    c == k && m == y && c.0.is_multiple_of(m.0) && c.1.is_multiple_of(m.1)
}

fn error(source: &Source, error: JpegError) -> ImageError {
    match error {
        JpegError::UnexpectedEof => source.truncated(),
        JpegError::Unsupported(what) => source.unsupported(format!("JPEG with {what}")),
        JpegError::LimitExceeded { .. } | JpegError::AllocationFailed { .. } => {
            source.unsupported(format!("JPEG whose {error}"))
        }
        JpegError::CorruptData(reason) => source.damaged(reason),
        _ => source.damaged(error),
    }
}

/// The bytes of a JPEG file of RGB pixels, without chroma subsampling, with the EXIF data `exif`.
pub(crate) fn encode(
    image: &image::RgbImage,
    quality: u8,
    exif: &[u8],
) -> Result<Vec<u8>, JpegError> {
    let (width, height) = image.dimensions();
    Encoder::new(image, width as usize, height as usize, PixelFormat::Rgb)
        .quality(quality)
        .subsampling(Subsampling::S444)
        .exif_data(exif)
        .encode()
}
