//! Content of files by their first bytes.
//!
//! Crates that know hundreds of formats (`infer`, `file-format`) know none of those that are taken for checkpoints most
//! often: Git LFS pointers, pickles, NumPy arrays, HDF5, GGUF.

use std::borrow::Cow;
use std::fmt;

/// Content of a file: which reader it needs, or what it is instead of what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Empty,
    /// An image of the format of this name: "PNG".
    Image(&'static str),
    /// Anything else, in words that go on after "this is": "a PDF document".
    Other(Cow<'static, str>),
}

/// Where bytes stand, and which.
type Magic = (usize, &'static [u8]);

/// The first that fits is meant.
const IMAGES: [(&[Magic], &str); 26] = [
    (&[(0, b"\xff\xd8\xff")], "JPEG"),
    (&[(0, b"\x89PNG\r\n\x1a\n")], "PNG"),
    (&[(0, b"GIF87a")], "GIF"),
    (&[(0, b"GIF89a")], "GIF"),
    (&[(0, b"II*\0")], "TIFF"),
    (&[(0, b"MM\0*")], "TIFF"),
    (&[(0, b"II+\0")], "TIFF"),
    (&[(0, b"MM\0+")], "TIFF"),
    (&[(0, b"RIFF"), (8, b"WEBP")], "WebP"),
    // A text may begin with the two letters; in a BMP a header length below 256 follows.
    (&[(0, b"BM"), (15, b"\0\0\0")], "BMP"),
    (&[(4, b"ftypavi")], "AVIF"),
    (&[(4, b"ftyphei")], "HEIC"),
    (&[(4, b"ftypmif1")], "HEIF"),
    (&[(4, b"jP  ")], "JPEG 2000"),
    (&[(4, b"JXL ")], "JPEG XL"),
    (&[(0, b"\xff\x0a")], "JPEG XL"),
    (&[(0, b"8BPS")], "Photoshop"),
    (&[(0, b"\0\0\x01\0")], "ICO"),
    (&[(0, b"v/1\x01")], "OpenEXR"),
    (&[(0, b"#?RADIANCE")], "Radiance HDR"),
    (&[(0, b"DDS ")], "DDS"),
    (&[(0, b"qoif")], "QOI"),
    (&[(0, b"<svg")], "SVG"),
    (&[(0, b"P5\n")], "PGM"),
    (&[(0, b"P6\n")], "PPM"),
    (&[(128, b"DICM")], "DICOM"),
];

const OTHERS: [(Magic, &str); 17] = [
    (
        (0, b"version https://git-lfs"),
        "a Git LFS pointer (fetch the file itself, with `git lfs pull`)",
    ),
    ((0, b"%PDF"), "a PDF document"),
    ((0, b"PK\x03\x04"), "a zip archive"),
    ((0, b"PK"), "an empty or split zip archive"),
    ((0, b"\x1f\x8b"), "a gzip archive (unpack it first)"),
    ((257, b"ustar"), "a tar archive (unpack it first)"),
    ((0, b"\x80\x02"), "a Python pickle"),
    ((0, b"\x80\x03"), "a Python pickle"),
    ((0, b"\x80\x04"), "a Python pickle"),
    ((0, b"\x80\x05"), "a Python pickle"),
    ((0, b"\x93NUMPY"), "a NumPy array"),
    ((0, b"\x89HDF"), "an HDF5 file, as Keras writes"),
    ((0, b"GGUF"), "a GGUF file"),
    ((0, b"\x7fELF"), "a program"),
    ((0, b"\x1a\x45\xdf\xa3"), "a video"),
    ((0, b"RIFF"), "a video or sound"),
    ((4, b"ftyp"), "a video"),
];

/// What texts begin with, in lower case.
const TEXTS: [(&str, &str); 5] = [
    ("<!doctype html", HTML),
    ("<html", HTML),
    ("<?xml", "an XML document"),
    ("{", "JSON text"),
    ("[", "JSON text"),
];
const HTML: &str = "an HTML page (a download page instead of the download?)";

impl Content {
    /// Number of bytes at the beginning of a file that are enough to look at.
    pub const HEAD: usize = 512;

    /// Recognises the content of the file that begins with `head`: its first [`HEAD`](Self::HEAD) bytes, or
    /// all if it has fewer.
    pub fn sniff(head: &[u8]) -> Self {
        let has = |&(at, magic): &Magic| {
            let rest = head.get(at..);
            rest.is_some_and(|rest| rest.starts_with(magic))
        };
        let is_text = || head.iter().all(|&b| b >= b' ' || b.is_ascii_whitespace());
        if head.is_empty() {
            Self::Empty
        } else if let Some((_, name)) = IMAGES.iter().find(|(magics, _)| magics.iter().all(has)) {
            Self::Image(name)
        } else if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| has(magic)) {
            Self::Other((*name).into())
        } else if is_onnx(head) {
            Self::Other("an ONNX model".into())
        } else if head.iter().all(|&byte| byte == 0) {
            Self::Other("a run of zeros (a download that never arrived?)".into())
        } else if is_text() {
            let text = String::from_utf8_lossy(head).trim_start().to_lowercase();
            let kind = TEXTS.iter().find(|(start, _)| text.starts_with(start));
            Self::Other(kind.map_or("text", |(_, name)| *name).into())
        } else {
            let first = &head[..head.len().min(8)];
            Self::Other(
                format!("data of an unknown kind (its first bytes are {first:02x?})").into(),
            )
        }
    }
}

/// Whether a file begins with the version of ONNX's format, and goes on with the producer, the graph or the opsets.
fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [0x08, 3..=0x7f, 0x12 | 0x3a | 0x42, ..])
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an empty file"),
            Self::Image(name) => write!(f, "an image in the {name} format"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Content;

    #[test]
    fn what_is_neither_image_nor_checkpoint_is_named() {
        let zeros = [0; Content::HEAD];
        let tar = [&[b'a'; 257][..], b"ustar"].concat();
        let cases: [(&[u8], &str); 15] = [
            (b"%PDF-1.7\n", "a PDF document"),
            (
                b"\n<!DOCTYPE HTML><title>404</title>",
                "an HTML page (a download page instead of the download?)",
            ),
            (b"BMW 320d, 1998\n", "text"),
            ("größer als".as_bytes(), "text"),
            // A letter that is cut in two.
            (&"größer".as_bytes()[..3], "text"),
            (b"{\"boxes\": []}", "JSON text"),
            (
                b"version https://git-lfs.github.com/spec/v1",
                "a Git LFS pointer (fetch the file itself, with `git lfs pull`)",
            ),
            (b"\x1f\x8b\x08", "a gzip archive (unpack it first)"),
            (&tar, "a tar archive (unpack it first)"),
            (&zeros, "a run of zeros (a download that never arrived?)"),
            (
                b"\0\x01\x02",
                "data of an unknown kind (its first bytes are [00, 01, 02])",
            ),
            (b"\x08\x07\x12\x09rcnn-onnx", "an ONNX model"),
            (b"\x08\x0a\x3a\xff\x01", "an ONNX model"),
            (b"\0\0\0\x20ftypavif\0\0\0\0", "an image in the AVIF format"),
            (b"", "an empty file"),
        ];
        for (head, what) in cases {
            assert_eq!(Content::sniff(head).to_string(), what);
        }
        assert_eq!(Content::sniff(b"GIF89a\x01\0"), Content::Image("GIF"));
        assert_eq!(
            Content::sniff(b"RIFF\x04\0\0\0WEBPVP8 "),
            Content::Image("WebP")
        );
    }
}
