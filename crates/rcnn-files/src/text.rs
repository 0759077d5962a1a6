//! Texts as editors of all systems write them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Reads a text file, without its byte order mark: UTF-8, or UTF-16 where the mark says so, as editors and shells on
/// Windows write it.
///
/// # Errors
///
/// When the file cannot be read, or is of neither encoding.
pub fn read_text(path: &Path) -> io::Result<String> {
    let text = decode_text(fs::read(path)?);
    text.map_err(|reason| io::Error::new(ErrorKind::InvalidData, reason))
}

/// Decodes what [`read_text`] reads.
///
/// # Errors
///
/// Says what is wrong with the bytes.
pub fn decode_text(mut bytes: Vec<u8>) -> Result<String, String> {
    match bytes[..] {
        [0xff, 0xfe, ref units @ ..] => return wide(units, u16::from_le_bytes),
        [0xfe, 0xff, ref units @ ..] => return wide(units, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, ..] => drop(bytes.drain(..3)),
        _ => {}
    }
    String::from_utf8(bytes).map_err(|error| {
        let (place, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        format!("not UTF-8: byte {:#04x} at {place}", bytes[place])
    })
}

fn wide(units: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let (units, rest) = units.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|bytes| unit(*bytes)).collect();
    let text = String::from_utf16(&units).ok().filter(|_| rest.is_empty());
    text.ok_or_else(|| "not UTF-16, as its byte order mark says".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_what_their_byte_order_marks_say() {
        let units =
            |unit: fn(u16) -> [u8; 2]| "\u{feff}ü🦠".encode_utf16().flat_map(unit).collect();
        for bytes in [
            "ü🦠".into(),
            "\u{feff}ü🦠".into(),
            units(u16::to_le_bytes),
            units(u16::to_be_bytes),
        ] {
            assert_eq!(decode_text(bytes).as_deref(), Ok("ü🦠"));
        }
        assert_eq!(decode_text(Vec::new()).as_deref(), Ok(""));
        for (bytes, says) in [
            (&b"ab\xfc"[..], "byte 0xfc at 2"),
            (b"\xff\xfea", "not UTF-16"),
            (b"\xff\xfe\0\xd8", "not UTF-16"),
        ] {
            let error = decode_text(bytes.to_vec()).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
