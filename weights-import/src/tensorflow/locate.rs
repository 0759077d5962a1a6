//! Files of a model by what people have: its folder, the prefix of a checkpoint, one of its files.

use std::fs;
use std::path::{Path, PathBuf};

use super::text::Message;
use crate::CheckpointError;

/// Where the weights lie in a folder, the best first.
const PLACES: [&str; 5] = [
    "frozen_inference_graph.pb",
    "variables/variables.index",
    "saved_model/variables/variables.index",
    "saved_model.pb",
    "saved_model/saved_model.pb",
];

/// The most that a text beside the weights may have, in bytes.
const MAX_TEXT: u64 = 16 << 20;

/// The file that a path means: of a folder that has a model the one with its weights; of a checkpoint's prefix
/// (`model.ckpt`) and of its other files its index; every other path itself.
///
/// # Errors
/// When a folder has no model, or several.
pub(crate) fn locate(path: &Path) -> Result<PathBuf, CheckpointError> {
    if path.is_dir() {
        return in_folder(path);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let index = match name.rsplit_once(".data-") {
        Some((prefix, shard)) if shard.contains("-of-") => {
            path.with_file_name(format!("{prefix}.index"))
        }
        _ if name == "saved_model.pb" => path.with_file_name("variables").join("variables.index"),
        _ if name.ends_with(".meta") => path.with_extension("index"),
        _ if path.exists() => return Ok(path.into()),
        _ => path.with_file_name(format!("{name}.index")),
    };
    match index.is_file() {
        true => Ok(index),
        false if path.is_file() && name != "saved_model.pb" => Err(CheckpointError::Unsupported {
            path: path.into(),
            reason: format!(
                "a part of a TensorFlow checkpoint whose index, {}, is not beside it",
                index.file_name().unwrap_or_default().display()
            ),
        }),
        false => Ok(path.into()),
    }
}

/// Whether there is a file or folder at this path, or a TensorFlow checkpoint that has it as its prefix.
pub fn exists(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    path.exists() || locate(path).is_ok_and(|file| file.exists())
}

fn in_folder(folder: &Path) -> Result<PathBuf, CheckpointError> {
    let mut places = PLACES.iter().map(|place| folder.join(place));
    if let Some(found) = places.find(|place| place.is_file()) {
        return locate(&found);
    }
    let unsupported = |reason: String| CheckpointError::Unsupported {
        path: folder.into(),
        reason,
    };
    let latest = latest(folder);
    if let Some(latest) = latest.filter(|latest| latest.is_file()) {
        return Ok(latest);
    }
    let mut found = with_extension(folder, "index");
    match (found.pop(), found.pop()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(unsupported(
            "a folder with several checkpoints: give the .index file of one".into(),
        )),
        (None, _) => Err(unsupported(format!(
            "a folder without a TensorFlow model: expected a file of weights, or a folder with {} or a checkpoint (*.index)",
            PLACES.join(", ")
        ))),
    }
}

/// The index of the last checkpoint of a training, as the file `checkpoint` names it.
fn latest(folder: &Path) -> Option<PathBuf> {
    let state = Message::parse(&read_text(&folder.join("checkpoint")).ok()?).ok()?;
    let prefix = Path::new(state.text("model_checkpoint_path")?);
    // The path is that of the machine it was trained on.
    let name = prefix.file_name()?.to_string_lossy();
    Some(folder.join(format!("{name}.index")))
}

/// Files of a folder with this extension, by name.
pub(super) fn with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.is_file() && path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// Reads a text file of a size that it may have.
///
/// # Errors
/// Says why it cannot be read.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_TEXT {
        return Err(format!("{size} bytes: expected at most {MAX_TEXT}"));
    }
    rcnn_files::read_text(path).map_err(|error| error.to_string())
}

/// The file of a name in the folder of a model that these weights are part of: beside them, or around the folders that a
/// `SavedModel` and a checkpoint have of their own.
pub(super) fn beside(weights: &Path, find: impl Fn(&Path) -> Option<PathBuf>) -> Option<PathBuf> {
    let mut folder = weights.parent()?;
    loop {
        if let Some(found) = find(folder) {
            return Some(found);
        }
        let name = folder.file_name()?.to_string_lossy();
        let is_part = matches!(&*name, "variables" | "saved_model" | "checkpoint");
        folder = folder.parent().filter(|_| is_part)?;
    }
}
