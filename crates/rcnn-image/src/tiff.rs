//! TIFF by the `tiff` crate, its samples made RGB as Pillow makes them; JPEG within by the decoder of JPEG files.

use std::io::{self, Read, Seek};
use std::ops::Range;

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

/// Meaning and size of a pixel's samples.
struct SampleKind {
    colours: Colours,
    bits: u8,
}

enum Colours {
    Grey,
    Rgb,
    Cmyk,
}

impl<'a, R: Read + Seek> Tiff<'a, R> {
    /// Reads the directory of an image of at most `most` pixels.
    pub(crate) fn open(source: &'a Source<'a>, reader: R, most: u64) -> Result<Self, ImageError> {
        let mut limits = Limits::default();
        limits.decoding_buffer_size = MAX_BYTES as usize;
        limits.intermediate_buffer_size = MAX_BYTES as usize;
        let decoder = Decoder::new(reader).map_err(|e| error(source, e))?;
        let mut decoder = decoder.with_limits(limits);
        let size = decoder.dimensions().map_err(|e| error(source, e))?;
        source.check_pixels(size.0, size.1, most)?;
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
        Orientation::from_exif(self.tag(Tag::Orientation)?)
    }

    /// A tag that is a whole number, if it is there and readable.
    fn tag<T: TryFrom<u64>>(&mut self, tag: Tag) -> Option<T> {
        self.decoder.find_tag_unsigned(tag).ok().flatten()
    }

    /// The pixels as they are stored, in RGB; those of a palette are indices.
    pub(crate) fn pixels(mut self, palette: Option<&TiffPalette>) -> Result<Vec<u8>, ImageError> {
        if self.is_jpeg() {
            let (_, bands) = self.bands();
            return self.jpeg_pixels(0..bands);
        }
        let kind = self.sample_kind()?;
        let mut samples = DecodingResult::U8(vec![]);
        let layout = self.decoder.read_image_to_buffer(&mut samples);
        let layout = layout.map_err(|e| error(self.source, e))?;
        let samples = self.bytes(samples, kind.bits, self.size.0)?;
        let (width, height) = self.size;
        let pixels = width as usize * height as usize;
        self.to_rgb(&samples, &kind, pixels, layout.planes > 1, palette)
    }

    /// Height of a row of strips or tiles, and how many there are.
    pub(crate) fn bands(&self) -> (u32, u32) {
        let (_, height) = self.decoder.chunk_dimensions();
        (height, self.size.1.div_ceil(height.max(1)))
    }

    /// Whether [`band_pixels`](Self::band_pixels) can read it.
    pub(crate) fn has_readable_bands(&mut self) -> bool {
        self.is_jpeg() || self.sample_kind().is_ok()
    }

    /// The pixels of some of the [bands](Self::bands), as [`pixels`](Self::pixels) makes them of all.
    pub(crate) fn band_pixels(&mut self, bands: Range<u32>) -> Result<Vec<u8>, ImageError> {
        if self.is_jpeg() {
            return self.jpeg_pixels(bands);
        }
        let kind = self.sample_kind()?;
        let (across, down) = (self.chunks_across(), self.bands().1);
        let planes = self.planes();
        let mut pixels = self.empty_bands(&bands);
        for place in bands.start * across..bands.end * across {
            let (width, height) = self.decoder.chunk_data_dimensions(place);
            let mut samples = Vec::new();
            for plane in 0..planes {
                let chunk = self.decoder.read_chunk(plane * across * down + place);
                let chunk = chunk.map_err(|e| error(self.source, e))?;
                samples.extend(self.bytes(chunk, kind.bits, width)?);
            }
            let part = width as usize * height as usize;
            let part = self.to_rgb(&samples, &kind, part, planes > 1, None)?;
            self.place(&part, width, place, &bands, &mut pixels);
        }
        Ok(pixels)
    }

    /// Number of tiles beside each other; 1 of strips.
    fn chunks_across(&self) -> u32 {
        self.size.0.div_ceil(self.decoder.chunk_dimensions().0)
    }

