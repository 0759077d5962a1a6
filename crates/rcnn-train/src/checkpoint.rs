//! Checkpoints that are complete or absent.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::record::{
    FileRecorder, FullPrecisionSettings, NamedMpkBytesRecorder, Recorder, RecorderError,
};
use burn::tensor::backend::Backend;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::TrainError;

/// Parts of an epoch's checkpoint, as burn-train names them.
const PARTS: [&str; 3] = ["model", "optim", "scheduler"];

/// Burn's MessagePack recorder, with files that are whole.
#[derive(Debug, Default, Clone)]
pub(crate) struct WholeFileRecorder(NamedMpkBytesRecorder<FullPrecisionSettings>);

impl<B: Backend> Recorder<B> for WholeFileRecorder {
    type Settings = FullPrecisionSettings;
    type RecordArgs = PathBuf;
    type RecordOutput = ();
    type LoadArgs = PathBuf;

    fn save_item<I: Serialize>(&self, item: I, path: PathBuf) -> Result<(), RecorderError> {
        let bytes = Recorder::<B>::save_item(&self.0, item, ())?;
        let written = write_whole(&with_extension(&path), &bytes);
        written.map_err(|error| RecorderError::Unknown(error.to_string()))
    }

    fn load_item<I: DeserializeOwned>(&self, path: &mut PathBuf) -> Result<I, RecorderError> {
        let path = with_extension(path);
        let wrong = |reason: String| {
            RecorderError::DeserializeError(format!("{}: {reason}", path.display()))
        };
        let mut bytes = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        Recorder::<B>::load_item(&self.0, &mut bytes).map_err(|error| wrong(error.to_string()))
    }
}

impl<B: Backend> FileRecorder<B> for WholeFileRecorder {
    fn file_extension() -> &'static str {
        "mpk"
    }
}

fn with_extension(path: &Path) -> PathBuf {
    path.with_extension("mpk")
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    rcnn_files::write_whole(path, |file| file.write_all(bytes))
        .map_err(|error| TrainError::io(path)(error.source))
}

/// Where a part of an epoch's checkpoint is.
pub(crate) fn part(folder: &Path, part: &str, epoch: usize) -> PathBuf {
    with_extension(&folder.join(format!("{part}-{epoch}")))
}

/// The last epoch whose checkpoint has all parts.
pub(crate) fn last_complete(folder: &Path) -> Option<usize> {
    let files = fs::read_dir(folder).ok()?;
    let epochs = files.filter_map(|file| {
        let name = file.ok()?.file_name().into_string().ok()?;
        name.strip_prefix("model-")?
            .strip_suffix(".mpk")?
            .parse()
            .ok()
    });
    let complete = |epoch: &usize| {
        PARTS
            .iter()
            .all(|name| part(folder, name, *epoch).is_file())
    };
    epochs.filter(complete).max()
}
