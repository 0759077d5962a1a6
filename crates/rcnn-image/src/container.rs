//! Facts about a file that decoders do not report, read from its bytes.

use std::io::{Read, Seek, SeekFrom};

use image::metadata::Orientation;

/// Whether a JPEG file has its end-of-image marker.
pub(crate) fn jpeg_ends(bytes: &[u8]) -> bool {
    jpeg_segment_end(bytes, 0xd9).is_some()
}

/// Where the coded data of a JPEG file begin, if its start reaches as far as that.
pub(crate) fn jpeg_header_end(bytes: &[u8]) -> Option<usize> {
    jpeg_segment_end(bytes, 0xda)
}

/// The end of the first segment of some marker, if all of it is there.
///
/// Segments tell their length, and coded data escape whatever looks like a marker.
fn jpeg_segment_end(bytes: &[u8], wanted: u8) -> Option<usize> {
    let mut at = 2;
    while let Some(&[first, marker]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        at += match (first, marker) {
            (0xff, 0xff) => 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd9) => 2,
            (0xff, _) => {
                let length = bytes.get(at + 2..)?.first_chunk()?;
                2 + usize::from(u16::from_be_bytes(*length))
            }
            _ => 1,
        };
        if (first, marker) == (0xff, wanted) {
            return (at <= bytes.len()).then_some(at);
        }
    }
    None
}

/// Whether a WebP file is as long as its header says.
pub(crate) fn webp_ends(bytes: &[u8]) -> bool {
    match bytes.get(4..).and_then(|rest| rest.first_chunk()) {
        Some(&length) => bytes.len() as u64 >= 8 + u64::from(u32::from_le_bytes(length)),
        None => false,
    }
}

/// Whether every chunk of a WebP file is there: its decoder reserves what the length of one says.
pub(crate) fn webp_chunks_fit(file: &mut (impl Read + Seek)) -> bool {
    let mut fit = || {
        let end = file.seek(SeekFrom::End(0)).ok()?;
        let mut at = file.seek(SeekFrom::Start(12)).ok()?;
        while at + 8 <= end {
            let mut head = [0; 8];
            file.read_exact(&mut head).ok()?;
            let length = u32::from_le_bytes(*head.last_chunk()?);
            // Chunks begin at even places; the last may lack its filler.
            at += 8 + u64::from(length);
            if at > end {
                return None;
            }
            at = file.seek(SeekFrom::Start(at + at % 2)).ok()?;
        }
        Some(())
    };
    fit().is_some()
}

/// The EXIF data of a PNG, also where it comes after the pixels.
pub(crate) fn png_exif(file: &mut (impl Read + Seek)) -> Option<Vec<u8>> {
    file.seek(SeekFrom::Start(8)).ok()?;
    loop {
        let mut length = [0; 4];
        let mut name = [0; 4];
        file.read_exact(&mut length).ok()?;
        file.read_exact(&mut name).ok()?;
        let length = u64::from(u32::from_be_bytes(length));
        if &name == b"eXIf" {
            // Read as far as it is there: a length may be damaged.
            let mut exif = Vec::new();
            file.take(length).read_to_end(&mut exif).ok()?;
            return (exif.len() as u64 == length).then_some(exif);
        }
        // The checksum follows.
        file.seek_relative(length as i64 + 4).ok()?;
    }
}

/// Number of frames of an animated WebP; 0 in others.
pub(crate) fn webp_frames(bytes: &[u8]) -> usize {
    let (mut at, mut frames) = (12, 0);
    while let Some(&[a, b, c, d, length @ ..]) =
        bytes.get(at..).and_then(|rest| rest.first_chunk::<8>())
    {
        frames += usize::from([a, b, c, d] == *b"ANMF");
        let length = u32::from_le_bytes(length) as usize;
        // Chunks begin at even places.
        at = at.saturating_add(8 + length + length % 2);
    }
    frames
}

/// Length of the palette that a flags byte of a GIF tells of: 2^(n+1) colours.
fn gif_palette_bytes(flags: u8) -> usize {
    match flags & 0x80 {
        0 => 0,
        _ => 6 << (flags & 7),
    }
}

/// Where the sub-blocks of a GIF that begin here end.
fn gif_blocks_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let length @ 1.. = *bytes.get(at)? {
        at += 1 + usize::from(length);
    }
    Some(at + 1)
}

/// Number of frames of a GIF that are there as a whole.
pub(crate) fn gif_frames(bytes: &[u8]) -> usize {
    let mut frames = 0;
    let mut count = || {
        let mut at = 13 + gif_palette_bytes(*bytes.get(10)?);
        loop {
            match *bytes.get(at)? {
                0x21 => at = gif_blocks_end(bytes, at + 2)?,
                0x2c => {
                    // Its descriptor, its palette, and the size of its codes.
                    at += 11 + gif_palette_bytes(*bytes.get(at + 9)?);
                    at = gif_blocks_end(bytes, at)?;
                    frames += 1;
                }
                _ => return Some(()),
            }
        }
    };
    count();
    frames
}