    /// How many planes the channels are in: 1 where they alternate.
    fn planes(&mut self) -> u32 {
        match self.tag(Tag::PlanarConfiguration) {
            Some(2u16) => self.tag(Tag::SamplesPerPixel).unwrap_or(1),
            _ => 1,
        }
    }

    /// Room for the pixels of some bands.
    fn empty_bands(&self, bands: &Range<u32>) -> Vec<u8> {
        let (height, _) = self.bands();
        let end = bands.end.saturating_mul(height).min(self.size.1);
        vec![0; 3 * self.size.0 as usize * (end - bands.start * height) as usize]
    }

    /// Copies the pixels of a strip or tile, of rows of `columns` pixels, to where they belong among those of the bands.
    fn place(&self, part: &[u8], columns: u32, place: u32, bands: &Range<u32>, pixels: &mut [u8]) {
        let (across, (width, height)) = (self.chunks_across(), self.decoder.chunk_dimensions());
        let (shown, lines) = self.decoder.chunk_data_dimensions(place);
        let left = (place % across * width) as usize;
        let top = ((place / across - bands.start) * height) as usize;
        let used = 3 * shown as usize;
        let rows = part.chunks_exact(3 * columns as usize).take(lines as usize);
        for (row, y) in rows.zip(top..) {
            let start = 3 * (y * self.size.0 as usize + left);
            pixels[start..start + used].copy_from_slice(&row[..used]);
        }
    }

    /// The kind of samples.
    ///
    /// # Errors
    /// When such samples are not supported, or the header is damaged.
    fn sample_kind(&mut self) -> Result<SampleKind, ImageError> {
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
        Ok(SampleKind { colours, bits })
    }

    /// Samples of any size as bytes, of rows of `width` pixels.
    fn bytes(&self, samples: DecodingResult, bits: u8, width: u32) -> Result<Vec<u8>, ImageError> {
        Ok(match samples {
            DecodingResult::U8(samples) if bits < 8 => unpacked(&samples, bits, width as usize),
            DecodingResult::U8(samples) => samples,
            DecodingResult::U16(samples) => samples.iter().map(|&v| (v >> 8) as u8).collect(),
            _ => {
                let what =
                    "TIFF with samples of float or signed numbers, which have no agreed white";
                return Err(self.source.unsupported(what));
            }
        })
    }

    /// RGB of that many pixels' samples, which alternate or stand in planes.
    fn to_rgb(
        &self,
        samples: &[u8],
        kind: &SampleKind,
        pixels: usize,
        in_planes: bool,
        palette: Option<&TiffPalette>,
    ) -> Result<Vec<u8>, ImageError> {
        let channels = samples.len() / pixels;
        let needed = match kind.colours {
            Colours::Grey => 1,
            Colours::Rgb => 3,
            Colours::Cmyk => 4,
        };
        if channels < needed {
            let reason = format!("it has {channels} of {needed} channels");
            return Err(self.source.damaged(reason));
        }
        let sample = |pixel: usize, channel: usize| match in_planes {
            false => samples[pixel * channels + channel],
            true => samples[channel * pixels + pixel],
        };
        let rgb = |pixel: usize| match (&kind.colours, palette) {
            (Colours::Grey, Some(palette)) => palette[usize::from(sample(pixel, 0))],
            (Colours::Grey, None) => [sample(pixel, 0); 3],
            (Colours::Rgb, _) => [0, 1, 2].map(|channel| sample(pixel, channel)),
            (Colours::Cmyk, _) => cmyk::to_rgb([0, 1, 2, 3].map(|channel| sample(pixel, channel))),
        };
        Ok((0..pixels).flat_map(rgb).collect())
    }
}

/// Samples of 1, 2 or 4 bits, each row of which begins a byte, spread over 0 to 255.
fn unpacked(packed: &[u8], bits: u8, width: usize) -> Vec<u8> {
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

fn error(source: &Source, error: TiffError) -> ImageError {
    match error {
        TiffError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => source.truncated(),
        TiffError::UnsupportedError(e) => source.unsupported(format!("TIFF ({e})")),
        TiffError::LimitsExceeded => source.unsupported("TIFF that takes too much memory"),
        e => source.damaged(e),
    }
}
