//! Checkpoints in several files, as Hugging Face's libraries write large ones: `model.safetensors.index.json` says which
//! file has which tensor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Deserialize;

use crate::Checkpoint;
use crate::error::CheckpointError;
use crate::source::{MAX_HEADER, Source};
use crate::storage::StoredTensor;
use crate::tensorflow;

/// The weights in a folder that such libraries save a model into, the best first.
const PLACES: [&str; 4] = [
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
];

/// The part of an index that is read.
#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// The file that a path means: of a folder its weights, of a part of a checkpoint its index.
///
/// # Errors
/// When there is no index beside a part, and as [`tensorflow::locate`].
pub(crate) fn locate(path: &Path) -> Result<PathBuf, CheckpointError> {
    let unsupported = |reason: String| CheckpointError::Unsupported {
        path: path.into(),
        reason,
    };
    if is_distributed(path) {
        let reason = "a checkpoint of torch.distributed; save it as one file with \
                      torch.distributed.checkpoint.format_utils.dcp_to_torch_save";
        return Err(unsupported(reason.into()));
    }
    if path.is_dir() {
        let mut places = PLACES.iter().map(|place| path.join(place));
        if let Some(found) = places.find(|place| place.is_file()) {
            return Ok(found);
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match index_of(&name).map(|index| path.with_file_name(index)) {
        Some(index) if index.is_file() => Ok(index),
        Some(index) if path.is_file() => Err(unsupported(format!(
            "a part of a checkpoint whose index, {}, is not beside it",
            index.file_name().unwrap_or_default().display()
        ))),
        _ => tensorflow::locate(path),
    }
}

/// Whether this is a shard that torch.distributed.checkpoint writes, or a folder with one.
fn is_distributed(path: &Path) -> bool {
    let is_shard = |path: &Path| path.extension().is_some_and(|end| end == "distcp");
    is_shard(path) || path.join("__0_0.distcp").is_file()
}

/// The index of a file that is one of several: `model-00001-of-00002.safetensors` has `model.safetensors.index.json`.
fn index_of(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.')?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let is_one_of_several = is_number(number) && is_number(count) && count != "00001";
    is_one_of_several.then(|| format!("{stem}.{extension}.index.json"))
}

/// Reads the checkpoint whose index a file is; `None` for any other file.
///
/// # Errors
/// When the index names what is not there, and those of reading its files.
pub(crate) fn read(source: &Arc<Source>) -> Result<Option<Checkpoint>, CheckpointError> {
    let is_json = source.head()?.trim_ascii_start().starts_with(b"{");
    if !is_json || source.len() > MAX_HEADER {
        return Ok(None);
    }
    let Ok(Index { weight_map }) = serde_json::from_slice(&source.read(0..source.len())?) else {
        return Ok(None);
    };
    let mut files: IndexMap<&str, Checkpoint> = IndexMap::new();
    let mut tensors: IndexMap<String, StoredTensor> = IndexMap::new();
    for (name, file) in &weight_map {
        if !files.contains_key(file.as_str()) {
            // No file of another folder is opened for what an index says.
            if Path::new(file).file_name() != Some(file.as_ref()) {
                return Err(source.corrupt(format!("`{file}` is not the name of a file beside it")));
            }
            let part = Source::open(&source.path.with_file_name(file))?;
            files.insert(file, Checkpoint::read(part)?);
        }
        let tensor = files[file.as_str()].get(name);
        let tensor = tensor.ok_or_else(|| {
            source.corrupt(format!("`{name}` is not in {file}, where it should be"))
        })?;
        tensors.insert(name.clone(), tensor.clone());
    }
    let mut parts = files.into_values();
    let Some(mut whole) = parts.next() else {
        return Err(source.not_a_state_dict("its index lists no tensors"));
    };
    for part in parts {
        whole.file_size += part.file_size;
        whole.metadata.extend(part.metadata);
        whole.notes.extend(part.notes);
    }
    Ok(Some(whole.with(source, tensors)))
}

#[cfg(test)]
mod tests {
    use super::index_of;

    #[test]
    fn parts_have_the_index_of_the_whole() {
        for (name, index) in [
            (
                "model-00002-of-00003.safetensors",
                Some("model.safetensors.index.json"),
            ),
            (
                "pytorch_model-00001-of-00002.bin",
                Some("pytorch_model.bin.index.json"),
            ),
            ("model-00001-of-00001.safetensors", None),
            ("model.ckpt.data-00000-of-00001", None),
            ("two-of-three.pth", None),
        ] {
            assert_eq!(index_of(name).as_deref(), index, "{name}");
        }
    }
}
