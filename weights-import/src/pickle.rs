//! A reader of the pickles that `torch.save` writes, below [`pytorch`](crate::pytorch): opcodes become plain values,
//! and nothing that the file names is ever imported or run.
//!
//! A pickle is a program for a small stack machine. Its values lie here in one arena and name each other by index, so
//! that sharing is free, a cycle is only a number, and no nesting, however deep, recurses.

pub(crate) mod torch_objects;
mod vm;
pub(crate) mod walk;

use std::collections::HashMap;
use std::ops::Index;

use vm::Machine;

/// The place of a value in its [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id(u32);

/// One value, its parts being other values of the same [`Pickle`].
#[derive(Debug, PartialEq)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
    /// Bytes, and text that is not UTF-8.
    Bytes(&'a [u8]),
    Tuple(Vec<Id>),
    /// A list or a set.
    List(Vec<Id>),
    /// A dict, an `OrderedDict` or a `defaultdict`, in the order of insertion.
    Dict(Vec<(Id, Id)>),
    /// A class or function, by name.
    Global {
        module: &'a str,
        name: &'a str,
    },
    Object(Object),
    /// What the writer kept outside the pickle: for torch, a tensor's storage.
    Persistent(Id),
    /// An integer past 128 bits, such as a random generator's state.
    Opaque,
}

/// What calling `callable(*args)` would have made: never called, only described.
#[derive(Debug, PartialEq)]
pub(crate) struct Object {
    pub(crate) callable: Id,
    pub(crate) args: Id,
    /// What `__setstate__` would have got.
    pub(crate) state: Option<Id>,
    /// What would have been set by `object[key] = value`.
    pub(crate) items: Vec<(Id, Id)>,
}

/// Why a pickle could not be read.
#[derive(Debug, PartialEq)]
pub(crate) enum PickleError {
    /// The bytes end where at least this many were needed.
    Cut { needed: usize },
    /// The bytes are not a pickle that torch writes.
    Bad { at: usize, reason: String },
}

/// A pickle read to its end.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    states: HashMap<Id, Id>,
    /// The value that the whole pickle stands for.
    pub(crate) root: Id,
    /// How many bytes it took; others may follow.
    pub(crate) length: usize,
}

impl<'a> Index<Id> for Pickle<'a> {
    type Output = Value<'a>;

