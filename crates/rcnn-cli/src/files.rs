//! Texts read, and pictures and texts written, whole or not at all; errors name the file.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use image::RgbImage;
use rcnn_files::write_whole;

/// Reads a text in UTF-8 or UTF-16.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    rcnn_files::read_text(path).with_context(|| path.display().to_string())
}

/// Makes a folder, and those that it is in.
#[cfg(feature = "data")]
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| path.display().to_string())
}

/// A number of bytes in MiB.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

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
