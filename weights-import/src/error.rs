//! Errors of checkpoint files by cause; every message names the file.

use std::io;
use std::path::PathBuf;

/// Errors of reading a checkpoint.
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
        "{}: this is {found}, not a checkpoint; supported are files of torch.save (zip or legacy), safetensors, burnpack, and TensorFlow's frozen graphs and checkpoints",
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
    #[error("{}: tensor `{key}` is of type {dtype}, which is not supported", path.display())]
    UnsupportedDType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        key: String,
        /// The type as the file calls it.
        dtype: String,
    },
    /// The weights of several models, none of which is nearer than the others.
    #[error(
        "{}: it holds the weights of several models, {}; choose one with --prefix, in code with Checkpoint::within",
        path.display(),
        quoted(candidates)
    )]
    SeveralModels {
        /// The file.
        path: PathBuf,
        /// What their tensors' names begin with: `model`, `model_ema.module`.
        candidates: Vec<String>,
    },
    /// No tensor's name begins as asked for.
    #[error("{}: no tensor's name begins with `{prefix}.`{}", path.display(), instead(candidates))]
    NoSuchPrefix {
        /// The file.
        path: PathBuf,
        /// The beginning asked for.
        prefix: String,
        /// The beginnings behind which there are models.
        candidates: Vec<String>,
    },
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn instead(candidates: &[String]) -> String {
    match candidates {
        [] => String::new(),
        _ => format!("; there is a model behind {}", quoted(candidates)),
    }
}

impl CheckpointError {
    /// The message without the name of the file.
    pub(crate) fn without_path(&self) -> String {
        let message = self.to_string();
        let path = match self {
            Self::Io { path, .. }
            | Self::Empty { path }
            | Self::UnknownFormat { path, .. }
            | Self::Truncated { path, .. }
            | Self::Corrupt { path, .. }
            | Self::Unsupported { path, .. }
            | Self::NotAStateDict { path, .. }
            | Self::UnsupportedDType { path, .. }
            | Self::SeveralModels { path, .. }
            | Self::NoSuchPrefix { path, .. } => path.display().to_string(),
        };
        let rest = message
            .strip_prefix(&path)
            .and_then(|m| m.strip_prefix(": "));
        rest.map_or(message.clone(), str::to_string)
    }
}