    fn index(&self, id: Id) -> &Value<'a> {
        &self.values[id.0 as usize]
    }
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that `bytes` begin with.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let mut machine = Machine::new(bytes);
        let root = machine.run()?;
        Ok(Self {
            root,
            length: machine.at,
            values: machine.values,
            states: machine.states,
        })
    }

    /// All values, in the order in which they came to be.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value<'a>> {
        self.values.iter()
    }

    /// The attributes that a dict has besides its entries, as another dict.
    pub(crate) fn attributes(&self, dict: Id) -> Option<Id> {
        self.states.get(&dict).copied()
    }

    pub(crate) fn str(&self, id: Id) -> Option<&'a str> {
        match self[id] {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A count, size, stride or offset: an integer that is no less than zero.
    pub(crate) fn size(&self, id: Id) -> Option<usize> {
        match self[id] {
            Value::Int(number) => usize::try_from(number).ok(),
            _ => None,
        }
    }

    /// The parts of a tuple or a list.
    pub(crate) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match &self[id] {
            Value::Tuple(parts) | Value::List(parts) => Some(parts),
            _ => None,
        }
    }

    /// The module and the name of a class or function.
    pub(crate) fn global(&self, id: Id) -> Option<(&'a str, &'a str)> {
        match self[id] {
            Value::Global { module, name } => Some((module, name)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::vm::MAX_VALUES;
    use super::*;

    fn bad(bytes: &[u8]) -> bool {
        matches!(Pickle::read(bytes), Err(PickleError::Bad { .. }))
    }

    #[test]
    fn reads_scalars_text_and_containers() {
        // pickle.dumps({"a": [1, -2, 70000, 2.5, True, None], "b": (b"x", "é")}, protocol=4), then other bytes
        let bytes = b"\x80\x04\x95\x38\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffJp\x11\x01\0\
                      G@\x04\0\0\0\0\0\0\x88Ne\x8c\x01b\x94C\x01x\x94\x8c\x02\xc3\xa9\x94\x86\x94u.rest";
        let pickle = Pickle::read(bytes).unwrap();
        assert_eq!(pickle.length, bytes.len() - 4);
        let Value::Dict(items) = &pickle[pickle.root] else {
            panic!()
        };
        assert_eq!(pickle.str(items[0].0), Some("a"));
        let list: Vec<_> = pickle
            .sequence(items[0].1)
            .unwrap()
            .iter()
            .map(|&id| &pickle[id])
            .collect();
        let expected = [
            Value::Int(1),
            Value::Int(-2),
            Value::Int(70000),
            Value::Float(2.5),
            Value::Bool(true),
            Value::None,
        ];
        assert_eq!(list, expected.iter().collect::<Vec<_>>());
        let pair = pickle.sequence(items[1].1).unwrap();
        assert_eq!(
            (&pickle[pair[0]], pickle.str(pair[1])),
            (&Value::Bytes(b"x"), Some("é"))
        );
    }

    #[test]
    fn reads_the_magic_number_of_the_legacy_format() {
        let pickle = Pickle::read(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
        assert_eq!(pickle[pickle.root], Value::Int(0x1950_a86a_20f9_469c_fc6c));
    }

    #[test]
    fn reads_an_ordered_dict_of_python_2() {
        // OrderedDict([["w", 5]]), its strings being BINSTRINGs
        let bytes = b"\x80\x02ccollections\nOrderedDict\nq\0]q\x01]q\x02(U\x01wK\x05ea\x85R.";
        let pickle = Pickle::read(bytes).unwrap();
        let Value::Dict(items) = &pickle[pickle.root] else {
            panic!()
        };
        assert_eq!(
            (pickle.str(items[0].0), pickle.size(items[0].1)),
            (Some("w"), Some(5))
        );
    }

    #[test]
    fn describes_calls_without_making_them() {
        // os.system("true"), with state and an item
        let pickle =
            Pickle::read(b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R}bK\x01K\x02s.").unwrap();
        let Value::Object(object) = &pickle[pickle.root] else {
            panic!()
        };
        assert_eq!(pickle.global(object.callable), Some(("os", "system")));
        assert!(object.state.is_some() && object.items.len() == 1);
    }

    #[test]
    fn refuses_what_is_no_pickle_and_says_where_one_is_cut() {
        assert_eq!(
            Pickle::read(b"\x80\x02X\x05\0\0\0ab").unwrap_err(),
            PickleError::Cut { needed: 12 }
        );
        assert_eq!(
            Pickle::read(b"cos\nsys").unwrap_err(),
            PickleError::Cut { needed: 8 }
        );
        assert!(matches!(
            Pickle::read(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"),
            Err(PickleError::Cut { .. })
        ));
        assert!(
            bad(b"\x80\x09.")
                && bad(b".")
                && bad(b"h\x01.")
                && bad(b"K\x01a.")
                && bad(b"(0.")
                && bad(b"t.")
        );
        assert!(bad(b"K\x01K\x02K\x03s.") && bad(b"\x82"));
    }

    #[test]
    fn nests_without_recursing_and_stops_at_the_limit() {
        let mut deep = vec![b')'];
        deep.resize(1_000_000, 0x85);
        deep.push(b'.');
        assert!(Pickle::read(&deep).is_ok());
        // A list that holds itself.
        let pickle = Pickle::read(b"]q\0h\0a.").unwrap();
        assert_eq!(pickle.sequence(pickle.root), Some(&[pickle.root][..]));
        assert!(bad(&vec![b'N'; MAX_VALUES + 1]));
    }
}
