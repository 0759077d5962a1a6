//! Large TIFF files, read part by part.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{ImageFormat, RgbImage};
use rcnn_types::{Size, Window};

use crate::ImageError;
use crate::read::{Source, io_error, open_first, recognize};
use crate::tiff::Tiff;

/// The largest image read, in pixels: masks count them in 32 bits.
const MAX_PIXELS: u64 = u32::MAX as u64;

/// The most pixels of a row of strips or tiles, which are decoded at once.
const MAX_BAND: u64 = 1 << 27;

/// Parts of a TIFF file of strips or tiles, as [`open_rgb`](crate::open_rgb) would read them of the whole.
///
/// No more is held in memory than the rows of strips or tiles that the last window touched, so windows should come row by
/// row. The picture may have up to 2^32 - 1 pixels.
///
/// ```no_run
/// # mod rcnn_burn { pub use rcnn_image as image; }
/// use rcnn_burn::image::StripReader;
///
/// if let Some(mut picture) = StripReader::open("city.tiff")? {
///     let corner = picture.window([0, 0, 640, 640])?;
///     println!("{:?}, its first pixel is {:?}", picture.size(), corner.get_pixel(0, 0));
/// }
/// # Ok::<(), rcnn_image::ImageError>(())
/// ```
#[derive(Debug)]
pub struct StripReader {
    path: PathBuf,
    size: Size,
    /// The rows that `pixels` are, whole bands.
    rows: Range<u32>,
    pixels: Vec<u8>,
}

impl StripReader {
    /// Reads the header of a file. `None` where it cannot be read in parts: it is no TIFF, a pipe, or one that is to be turned,
    /// has a palette, samples of an unusual kind, or so few strips that one is most of a large picture.
    ///
    /// # Errors
    /// When the file cannot be read, does not begin as an image, or has too many pixels for this too.
    pub fn open(path: impl AsRef<Path>) -> Result<Option<Self>, ImageError> {
        let path = path.as_ref();
        let Some(mut file) = open_first(path)? else {
            return Ok(None);
        };
        if recognize(path, &mut file)?.1 != ImageFormat::Tiff {
            return Ok(None);
        }
        with_tiff(path, |tiff| {
            let ((width, height), (rows, _)) = (tiff.size(), tiff.bands());
            let band = u64::from(width) * u64::from(rows.min(height));
            let orientation = tiff.orientation().unwrap_or(Orientation::NoTransforms);
            let upright = orientation == Orientation::NoTransforms;
            let readable = rows > 0 && band <= MAX_BAND && upright && tiff.has_readable_bands();
            Ok(readable.then(|| Self {
                path: path.into(),
                size: Size::from_dimensions((width, height)),
                rows: 0..0,
                pixels: Vec::new(),
            }))
        })
    }

    /// Size of the whole picture.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The pixels of a window.
    ///
    /// # Errors
    /// When the file cannot be read any more, or is damaged there.
    ///
    /// # Panics
    /// When the window is not within the picture.
    pub fn window(&mut self, [left, top, right, bottom]: Window) -> Result<RgbImage, ImageError> {
        let (width, height) = self.size.dimensions();
        assert!(
            left <= right && right <= width && top <= bottom && bottom <= height,
            "a window within"
        );
        if top < self.rows.start || bottom > self.rows.end {
            self.read_rows(top..bottom)?;
        }
        let row = |y: u32| {
            let start = (y - self.rows.start) as usize * width as usize;
            &self.pixels[3 * (start + left as usize)..3 * (start + right as usize)]
        };
        let pixels: Vec<u8> = (top..bottom).flat_map(row).copied().collect();
        Ok(RgbImage::from_raw(right - left, bottom - top, pixels).expect("three bytes per pixel"))
    }

    /// Reads the bands of some rows, but those that are there already.
    fn read_rows(&mut self, rows: Range<u32>) -> Result<(), ImageError> {
        let Self {
            path,
            size,
            rows: held,
            pixels,
        } = self;
        let (width, height) = size.dimensions();
        with_tiff(path, |tiff| {
            let (band, _) = tiff.bands();
            let start = rows.start / band * band;
            let kept = if held.contains(&start) {
                start..held.end
            } else {
                start..start
            };
            let gone = (kept.start - held.start.min(kept.start)) as usize * 3 * width as usize;
            match kept.is_empty() {
                true => pixels.clear(),
                false => drop(pixels.drain(..gone)),
            }
            *held = kept;
            let bands = held.end.div_ceil(band)..rows.end.div_ceil(band);
            pixels.extend(tiff.band_pixels(bands.clone())?);
            held.end = bands.end.saturating_mul(band).min(height);
            Ok(())
        })
    }
}

/// Does something with the directory of a file.
fn with_tiff<T>(
    path: &Path,
    act: impl FnOnce(&mut Tiff<BufReader<File>>) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let source = Source {
        path,
        format: ImageFormat::Tiff,
    };
    source.guard(|| {
        let file = File::open(path).map_err(io_error(path))?;
        act(&mut Tiff::open(&source, BufReader::new(file), MAX_PIXELS)?)
    })
}
