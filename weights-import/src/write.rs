//! Writes weights: burnpack for this project, safetensors for torchvision. A file is complete or
//! absent.

use std::io::Write;
use std::path::Path;
use std::rc::Rc;

use burn::tensor::DType;
use burn_store::{BurnpackWriter, TensorSnapshot};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::state_dict::snapshot;
use crate::weights::{CONFIG_KEY, Weights, WeightsError};

/// How the floating-point weights of a burnpack are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits for matrices and kernels; norms and biases, which are small and whose variances f16
    /// could not hold, stay at 32.
    F16,
}

impl Weights {
    /// Writes a burnpack that opens by itself, configuration and class names inside. Weights are in
    /// torch's layouts under torchvision's names.
    ///
    /// # Errors
    /// When a tensor can't be read or the file not be written; nothing is left behind.
    pub fn write_burnpack(
        &self,
        path: impl AsRef<Path>,
        precision: Precision,
    ) -> Result<(), WeightsError> {
        let path = path.as_ref();
        let tensors = self
            .tensors
            .iter()
            .map(|(name, t)| stored(name, t, precision))
            .collect();
        let writer = BurnpackWriter::new(tensors).with_metadata(CONFIG_KEY, &self.config_json());
        replace(path, |file| {
            writer.write_to_file(file.path()).map_err(|e| e.to_string())
        })
    }

    /// Writes a safetensors file that torchvision's `load_state_dict(strict=True)` accepts, in the
    /// precision that the weights have.
    ///
    /// # Errors
    /// When a tensor can't be read or the file not be written; nothing is left behind.
    pub fn write_safetensors(&self, path: impl AsRef<Path>) -> Result<(), WeightsError> {
        replace(path.as_ref(), |file| {
            self.stream_safetensors(file).map_err(|e| e.to_string())
        })
    }

    /// Tensor by tensor, where the safetensors crate would want all in memory.
    fn stream_safetensors(&self, file: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
        let mut infos = Vec::new();
        let mut end = 0;
        for (name, tensor) in &self.tensors {
            let start = end;
            end += tensor.data_len();
            let dtype = safetensors_dtype(tensor.dtype)
                .ok_or_else(|| format!("{name}: safetensors has no {:?}", tensor.dtype))?;
            let info = TensorInfo {
                dtype,
                shape: tensor.shape.to_vec(),
                data_offsets: (start, end),
            };
            infos.push((name.clone(), info));
        }
        let config = [
            (CONFIG_KEY.to_string(), self.config_json()),
            ("format".into(), "pt".into()),
        ];
        let header = Metadata::new(Some(config.into()), infos)?;
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (name, tensor) in &self.tensors {
            let data = tensor.to_data().map_err(|error| error.to_string())?;
            let (expected, found) = (tensor.data_len(), data.as_bytes().len());
            if expected != found {
                return Err(format!("{name}: {expected} bytes expected, {found} found").into());
            }
            file.write_all(data.as_bytes())?;
        }
        Ok(())
    }

    fn config_json(&self) -> String {
        serde_json::to_string(&self.config).expect("a configuration is plain data")
    }
}

/// The tensor as a burnpack stores it.
fn stored(name: &str, tensor: &TensorSnapshot, precision: Precision) -> TensorSnapshot {
    let target = match precision {
        _ if !tensor.dtype.is_float() => tensor.dtype,
        Precision::F16 if tensor.shape.num_dims() > 1 => DType::F16,
        _ => DType::F32,
    };
    let data = tensor.clone_data_fn();
    let data = Rc::new(move || Ok(data()?.convert_dtype(target)));
    snapshot(name, target, tensor.shape.to_vec(), data)
}

fn safetensors_dtype(dtype: DType) -> Option<Dtype> {
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

/// Writes beside the target and renames when all is there.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut tempfile::NamedTempFile) -> Result<(), String>,
) -> Result<(), WeightsError> {
    let error = |reason: String| WeightsError::Write {
        path: path.into(),
        reason,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| error(e.to_string()))?;
    write(&mut file).map_err(error)?;
    file.as_file()
        .sync_all()
        .map_err(|e| error(e.to_string()))?;
    #[cfg(unix)]
    {
        // Temporary files are private; a model is an ordinary file.
        use std::os::unix::fs::PermissionsExt;
        let permissions = std::fs::Permissions::from_mode(0o644);
        file.as_file()
            .set_permissions(permissions)
            .map_err(|e| error(e.to_string()))?;
    }
    file.persist(path).map_err(|e| error(e.error.to_string()))?;
    Ok(())
}
