//! Images to the bytes of files.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ImageEncoder, RgbImage};

use crate::{ImageError, ImageErrorKind, jpeg};

/// EXIF data whose one entry, `Software` (0x131), is `rcnn-burn`.
const MARK: &[u8] = b"II\x2a\0\x08\0\0\0\
    \x01\0\x31\x01\x02\0\x0a\0\0\0\x1a\0\0\0\0\0\0\0\
    rcnn-burn\0";

/// The encoders write it right behind their header; how far to look for it, in bytes.
const HEAD: u64 = 256;

/// Quality of a JPEG, of 100.
const QUALITY: u8 = 92;

/// The bytes of an image file, as a JPEG where the name says so, else as a PNG. Both name this
/// project as the software that made them; see [`is_ours`].
///
/// # Errors
/// [`ImageErrorKind::Encode`], such as for a JPEG of more than 65535 pixels a side.
pub fn encode(path: &Path, image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let extension = path.extension().map(|e| e.to_ascii_lowercase());
    let encoded = if extension.is_some_and(|e| e == "jpg" || e == "jpeg") {
        jpeg::encode(image, QUALITY, MARK).map_err(|e| e.to_string())
    } else {
        png(image).map_err(|e| e.to_string())
    };
    encoded.map_err(|reason| ImageErrorKind::Encode(reason).at(path))
}

fn png(image: &RgbImage) -> image::ImageResult<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = PngEncoder::new(&mut bytes);
    encoder
        .set_exif_metadata(MARK.to_vec())
        .map_err(image::ImageError::Unsupported)?;
    image.write_with_encoder(encoder)?;
    Ok(bytes.into_inner())
}

/// Whether a file is an image that [`encode`] made.
pub fn is_ours(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    read.is_ok() && head.windows(MARK.len()).any(|window| window == MARK)
}
