//! Where the pictures of a stream of JPEGs begin and end.

use std::io::{self, BufRead, Read};

use rcnn_image::ImageErrorKind;

use crate::VideoErrorKind;

/// Most bytes before a picture that are none of its: headers of a multipart stream, as cameras send over HTTP, or filler.
const MAX_GAP: u64 = 1 << 16;

/// Most bytes of a JPEG.
const MAX_BYTES: u64 = 1 << 28;

/// Reads the bytes of the next picture. `None` at the end of the stream.
///
/// `is_begun` says whether its start was read already, behind one that is cut short.
pub(crate) fn read_jpeg(
    input: &mut impl BufRead,
    is_first: bool,
    is_begun: &mut bool,
) -> Result<Option<Vec<u8>>, VideoErrorKind> {
    if !std::mem::take(is_begun) && !find_start(input, is_first)? {
        return Ok(None);
    }
    let mut jpeg = Jpeg {
        input: input.take(MAX_BYTES),
        bytes: vec![0xff, 0xd8],
    };
    let ended = jpeg.read();
    let (bytes, rest) = (jpeg.bytes, jpeg.input.limit());
    match ended {
        Ok(End::OfImage) => Ok(Some(bytes)),
        Ok(End::NextImage) => {
            *is_begun = true;
            let cut = ImageErrorKind::Truncated("JPEG".to_string());
            Err(VideoErrorKind::Image(cut))
        }
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
        Err(_) if rest == 0 => Err(VideoErrorKind::Unsupported(format!(
            "a JPEG of more than {MAX_BYTES} bytes"
        ))),
        Err(_) => Err(VideoErrorKind::Truncated(format!(
            "{} bytes of a JPEG",
            bytes.len()
        ))),
    }
}

/// Skips to behind the start-of-image marker.
fn find_start(input: &mut impl BufRead, is_first: bool) -> Result<bool, VideoErrorKind> {
    let mut gap = input.take(MAX_GAP);
    let mut skipped = Vec::new();
    loop {
        let read = gap.read_until(0xd8, &mut skipped)?;
        if skipped.ends_with(b"\xff\xd8") {
            return Ok(true);
        }
        if read == 0 {
            break;
        }
    }
    let is_end = gap.limit() > 0;
    match is_first {
        true if skipped.is_empty() => Err(VideoErrorKind::Empty),
        // What comes behind the last picture doesn't matter.
        false if is_end => Ok(false),
        _ => Err(VideoErrorKind::Invalid(format!(
            "no JPEG begins within {} bytes: is this a stream of JPEGs?",
            skipped.len()
        ))),
    }
}

/// How the bytes of a picture end.
enum End {
    OfImage,
    /// Another picture begins within them, as where a camera lost its connection.
    NextImage,
}

struct Jpeg<R> {
    input: io::Take<R>,
    bytes: Vec<u8>,
}

impl<R: BufRead> Jpeg<R> {
    /// Reads up to the end of the picture. Segments tell their length, and thumbnails are within them; coded data
    /// escape whatever looks like a marker.
    fn read(&mut self) -> io::Result<End> {
        loop {
            self.input.read_until(0xff, &mut self.bytes)?;
            if self.bytes.last() != Some(&0xff) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut marker = 0xff;
            while marker == 0xff {
                [marker] = self.take()?;
            }
            match marker {
                0xd9 => return Ok(End::OfImage),
                0xd8 if self.input.fill_buf()?.first() == Some(&0xff) => {
                    return Ok(End::NextImage);
                }
                0x00 | 0x01 | 0xd0..=0xd8 => {}
                _ => {
                    let length = usize::from(u16::from_be_bytes(self.take()?)).saturating_sub(2);
                    let mut segment = (&mut self.input).take(length as u64);
                    if segment.read_to_end(&mut self.bytes)? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.bytes.extend(bytes);
        Ok(bytes)
    }
}
