//! A checkpoint file of any of the formats read, told apart by content: the tensors that other modules match with a
//! model's parameters.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use rcnn_files::Content;

use crate::error::CheckpointError;
use crate::source::Source;
use crate::storage::StoredTensor;
use crate::{burnpack, names, published, pytorch, safetensors, shards, tensorflow};

/// File format of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `torch.save` since PyTorch 1.6: a zip archive.
    TorchZip,
    /// `torch.save` before PyTorch 1.6: pickles, then raw storages.
    TorchLegacy,
    /// A JSON header and the data.
    Safetensors,
    /// Burn's own: a CBOR header and the data.
    Burnpack,
    /// A graph of TensorFlow whose variables are constants: `frozen_inference_graph.pb`, or inside a `saved_model.pb`.
    TensorflowGraph,
    /// A checkpoint of TensorFlow: an index and the data beside it.
    TensorflowCheckpoint,
}

impl Format {
    /// Whether this is a format of TensorFlow's.
    pub(crate) fn is_tensorflow(self) -> bool {
        matches!(self, Self::TensorflowGraph | Self::TensorflowCheckpoint)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchZip => "PyTorch zip",
            Self::TorchLegacy => "PyTorch legacy",
            Self::Safetensors => "safetensors",
            Self::Burnpack => "burnpack",
            Self::TensorflowGraph => "TensorFlow frozen graph",
            Self::TensorflowCheckpoint => "TensorFlow checkpoint",
        })
    }
}

/// What a format's reader finds in a file.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tensors: IndexMap<String, StoredTensor>,
    /// Contents of the file that are not read, and why.
    pub(crate) notes: Vec<String>,
    /// Why the first tensor that is not read is not.
    pub(crate) unreadable: Option<CheckpointError>,
}

impl Contents {
    /// How many notes are taken of a file that was made to harm.
    const MAX_NOTES: usize = 10_000;

    pub(crate) fn note(&mut self, note: String) {
        if self.notes.len() < Self::MAX_NOTES {
            self.notes.push(note);
        }
    }

    /// Leaves out a tensor of a kind that is not read: the error is what there is to say if all are.
    pub(crate) fn leave_out(&mut self, error: CheckpointError) {
        self.note(error.without_path());
        self.unreadable.get_or_insert(error);
    }

    /// Whether there is neither a tensor nor one that was left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.tensors.is_empty() && self.unreadable.is_none()
    }
}

/// An open checkpoint file: its tensors by name, in the order of the file, in torch's layouts; of TensorFlow's files in
/// TensorFlow's.
///
/// Opening reads what describes the tensors and checks every tensor's extent against the file; the data stays there until
/// [`StoredTensor::data`] reads it. The file stays open as long as any of its tensors is held: to replace it meanwhile is
/// safe, to write into it gives errors or the new numbers.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_ops::backend_types::*; pub use weights_import as weights; }
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// # std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/rcnn-core/assets/blood-cells.bpk"), "cells.bpk")?;
/// use rcnn_burn::weights::Checkpoint;
///
/// let checkpoint = Checkpoint::open("cells.bpk")?;
/// println!("{}, {} bytes", checkpoint.format, checkpoint.file_size);
/// for (name, tensor) in checkpoint.iter() {
///     println!("{name} {:?} {:?}", tensor.shape, tensor.dtype);
/// }
/// assert_eq!(checkpoint.notes, [""; 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// File format.
    pub format: Format,
    /// Its size in bytes.
    pub file_size: u64,
    /// The key-value pairs of a safetensors or burnpack header, and what a graph of TensorFlow says of its
    /// operations; other formats have none.
    pub metadata: BTreeMap<String, String>,
    /// Contents of the file that are not read, and why: "`class_counts` is not a dense tensor but ...".
    pub notes: Vec<String>,
    tensors: IndexMap<String, StoredTensor>,
    source: Arc<Source>,
}

