//! The messages of `onnx.proto` that a model consists of, in protobuf's encoding.
//!
//! Written by hand: a dozen messages of two wire types need no code generator, and weights go to the file
//! without a second copy.

use std::io::{self, Write};

use burn::tensor::Bytes;

use crate::error::OnnxError;

/// An encoded message, or a part of one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    pub(crate) fn int(mut self, field: u32, value: i64) -> Self {
        self.tag(field, 0);
        self.varint(value as u64);
        self
    }

    pub(crate) fn float(mut self, field: u32, value: f32) -> Self {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        self.opens(field, bytes.len());
        self.0.extend(bytes);
        self
    }

    pub(crate) fn text(self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub(crate) fn message(self, field: u32, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    /// The fields of another message after these.
    pub(crate) fn then(mut self, fields: Self) -> Self {
        self.0.extend(fields.0);
        self
    }

    /// Begins a field of that many bytes, which follow.
    fn opens(&mut self, field: u32, length: usize) {
        self.tag(field, 2);
        self.varint(length as u64);
    }

    fn opening(field: u32, length: usize) -> Vec<u8> {
        let mut message = Self::default();
        message.opens(field, length);
        message.0
    }
}

/// An attribute of a node.
#[derive(Debug, Clone)]
pub(crate) enum Attribute<'a> {
    Int(&'a str, i64),
    Ints(&'a str, Vec<i64>),
    Float(&'a str, f32),
    Text(&'a str, &'a str),
}

impl Attribute<'_> {
    pub(crate) fn encode(&self) -> Message {
        let named = |name: &str| Message::default().text(1, name);
        let (message, kind) = match self {
            Self::Float(name, value) => (named(name).float(2, *value), 1),
            Self::Int(name, value) => (named(name).int(3, *value), 2),
            Self::Text(name, value) => (named(name).text(4, value), 3),
            Self::Ints(name, values) => {
                let values = values.iter();
                (values.fold(named(name), |m, value| m.int(8, *value)), 7)
            }
        };
        message.int(20, kind)
    }
}

/// Type of the elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementType {
    Float = 1,
    Uint8 = 2,
    Int64 = 7,
    Bool = 9,
    Float16 = 10,
}

impl ElementType {
    const ALL: [Self; 5] = [
        Self::Float,
        Self::Uint8,
        Self::Int64,
        Self::Bool,
        Self::Float16,
    ];

    /// The type of a code of `onnx.proto`.
    pub(crate) fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as i64 == code)
    }

    /// Bytes of an element.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Uint8 | Self::Bool => 1,
            Self::Float16 => 2,
            Self::Float => 4,
            Self::Int64 => 8,
        }
    }
}

/// The contents of a constant, little-endian.
pub(crate) enum Contents<'a> {
    Bytes(Vec<u8>),
    /// Weights, read when they are written, so that there is no copy of all of them.
    Read(Box<dyn Fn() -> Bytes + 'a>),
}

impl Contents<'_> {
    /// Calls a function with the bytes.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Bytes(bytes) => f(bytes),
            Self::Read(read) => f(&read()),
        }
    }
}

/// A constant of the graph.
pub(crate) struct Initializer<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) element: ElementType,
    pub(crate) contents: Contents<'a>,
}

impl Initializer<'_> {
    /// Bytes of the contents.
    fn length(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.width()
    }

    /// Everything up to the bytes.
    fn head(&self) -> Message {
        let shape = self.shape.iter();
        let message = shape.fold(Message::default(), |m, &size| m.int(1, size as i64));
        let mut message = message.int(2, self.element as i64).text(8, &self.name);
        message.opens(9, self.length());
        message
    }
}

/// A size of a dimension: a number, or a name for one that is free.
#[derive(Debug, Clone)]
pub(crate) enum Dimension {
    Fixed(usize),
    Free(String),
}

impl Dimension {
    pub(crate) fn free(name: &str) -> Self {
        Self::Free(name.to_string())
    }

    pub(crate) fn fixed(&self) -> Option<usize> {
        match self {
            Self::Fixed(size) => Some(*size),
            Self::Free(_) => None,
        }
    }
}

/// Name, type and shape of an input or output.
pub(crate) fn value_info(name: &str, element: ElementType, shape: &[Dimension]) -> Message {
    let shape = shape.iter().fold(Message::default(), |shape, dimension| {
        let dimension = match dimension {
            Dimension::Fixed(size) => Message::default().int(1, *size as i64),
            Dimension::Free(name) if name.is_empty() => Message::default(),
            Dimension::Free(name) => Message::default().text(2, name),
        };
        shape.message(1, &dimension)
    });
    let tensor = Message::default().int(1, element as i64).message(2, &shape);
    let kind = Message::default().message(1, &tensor);
    Message::default().text(1, name).message(2, &kind)
}

/// A model, ready to be written.
pub(crate) struct Model<'a> {
    pub(crate) opset: i64,
    /// The graph without its initializers.
    pub(crate) graph: Message,
    pub(crate) initializers: Vec<Initializer<'a>>,
    pub(crate) metadata: Vec<(&'static str, String)>,
}

/// The first version in which an initializer need not be an input, and may be the default of one.
const IR_VERSION: i64 = 7;

/// Largest graph: protobuf's limit of 2 GiB, less what may stand around it.
const MOST_BYTES: usize = (1 << 31) - (1 << 20);

impl Model<'_> {
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let opset = Message::default().text(1, "").int(2, self.opset);
        let mut model = Message::default()
            .int(1, IR_VERSION)
            .text(2, env!("CARGO_PKG_NAME"))
            .message(8, &opset);
        for (key, value) in &self.metadata {
            let entry = Message::default().text(1, key).text(2, value);
            model = model.message(14, &entry);
        }
        let heads: Vec<(Vec<u8>, Message)> = (self.initializers.iter())
            .map(|initializer| {
                let head = initializer.head();
                let length = head.0.len() + initializer.length();
                (Message::opening(5, length), head)
            })
            .collect();
        let constants = heads.iter().zip(&self.initializers);
        let length = constants.fold(self.graph.0.len(), |sum, ((opening, head), initializer)| {
            sum + opening.len() + head.0.len() + initializer.length()
        });
        if length > MOST_BYTES {
            return Err(io::Error::other(OnnxError::TooLarge { bytes: length }));
        }
        to.write_all(&model.0)?;
        to.write_all(&Message::opening(7, length))?;
        to.write_all(&self.graph.0)?;
        for ((opening, head), initializer) in heads.iter().zip(&self.initializers) {
            to.write_all(opening)?;
            to.write_all(&head.0)?;
            initializer.contents.with(|bytes| to.write_all(bytes))?;
        }
        // At the end, so that files of two versions differ there alone.
        to.write_all(&Message::default().text(3, env!("CARGO_PKG_VERSION")).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No runtime reads such a file.
    #[test]
    fn more_than_protobuf_holds_is_not_written() {
        let unread = || unreachable!("nothing is written");
        let model = Model {
            opset: 13,
            graph: Message::default(),
            initializers: vec![Initializer {
                name: "weight".into(),
                shape: vec![1 << 16, 1 << 13],
                element: ElementType::Float,
                contents: Contents::Read(Box::new(unread)),
            }],
            metadata: Vec::new(),
        };
        let mut file = Vec::new();
        let error = model.write(&mut file).unwrap_err().to_string();
        assert!(error.contains("2048 MiB"), "{error}");
        assert!(file.is_empty());
    }
}
