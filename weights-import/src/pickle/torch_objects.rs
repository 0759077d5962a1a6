//! From the values of a pickle to tensors by name: what Python's `torch._utils._rebuild_*` functions would make, worked
//! out without calling them.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{BoolStore, DType};

use crate::checkpoint::Contents;
use crate::error::CheckpointError;
use crate::source::Source;
use crate::storage::{Region, StoredTensor, View};

use super::{Id, Object, Pickle, Value};

/// How deep dicts may lie in dicts; a training checkpoint has five levels.
const MAX_DEPTH: usize = 64;
/// How long a dotted name may be and how many tensors there may be: bounds for a hostile file.
const MAX_NAME: usize = 1024;
const MAX_TENSORS: usize = 100_000;
/// The dimensions that a tensor of torch can have.
const MAX_DIMENSIONS: usize = 64;

/// A storage as the pickle refers to it: `("storage", type, key, location, count, view)`.
pub(crate) struct StorageRef<'a> {
    pub(crate) key: &'a str,
    /// The class that gives the element type: `FloatStorage`.
    pub(crate) class: &'a str,
    /// Elements in the storage.
    count: usize,
    /// The part of the storage that is meant, in bytes from its begin (files of 2017 have them).
    skip: usize,
}

impl<'a> StorageRef<'a> {
    /// Reads the tuple that a persistent id consists of; none if it is not of this kind.
    pub(crate) fn read(pickle: &Pickle<'a>, id: Id) -> Option<Self> {
        let parts = pickle.sequence(id)?;
        let [kind, class, key, _location, count, rest @ ..] = parts else {
            return None;
        };
        let mut storage = Self {
            key: pickle.str(*key)?,
            class: pickle.global(*class)?.1,
            count: pickle.size(*count)?,
            skip: 0,
        };
        if let Some(view) = rest.first().and_then(|&view| pickle.sequence(view)) {
            storage.skip = pickle
                .size(*view.get(1)?)?
                .checked_mul(storage.element()?.0)?;
        }
        (pickle.str(*kind)? == "storage").then_some(storage)
    }

    /// The size of an element in bytes, and its type where Burn has it; none for an unknown class.
    pub(crate) fn element(&self) -> Option<(usize, Option<DType>)> {
        element(self.class.strip_suffix("Storage")?)
    }

    /// The size of the storage in bytes.
    pub(crate) fn bytes(&self) -> Option<usize> {
        self.count.checked_mul(self.element()?.0)
    }
}

/// Element size in bytes and type, by the name of torch's storage class or of its dtype.
fn element(name: &str) -> Option<(usize, Option<DType>)> {
    let known = |dtype: DType| (dtype.size(), Some(dtype));
    Some(match name {
        "Double" | "float64" => known(DType::F64),
        "Float" | "float32" => known(DType::F32),
        "Half" | "float16" => known(DType::F16),
        "BFloat16" | "bfloat16" => known(DType::BF16),
        "Long" | "int64" => known(DType::I64),
        "Int" | "int32" => known(DType::I32),
        "Short" | "int16" => known(DType::I16),
        "Char" | "int8" => known(DType::I8),
        "uint64" => known(DType::U64),
        "uint32" => known(DType::U32),
        "uint16" => known(DType::U16),
        "Byte" | "Untyped" | "uint8" => known(DType::U8),
        "Bool" | "bool" => known(DType::Bool(BoolStore::Native)),
        // The sizes are needed to find what lies behind them in a legacy file.
        "ComplexDouble" => (16, None),
        "ComplexFloat" => (8, None),
        "QInt32" => (4, None),
        "QInt8" | "QUInt8" | "QUInt4x2" | "QUInt2x4" => (1, None),
        _ => return None,
    })
}

