//! What a file is, told by its first bytes.

use image::ImageFormat;

/// What a file holds.
#[derive(Debug, PartialEq)]
pub(super) enum Content {
    /// Nothing.
    Empty,
    /// A picture of a format that is read.
    Readable(ImageFormat),
    /// A picture of another format.
    Picture(&'static str),
    /// No picture; this is what it looks like.
    Other(String),
}

/// Where a signature stands, the signature, and what it tells.
type Signature<T> = (usize, &'static [u8], T);

const READABLE: [Signature<ImageFormat>; 8] = [
    (0, b"\xff\xd8\xff", ImageFormat::Jpeg),
    (0, b"\x89PNG\r\n\x1a\n", ImageFormat::Png),
    (0, b"GIF87a", ImageFormat::Gif),
    (0, b"GIF89a", ImageFormat::Gif),
    (0, b"II*\0", ImageFormat::Tiff),
    (0, b"MM\0*", ImageFormat::Tiff),
    (0, b"II+\0", ImageFormat::Tiff),
    (0, b"MM\0+", ImageFormat::Tiff),
];

const PICTURES: [Signature<&str>; 16] = [
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"jP  ", "JPEG 2000"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"<svg", "SVG"),
    (0, b"P5\n", "PGM"),
    (0, b"P6\n", "PPM"),
    (128, b"DICM", "DICOM"),
];

const OTHERS: [Signature<&str>; 10] = [
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, its content not fetched",
    ),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x7fELF", "a program"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (4, b"ftyp", "a video"),
];

const TEXTS: [(&str, &str); 5] = [
    ("<!doctype html", "an HTML page"),
    ("<html", "an HTML page"),
    ("<?xml", "an XML document"),
    ("{", "JSON text"),
    ("[", "JSON text"),
];

/// What the file is that starts with `head`.
pub(super) fn sniff(head: &[u8]) -> Content {
    if head.is_empty() {
        return Content::Empty;
    }
    if let Some(format) = find(head, &READABLE) {
        return Content::Readable(format);
    }
    if has(head, 0, b"RIFF") && has(head, 8, b"WEBP") {
        return Content::Readable(ImageFormat::WebP);
    }
    // A text may begin with the two letters; in a BMP a header length below 256 follows.
    if has(head, 0, b"BM") && has(head, 15, b"\0\0\0") {
        return Content::Readable(ImageFormat::Bmp);
    }
    if let Some(name) = find(head, &PICTURES) {
        return Content::Picture(name);
    }
    Content::Other(match find(head, &OTHERS) {
        Some(name) => name.into(),
        None if head.iter().all(|&b| b >= b' ' || b.is_ascii_whitespace()) => {
            let text = String::from_utf8_lossy(head).trim_start().to_lowercase();
            let kind = TEXTS.iter().find(|(start, _)| text.starts_with(start));
            kind.map_or("text", |(_, name)| name).into()
        }
        None => format!(
            "unknown data (first bytes {:02x?})",
            &head[..head.len().min(8)]
        ),
    })
}

fn find<T: Copy>(head: &[u8], signatures: &[Signature<T>]) -> Option<T> {
    let found = signatures
        .iter()
        .find(|(at, signature, _)| has(head, *at, signature))?;
    Some(found.2)
}

fn has(head: &[u8], at: usize, signature: &[u8]) -> bool {
    head.get(at..)
        .is_some_and(|rest| rest.starts_with(signature))
}
