//! The folder of a run: its description, and what must not be in its place.

use std::fs;
use std::path::Path;

use crate::checkpoint::write_whole;
use crate::{TrainConfig, TrainError};

/// Files that a run writes once training has begun, which another run must not replace.
const RESULTS: [&str; 5] = [
    "metrics.jsonl",
    "curves.png",
    "best.bpk",
    "best.json",
    "last.bpk",
];

pub(crate) fn write_description(folder: &Path, config: &TrainConfig) -> Result<(), TrainError> {
    let text = toml::to_string(config).map_err(|error| TrainError::Config(error.to_string()))?;
    write_whole(&folder.join("run.toml"), text.as_bytes())
}

/// Whether a folder holds a run, or files in its place.
pub(crate) fn occupied(folder: &Path) -> Result<(), TrainError> {
    let description = folder.join("run.toml");
    // These begin with the training: what was refused before that is no run.
    let mut names = RESULTS.to_vec();
    let is_described = description.exists();
    if !is_described {
        names.extend(["model.json", "data.json"]);
    }
    let mut in_the_way = names.into_iter().find(|name| folder.join(name).exists());
    if is_described && !is_written_by_us(&description) {
        in_the_way = Some("run.toml");
    }
    match in_the_way {
        Some(file) => Err(TrainError::Occupied {
            path: folder.into(),
            file,
        }),
        None => Ok(()),
    }
}

/// Whether a description is word for word as a run writes its own.
fn is_written_by_us(file: &Path) -> bool {
    let written = || {
        let text = fs::read_to_string(file).ok()?;
        let config = TrainConfig::from_toml(&text).ok()?;
        Some(toml::to_string(&config).ok()? == text)
    };
    written().unwrap_or(false)
}
