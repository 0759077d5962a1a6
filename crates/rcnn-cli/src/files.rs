//! Pictures and texts, written whole or not at all.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use image::RgbImage;
use rcnn_files::write_whole;

/// Writes a text file.
#[cfg(feature = "data")]
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    Ok(write_whole(path, |file| file.write_all(text.as_bytes()))?)
}

/// Writes a picture, as a JPEG where the name says so, else as a PNG.
pub(crate) fn write_picture(path: &Path, picture: &RgbImage) -> Result<()> {
    let bytes = rcnn_image::encode(path, picture)?;
    Ok(write_whole(path, |file| file.write_all(&bytes))?)
}
