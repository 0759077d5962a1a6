//! Images of every kind against the RGB that Pillow makes of them.
//!
//! `tests/reference/make_images.py` makes both.

use std::fs;
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage};
use rcnn_types::Size;

use super::read::{decode, format_of};
use super::{
    Animation, Header, ImageError, ImageErrorKind, StripReader, crop, decode_rgb, encode,
    frame_count, is_ours, open_rgb, upright_size,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images")
}

/// Every picture and its name, in the order of the names.
fn pictures() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut pictures: Vec<_> = entries
        .filter(|path| path.is_file())
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_string(),
                path,
            )
        })
        .collect();
    pictures.sort();
    assert!(pictures.len() > 70, "pictures are missing");
    pictures
}

fn load(path: &Path) -> (Vec<u8>, ImageFormat) {
    let bytes = fs::read(path).unwrap();
    let format = format_of(path, &bytes).unwrap();
    (bytes, format)
}

/// Decodes; a panic that a decoder's guard had to catch fails the test all the same.
fn decoded(bytes: &[u8], format: ImageFormat) -> Result<RgbImage, ImageError> {
    let result = decode(Path::new("picture"), bytes.to_vec(), format);
    if let Err(error) = &result {
        assert!(
            !error.to_string().contains("gave up"),
            "a decoder panicked: {error}"
        );
    }
    result
}

#[test]
fn every_kind_is_as_pil_gives_it() {
    for (name, path) in pictures() {
        if name == "float.tiff" || name == "bands.tiff" {
            let error = open_rgb(&path).unwrap_err();
            let unsupported = matches!(error.kind, ImageErrorKind::Unsupported(_));
            assert!(unsupported, "{error}");
            continue;
        }
        let expected = match name.starts_with("exif-") && !name.ends_with(".jpg") {
            true => "expected/exif.png".into(),
            false => format!("expected/{name}.png"),
        };
        let expected = image::open(folder().join(expected)).unwrap().into_rgb8();
        let picture = open_rgb(&path).unwrap();
        assert_eq!(picture.dimensions(), expected.dimensions(), "{name}");
        assert!(picture == expected, "{name}");
    }
}

/// A data set's sizes once came from another reader, which knew neither palettes of TIFF files nor
/// EXIF behind a PNG's pixels nor XMP: such images were refused, or their boxes were of others.
#[test]
fn sizes_are_those_of_the_decoded_image() {
    for (name, path) in pictures() {
        let size = upright_size(&path);
        let bytes = fs::read(&path).unwrap();
        let header = Header::from_bytes(&name, &bytes);
        match open_rgb(&path) {
            Ok(picture) => {
                let size = size.unwrap();
                assert_eq!(size.dimensions(), picture.dimensions(), "{name}");
                // The same of bytes in memory.
                assert_eq!(header.unwrap().upright_size(), size, "{name}");
                assert!(decode_rgb(&name, bytes).unwrap() == picture, "{name}");
            }
            // Only the pixels tell that these cannot be used.
            Err(error) => assert!(name == "float.tiff" || name == "bands.tiff", "{error}"),
        }
    }
}

/// A phone's motion photo, a second picture, what a camera fills a block up with.
#[test]
fn what_follows_the_end_of_a_jpeg_is_ignored() {
    let (bytes, format) = load(&folder().join("progressive.jpg"));
    let whole = decoded(&bytes, format).unwrap();
    for more in [&b"\0\0\0\x18ftypmp42"[..], &bytes, b"\0", b"\xff\xd9"] {
        let longer = [&bytes, more].concat();
        assert!(decoded(&longer, format).unwrap() == whole);
    }
}

#[test]
fn the_size_of_a_jpeg_needs_no_pixels_but_all_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jpg");
    let mut bytes = encode(&path, &RgbImage::new(70, 50)).unwrap();
    // Thumbnails and colour profiles may come before the orientation.
    let segment = [&b"\xff\xe2\xff\xff"[..], &[0; 65533]].concat();
    let exif =
        b"\xff\xe1\0\x22Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let metadata = [&segment.repeat(3)[..], exif].concat();
    bytes.splice(2..2, metadata);
    bytes.truncate(bytes.len() - 40);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(upright_size(&path).unwrap(), Size::new(70, 50));
    assert!(open_rgb(&path).is_err());
    for bytes in [
        &b"\xff\xd8\xff"[..],
        b"\xff\xd8\xff\xe0\0\0",
        &bytes[..bytes.len() / 2],
        b"\x89PNG\r\n\x1a\n",
        b"II*\0\xff\xff\xff\xff",
    ] {
        fs::write(&path, bytes).unwrap();
        assert!(upright_size(&path).is_err(), "{} bytes", bytes.len());
    }
}

