//! TIFF by the `tiff` crate, its samples made RGB as Pillow makes them; JPEG within by the decoder of JPEG files.

use std::io::{self, Read, Seek};

use image::metadata::Orientation;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use crate::cmyk;
use crate::container::TiffPalette;
use crate::error::ImageError;
use crate::read::{MAX_BYTES, Source};

mod jpeg;

/// A TIFF file whose first directory has been read.
pub(crate) struct Tiff<'a, R: Read + Seek> {
    source: &'a Source<'a>,
    decoder: Decoder<R>,
    size: (u32, u32),
}

/// Meaning of a pixel's samples.
enum Colours {
    Grey,
    Rgb,
    Cmyk,
}

impl<'a, R: Read + Seek> Tiff<'a, R> {
    /// Reads the directory.
    pub(crate) fn open(source: &'a Source<'a>, reader: R) -> Result<Self, ImageError> {
        let mut limits = Limits::default();
        limits.decoding_buffer_size = MAX_BYTES as usize;
        limits.intermediate_buffer_size = MAX_BYTES as usize;
        let decoder = Decoder::new(reader).map_err(|e| error(source, e))?;
        let mut decoder = decoder.with_limits(limits);
        let size = decoder.dimensions().map_err(|e| error(source, e))?;
        source.check_size(size.0, size.1)?;
        Ok(Self {
            source,
            decoder,
            size,
        })
    }

    /// Width and height in pixels, as they are stored.
    pub(crate) fn size(&self) -> (u32, u32) {
        self.size
    }

    /// How the pixels are to be turned.
    pub(crate) fn orientation(&mut self) -> Option<Orientation> {
        let tag = self.decoder.find_tag_unsigned(Tag::Orientation).ok()??;
        Orientation::from_exif(tag)
    }

    /// The pixels as they are stored, in RGB; those of a palette are indices.
    pub(crate) fn pixels(mut self, palette: Option<&TiffPalette>) -> Result<Vec<u8>, ImageError> {
        if let Some(pixels) = self.jpeg_pixels()? {
            return Ok(pixels);
        }
        let source = self.source;
        let kind = self.decoder.colortype().map_err(|e| error(source, e))?;
        let bits = kind.bit_depth();
        let colours = match kind {
            ColorType::Gray(1 | 2 | 4 | 8 | 16) => Colours::Grey,
            ColorType::GrayA(8 | 16) => Colours::Grey,
            // Alpha is dropped, and so is what is called neither alpha nor anything else.
            ColorType::Multiband {
                bit_depth: 8 | 16,
                num_samples: 2,
            } => Colours::Grey,
            ColorType::RGB(8 | 16) | ColorType::RGBA(8 | 16) => Colours::Rgb,
            ColorType::CMYK(8 | 16) | ColorType::CMYKA(8 | 16) => Colours::Cmyk,
            ColorType::Multiband { num_samples, .. } => {
                return Err(source.unsupported(format!("TIFF with {num_samples} channels")));
            }
            ColorType::YCbCr(_) => return Err(source.unsupported("TIFF in YCbCr")),
            ColorType::Lab(_) => return Err(source.unsupported("TIFF in L*a*b*")),
            _ => return Err(source.unsupported(format!("TIFF with {bits}-bit samples"))),
        };
        let mut samples = DecodingResult::U8(vec![]);
        let layout = self.decoder.read_image_to_buffer(&mut samples);
        let layout = layout.map_err(|e| error(source, e))?;
        let samples = match samples {
            DecodingResult::U8(samples) if bits < 8 => self.unpacked(&samples, bits),
            DecodingResult::U8(samples) => samples,
            DecodingResult::U16(samples) => samples.iter().map(|&v| (v >> 8) as u8).collect(),
            _ => {
                let what =
                    "TIFF with samples of float or signed numbers, which have no agreed white";
                return Err(source.unsupported(what));
            }
        };

        let (width, height) = self.size;
        let pixels = width as usize * height as usize;
        let channels = samples.len() / pixels;
        let needed = match colours {
            Colours::Grey => 1,
            Colours::Rgb => 3,
            Colours::Cmyk => 4,
        };
        if channels < needed {
            return Err(source.damaged(format!("it has {channels} of {needed} channels")));
        }
        let sample = |pixel: usize, channel: usize| match layout.planes {
            0 | 1 => samples[pixel * channels + channel],
            _ => samples[channel * pixels + pixel],
        };
        let rgb = |pixel: usize| match (&colours, palette) {
            (Colours::Grey, Some(palette)) => palette[usize::from(sample(pixel, 0))],
            (Colours::Grey, None) => [sample(pixel, 0); 3],
            (Colours::Rgb, _) => [0, 1, 2].map(|channel| sample(pixel, channel)),
            (Colours::Cmyk, _) => cmyk::to_rgb([0, 1, 2, 3].map(|channel| sample(pixel, channel))),
        };
        Ok((0..pixels).flat_map(rgb).collect())
    }

    /// Samples of 1, 2 or 4 bits, each row of which begins a byte, spread over 0 to 255.
    fn unpacked(&self, packed: &[u8], bits: u8) -> Vec<u8> {
        let width = self.size.0 as usize;
        let each = 8 / usize::from(bits);
        let most = (1 << bits) - 1;
        let value = |row: &[u8], x: usize| {
            let shift = 8 - usize::from(bits) * (x % each + 1);
            (row[x / each] >> shift & most) * (255 / most)
        };
        let rows = packed.chunks_exact(width.div_ceil(each));
        rows.flat_map(|row| (0..width).map(move |x| value(row, x)))
            .collect()
    }
}

fn error(source: &Source, error: TiffError) -> ImageError {
    match error {
        TiffError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => source.truncated(),
        TiffError::UnsupportedError(e) => source.unsupported(format!("TIFF ({e})")),
        TiffError::LimitsExceeded => source.unsupported("TIFF that takes too much memory"),
        e => source.damaged(e),
    }
}
