//! A second look at a file: what was written is read back and the types and shapes of every node are checked.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};

use crate::builder::integers_of;
use crate::error::OnnxError;
use crate::infer::{Call, Fact, MOST_KNOWN, infer};
use crate::proto::{Attribute, ElementType};

/// Checks a model: every operand is made before it is used, every operator's operands fit, names are unique, and
/// constants and outputs are what they are declared as.
///
/// # Errors
/// When the file cannot be read, or names the node at fault.
pub(crate) fn validate(file: &mut (impl Read + Seek)) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut model = Stream { file, at: 0 };
    let mut graphs = 0;
    while model.at < length {
        match model.field()? {
            (7, Field::Bytes(size)) => {
                check_graph(&mut model, size)?;
                graphs += 1;
            }
            (_, Field::Bytes(size)) => model.skip(size)?,
            (_, Field::Number(_)) => {}
        }
    }
    if model.at > length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match graphs {
        1 => Ok(()),
        _ => Err(invalid("file", format!("{graphs} graphs"))),
    }
}

fn invalid(node: &str, reason: impl Into<String>) -> io::Error {
    io::Error::other(OnnxError::Invalid {
        node: node.into(),
        reason: reason.into(),
    })
}

/// A field's number or the length of what follows.
enum Field {
    Number(u64),
    Bytes(u64),
}

/// Protobuf's encoding, read piece by piece, so that weights need not be.
struct Stream<'a, R> {
    file: &'a mut R,
    at: u64,
}