impl Checkpoint {
    /// Opens a file of any format, whatever its extension. No code in it is run.
    ///
    /// Names are the dotted paths of nested dicts' keys: `{"model": {"fc.weight": ..}}` gives `model.fc.weight`.
    ///
    /// A checkpoint of several files goes by its index (`model.safetensors.index.json`), any of its parts or its folder.
    /// A model of TensorFlow's goes by its folder, its frozen graph, its `saved_model.pb`, and of a checkpoint by the
    /// prefix (`model.ckpt`) or any of its files.
    ///
    /// # Errors
    ///
    /// Each variant of [`CheckpointError`]: the file is missing, empty, of another kind, cut off, damaged, or holds
    /// something else than tensors by name.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let source = Source::open(&shards::locate(path.as_ref())?)?;
        match shards::read(&source)? {
            Some(checkpoint) => Ok(checkpoint),
            None => Self::read(source),
        }
    }

    /// Reads a file that is built into the program (`include_bytes!`); `name` stands for its path.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        Self::read(Source::from_static(name, bytes))
    }

    pub(crate) fn read(source: Arc<Source>) -> Result<Self, CheckpointError> {
        let format = format_of(&source)?;
        let Contents {
            metadata,
            tensors,
            notes,
            unreadable,
        } = match format {
            Format::TorchZip => pytorch::zip(&source),
            Format::TorchLegacy => pytorch::legacy(&source),
            Format::Safetensors => safetensors::read(&source),
            Format::Burnpack => burnpack::read(&source),
            Format::TensorflowGraph => tensorflow::read_graph(&source),
            Format::TensorflowCheckpoint => tensorflow::read_checkpoint(&source),
        }?;
        if let (true, Some(error)) = (tensors.is_empty(), unreadable) {
            return Err(error);
        }
        Ok(Self {
            path: source.path.clone(),
            file_size: source.len() as u64,
            format,
            metadata,
            notes,
            tensors,
            source,
        })
    }

    /// Other tensors, of the files that an index names.
    pub(crate) fn with(self, index: &Arc<Source>, tensors: IndexMap<String, StoredTensor>) -> Self {
        Self {
            path: index.path.clone(),
            source: index.clone(),
            tensors,
            ..self
        }
    }

    /// The tensors whose names begin with `prefix` and a dot, under what follows: of a checkpoint with `model` and
    /// `model_ema`, those of the one. It may go through several dicts and modules: `state_dict.detector`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NoSuchPrefix`] when there are none.
    pub fn within(&self, prefix: &str) -> Result<Self, CheckpointError> {
        let prefix = prefix.trim_end_matches('.');
        let name = |name: &str| Some(name.strip_prefix(prefix)?.strip_prefix('.')?.to_string());
        let within = self.iter();
        let within = within.filter_map(|(full, tensor)| Some((name(full)?, tensor.clone())));
        let tensors: IndexMap<String, StoredTensor> = within.collect();
        if tensors.is_empty() {
            return Err(CheckpointError::NoSuchPrefix {
                path: self.path.clone(),
                prefix: prefix.into(),
                candidates: names::models(self),
            });
        }
        Ok(Self {
            tensors,
            ..self.clone()
        })
    }

    /// The hexadecimal digits of the SHA-256 of the whole file.
    pub(crate) fn sha256(&self) -> Result<String, CheckpointError> {
        published::sha256(self.source.reader()).map_err(|error| self.source.io(error))
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether the file has no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensors' names.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// The tensors with their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &StoredTensor)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }
}

/// The format that the first bytes tell.
fn format_of(source: &Source) -> Result<Format, CheckpointError> {
    let head = source.head()?;
    if head.starts_with(b"PK\x03\x04") {
        Ok(Format::TorchZip)
    } else if head.starts_with(burnpack::MAGIC) {
        Ok(Format::Burnpack)
    } else if safetensors::begins(&head) {
        Ok(Format::Safetensors)
    } else if pytorch::is_legacy(&head) {
        Ok(Format::TorchLegacy)
    } else if tensorflow::is_graph(&head) {
        Ok(Format::TensorflowGraph)
    } else if tensorflow::is_index(source) {
        Ok(Format::TensorflowCheckpoint)
    } else if source
        .path
        .extension()
        .is_some_and(|extension| extension == "index")
    {
        Err(source.corrupt("it does not end as the index of a TensorFlow checkpoint does"))
    } else if head.starts_with(b"\x80") {
        Err(source.unknown("a Python pickle that torch.save did not write"))
    } else {
        Err(source.unknown(Content::sniff(&head).to_string()))
    }
}
