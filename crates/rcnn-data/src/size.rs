//! The upright size of a picture file, from its head alone where that is cheap.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use image::metadata::Orientation;
use image::{ImageDecoder, ImageError, ImageReader};

/// Width and height in pixels once the picture is turned upright.
///
/// # Errors
/// When the file can't be opened or is no picture.
pub(crate) fn upright_size(path: &Path) -> io::Result<(u32, u32)> {
    let mut reader = BufReader::new(File::open(path)?);
    let (size, orientation) = if reader.fill_buf()?.starts_with(b"\xff\xd8") {
        jpeg(&mut reader)?
    } else {
        other(reader)?
    };
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let lying = matches!(
        orientation,
        Some(Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
    );
    match size {
        (0, _) | (_, 0) => Err(invalid("the picture has no pixels")),
        (width, height) if lying => Ok((height, width)),
        size => Ok(size),
    }
}

type Head = ((u32, u32), Option<Orientation>);

/// Walks the segments up to the frame header: the decoder would read the whole file.
fn jpeg(file: &mut (impl Read + Seek)) -> io::Result<Head> {
    let mut orientation = None;
    file.seek(SeekFrom::Start(2))?;
    loop {
        let mut marker = [0; 2];
        file.read_exact(&mut marker)?;
        while marker[1] == 0xff {
            file.read_exact(&mut marker[1..])?;
        }
        match marker[1] {
            _ if marker[0] != 0xff => return Err(invalid("damaged JPEG data")),
            // These stand alone.
            0x01 | 0xd0..=0xd8 => continue,
            0xd9 | 0xda => return Err(invalid("a JPEG without a frame")),
            _ => {}
        }
        let mut length = [0; 2];
        file.read_exact(&mut length)?;
        let length = u16::from_be_bytes(length);
        let length = length.checked_sub(2).ok_or(invalid("damaged JPEG data"))?;
        match marker[1] {
            0xc0..=0xcf if !matches!(marker[1], 0xc4 | 0xc8 | 0xcc) => {
                let mut frame = [0; 5];
                file.read_exact(&mut frame)?;
                let at = |i| u32::from(u16::from_be_bytes([frame[i], frame[i + 1]]));
                return Ok(((at(3), at(1)), orientation));
            }
            0xe1 if orientation.is_none() => {
                let mut segment = vec![0; length.into()];
                file.read_exact(&mut segment)?;
                let exif = segment.strip_prefix(b"Exif\0\0");
                orientation = exif.and_then(Orientation::from_exif_chunk);
            }
            _ => {
                file.seek_relative(length.into())?;
            }
        }
    }
}

fn other(reader: BufReader<File>) -> io::Result<Head> {
    let reader = ImageReader::new(reader).with_guessed_format()?;
    let decoder = reader.into_decoder();
    let mut decoder = decoder.map_err(|error| match error {
        ImageError::IoError(error) => error,
        error => invalid(&error.to_string()),
    })?;
    Ok((decoder.dimensions(), decoder.orientation().ok()))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::RgbImage;

    #[test]
    fn sizes_of_formats() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tif", "a.gif"] {
            let path = folder.path().join(name);
            RgbImage::new(7, 5).save(&path).unwrap();
            assert_eq!(upright_size(&path).unwrap(), (7, 5), "{name}");
        }
    }

    #[test]
    fn a_lying_jpeg_is_turned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jpg");
        RgbImage::new(7, 5).save(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let exif = b"\xff\xe1\0\x22Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        bytes.splice(2..2, exif.iter().copied());
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(upright_size(&path).unwrap(), (5, 7));
    }

    #[test]
    fn damaged_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jpg");
        for bytes in [
            &b""[..],
            b"\xff\xd8",
            b"\xff\xd8\xff\xe0\0\0",
            b"hello",
            b"\x89PNG\r\n",
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert!(upright_size(&path).is_err(), "{bytes:?}");
        }
    }
}
