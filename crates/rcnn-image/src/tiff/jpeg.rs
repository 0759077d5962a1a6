//! JPEG within TIFF, decoded as JPEG files are.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use tiff::decoder::ChunkType;
use tiff::tags::Tag;

use super::{Tiff, error};
use crate::error::ImageError;
use crate::jpeg::Jpeg;

/// Values of tags.
const JPEG: u64 = 7;
const CHUNKY: u64 = 1;
const BLACK_IS_ZERO: u64 = 1;
const RGB: u64 = 2;
const YCBCR: u64 = 6;

/// Start of a JPEG that says, in Adobe's way, what its three channels are: RGB (0 at the end) or YCbCr (1).
const ADOBE: [u8; 18] = *b"\xff\xd8\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0";
/// Length of the marker that a JPEG starts with.
const START: usize = 2;
const END: &[u8] = b"\xff\xd9";

impl<R: Read + Seek> Tiff<'_, R> {
    /// Meaning of the channels, as the file has it.
    fn photometric(&mut self) -> u64 {
        self.tag(Tag::PhotometricInterpretation).unwrap_or(RGB)
    }

    /// Whether the pixels are grey, RGB or YCbCr in strips or tiles of JPEG.
    pub(super) fn is_jpeg(&mut self) -> bool {
        let channels = self.tag(Tag::SamplesPerPixel).unwrap_or(1);
        let is_known = matches!(
            (self.photometric(), channels),
            (BLACK_IS_ZERO, 1) | (RGB | YCBCR, 3)
        );
        let is_chunky = self.tag(Tag::PlanarConfiguration).unwrap_or(CHUNKY) == CHUNKY;
        self.tag(Tag::Compression) == Some(JPEG) && is_known && is_chunky
    }

    /// The pixels of some bands as they are stored, in RGB, where they [are JPEG](Self::is_jpeg).
    pub(super) fn jpeg_pixels(&mut self, bands: Range<u32>) -> Result<Vec<u8>, ImageError> {
        let source = self.source;
        let [offsets, lengths] = match self.decoder.get_chunk_type() {
            ChunkType::Strip => [Tag::StripOffsets, Tag::StripByteCounts],
            ChunkType::Tile => [Tag::TileOffsets, Tag::TileByteCounts],
        }
        .map(|tag| self.decoder.get_tag_u64_vec(tag));
        let (offsets, lengths) = offsets
            .and_then(|offsets| Ok((offsets, lengths?)))
            .map_err(|e| error(source, e))?;
        let mut head = ADOBE.to_vec();
        head[ADOBE.len() - 1] = u8::from(self.photometric() == YCBCR);
        if let Ok(tables) = self.decoder.get_tag_u8_vec(Tag::JPEGTables) {
            let tables = tables.get(START..).unwrap_or_default();
            head.extend_from_slice(tables.strip_suffix(END).unwrap_or(tables));
        }

        let most = self.decoder.chunk_dimensions();
        let across = self.chunks_across();
        let parts = across as usize * self.bands().1 as usize;
        let found = offsets.len().min(lengths.len());
        if found < parts {
            return Err(source.damaged(format!("it has {found} of {parts} strips or tiles")));
        }
        let mut pixels = self.empty_bands(&bands);
        // Tiles reach over the picture's edges, but not by any number of pixels.
        let most_decoded = 4 * pixels.len() / 3 + (1 << 22);
        let mut decoded = 0;
        for place in bands.start * across..bands.end * across {
            let (offset, length) = (offsets[place as usize], lengths[place as usize]);
            let mut bytes = head.clone();
            let file = self.decoder.inner();
            let read = file
                .seek(SeekFrom::Start(offset))
                .and_then(|_| file.take(length).read_to_end(&mut bytes));
            if read.map_err(|e| error(source, e.into()))? as u64 != length {
                return Err(source.truncated());
            }
            bytes.drain(head.len()..(head.len() + START).min(bytes.len()));
            let jpeg = Jpeg::open(source, &bytes)?;
            let (columns, rows) = jpeg.size();
            let least = self.decoder.chunk_data_dimensions(place);
            if !(least.0..=most.0).contains(&columns) || !(least.1..=most.1).contains(&rows) {
                return Err(source.damaged(format!("it has a part of {columns}x{rows} pixels")));
            }
            decoded += columns as usize * rows as usize;
            if decoded > most_decoded {
                return Err(source.damaged("its strips or tiles are far larger than the picture"));
            }
            self.place(&jpeg.pixels()?, columns, place, &bands, &mut pixels);
        }
        Ok(pixels)
    }
}