impl<R: Read + Seek> Stream<'_, R> {
    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.file.read_exact(&mut byte)?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(invalid("file", "a number without an end"))
    }

    fn field(&mut self) -> io::Result<(u64, Field)> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            2 => Field::Bytes(self.varint()?),
            // Floats are read as what they are stored as.
            5 => {
                let bytes = self.take(4)?;
                let bytes = bytes.try_into().expect("four bytes");
                Field::Number(u64::from(u32::from_le_bytes(bytes)))
            }
            kind => return Err(invalid("file", format!("wire type {kind}"))),
        };
        Ok((tag >> 3, field))
    }

    fn take(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.file.by_ref().take(size).read_to_end(&mut bytes)?;
        self.at += read as u64;
        match read as u64 == size {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Where what follows ends, of that many bytes.
    fn end(&self, size: u64) -> io::Result<u64> {
        let end = self.at.checked_add(size);
        end.ok_or_else(|| invalid("file", format!("a message of {size} bytes")))
    }

    fn skip(&mut self, size: u64) -> io::Result<()> {
        self.at = self.end(size)?;
        self.file.seek(SeekFrom::Start(self.at)).map(drop)
    }
}

/// The fields of a message that is in memory, with their numbers; a float is its bits.
fn fields(bytes: &[u8]) -> io::Result<Vec<(u64, u64, &[u8])>> {
    let mut cursor = io::Cursor::new(bytes);
    let mut stream = Stream {
        file: &mut cursor,
        at: 0,
    };
    let mut found = Vec::new();
    while (stream.at as usize) < bytes.len() {
        found.push(match stream.field()? {
            (field, Field::Number(number)) => (field, number, &[][..]),
            (field, Field::Bytes(size)) => {
                let start = stream.at as usize;
                stream.skip(size)?;
                let content = bytes.get(start..stream.at as usize);
                (field, 0, content.ok_or(io::ErrorKind::UnexpectedEof)?)
            }
        });
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    str::from_utf8(bytes).map_err(io::Error::other)
}

fn element(code: u64) -> io::Result<ElementType> {
    let found = ElementType::from_code(code as i64);
    found.ok_or_else(|| invalid("file", format!("elements of type {code}")))
}

fn check_graph<R: Read + Seek>(model: &mut Stream<R>, size: u64) -> io::Result<()> {
    let end = model.end(size)?;
    let (mut nodes, mut outputs) = (Vec::new(), Vec::new());
    let mut facts = HashMap::new();
    let mut define = |name: String, fact: Fact| match facts.insert(name, fact) {
        None => Ok(()),
        Some(_) => Err(invalid("file", "two tensors of one name")),
    };
    while model.at < end {
        match model.field()? {
            (1, Field::Bytes(size)) => nodes.push(model.take(size)?),
            (5, Field::Bytes(size)) => {
                let (name, fact) = initializer(model, size)?;
                define(name, fact)?;
            }
            (11, Field::Bytes(size)) => {
                let (name, fact) = value_info(&model.take(size)?)?;
                define(name, fact)?;
            }
            (12, Field::Bytes(size)) => outputs.push(value_info(&model.take(size)?)?),
            (_, Field::Bytes(size)) => model.skip(size)?,
            (_, Field::Number(_)) => {}
        }
    }
    for node in &nodes {
        check_node(node, &mut facts)?;
    }
    for (name, declared) in outputs {
        let found = facts
            .get(&name)
            .ok_or_else(|| invalid(&name, "no node makes it"))?;
        let shapes = found.shape.iter().zip(&declared.shape);
        let fits = found.element == declared.element
            && found.shape.len() == declared.shape.len()
            && shapes
                .into_iter()
                .all(|(a, b)| a.is_none() || b.is_none() || a == b);
        if !fits {
            return Err(invalid(
                &name,
                format!("{found:?} is declared as {declared:?}"),
            ));
        }
    }
    Ok(())
}

fn initializer<R: Read + Seek>(model: &mut Stream<R>, size: u64) -> io::Result<(String, Fact)> {
    let end = model.end(size)?;
    let (mut shape, mut code, mut name) = (Vec::new(), 0, String::new());
    let (mut stored, mut bytes) = (0, None);
    while model.at < end {
        match model.field()? {
            (1, Field::Number(size)) => shape.push(size as usize),
            (2, Field::Number(number)) => code = number,
            (8, Field::Bytes(size)) => name = text(&model.take(size)?)?.to_string(),
            (9, Field::Bytes(size)) => {
                stored = size;
                match size <= 8 * MOST_KNOWN as u64 {
                    true => bytes = Some(model.take(size)?),
                    false => model.skip(size)?,
                }
            }
            (_, Field::Bytes(size)) => model.skip(size)?,
            (_, Field::Number(_)) => {}
        }
    }
    let element = element(code)?;
    let expected = shape
        .iter()
        .try_fold(element.width() as u64, |bytes, &size| {
            bytes.checked_mul(size as u64)
        });
    if expected != Some(stored) {
        let reason = format!("{stored} bytes of {element:?} for {shape:?}");
        return Err(invalid(&name, reason));
    }
    let mut fact = Fact::new(element, shape.iter().copied().map(Some).collect());
    if element == ElementType::Int64 && shape.len() < 2 {
        fact.value = bytes.as_deref().and_then(integers_of);
    }
    Ok((name, fact))
}

/// Name, type and shape of an input or output.
fn value_info(bytes: &[u8]) -> io::Result<(String, Fact)> {
    let message = |bytes, number| -> io::Result<&[u8]> {
        let found = fields(bytes)?.into_iter().find(|field| field.0 == number);
        found
            .map(|field| field.2)
            .ok_or_else(|| invalid("file", "an end without a type"))
    };
    let name = text(message(bytes, 1)?)?.to_string();
    let tensor = message(message(bytes, 2)?, 1)?;
    let code = fields(tensor)?.into_iter().find(|field| field.0 == 1);
    let dimensions = fields(message(tensor, 2)?)?;
    let size = |(_, _, dimension): (u64, u64, &[u8])| -> io::Result<Option<usize>> {
        let size = fields(dimension)?.into_iter().find(|field| field.0 == 1);
        Ok(size.map(|field| field.1 as usize))
    };
    let shape = dimensions
        .into_iter()
        .map(size)
        .collect::<io::Result<_>>()?;
    Ok((
        name,
        Fact::new(element(code.map_or(0, |field| field.1))?, shape),
    ))
}

fn attribute(bytes: &[u8]) -> io::Result<Attribute<'_>> {
    let (mut name, mut kind, mut number, mut float) = ("", 0, 0, 0);
    let (mut string, mut list) = ("", Vec::new());
    for (field, value, content) in fields(bytes)? {
        match field {
            1 => name = text(content)?,
            2 => float = value,
            3 => number = value as i64,
            4 => string = text(content)?,
            8 => list.push(value as i64),
            20 => kind = value,
            _ => {}
        }
    }
    Ok(match kind {
        1 => Attribute::Float(name, f32::from_bits(float as u32)),
        2 => Attribute::Int(name, number),
        3 => Attribute::Text(name, string),
        7 => Attribute::Ints(name, list),
        kind => return Err(invalid(name, format!("attribute of type {kind}"))),
    })
}

fn check_node(bytes: &[u8], facts: &mut HashMap<String, Fact>) -> io::Result<()> {
    let (mut inputs, mut outputs, mut attributes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut name, mut operator) = ("", "");
    for (field, _, content) in fields(bytes)? {
        match field {
            1 => inputs.push(text(content)?),
            2 => outputs.push(text(content)?),
            3 => name = text(content)?,
            4 => operator = text(content)?,
            5 => attributes.push(attribute(content)?),
            _ => {}
        }
    }
    let operand = |input: &&str| match input.is_empty() {
        true => Ok(None),
        false => {
            let fact = facts.get(*input).map(Some);
            fact.ok_or_else(|| invalid(name, format!("operand {input} is not there yet")))
        }
    };
    let known = inputs.iter().map(operand).collect::<io::Result<Vec<_>>>()?;
    let call = Call {
        operator,
        inputs: &known,
        attributes: &attributes,
    };
    let found = infer(&call).map_err(|reason| invalid(name, reason))?;
    for (output, fact) in outputs.iter().zip(found) {
        if facts.insert(output.to_string(), fact).is_some() {
            return Err(invalid(name, format!("a second {output}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights that are not looked at were passed over beyond the end of the file.
    #[test]
    fn a_file_that_is_cut_off_is_refused() {
        let whole = include_bytes!("../tests/files/fixed.onnx");
        let check = |length: usize| validate(&mut io::Cursor::new(&whole[..length]));
        check(whole.len()).expect("a whole file");
        for length in (0..whole.len() - 16).step_by(997) {
            assert!(check(length).is_err(), "{length} bytes");
        }
    }
}
