//! Folders that one process works in at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use crate::WriteError;

/// Exclusive use of a folder, until it is dropped or the process ends.
///
/// The lock is advisory: it keeps out those who ask for it too. It is on the file `run.lock`, which says who holds it and
/// stays when the lock is released.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// A folder that cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it, or this one does.
    #[error("{}: in use by {holder}", folder.display())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The process, and for how long.
        holder: String,
    },
    /// The lock's file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Name of the file that is locked.
const FILE: &str = "run.lock";

impl FolderLock {
    /// Whether some process has held the lock of a folder, now or before.
    pub fn was_held(folder: &Path) -> bool {
        folder.join(FILE).is_file()
    }
    /// Locks a folder without waiting. On a file system without locks, every process gets it.
    ///
    /// # Errors
    ///
    /// If it is locked, or cannot be written to.
    pub fn acquire(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join(FILE);
        let failed = |source| WriteError {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    folder: folder.into(),
                    holder: holder(&path),
                });
            }
            Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
                return Err(failed(error).into());
            }
            _ => {}
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "process {}", process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Who holds a lock, as far as it is known.
fn holder(path: &Path) -> String {
    // On Windows a locked file cannot be read.
    let text = fs::read_to_string(path).unwrap_or_default();
    let name = match text.trim() {
        "" => "another process",
        name => name,
    };
    let since = fs::metadata(path).and_then(|about| about.modified());
    match since.map(|since| since.elapsed()) {
        Ok(Ok(time)) => format!("{name} for {}", duration(time.as_secs())),
        _ => name.into(),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!FolderLock::was_held(folder.path()));
        let first = FolderLock::acquire(folder.path()).unwrap();
        let error = FolderLock::acquire(folder.path()).unwrap_err();
        assert!(matches!(error, LockError::Held { .. }), "{error}");
        let (text, holder) = (error.to_string(), format!("process {} for", process::id()));
        #[cfg(unix)]
        assert!(text.contains(&holder), "{text}");
        drop(first);
        assert!(FolderLock::was_held(folder.path()));
        FolderLock::acquire(folder.path()).unwrap();

        let absent = folder.path().join("absent");
        let error = FolderLock::acquire(&absent).unwrap_err();
        assert!(matches!(error, LockError::Write(_)), "{error}");
    }
}
