//! Protocol buffers as they are stored: numbered fields, one after another. TensorFlow's files need a dozen of them,
//! for which generated types and their compiler would be too much.

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// A whole number or a truth value.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// A text, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn varint(self) -> Option<u64> {
        match self {
            Self::Varint(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn text(self) -> Option<&'a str> {
        str::from_utf8(self.bytes()?).ok()
    }
}

/// The fields of a message; `None` where its bytes are none, and nothing after that.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Option<(u64, Value<'_>)>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(*rest.split_off(..8)?.first_chunk()?)),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(rest.split_off(..length)?)
        }
        5 => Value::Fixed32(u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?)),
        // Groups, which nothing writes any more.
        _ => return None,
    };
    Some((tag >> 3, value))
}

/// A number in base 128, the lowest digits first.
pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Sizes of a `TensorShapeProto`; `None` where they are unknown or beyond counting.
pub(super) fn shape(message: &[u8]) -> Option<Vec<usize>> {
    let mut shape = vec![];
    for field in fields(message) {
        match field? {
            (2, dimension) => {
                let mut size = 0;
                for field in fields(dimension.bytes()?) {
                    if let (1, value) = field? {
                        size = value.varint()?;
                    }
                }
                shape.push(
                    usize::try_from(size)
                        .ok()
                        .filter(|size| *size <= isize::MAX as usize)?,
                );
            }
            (3, unknown) if unknown != Value::Varint(0) => return None,
            _ => {}
        }
    }
    Some(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_their_order() {
        let message = b"\x08\x96\x01\x12\x02hi\x1d\x01\0\0\0\x21\x02\0\0\0\0\0\0\0";
        let found: Option<Vec<_>> = fields(message).collect();
        let expected = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Fixed32(1)),
            (4, Value::Fixed64(2)),
        ];
        assert_eq!(found.as_deref(), Some(&expected[..]));
    }

    #[test]
    fn what_is_cut_off_or_no_field_ends_in_none() {
        for message in [
            &b"\x08"[..],
            b"\x08\x80",
            b"\x12\x05abc",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x1d\0\0",
            b"\x0b",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(fields(message).collect::<Vec<_>>(), [None], "{message:?}");
        }
    }

    #[test]
    fn a_shape_without_bounds_is_none() {
        assert_eq!(shape(b"\x12\x02\x08\x03\x12\x02\x08\x04"), Some(vec![3, 4]));
        assert_eq!(shape(b""), Some(vec![]));
        assert_eq!(shape(b"\x18\x01"), None);
        let minus_one = b"\x12\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(shape(minus_one), None);
    }
}
