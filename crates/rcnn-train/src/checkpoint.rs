//! Checkpoints that are complete or absent, and that know when they were changed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::record::{
    FileRecorder, FullPrecisionSettings, NamedMpkBytesRecorder, Record, Recorder, RecorderError,
};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn_train::{
    Learner, LearnerModelRecord, LearnerOptimizerRecord, LearnerSchedulerRecord,
    LearningComponentsTypes,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::TrainError;

/// Parts of an epoch's checkpoint, as burn-train names them.
const PARTS: [&str; 3] = ["model", "optim", "scheduler"];

/// Stands behind the record, before its SHA-256. Files of earlier versions have neither.
const SEAL: &[u8] = b"sha256:\n";

/// Burn's MessagePack recorder, with files that are whole and sealed.
#[derive(Debug, Default, Clone)]
pub(crate) struct WholeFileRecorder(NamedMpkBytesRecorder<FullPrecisionSettings>);

impl<B: Backend> Recorder<B> for WholeFileRecorder {
    type Settings = FullPrecisionSettings;
    type RecordArgs = PathBuf;
    type RecordOutput = ();
    type LoadArgs = PathBuf;

    fn save_item<I: Serialize>(&self, item: I, path: PathBuf) -> Result<(), RecorderError> {
        let mut bytes = Recorder::<B>::save_item(&self.0, item, ())?;
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(SEAL);
        bytes.extend_from_slice(&digest);
        let written = write_whole(&with_extension(&path), &bytes);
        written.map_err(|error| RecorderError::Unknown(error.to_string()))
    }

    fn load_item<I: DeserializeOwned>(&self, path: &mut PathBuf) -> Result<I, RecorderError> {
        let (mut bytes, _) = read(&with_extension(path))
            .map_err(|error| RecorderError::DeserializeError(error.to_string()))?;
        let load = |bytes: &mut Vec<u8>| Recorder::<B>::load_item(&self.0, bytes);
        load(&mut bytes).or_else(|error| load(&mut renamed(&bytes).ok_or(error)?))
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

/// The record in a file, without its seal, and whether it had one.
fn read(path: &Path) -> Result<(Vec<u8>, bool), TrainError> {
    let mut bytes = fs::read(path).map_err(TrainError::io(path))?;
    let end = bytes.len().saturating_sub(SEAL.len() + 32);
    let Some(digest) = bytes[end..].strip_prefix(SEAL) else {
        return Ok((bytes, false));
    };
    if *digest != *Sha256::digest(&bytes[..end]) {
        let reason = "the checksum is not that of the contents";
        return Err(damaged(path, reason.into()));
    }
    bytes.truncate(end);
    Ok((bytes, true))
}

/// A record of version 0.1.0 with today's names: the variant `Stage` of the box head was then named after its network.
/// In MessagePack a text of n bytes begins with `0xa0 + n`, and an enum is a map of one entry, `0x81`.
fn renamed(bytes: &[u8]) -> Option<Vec<u8>> {
    const BEFORE: &[u8] = b"\xa8box_head\x81\xabInceptionV2";
    const NOW: &[u8] = b"\xa8box_head\x81\xa5Stage";
    let mut places = bytes.windows(BEFORE.len());
    let at = places.position(|place| place == BEFORE)?;
    Some([&bytes[..at], NOW, &bytes[at + BEFORE.len()..]].concat())
}

fn damaged(path: &Path, reason: String) -> TrainError {
    TrainError::Damaged {
        path: path.into(),
        reason,
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    rcnn_files::write_whole(path, |file| file.write_all(bytes))
        .map_err(|error| TrainError::io(path)(error.source))
}

/// Reads a JSON file of a run.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text = fs::read_to_string(path).map_err(TrainError::io(path))?;
    serde_json::from_str(&text).map_err(|error| damaged(path, error.to_string()))
}

/// Where a part of an epoch's checkpoint is.
fn part(folder: &Path, part: &str, epoch: usize) -> PathBuf {
    with_extension(&folder.join(format!("{part}-{epoch}")))
}

/// The epochs whose checkpoints have all parts.
pub(crate) fn complete(folder: &Path) -> Vec<usize> {
    let files = fs::read_dir(folder).into_iter().flatten();
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
    epochs.filter(complete).collect()
}

/// Whether burn-train, which panics otherwise, will be able to load a checkpoint.
pub(crate) fn check<C, LC>(
    folder: &Path,
    epoch: usize,
    _learner: &Learner<LC>,
) -> Result<(), TrainError>
where
    LC: LearningComponentsTypes<Backend = C>,
    C: AutodiffBackend,
{
    fn check<C: Backend, R: Record<C>>(path: PathBuf) -> Result<(), TrainError> {
        let (bytes, sealed) = read(&path)?;
        let loaded = WholeFileRecorder::default().load::<R>(path.clone(), &Default::default());
        // Burn's own reason is a guess at the version that wrote it.
        let wrong = |_| match sealed {
            true => damaged(&path, "the record of another model or optimizer".into()),
            false => damaged(&path, format!("cut off after {} bytes", bytes.len())),
        };
        loaded.map(|_: R| ()).map_err(wrong)
    }
    let [model, optimizer, scheduler] = PARTS.map(|name| part(folder, name, epoch));
    check::<C, LearnerModelRecord<LC>>(model)?;
    check::<C, LearnerOptimizerRecord<LC>>(optimizer)?;
    check::<C, LearnerSchedulerRecord<LC>>(scheduler)
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    use rcnn_core::Flex;

    use super::*;

    #[derive(Module, Debug)]
    struct Before<B: Backend> {
        box_head: HeadBefore<B>,
    }

    #[derive(Module, Debug)]
    enum HeadBefore<B: Backend> {
        InceptionV2(Linear<B>),
    }

    #[derive(Module, Debug)]
    struct Now<B: Backend> {
        box_head: HeadNow<B>,
    }

    #[derive(Module, Debug)]
    enum HeadNow<B: Backend> {
        Stage(Linear<B>),
    }

    /// The name of a variant is in the records of a run that is resumed.
    #[test]
    fn a_record_with_the_former_name_of_the_box_head_opens() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, device) = (folder.path().join("model-1"), Default::default());
        let linear = || LinearConfig::new(2, 3).init::<Flex>(&device);
        let before = Before {
            box_head: HeadBefore::InceptionV2(linear()),
        };
        let HeadBefore::InceptionV2(written) = &before.box_head;
        let written = written.weight.val().into_data();
        let recorder = WholeFileRecorder::default();
        Recorder::<Flex>::record(&recorder, before.into_record(), path.clone()).expect("a record");

        let now = Now {
            box_head: HeadNow::Stage(linear()),
        };
        let record = Recorder::<Flex>::load(&recorder, path, &device).expect("a record");
        let HeadNow::Stage(read) = now.load_record(record).box_head;
        assert_eq!(read.weight.val().into_data(), written);
    }
}