#[test]
fn what_is_written_is_read_again_and_known() {
    let folder = tempfile::tempdir().unwrap();
    let picture = RgbImage::from_fn(30, 20, |x, y| image::Rgb([x as u8, y as u8, 200]));
    for (name, exact) in [("a.png", true), ("a.jpg", false), ("a.JPEG", false)] {
        let path = folder.path().join(name);
        fs::write(&path, encode(&path, &picture).unwrap()).unwrap();
        assert!(is_ours(&path), "{name}");
        let again = open_rgb(&path).unwrap();
        assert_eq!(again.dimensions(), (30, 20));
        assert_eq!(again == picture, exact, "{name}");
    }
    for (name, path) in pictures() {
        assert!(!is_ours(&path), "{name}");
    }
    assert!(!is_ours(&folder.path().join("missing.png")));
    let wide = encode(Path::new("a.jpg"), &RgbImage::new(70_000, 1)).unwrap_err();
    assert!(
        wide.to_string().starts_with("a.jpg: cannot be written"),
        "{wide}"
    );
}

/// A picture of one pixel whose tile said 16384x16384 had 805 MB decoded for it.
#[test]
fn a_tile_far_larger_than_its_picture_is_not_decoded() {
    let mut tiff = fs::read(folder().join("jpeg_tiles.tiff")).unwrap();
    let bytes = |at: usize, tiff: &[u8]| u32::from_le_bytes(*tiff[at..].first_chunk().unwrap());
    let directory = bytes(4, &tiff) as usize;
    let entries = directory + 2..directory + 2 + 12 * usize::from(tiff[directory]);
    for entry in entries.step_by(12) {
        let value: u32 = match bytes(entry, &tiff) & 0xffff {
            256 | 257 => 1,
            322 | 323 => 1 << 14,
            // The first of the tiles alone.
            324 | 325 => bytes(bytes(entry + 8, &tiff) as usize, &tiff),
            _ => continue,
        };
        let count_and_value = [1u32, value].map(u32::to_le_bytes).concat();
        tiff[entry + 4..entry + 12].copy_from_slice(&count_and_value);
    }
    let head = b"\xff\xc0\0\x11\x08";
    let frame = tiff.windows(5).position(|five| five == head).unwrap();
    tiff[frame + 5..frame + 9].copy_from_slice(&[0x40, 0, 0x40, 0]);
    let error = decoded(&tiff, ImageFormat::Tiff).unwrap_err().to_string();
    assert!(error.contains("far larger than the picture"), "{error}");
}

#[test]
fn a_file_cut_short_gives_an_error_or_the_whole_picture() {
    for (name, path) in pictures() {
        let (bytes, format) = load(&path);
        let Ok(whole) = decoded(&bytes, format) else {
            continue;
        };
        for length in 0..bytes.len() {
            let Ok(picture) = decoded(&bytes[..length], format) else {
                continue;
            };
            assert!(
                picture == whole,
                "{name} differs when cut to {length} bytes"
            );
            assert_ne!(format, ImageFormat::Jpeg, "{name} cut to {length} bytes");
        }
    }
}

#[test]
fn damaged_bytes_do_not_panic() {
    let mut seed = 1u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below
    };
    for (_, path) in pictures() {
        let (bytes, format) = load(&path);
        for _ in 0..100 {
            let mut bytes = bytes.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] ^= 1 << random(8);
            }
            let _ = decoded(&bytes, format);
        }
    }
}

#[test]
fn errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let message = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        let message = open_rgb(&path).unwrap_err().to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        message
    };
    let missing = open_rgb(folder.join("missing.png")).unwrap_err();
    assert!(matches!(&missing.kind, ImageErrorKind::Io(_)), "{missing}");
    assert!(missing.to_string().contains("missing.png"), "{missing}");
    assert!(message("empty.jpg", b"").ends_with("is empty (0 bytes)"));
    assert!(message("page.jpg", b"<html>").contains("is not a picture but an HTML page"));
    assert!(message("photo.heic", b"\0\0\0\x18ftypheic").contains("the HEIC format"));
    assert!(message("cut.jpg", b"\xff\xd8\xff\xe0").ends_with("the JPEG data is cut short"));
    // The header of a BMP of 40000 x 40000 pixels.
    let mut header =
        b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x40\x9c\0\0\x40\x9c\0\0\x01\0\x18\0".to_vec();
    header.resize(54, 0);
    assert!(message("huge.bmp", &header).contains("40000x40000 pixels"));
}

#[test]
fn extreme_shapes_are_read() {
    for (width, height) in [(1, 1), (30000, 10), (10, 30000)] {
        let picture = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let png = encode(Path::new("a.png"), &picture).unwrap();
        assert!(decoded(&png, ImageFormat::Png).unwrap() == picture);
        let jpeg = encode(Path::new("a.jpg"), &picture).unwrap();
        let jpeg = decoded(&jpeg, ImageFormat::Jpeg).unwrap();
        assert_eq!(jpeg.dimensions(), (width, height));
    }
}

