//! Burn's own file format, below [`Checkpoint`](crate::Checkpoint) and [`Weights`]: a header in CBOR, and the data,
//! aligned to 256 bytes.
//!
//! Names are torchvision's. The one thing in which Burn's layout differs from torch's is the weight of a linear layer,
//! `[in, out]` there and `[out, in]` here, so that a square one that is taken for the other is silently transposed. Files
//! have Burn's layout and say so in their metadata; those of before have torch's and no such entry. Either way
//! [`Checkpoint`](crate::Checkpoint) shows torch's.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::DType;
use burn_store::{BurnpackWriter, TensorSnapshot};
use serde::Deserialize;

use crate::checkpoint::Contents;
use crate::error::CheckpointError;
use crate::source::Source;
use crate::state_dict::{ReadErrors, StateTensor, transpose};
use crate::storage::StoredTensor;
use crate::weights::{CONFIG_KEY, Weights, WeightsError, write};

/// What a file begins with.
pub(crate) const MAGIC: &[u8] = b"NRUB";

/// Key of the linear layers' layout in the metadata, and the only value that is written.
const LAYOUT_KEY: &str = "rcnn_burn_linear_layout";
const BURN_LAYOUT: &str = "in_out";

/// Precision of the floating-point weights of a burnpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits for matrices and kernels; norms and biases, which are small and whose variances f16
    /// could not hold, stay at 32.
    F16,
}

/// The header, as burn-store writes it.
#[derive(Deserialize)]
struct Header {
    tensors: BTreeMap<String, Tensor>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    /// Begin and end in the data section, in bytes.
    data_offsets: (usize, usize),
}

/// Reads the header: magic number, version in 2 bytes, length in 4, then CBOR.
pub(crate) fn read(source: &Arc<Source>) -> Result<Contents, CheckpointError> {
    const ALIGNMENT: usize = 256;
    const NESTING: usize = 64;
    if let Some(version) = source.head()?.get(4..6)
        && version != [1, 0]
    {
        return Err(source.unsupported(format!(
            "burnpack version {version:?}; only version 1 is supported"
        )));
    }
    let (header, end) = source.header(6, |length| u32::from_le_bytes(length).into())?;
    let Header { tensors, metadata } =
        ciborium::de::from_reader_with_recursion_limit(header.as_slice(), NESTING)
            .map_err(|error| source.corrupt(format!("burnpack header: {error}")))?;
    let is_burns = match metadata.get(LAYOUT_KEY).map(String::as_str) {
        None => false,
        Some(BURN_LAYOUT) => true,
        Some(other) => {
            return Err(source.unsupported(format!(
                "its linear layers have the layout `{other}`; expected `{BURN_LAYOUT}`"
            )));
        }
    };
    let start = end.next_multiple_of(ALIGNMENT);
    // The header is sorted by name; the data lies in the order of the module's fields.
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut contents = Contents {
        metadata,
        ..Default::default()
    };
    for (name, tensor) in tensors {
        let Tensor {
            dtype,
            shape,
            data_offsets: (from, to),
        } = tensor;
        let range = start.saturating_add(from)..start.saturating_add(to);
        if matches!(dtype, DType::QFloat(_)) {
            source.require(&name, &range)?;
            contents.leave_out(source.unsupported_dtype(&name, dtype.name()));
            continue;
        }
        let mut tensor = StoredTensor::whole(source, &name, range, shape, dtype)?;
        if is_burns && is_linear(&name, &tensor.shape, dtype) {
            tensor = tensor.transposed();
        }
        contents.tensors.insert(name, tensor);
    }
    Ok(contents)
}

/// Whether a tensor is a linear layer's weight: detectors have no other matrices.
fn is_linear(name: &str, shape: &[usize], dtype: DType) -> bool {
    shape.len() == 2 && dtype.is_float() && name.rsplit('.').next() == Some("weight")
}

impl Weights {
    /// Writes a burnpack that opens by itself, configuration and class names inside. Weights are in Burn's layouts under
    /// torchvision's names, so that burn-store's `BurnpackStore` loads them as they are into modules with these names.
    ///
    /// # Errors
    /// When a tensor cannot be read or the file not be written; nothing is left behind.
    pub fn write_burnpack(
        &self,
        path: impl AsRef<Path>,
        precision: Precision,
    ) -> Result<(), WeightsError> {
        let errors = ReadErrors::default();
        let tensors = self.tensors.iter();
        let tensors = tensors.map(|(name, tensor)| stored(name, tensor, precision, &errors));
        let writer = BurnpackWriter::new(tensors.collect())
            .with_metadata(CONFIG_KEY, &self.config_json())
            .with_metadata(LAYOUT_KEY, BURN_LAYOUT);
        write(path.as_ref(), |file| {
            let written = writer.write_to_file(file.path());
            written.map_err(|error| {
                io::Error::other(errors.first().unwrap_or_else(|| error.to_string()))
            })
        })
    }
}

/// The tensor as a burnpack stores it.
fn stored(
    name: &str,
    tensor: &StateTensor,
    precision: Precision,
    errors: &ReadErrors,
) -> TensorSnapshot {
    let dtype = match precision {
        _ if !tensor.dtype.is_float() => tensor.dtype,
        Precision::F16 if tensor.shape.len() > 1 => DType::F16,
        _ => DType::F32,
    };
    let mut shape = tensor.shape.clone();
    let linear = is_linear(name, &shape, dtype);
    if linear {
        shape.reverse();
    }
    tensor.snapshot(name, shape, dtype, errors, move |data| {
        let data = if linear { transpose(data) } else { data };
        data.convert_dtype(dtype)
    })
}
