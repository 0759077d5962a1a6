//! What can be wrong with a checkpoint file, told apart by cause; every message names the file.

use std::io;
use std::path::PathBuf;

/// Why a checkpoint could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be opened, mapped or held in memory.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("{}: the file is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The first bytes belong to none of the formats read.
    #[error(
        "{}: this is {found}, not a checkpoint; read are files of torch.save (zip or legacy), safetensors and burnpack",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What the bytes look like: "an HTML page".
        found: String,
    },
    /// The file ends before its contents do: a broken download or copy.
    #[error("{}: the file is cut off: {expected} expected, {found} bytes found", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What should have been there: "64 bytes of storage `3`".
        expected: String,
        /// How many bytes there are of it.
        found: usize,
    },
    /// The contents contradict themselves.
    #[error("{}: the file is damaged: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The file is sound, but uses something that is not read here.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do instead.
        reason: String,
    },
    /// The file holds something else than tensors by name.
    #[error("{}: not a state dict: {reason}", path.display())]
    NotAStateDict {
        /// The file.
        path: PathBuf,
        /// What it holds, and what to save instead.
        reason: String,
    },
    /// A tensor's elements are of a type that Burn has no counterpart for.
    #[error("{}: tensor `{key}` is of type {dtype}, which is not read", path.display())]
    UnsupportedDType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        key: String,
        /// The type as the file calls it.
        dtype: String,
    },
}
