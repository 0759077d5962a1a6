//! Image files for detectors, without tensors: [`open_rgb`] decodes as Pillow does, [`upright_size`]
//! reads a size without decoding, by the same rules, [`Animation`] decodes all frames of a file, and [`encode`]
//! writes. [`StripReader`] reads parts of TIFF files that are too large for memory.
//!
//! With the feature `draw`, `draw` has a canvas for lines and text and draws detections.
//! [`sheet`] lays several pictures out in one.

use std::path::Path;

mod animation;
mod cmyk;
mod container;
mod crop;
#[cfg(feature = "draw")]
pub mod draw;
mod error;
mod jpeg;
mod read;
pub mod sheet;
mod strips;
#[cfg(test)]
mod tests;
mod tiff;
mod write;

pub use animation::{Animation, frame_count};
pub use crop::crop;
pub use error::{ImageError, ImageErrorKind};
pub use image::metadata::Orientation;
pub use read::{Header, decode_rgb, open_rgb, upright_size};
pub use strips::StripReader;
pub use write::{encode, is_ours};

/// The extensions of the files that are looked for in folders, in lower case. A file's format is
/// recognised by its content.
pub const EXTENSIONS: [&str; 9] = [
    "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "jfif",
];

/// Extensions of images in formats that are not read.
const UNREAD_EXTENSIONS: [&str; 18] = [
    "heic", "heif", "avif", "jxl", "jp2", "j2k", "psd", "dng", "cr2", "cr3", "nef", "arw", "raf",
    "ppm", "pgm", "exr", "dcm", "svs",
];

/// Whether a file's name is that of an image: it has one of [`EXTENSIONS`], and is not one of the
/// `._` files that macOS leaves in archives.
pub fn has_image_name(path: &Path) -> bool {
    has_extension(path, &EXTENSIONS)
}

/// Whether a file's name is that of an image in a format that is not read, such as HEIC.
pub fn has_unread_image_name(path: &Path) -> bool {
    has_extension(path, &UNREAD_EXTENSIONS)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    extension.is_some_and(|e| extensions.contains(&e.as_str())) && !name.starts_with("._")
}