/// Collects the tensors of the dict that `pickle` stands for, named by the dotted path of their keys.
///
/// `storages` has the bytes of each storage by its key, no fewer than the pickle says.
pub(crate) fn tensors(
    source: &Arc<Source>,
    pickle: &Pickle,
    storages: &HashMap<&str, Region>,
) -> Result<Contents, CheckpointError> {
    let mut walk = Walk {
        source,
        pickle,
        storages,
        name: String::new(),
        // Each reference to a value took a byte or more, so only one that multiplies by sharing comes this far.
        steps: pickle.length.saturating_mul(4) + 1000,
        module: None,
        contents: Contents::default(),
    };
    match &pickle[pickle.root] {
        Value::Object(object) if walk.tensor(object, 0)?.is_some() => {
            return Err(source.not_a_state_dict("it holds one tensor, without a name"));
        }
        Value::Dict(_) | Value::Object(_) => walk.visit(pickle.root, 0)?,
        _ => return Err(source.not_a_state_dict("it does not hold a dict")),
    }
    if !walk.contents.tensors.is_empty() {
        return Ok(walk.contents);
    }
    Err(source.not_a_state_dict(match walk.module {
        Some(class) => {
            format!("it holds a whole pickled module ({class}); save model.state_dict() instead")
        }
        None => "there is no tensor in it".into(),
    }))
}

struct Walk<'w, 'a> {
    source: &'w Arc<Source>,
    pickle: &'w Pickle<'a>,
    storages: &'w HashMap<&'a str, Region>,
    /// The dotted path to where the walk is.
    name: String,
    steps: usize,
    /// The class of the first pickled module on the way.
    module: Option<String>,
    contents: Contents,
}

