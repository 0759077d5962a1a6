//! The stack machine that a [`Pickle`](super::Pickle) is a program for, as far as `torch.save` uses it.

use std::collections::HashMap;

use super::{Id, Object, PickleError, Value};

/// Values a pickle may make: over ten times what the largest training checkpoint has, and a bound for a hostile one.
pub(super) const MAX_VALUES: usize = 1 << 22;

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// How many bytes have been read.
    pub(super) at: usize,
    pub(super) values: Vec<Value<'a>>,
    /// The states of dicts.
    pub(super) states: HashMap<Id, Id>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Pairs copied into dicts from lists, which may be the same list each time.
    copied: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            values: vec![],
            states: HashMap::new(),
            stack: vec![],
            marks: vec![],
            memo: HashMap::new(),
            copied: 0,
        }
    }

    /// Runs to the end and returns the value left.
    pub(super) fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            match self.byte()? {
                b'.' => return self.pop(),
                opcode => self.step(opcode)?,
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            // Protocol version; frame length.
            0x80 => return self.protocol(),
            0x95 => return self.take(8).map(drop),
            // Numbers and constants.
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            0x8a => self.byte().and_then(|length| self.long(length.into()))?,
            0x8b => self.length4().and_then(|length| self.long(length))?,
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            // Text and bytes, with lengths of 1, 4 or 8 bytes.
            0x8c | b'U' => self.byte().and_then(|length| self.text(length.into()))?,
            b'X' | b'T' => self.length4().and_then(|length| self.text(length))?,
            0x8d => self.length8().and_then(|length| self.text(length))?,
            b'C' => self
                .byte()
                .and_then(|length| self.take(length.into()))
                .map(Value::Bytes)?,
            b'B' => self
                .length4()
                .and_then(|length| self.take(length))
                .map(Value::Bytes)?,
            0x8e | 0x96 => self
                .length8()
                .and_then(|length| self.take(length))
                .map(Value::Bytes)?,
            // Containers.
            b')' => Value::Tuple(vec![]),
            0x85 => Value::Tuple(vec![self.pop()?]),
            0x86 => Value::Tuple(self.pop_array::<2>()?.to_vec()),
            0x87 => Value::Tuple(self.pop_array::<3>()?.to_vec()),
            b't' => Value::Tuple(self.pop_mark()?),
            b']' | 0x8f => Value::List(vec![]),
            b'l' | 0x91 => Value::List(self.pop_mark()?),
            b'}' => Value::Dict(vec![]),
            b'd' => Value::Dict(self.pop_pairs()?),
            b'a' => {
                let item = self.pop()?;
                return self.append(vec![item]);
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                return self.append(items);
            }
            b's' => {
                let [key, value] = self.pop_array()?;
                return self.set_items(vec![(key, value)]);
            }
            b'u' => {
                let items = self.pop_pairs()?;
                return self.set_items(items);
            }
            // Classes, calls and state.
            b'c' => Value::Global {
                module: self.line()?,
                name: self.line()?,
            },
            0x93 => self.stack_global()?,
            b'R' | 0x81 => self.call()?,
            0x92 => {
                self.pop()?; // keyword arguments: not needed to tell what the object is
                self.call()?
            }
            b'b' => return self.build(),
            b'P' => {
                let name = Value::Str(self.line()?);
                Value::Persistent(self.add(name)?)
            }
            b'Q' => Value::Persistent(self.pop()?),
            // The stack and the memo.
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
                return Ok(());
            }
            b'0' => return self.pop().map(drop),
            b'1' => return self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                return Ok(());
            }
            b'q' => return self.byte().and_then(|key| self.put(key.into())),
            b'r' => {
                return self
                    .array()
                    .and_then(|key| self.put(u32::from_le_bytes(key)));
            }
            0x94 => return self.put(self.memo.len() as u32),
            b'h' => return self.byte().and_then(|key| self.get(key.into())),
            b'j' => {
                return self
                    .array()
                    .and_then(|key| self.get(u32::from_le_bytes(key)));
            }
            other => {
                return Err(self.bad(format!(
                    "opcode 0x{other:02x} is not one that torch.save writes"
                )));
            }
        };
        let id = self.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    // Bytes.

    fn bad(&self, reason: impl Into<String>) -> PickleError {
        PickleError::Bad {
            at: self.at.saturating_sub(1),
            reason: reason.into(),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.saturating_add(count);
        let taken = self
            .bytes
            .get(self.at..end)
            .ok_or(PickleError::Cut { needed: end })?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        self.array().map(|[byte]| byte)
    }

    fn length4(&mut self) -> Result<usize, PickleError> {
        self.array()
            .map(|length| u32::from_le_bytes(length) as usize)
    }

    fn length8(&mut self) -> Result<usize, PickleError> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| PickleError::Cut { needed: usize::MAX })
    }

    fn text(&mut self, length: usize) -> Result<Value<'a>, PickleError> {
        let bytes = self.take(length)?;
        Ok(str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Str))
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(length.unwrap_or(rest.len()))?;
        self.take(1)?;
        str::from_utf8(line).map_err(|_| self.bad("a name that is not UTF-8"))
    }

    /// A little-endian two's complement integer of any length.
    fn long(&mut self, length: usize) -> Result<Value<'a>, PickleError> {
        let bytes = self.take(length)?;
        if length > 16 {
            return Ok(Value::Opaque);
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut filled = [if negative { 0xff } else { 0 }; 16];
        filled[..length].copy_from_slice(bytes);
        Ok(Value::Int(i128::from_le_bytes(filled)))
    }

    fn protocol(&mut self) -> Result<(), PickleError> {
        match self.byte()? {
            0..=5 => Ok(()),
            version => Err(self.bad(format!(
                "pickle protocol {version}; 5 is the latest one supported"
            ))),
        }
    }

    // Values and the stack.

    fn add(&mut self, value: Value<'a>) -> Result<Id, PickleError> {
        if self.values.len() == MAX_VALUES {
            return Err(self.bad(format!("more than {MAX_VALUES} values")));
        }
        self.values.push(value);
        Ok(Id(self.values.len() as u32 - 1))
    }

    fn value(&mut self, id: Id) -> &mut Value<'a> {
        &mut self.values[id.0 as usize]
    }

    fn top(&self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..]
            .last()
            .copied()
            .ok_or_else(|| self.bad("a value is missing on the stack"))
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_array<const N: usize>(&mut self) -> Result<[Id; N], PickleError> {
        let mut array = [Id(0); N];
        for slot in array.iter_mut().rev() {
            *slot = self.pop()?;
        }
        Ok(array)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| self.bad("a mark is missing on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_pairs(&mut self) -> Result<Vec<(Id, Id)>, PickleError> {
        let items = self.pop_mark()?;
        match items.as_chunks() {
            (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err(self.bad("a key without a value")),
        }
    }

    fn put(&mut self, key: u32) -> Result<(), PickleError> {
        let top = self.top()?;
        if self.memo.len() == MAX_VALUES {
            return Err(self.bad(format!("more than {MAX_VALUES} remembered values")));
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u32) -> Result<(), PickleError> {
        let id = *self
            .memo
            .get(&key)
            .ok_or_else(|| self.bad(format!("no value is remembered as {key}")))?;
        self.stack.push(id);
        Ok(())
    }

    // Containers and objects.

    fn append(&mut self, items: Vec<Id>) -> Result<(), PickleError> {
        let target = self.top()?;
        match self.value(target) {
            Value::List(list) => list.extend(items),
            Value::Object(_) => {} // a deque or the like: nothing that holds a model's weights
            _ => return Err(self.bad("appending to a value that is not a list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<(Id, Id)>) -> Result<(), PickleError> {
        let target = self.top()?;
        match self.value(target) {
            Value::Dict(dict) => dict.extend(items),
            Value::Object(object) => object.items.extend(items),
            _ => return Err(self.bad("setting an item of a value that is not a dict")),
        }
        Ok(())
    }

    fn stack_global(&mut self) -> Result<Value<'a>, PickleError> {
        let [module, name] = self.pop_array()?;
        match (
            &self.values[module.0 as usize],
            &self.values[name.0 as usize],
        ) {
            (&Value::Str(module), &Value::Str(name)) => Ok(Value::Global { module, name }),
            _ => Err(self.bad("a class whose name is not text")),
        }
    }

    /// What `callable(*args)` stands for: a dict for the dict classes, otherwise a description of the call.
    fn call(&mut self) -> Result<Value<'a>, PickleError> {
        let [callable, args] = self.pop_array()?;
        let is_dict = matches!(
            self.value(callable),
            Value::Global {
                module: "collections",
                name: "OrderedDict" | "defaultdict"
            }
        );
        if !is_dict {
            let (state, items) = (None, vec![]);
            return Ok(Value::Object(Object {
                callable,
                args,
                state,
                items,
            }));
        }
        let pairs = self.pairs_of(args);
        self.copied += pairs.len();
        if self.copied > MAX_VALUES {
            return Err(self.bad(format!("more than {MAX_VALUES} values")));
        }
        Ok(Value::Dict(pairs))
    }

    /// Python 2 made an `OrderedDict` of `([[key, value], ...],)`.
    fn pairs_of(&self, args: Id) -> Vec<(Id, Id)> {
        let parts = |id: Id| match &self.values[id.0 as usize] {
            Value::Tuple(parts) | Value::List(parts) => parts.as_slice(),
            _ => &[],
        };
        let Some(&first) = parts(args).first() else {
            return vec![];
        };
        parts(first)
            .iter()
            .filter_map(|&pair| <[Id; 2]>::try_from(parts(pair)).ok())
            .map(|[k, v]| (k, v))
            .collect()
    }

    /// An object's state. That of a dict is what torch hangs on a state dict (`_metadata`).
    fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop()?;
        let target = self.top()?;
        match self.value(target) {
            Value::Object(object) => object.state = Some(state),
            Value::Dict(_) => drop(self.states.insert(target, state)),
            _ => {}
        }
        Ok(())
    }
}
