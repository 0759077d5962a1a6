//! The two formats that are a header and one run of data, below [`Checkpoint`](crate::Checkpoint): safetensors
//! (a JSON header) and burnpack (a CBOR header, data aligned to 256 bytes).

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{BoolStore, DType};
use safetensors::Dtype;
use serde::Deserialize;

use crate::checkpoint::Contents;
use crate::error::CheckpointError;
use crate::storage::{Source, StoredTensor};

/// The most that the header of either format may take, in bytes (the limit of their own readers).
pub(crate) const MAX_HEADER: usize = 100 << 20;

/// What a burnpack file begins with.
pub(crate) const BURNPACK_MAGIC: &[u8] = b"NRUB";

/// Reads the header of a safetensors file: its length in 8 bytes, then JSON.
pub(crate) fn safetensors(source: &Arc<Source>) -> Result<Contents, CheckpointError> {
    let (header, start) = header::<8>(source, 0, u64::from_le_bytes)?;
    let header: safetensors::tensor::Metadata = serde_json::from_slice(header)
        .map_err(|error| source.corrupt(format!("safetensors header: {error}")))?;
    let mut contents = Contents::default();
    contents
        .metadata
        .extend(header.metadata().clone().unwrap_or_default());
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else {
            continue;
        };
        let dtype = burn_dtype(info.dtype)
            .ok_or_else(|| source.unsupported_dtype(&name, info.dtype.to_string()))?;
        let (from, to) = info.data_offsets;
        let range = start.saturating_add(from)..start.saturating_add(to);
        let tensor = StoredTensor::whole(source, &name, range, info.shape.clone(), dtype)?;
        contents.tensors.insert(name, tensor);
    }
    Ok(contents)
}

/// The header of a burnpack file, as burn-store writes it.
#[derive(Deserialize)]
struct Burnpack {
    tensors: BTreeMap<String, BurnpackTensor>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct BurnpackTensor {
    dtype: DType,
    shape: Vec<usize>,
    /// Begin and end in the data section, in bytes.
    data_offsets: (usize, usize),
}

/// Reads the header of a burnpack file: magic number, version in 2 bytes, length in 4, then CBOR.
pub(crate) fn burnpack(source: &Arc<Source>) -> Result<Contents, CheckpointError> {
    const ALIGNMENT: usize = 256;
    const NESTING: usize = 64;
    if let Some(version) = source
        .bytes()
        .get(4..6)
        .filter(|version| *version != [1, 0])
    {
        return Err(source.unsupported(format!(
            "burnpack version {version:?}, where version 1 is read"
        )));
    }
    let (header, end) = header::<4>(source, 6, |length| u32::from_le_bytes(length).into())?;
    let header: Burnpack = ciborium::de::from_reader_with_recursion_limit(header, NESTING)
        .map_err(|error| source.corrupt(format!("burnpack header: {error}")))?;
    let start = end.next_multiple_of(ALIGNMENT);
    // The header is sorted by name; the data lies in the order of the module's fields.
    let mut tensors: Vec<_> = header.tensors.into_iter().collect();
    tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut contents = Contents {
        metadata: header.metadata,
        ..Default::default()
    };
    for (
        name,
        BurnpackTensor {
            dtype,
            shape,
            data_offsets: (from, to),
        },
    ) in tensors
    {
        if matches!(dtype, DType::QFloat(_)) {
            return Err(source.unsupported_dtype(&name, dtype.name()));
        }
        let range = start.saturating_add(from)..start.saturating_add(to);
        let tensor = StoredTensor::whole(source, &name, range, shape, dtype)?;
        contents.tensors.insert(name, tensor);
    }
    Ok(contents)
}

/// The header whose length, of `N` bytes, stands at `at`, and the place where it ends.
fn header<const N: usize>(
    source: &Source,
    at: usize,
    length: impl Fn([u8; N]) -> u64,
) -> Result<(&[u8], usize), CheckpointError> {
    let rest = &source.bytes()[at.min(source.bytes().len())..];
    let Some((field, rest)) = rest.split_first_chunk() else {
        return Err(source.truncated(
            format!("a header of {} bytes or more", at + N),
            source.bytes().len(),
        ));
    };
    match usize::try_from(length(*field)) {
        Ok(length) if length > MAX_HEADER => {
            Err(source.corrupt(format!("a header of {length} bytes")))
        }
        Ok(length) if length <= rest.len() => Ok((&rest[..length], at + N + length)),
        Ok(length) => Err(source.truncated(format!("a header of {length} bytes"), rest.len())),
        Err(_) => Err(source.corrupt("a header longer than memory")),
    }
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
