//! The safetensors format, below [`Checkpoint`](crate::Checkpoint) and [`Weights`]: the length of a header, the header in
//! JSON, and the data. Names and layouts are torch's.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{BoolStore, DType};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::checkpoint::Contents;
use crate::error::CheckpointError;
use crate::source::{MAX_HEADER, Source};
use crate::storage::StoredTensor;
use crate::weights::{CONFIG_KEY, Weights, WeightsError, write};

/// Whether a file begins with the length of a header that may be, then the brace that its JSON begins with.
pub(crate) fn begins(head: &[u8]) -> bool {
    let Some((length, [b'{', ..])) = head.split_first_chunk() else {
        return false;
    };
    u64::from_le_bytes(*length) <= MAX_HEADER as u64
}

/// Reads the header and finds the tensors.
pub(crate) fn read(source: &Arc<Source>) -> Result<Contents, CheckpointError> {
    let (header, start) = source.header(0, u64::from_le_bytes)?;
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|error| source.corrupt(format!("safetensors header: {error}")))?;
    let mut contents = Contents::default();
    contents
        .metadata
        .extend(header.metadata().clone().unwrap_or_default());
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else {
            continue;
        };
        let (from, to) = info.data_offsets;
        let range = start.saturating_add(from)..start.saturating_add(to);
        let Some(dtype) = burn_dtype(info.dtype) else {
            source.require(&name, &range)?;
            contents.leave_out(source.unsupported_dtype(&name, info.dtype.to_string()));
            continue;
        };
        let tensor = StoredTensor::whole(source, &name, range, info.shape.clone(), dtype)?;
        contents.tensors.insert(name, tensor);
    }
    Ok(contents)
}

fn burn_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::U16 => DType::U16,
        Dtype::I16 => DType::I16,
        Dtype::U32 => DType::U32,
        Dtype::I32 => DType::I32,
        Dtype::U64 => DType::U64,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        _ => return None,
    })
}

impl Weights {
    /// Writes a safetensors file that torchvision's `load_state_dict(strict=True)` accepts, in the
    /// precision that the weights have.
    ///
    /// # Errors
    /// When a tensor cannot be read or the file not be written; nothing is left behind.
    pub fn write_safetensors(&self, path: impl AsRef<Path>) -> Result<(), WeightsError> {
        write(path.as_ref(), |file| self.stream_safetensors(file))
    }

    /// Tensor by tensor, where the safetensors crate would want all in memory.
    fn stream_safetensors(&self, file: &mut impl Write) -> io::Result<()> {
        let mut infos = Vec::new();
        let mut end = 0;
        for (name, tensor) in &self.tensors {
            let start = end;
            end += tensor.data_len();
            let dtype = torch_dtype(tensor.dtype).ok_or_else(|| {
                io::Error::other(format!("{name}: safetensors has no {:?}", tensor.dtype))
            })?;
            let info = TensorInfo {
                dtype,
                shape: tensor.shape.to_vec(),
                data_offsets: (start, end),
            };
            infos.push((name.clone(), info));
        }
        let metadata = [
            (CONFIG_KEY, self.config_json()),
            ("format", "pt".to_string()),
        ];
        let mut header = serde_json::to_vec(&Header {
            metadata: metadata.into(),
            infos,
        })?;
        header.resize(header.len().next_multiple_of(8), b' ');
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (name, tensor) in &self.tensors {
            let data = tensor.to_data();
            let data = data.map_err(|error| io::Error::other(error.to_string()))?;
            let (expected, found) = (tensor.data_len(), data.as_bytes().len());
            if expected != found {
                let reason = format!("{name}: {expected} bytes expected, {found} found");
                return Err(io::Error::other(reason));
            }
            file.write_all(data.as_bytes())?;
        }
        Ok(())
    }
}

/// The header in a fixed order, so that equal weights make equal files: [`Metadata`] has its texts in a `HashMap`.
struct Header {
    metadata: BTreeMap<&'static str, String>,
    infos: Vec<(String, TensorInfo)>,
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.infos.len()))?;
        map.serialize_entry("__metadata__", &self.metadata)?;
        for (name, info) in &self.infos {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

fn torch_dtype(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U8 => Dtype::U8,
        DType::Bool(_) => Dtype::BOOL,
        _ => return None,
    })
}