impl<'a> Walk<'_, 'a> {
    fn visit(&mut self, id: Id, depth: usize) -> Result<(), CheckpointError> {
        let pickle = self.pickle;
        if depth == MAX_DEPTH {
            return Err(self
                .source
                .corrupt(format!("dicts nested more than {MAX_DEPTH} deep")));
        }
        match &pickle[id] {
            Value::Dict(items) => self.visit_items(items, depth),
            Value::Tuple(parts) | Value::List(parts) => parts
                .iter()
                .enumerate()
                .try_for_each(|(i, &part)| self.visit_at(&i.to_string(), part, depth)),
            Value::Object(object) => match self.tensor(object, 0)? {
                Some(tensor) => self.add(tensor),
                None => {
                    if self.module.is_none() && self.is_module(object) {
                        self.module = Some(self.class_name(object.callable));
                    }
                    self.visit_items(&object.items, depth)
                }
            },
            _ => Ok(()),
        }
    }

    fn visit_items(&mut self, items: &[(Id, Id)], depth: usize) -> Result<(), CheckpointError> {
        for &(key, value) in items {
            let key = match self.pickle[key] {
                Value::Str(text) => text.to_string(),
                Value::Int(number) => number.to_string(),
                _ => "?".into(),
            };
            self.visit_at(&key, value, depth)?;
        }
        Ok(())
    }

    fn visit_at(&mut self, key: &str, value: Id, depth: usize) -> Result<(), CheckpointError> {
        let Some(steps) = self.steps.checked_sub(1) else {
            return Err(self
                .source
                .corrupt("values that refer to each other without end"));
        };
        self.steps = steps;
        if !matches!(
            self.pickle[value],
            Value::Dict(_) | Value::Tuple(_) | Value::List(_) | Value::Object(_)
        ) {
            return Ok(());
        }
        let before = self.name.len();
        if before + key.len() >= MAX_NAME {
            return Err(self
                .source
                .corrupt(format!("a name longer than {MAX_NAME} bytes")));
        }
        if before > 0 {
            self.name.push('.');
        }
        self.name.push_str(key);
        self.visit(value, depth + 1)?;
        self.name.truncate(before);
        Ok(())
    }

    fn add(&mut self, tensor: StoredTensor) -> Result<(), CheckpointError> {
        if self.contents.tensors.len() == MAX_TENSORS {
            return Err(self
                .source
                .corrupt(format!("more than {MAX_TENSORS} tensors")));
        }
        match self.contents.tensors.insert(self.name.clone(), tensor) {
            None => Ok(()),
            Some(_) => Err(self
                .source
                .corrupt(format!("two tensors are called `{}`", self.name))),
        }
    }

    /// The tensor that an object is, if it is one.
    fn tensor(
        &self,
        object: &Object,
        depth: usize,
    ) -> Result<Option<StoredTensor>, CheckpointError> {
        let Some((module, function)) = self.pickle.global(object.callable) else {
            return Ok(None);
        };
        let args = self.pickle.sequence(object.args).unwrap_or(&[]);
        let damaged = || {
            self.source.corrupt(format!(
                "tensor `{}`: {function} has other arguments",
                self.name
            ))
        };
        if depth == MAX_DEPTH {
            return Err(damaged());
        }
        let of_torch = matches!(module, "torch._utils" | "torch._tensor" | "torch.tensor");
        match (function, args) {
            _ if !of_torch || !function.starts_with("_rebuild") => Ok(None),
            ("_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3", _) => {
                self.strided(function, args).ok_or_else(damaged)?.map(Some)
            }
            ("_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..]) => {
                match &self.pickle[*data] {
                    Value::Object(data) => self.tensor(data, depth + 1),
                    _ => Err(damaged()),
                }
            }
            // The call behind a tensor of another class.
            ("_rebuild_from_type" | "_rebuild_from_type_v2", &[callable, _, args, ..]) => {
                let (state, items) = (None, vec![]);
                let call = Object {
                    callable,
                    args,
                    state,
                    items,
                };
                self.tensor(&call, depth + 1)
            }
            _ => Err(self.source.unsupported(format!(
                "`{}` is not a dense tensor but one of {module}.{function}, which is not read",
                self.name
            ))),
        }
    }

    /// The tensor of `(storage, offset, size, stride, requires_grad, hooks, [dtype,] [flags])`, none if they are others.
    fn strided(
        &self,
        function: &str,
        args: &[Id],
    ) -> Option<Result<StoredTensor, CheckpointError>> {
        let [storage, offset, size, stride, rest @ ..] = args else {
            return None;
        };
        let Value::Persistent(storage) = self.pickle[*storage] else {
            return None;
        };
        let storage = StorageRef::read(self.pickle, storage)?;
        let sizes = |id: &Id| -> Option<Vec<usize>> {
            let parts = self
                .pickle
                .sequence(*id)
                .filter(|parts| parts.len() <= MAX_DIMENSIONS)?;
            parts.iter().map(|&part| self.pickle.size(part)).collect()
        };
        let mut view = View {
            offset: self.pickle.size(*offset)?,
            shape: sizes(size)?,
            strides: sizes(stride)?,
        };

        let is_v3 = function == "_rebuild_tensor_v3";
        let class = if is_v3 {
            self.pickle.global(*rest.get(2)?)?.1
        } else {
            storage.class
        };
        let Some((bytes, Some(dtype))) = element(class.strip_suffix("Storage").unwrap_or(class))
        else {
            return Some(Err(self.source.unsupported_dtype(&self.name, class)));
        };
        // Conjugation and negation bits: the stored numbers are not the tensor's.
        let flags = rest
            .get(if is_v3 { 3 } else { 2 })
            .map(|&flags| &self.pickle[flags]);
        if flags.is_some_and(|flags| matches!(flags, Value::Dict(items) if !items.is_empty())) {
            return Some(Err(self.source.unsupported(format!(
                "`{}` is a negated or conjugated view",
                self.name
            ))));
        }
        view.offset = view.offset.checked_add(storage.skip / bytes)?;
        let region = self.storages.get(storage.key)?.clone();
        Some(StoredTensor::view(
            self.source,
            &self.name,
            region,
            view,
            dtype,
        ))
    }

    /// Whether an object's state is that of a `torch.nn.Module`.
    fn is_module(&self, object: &Object) -> bool {
        let state = object.state.map(|state| &self.pickle[state]);
        let Some(Value::Dict(items)) = state else {
            return false;
        };
        items
            .iter()
            .any(|&(key, _)| matches!(self.pickle.str(key), Some("_parameters" | "_modules")))
    }

    /// The name of a class; the legacy format wraps a module's as `("module", class, file, source)`.
    fn class_name(&self, callable: Id) -> String {
        let class = match self.pickle[callable] {
            Value::Persistent(id) => self
                .pickle
                .sequence(id)
                .and_then(|parts| parts.get(1).copied()),
            _ => Some(callable),
        };
        match class.and_then(|class| self.pickle.global(class)) {
            Some((module, name)) => format!("{module}.{name}"),
            None => "of an unknown class".into(),
        }
    }
}
