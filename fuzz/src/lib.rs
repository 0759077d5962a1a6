//! Feeds damaged files to everything that reads files: checkpoints, labels, images, configurations, requests.
//!
//! A [`Target`] takes any bytes and must neither panic nor run for long nor allocate what the bytes do not justify; what it
//! accepts must make sense. Inputs are the files of its [corpus](Target::seeds) and [`mutated`] ones, the same in
//! every run. `tests/corpus.rs` runs a few of them with the other tests, `fuzz/run` as many as there is time for, and
//! `fuzz/libfuzzer` those that libFuzzer makes. An input that was once handled wrongly goes into `corpus`.

mod edits;
mod http;
mod mutate;
mod targets;
mod tensorflow;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use mutate::mutated;
use rayon::ThreadPoolBuilder;
pub use targets::{Scratch, TARGETS, Target};

/// Message and place of the last panic.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Has panics noted for [`Target::check`] instead of printed, and everything computed on the calling thread, as changing
/// threads takes longer than most inputs.
///
/// # Panics
/// When called twice.
pub fn prepare() {
    let alone = ThreadPoolBuilder::new().num_threads(1);
    let alone = alone.use_current_thread().build_global();
    alone.expect("the first pool");
    panic::set_hook(Box::new(|info| {
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
}

impl Target {
    /// Runs it on an input.
    ///
    /// # Errors
    /// The message of its panic, after [`prepare`].
    pub fn check(&self, scratch: &Scratch, input: &[u8]) -> Result<(), String> {
        panic::catch_unwind(AssertUnwindSafe(|| (self.run)(scratch, input)))
            .map_err(|_| PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The files that inputs are made of, in the order of their names: those of `corpus`, and those that the tests of
    /// other crates have.
    ///
    /// # Panics
    /// When there are none.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let own = root.join("corpus").join(self.name);
        let others = self.fixtures.map(|folder| root.join("..").join(folder));
        let folders = others.into_iter().chain([own]);
        let mut files: Vec<PathBuf> = folders
            .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} has no corpus", self.name);
        let read = |path: PathBuf| fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        files.into_iter().map(read).collect()
    }
}