/// The frames of an animation, as Pillow gives them, and how long each is shown; none is shown for no time.
#[test]
fn all_frames_of_animations_are_as_pil_gives_them() {
    for (name, shown) in [
        ("animated.gif", vec![100, 100]),
        ("animated.webp", vec![100, 100]),
        ("moving.gif", vec![40, 120, 100, 250]),
    ] {
        let path = folder().join(name);
        let expected = folder().join(format!("expected/frames-{name}.png"));
        let expected = image::open(expected).unwrap().into_rgb8();
        let frames = Animation::open(&path).unwrap().expect("several frames");
        let frames: Vec<_> = frames.map(Result::unwrap).collect();
        let durations: Vec<_> = frames.iter().map(|(_, d)| d.as_millis()).collect();
        assert_eq!(durations, shown, "{name}");
        assert_eq!(frame_count(&path).unwrap(), shown.len());
        assert!(frames[0].0 == open_rgb(&path).unwrap(), "{name}");
        let pixels: Vec<u8> = frames
            .iter()
            .flat_map(|(p, _)| p.as_raw().clone())
            .collect();
        // The decoder of WebP rounds down where it blends.
        let tolerance = u8::from(name.ends_with(".webp"));
        let mut pairs = pixels.iter().zip(expected.as_raw());
        assert!(pairs.all(|(a, b)| a.abs_diff(*b) <= tolerance), "{name}");
    }
    for (name, path) in pictures() {
        let is_animated = name.starts_with("animated.") || name == "moving.gif";
        assert_eq!(frame_count(&path).unwrap() > 1, is_animated, "{name}");
        assert_eq!(Animation::open(&path).unwrap().is_some(), is_animated);
    }
}

/// Damaged and cut animations give their whole frames and one error, and end.
#[test]
fn damaged_animations_end() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["moving.gif", "animated.gif", "animated.webp"] {
        let bytes = fs::read(self::folder().join(name)).unwrap();
        let path = folder.path().join(name);
        let step = bytes.len() / 25;
        let cuts = (0..bytes.len()).step_by(step);
        let mut damaged: Vec<Vec<u8>> = cuts.map(|n| bytes[..n].to_vec()).collect();
        // Behind the size of the canvas.
        damaged.extend((30..bytes.len()).step_by(step).map(|at| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x41;
            bytes
        }));
        for bytes in damaged {
            fs::write(&path, bytes).unwrap();
            if let Ok(Some(mut frames)) = Animation::open(&path) {
                let errors = frames.by_ref().take(1000).filter(Result::is_err).count();
                assert!(errors < 2 && frames.next().is_none(), "{name}");
            }
        }
    }
}

#[test]
fn parts_of_a_tiff_are_those_of_the_whole() {
    let mut read = Vec::new();
    for (name, path) in pictures() {
        let Some(mut reader) = StripReader::open(&path).unwrap() else {
            continue;
        };
        let whole = open_rgb(&path).unwrap();
        let (width, height) = whole.dimensions();
        assert_eq!(
            reader.size(),
            Size::from_dimensions((width, height)),
            "{name}"
        );
        let windows = [
            [0, 0, width, height],
            [0, 0, width / 2, height / 3],
            [width / 3, height / 4, width, height / 2],
            [1, height / 2, width, height],
            [0, 0, 1, 1],
        ];
        for window in windows {
            assert!(
                reader.window(window).unwrap() == crop(&whole, window),
                "{name} {window:?}"
            );
        }
        read.push(name);
    }
    for name in [
        "rgb",
        "rgb16",
        "rgba",
        "grey2",
        "planar",
        "cmyk",
        "jpeg",
        "jpeg_tiles",
        "exif-1",
    ] {
        assert!(
            read.contains(&format!("{name}.tiff")),
            "{name} is not read in parts: {read:?}"
        );
    }
    for name in ["palette.tiff", "exif-3.tiff", "float.tiff", "rgb.png"] {
        assert!(!read.iter().any(|read| read == name), "{name}");
    }
}

#[test]
fn windows_move_over_strips_in_any_order() {
    use tiff::encoder::{TiffEncoder, colortype::RGB8};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strips.tiff");
    let picture = RgbImage::from_fn(40, 101, |x, y| {
        image::Rgb([x as u8, y as u8, (x * y) as u8])
    });
    let mut encoder = TiffEncoder::new(fs::File::create(&path).unwrap()).unwrap();
    let mut image = encoder.new_image::<RGB8>(40, 101).unwrap();
    image.rows_per_strip(8).unwrap();
    image.write_data(picture.as_raw()).unwrap();

    let mut reader = StripReader::open(&path).unwrap().unwrap();
    for [top, bottom] in [[0, 20], [16, 36], [32, 52], [81, 101], [3, 5], [0, 101]] {
        for [left, right] in [[0, 20], [16, 36], [20, 40]] {
            let window = [left, top, right, bottom];
            assert!(
                reader.window(window).unwrap() == crop(&picture, window),
                "{window:?}"
            );
        }
    }
    // Its directory is at the end.
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(StripReader::open(&path).is_err());
}

/// Looking into a pipe for frames or strips would take the bytes that the decoder needs, or wait for ever.
#[cfg(unix)]
#[test]
fn a_pipe_is_left_to_the_decoder() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.tiff");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    assert!(StripReader::open(&pipe).unwrap().is_none());
    assert!(Animation::open(&pipe).unwrap().is_none());
    assert_eq!(frame_count(&pipe).unwrap(), 1);
}
