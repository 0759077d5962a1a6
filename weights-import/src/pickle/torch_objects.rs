//! Tensors from values of a pickle: what Python's `torch._utils._rebuild_*` functions would make, worked
//! out without calling them.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{BoolStore, DType};

use crate::error::CheckpointError;
use crate::source::Source;
use crate::storage::{Region, StoredTensor, View};

use super::{Id, Object, Pickle, Value};

/// How deep the calls behind a tensor may lie in each other.
const MAX_DEPTH: usize = 8;
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

/// What an object of a pickle is.
pub(crate) enum Rebuilt {
    Tensor(StoredTensor),
    /// A tensor of a kind that is not read: the error to give if nothing else is.
    Unreadable(CheckpointError),
    /// No tensor.
    Other,
}

/// The tensors that a pickle's objects stand for.
pub(crate) struct Tensors<'t, 'a> {
    pub(crate) source: &'t Arc<Source>,
    pub(crate) pickle: &'t Pickle<'a>,
    /// The bytes of each storage by its key, no fewer than the pickle says; without those of unknown element types.
    pub(crate) storages: &'t HashMap<&'a str, Region>,
}

impl Tensors<'_, '_> {
    /// What an object called `name` is.
    ///
    /// # Errors
    /// When it is a tensor that contradicts itself.
    pub(crate) fn rebuild(&self, name: &str, object: &Object) -> Result<Rebuilt, CheckpointError> {
        self.tensor(name, object, 0)
    }

    fn tensor(
        &self,
        name: &str,
        object: &Object,
        depth: usize,
    ) -> Result<Rebuilt, CheckpointError> {
        let Some((module, function)) = self.pickle.global(object.callable) else {
            return Ok(Rebuilt::Other);
        };
        let args = self.pickle.sequence(object.args).unwrap_or(&[]);
        let damaged = || {
            self.source
                .corrupt(format!("tensor `{name}`: {function} has other arguments"))
        };
        if depth == MAX_DEPTH {
            return Err(damaged());
        }
        let of_torch = matches!(module, "torch._utils" | "torch._tensor" | "torch.tensor");
        match (function, args) {
            _ if !of_torch || !function.starts_with("_rebuild") => Ok(Rebuilt::Other),
            ("_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3", _) => {
                self.strided(name, function, args).ok_or_else(damaged)?
            }
            ("_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..]) => {
                match &self.pickle[*data] {
                    Value::Object(data) => self.tensor(name, data, depth + 1),
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
                self.tensor(name, &call, depth + 1)
            }
            _ => Ok(Rebuilt::Unreadable(self.source.unsupported(format!(
                "`{name}` is not a dense tensor but one of {module}.{function}, which is not read"
            )))),
        }
    }

    /// The tensor of `(storage, offset, size, stride, requires_grad, hooks, [dtype,] [flags])`, none if they are others.
    fn strided(
        &self,
        name: &str,
        function: &str,
        args: &[Id],
    ) -> Option<Result<Rebuilt, CheckpointError>> {
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
            let error = self.source.unsupported_dtype(name, class);
            return Some(Ok(Rebuilt::Unreadable(error)));
        };
        // Conjugation and negation bits: the stored numbers are not the tensor's.
        let flags = rest
            .get(if is_v3 { 3 } else { 2 })
            .map(|&flags| &self.pickle[flags]);
        if flags.is_some_and(|flags| matches!(flags, Value::Dict(items) if !items.is_empty())) {
            let error = format!("`{name}` is a negated or conjugated view, which is not read");
            return Some(Ok(Rebuilt::Unreadable(self.source.unsupported(error))));
        }
        view.offset = view.offset.checked_add(storage.skip / bytes)?;
        let region = self.storages.get(storage.key)?.clone();
        let tensor = StoredTensor::view(self.source, name, region, view, dtype);
        Some(tensor.map(Rebuilt::Tensor))
    }
}
