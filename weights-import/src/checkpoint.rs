//! A checkpoint file of any of the formats read, told apart by content: the tensors that other modules match with a
//! model's parameters.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::error::CheckpointError;
use crate::storage::{Source, StoredTensor};
use crate::{flat, pytorch};

/// How a checkpoint is written down.
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
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchZip => "PyTorch zip",
            Self::TorchLegacy => "PyTorch legacy",
            Self::Safetensors => "safetensors",
            Self::Burnpack => "burnpack",
        })
    }
}

/// What a format's reader finds in a file.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tensors: IndexMap<String, StoredTensor>,
}

/// An open checkpoint file: its tensors by name, in the order of the file.
///
/// Opening maps the file and checks every tensor's extent against it; the data stays in the file until
/// [`StoredTensor::data`] copies it.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// How it is written down.
    pub format: Format,
    /// Its size in bytes.
    pub file_size: u64,
    /// The key-value pairs of a safetensors or burnpack header; PyTorch's formats have none.
    pub metadata: BTreeMap<String, String>,
    tensors: IndexMap<String, StoredTensor>,
}

impl Checkpoint {
    /// Opens a file of any format, whatever its extension. No code in it is run.
    ///
    /// Names are the dotted paths of nested dicts' keys: `{"model": {"fc.weight": ..}}` gives `model.fc.weight`.
    ///
    /// # Errors
    ///
    /// Each variant of [`CheckpointError`]: the file is missing, empty, of another kind, cut off, damaged, or holds
    /// something else than tensors by name.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::read(&Source::open(path.as_ref())?)
    }

    /// Reads a file that is built into the program (`include_bytes!`); `name` stands for its path.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        Self::read(&Source::of_static(name, bytes))
    }

    fn read(source: &Arc<Source>) -> Result<Self, CheckpointError> {
        let format = format_of(source)?;
        let Contents { metadata, tensors } = match format {
            Format::TorchZip => pytorch::zip(source),
            Format::TorchLegacy => pytorch::legacy(source),
            Format::Safetensors => flat::safetensors(source),
            Format::Burnpack => flat::burnpack(source),
        }?;
        Ok(Self {
            path: source.path.clone(),
            file_size: source.bytes().len() as u64,
            format,
            metadata,
            tensors,
        })
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
    let bytes = source.bytes();
    if bytes.starts_with(b"PK\x03\x04") {
        Ok(Format::TorchZip)
    } else if bytes.starts_with(flat::BURNPACK_MAGIC) {
        Ok(Format::Burnpack)
    } else if is_safetensors(bytes) {
        Ok(Format::Safetensors)
    } else if pytorch::is_legacy(bytes) {
        Ok(Format::TorchLegacy)
    } else {
        Err(source.unknown(describe(bytes)))
    }
}

/// The length of a header that may be, then the brace that its JSON begins with.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, [b'{', ..])) = bytes.split_first_chunk() else {
        return false;
    };
    u64::from_le_bytes(*length) <= flat::MAX_HEADER as u64
}

/// Names what is not a checkpoint by its first bytes.
fn describe(bytes: &[u8]) -> String {
    const KNOWN: [(&[u8], &str); 10] = [
        (b"PK", "an empty or split zip archive"),
        (b"\x1f\x8b", "a gzip archive (unpack it first)"),
        (b"\x89HDF", "an HDF5 file, as Keras writes"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"GGUF", "a GGUF file"),
        (b"\x89PNG", "a PNG image"),
        (b"\xff\xd8\xff", "a JPEG image"),
        (b"%PDF", "a PDF document"),
        (
            b"version https://git-lfs",
            "a Git LFS pointer (fetch the file itself, with `git lfs pull`)",
        ),
        (b"\x80", "a Python pickle that torch.save did not write"),
    ];
    let start = &bytes[..bytes.len().min(512)];
    if let Some((_, name)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return name.to_string();
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return "a tar archive (unpack it; torch.save of before PyTorch 0.2 is not read)".into();
    }
    if start.iter().all(|&byte| byte == 0) {
        return "a run of zeros (a download that never arrived?)".into();
    }
    let text = String::from_utf8_lossy(start).trim_start().to_lowercase();
    match text {
        text if text.starts_with("<!doctype html") || text.starts_with("<html") => {
            "an HTML page (a download page instead of the download?)".into()
        }
        text if text.starts_with("<?xml") => "an XML file".into(),
        text if text.starts_with(['{', '[']) => "a JSON file".into(),
        text if !text.contains(|c: char| {
            c == char::REPLACEMENT_CHARACTER || c.is_control() && !c.is_whitespace()
        }) =>
        {
            "text".into()
        }
        _ => format!(
            "a file of an unknown kind that begins with the bytes {:02x?}",
            &start[..start.len().min(8)]
        ),
    }
}