/// The colour of a GIF's transparent pixels and of those its first frame does not cover.
pub(crate) fn gif_fill(bytes: &[u8]) -> Option<[u8; 3]> {
    let (mut palette, mut index) = (13, 0);
    let mut at = palette + gif_palette_bytes(*bytes.get(10)?);
    loop {
        match *bytes.get(at)? {
            0x21 => {
                if bytes.get(at + 1)? == &0xf9 && bytes.get(at + 3)? & 1 == 1 {
                    index = usize::from(*bytes.get(at + 6)?);
                }
                at = gif_blocks_end(bytes, at + 2)?;
            }
            0x2c => {
                if gif_palette_bytes(*bytes.get(at + 9)?) > 0 {
                    palette = at + 10;
                }
                return bytes.get(palette + 3 * index..)?.first_chunk().copied();
            }
            _ => return None,
        }
    }
}

/// The first directory of a TIFF file, which EXIF data are too.
struct Directory<'a> {
    bytes: &'a [u8],
    is_little_endian: bool,
}

impl<'a> Directory<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let is_little_endian = match bytes.first_chunk()? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        Some(Self {
            bytes,
            is_little_endian,
        })
    }

    fn number(&self, at: usize, length: usize) -> Option<usize> {
        let field = self.bytes.get(at..at.checked_add(length)?)?;
        let join = |sum, &byte| sum << 8 | usize::from(byte);
        Some(if self.is_little_endian {
            field.iter().rev().fold(0, join)
        } else {
            field.iter().fold(0, join)
        })
    }

    /// Tags, and where their entries are.
    fn entries(&self) -> impl Iterator<Item = (usize, usize)> {
        let start = self.number(4, 4);
        let count = start.and_then(|start| self.number(start, 2));
        let entries = 0..count.unwrap_or(0);
        entries.map_while(move |i| {
            let at = start? + 2 + 12 * i;
            Some((self.number(at, 2)?, at))
        })
    }
}

/// The orientation in EXIF data. A number that means none is one: Pillow then looks no further either.
pub(crate) fn exif_orientation(exif: &[u8]) -> Option<Orientation> {
    let directory = Directory::new(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))?;
    let (_, at) = directory.entries().find(|&(tag, _)| tag == 0x112)?;
    let length = match directory.number(at + 2, 2)? {
        1 => 1,
        4 => 4,
        _ => 2,
    };
    let number = u8::try_from(directory.number(at + 8, length)?).ok();
    Some(
        number
            .and_then(Orientation::from_exif)
            .unwrap_or(Orientation::NoTransforms),
    )
}

/// The colours of the indices of an 8-bit palette.
pub(crate) type TiffPalette = Vec<[u8; 3]>;

/// Turns an 8-bit palette TIFF, which `tiff` does not read, into a grey one of its indices.
pub(crate) fn tiff_palette(bytes: &mut [u8]) -> Option<TiffPalette> {
    let directory = Directory::new(bytes)?;
    let number = |at, length| directory.number(at, length);
    let (mut bits, mut photometric, mut colours) = (1, None, None);
    for (tag, at) in directory.entries() {
        match tag {
            258 => bits = number(at + 8, 2)?,
            262 if number(at + 8, 2)? == 3 => photometric = Some(at + 8),
            320 if number(at + 4, 4)? == 3 * 256 => colours = Some(number(at + 8, 4)?),
            _ => {}
        }
    }
    let (photometric, colours) = (photometric.filter(|_| bits == 8)?, colours?);
    let plane = |index: usize, plane: usize| {
        Some((number(colours + 2 * (256 * plane + index), 2)? >> 8) as u8)
    };
    let palette = (0..256)
        .map(|i| Some([plane(i, 0)?, plane(i, 1)?, plane(i, 2)?]))
        .collect::<Option<_>>()?;
    let grey = if directory.is_little_endian {
        [1, 0]
    } else {
        [0, 1]
    };
    bytes[photometric..photometric + 2].copy_from_slice(&grey);
    Some(palette)
}

/// The orientation in an XMP packet, which PIL honours where EXIF has none.
pub(crate) fn xmp_orientation(xmp: &[u8]) -> Option<Orientation> {
    const KEY: &[u8] = b"tiff:Orientation";
    let at = xmp.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let value = xmp[at..]
        .strip_prefix(b"=\"")
        .or_else(|| xmp[at..].strip_prefix(b">"))?;
    Orientation::from_exif(value.first()?.checked_sub(b'0')?)
}
