//! Texts in the encoding that they declare, without a byte order mark.

use std::fs;
use std::path::Path;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use rcnn_files::decode_text;

use crate::error::DataError;

/// How far into an XML file its declaration may reach, in bytes.
const DECLARATION: usize = 200;

/// Reads a text file: UTF-8, or UTF-16 with a byte order mark.
pub(crate) fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = fs::read(path).map_err(DataError::io(path))?;
    decode_text(bytes).map_err(|reason| DataError::malformed(path, reason))
}

/// Decodes an XML document, by its byte order mark or its declaration.
pub(crate) fn decode_xml(bytes: Vec<u8>) -> Result<String, String> {
    let encoding = match bytes[..] {
        [b'<', 0, ..] => UTF_16LE,
        [0, b'<', ..] => UTF_16BE,
        _ => declared(&bytes)?,
    };
    if encoding == UTF_8 || Encoding::for_bom(&bytes).is_some() {
        return decode_text(bytes);
    }
    let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes);
    let text = text.ok_or_else(|| format!("not a text in {}", encoding.name()))?;
    Ok(text.into_owned())
}

/// The `encoding` of an XML declaration, which is ASCII as far as it goes.
fn declared(bytes: &[u8]) -> Result<&'static Encoding, String> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(DECLARATION)]);
    let head = head.trim_start_matches('\u{feff}').trim_start();
    let declaration = head
        .strip_prefix("<?xml")
        .and_then(|rest| rest.split_once("?>"));
    let Some((_, value)) = declaration.and_then(|(text, _)| text.split_once("encoding")) else {
        return Ok(UTF_8);
    };
    let label = value.split(['"', '\'']).nth(1).unwrap_or_default();
    match Encoding::for_label(label.as_bytes()) {
        // It could not have been read as ASCII.
        Some(encoding) if encoding == UTF_16LE || encoding == UTF_16BE => Ok(UTF_8),
        Some(encoding) => Ok(encoding),
        None => Err(format!("the encoding `{label}` is unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_in_the_encoding_that_it_declares() {
        let xml = |declaration: &str, byte: &[u8]| {
            decode_xml([declaration.as_bytes(), b"<a>", byte, b"</a>"].concat())
        };
        let text = |xml: Result<String, String>| {
            xml.unwrap().split(['<', '>']).nth(4).unwrap().to_string()
        };
        let latin = "<?xml version='1.0' encoding='ISO-8859-1'?>";
        assert_eq!(text(xml(latin, b"\xfc")), "ü");
        assert_eq!(
            text(xml(
                "<?xml version=\"1.0\" encoding=\"gb2312\"?>",
                b"\xcf\xb8"
            )),
            "细"
        );
        assert_eq!(text(xml("<?xml version=\"1.0\"?>", "ü".as_bytes())), "ü");
        assert!(
            xml("<?xml version=\"1.0\"?>", b"\xb0")
                .unwrap_err()
                .contains("0xb0 at 24")
        );
        assert!(
            xml("<?xml encoding=\"klingon\"?>", b"")
                .unwrap_err()
                .contains("`klingon`")
        );
        let wide = |text: &str| {
            text.encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>()
        };
        assert_eq!(decode_xml(wide("<a>ü</a>")).unwrap(), "<a>ü</a>");
        assert_eq!(decode_xml(wide("\u{feff}<a>ü</a>")).unwrap(), "<a>ü</a>");
    }
}
