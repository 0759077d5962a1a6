//! `stopped.json`: where a run stopped, so that it says so when it stops there again.

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::checkpoint::write_whole;

/// The place of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    pub(crate) epoch: u64,
    pub(crate) step: usize,
}

impl Stop {
    fn path(folder: &Path) -> PathBuf {
        folder.join("stopped.json")
    }

    /// Notes a failure. If it was there before, the error says so.
    pub(crate) fn note(self, folder: &Path, error: TrainError) -> TrainError {
        // Who stops a run may do so at the same step.
        if matches!(error, TrainError::Interrupted(_)) {
            return error;
        }
        let path = Self::path(folder);
        let before = fs::read_to_string(&path).ok();
        if before.and_then(|text| serde_json::from_str(&text).ok()) == Some(self) {
            return TrainError::Again {
                epoch: self.epoch,
                step: self.step,
                error: error.into(),
            };
        }
        let json = serde_json::to_string(&self).expect("it is plain data");
        // Perhaps the run stopped because nothing can be written.
        let _ = write_whole(&path, json.as_bytes());
        error
    }

    /// Forgets failures that were overcome.
    pub(crate) fn forget(folder: &Path) {
        let _ = fs::remove_file(Self::path(folder));
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "panicked".into())
}
