//! Temporary files and folders that a killed process leaves, and that the next one removes.
//!
//! Each is locked by its process for as long as it exists. The system releases the locks of a process that ends, however
//! it ends: what can be locked is a leftover.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{LazyLock, Mutex};

use tempfile::{Builder, NamedTempFile, TempDir};

/// Prefix and suffix of the names. Between them stand the number of the process, for people, and random letters.
const PREFIX: &str = ".rcnn-";
const SUFFIX: &str = ".tmp";

/// Removes the temporary files and folders that killed processes left in a folder.
///
/// Files that a living process is writing stay, and so do those that cannot be removed.
pub(crate) fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_temporary = |name: &str| name.starts_with(PREFIX) && name.ends_with(SUFFIX);
        if !name.to_str().is_some_and(is_temporary) {
            continue;
        }
        let path = entry.path();
        // Held until the leftover is gone.
        let Ok(lock) = File::open(&path) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            let _ = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
        }
    }
}

/// Removes also the temporary files of earlier versions, which nothing locked: `.tmp` and six letters or digits. Only for
/// a folder that nobody else writes into, as other programs name theirs so.
pub fn remove_old_leftovers(folder: &Path) {
    remove_leftovers(folder);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(".tmp"));
        let is_random =
            |text: &str| text.len() == 6 && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if random.is_some_and(is_random) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            // It is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// [`remove_leftovers`], the first time that this process writes into the folder.
fn remove_leftovers_once(folder: &Path) {
    static DONE: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);
    let mut done = DONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if done.insert(folder.into()) {
        drop(done);
        remove_leftovers(folder);
    }
}

/// A new file in a folder, locked.
pub(crate) fn temporary_file(folder: &Path) -> io::Result<NamedTempFile> {
    remove_leftovers_once(folder);
    let prefix = prefix();
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX);
    loop {
        // Not `tempfile_in`: its files are private, and its errors have the temporary name.
        let file = builder.make_in(folder, |path| File::create_new(path))?;
        if is_ours(file.as_file(), file.path()) {
            return Ok(file);
        }
    }
}

/// A new folder in another one, that is removed unless it gets a [place](Self::persist).
///
/// ```
/// use rcnn_files::TemporaryFolder;
///
/// let parent = tempfile::tempdir()?;
/// let folder = TemporaryFolder::create_in(parent.path())?;
/// std::fs::write(folder.path().join("greeting.txt"), "hello")?;
/// folder.persist(&parent.path().join("greetings"))?;
/// assert!(parent.path().join("greetings/greeting.txt").is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TemporaryFolder {
    folder: TempDir,
    /// Where the system can open folders.
    _lock: Option<File>,
}

impl TemporaryFolder {
    /// Makes the folder.
    ///
    /// # Errors
    ///
    /// When the system cannot.
    pub fn create_in(parent: &Path) -> io::Result<Self> {
        remove_leftovers_once(parent);
        let prefix = prefix();
        let mut builder = Builder::new();
        builder.prefix(&prefix).suffix(SUFFIX);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        loop {
            let folder = builder.tempdir_in(parent)?;
            let lock = File::open(folder.path()).ok();
            if lock
                .as_ref()
                .is_none_or(|lock| is_ours(lock, folder.path()))
            {
                return Ok(Self {
                    folder,
                    _lock: lock,
                });
            }
        }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Renames it, over an empty folder if there is one.
    ///
    /// # Errors
    ///
    /// When the system cannot. It is removed then.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            fs::remove_dir(path)?;
        }
        fs::rename(self.path(), path)?;
        // Nothing is left of it to be removed.
        let _ = self.folder.keep();
        Ok(())
    }
}

fn prefix() -> String {
    format!("{PREFIX}{}-", process::id())
}

/// Locks what this process has just made. If another one was faster, it is being removed as a leftover.
fn is_ours(lock: &File, path: &Path) -> bool {
    match lock.try_lock() {
        // Removal needs the lock: what is there now, stays.
        Ok(()) => path.exists(),
        Err(TryLockError::WouldBlock) => false,
        // On a file system without locks, nobody takes it for a leftover.
        Err(TryLockError::Error(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_process_holds_is_a_leftover() {
        let parent = tempfile::tempdir().unwrap();
        let place = |name: &str| parent.path().join(name);
        for name in [".rcnn-1-abc.tmp", ".rcnn-", "rcnn-1-abc.tmp", ".tmpabcdef"] {
            fs::write(place(name), "half").unwrap();
        }
        fs::create_dir_all(place(".rcnn-1-def.tmp/images")).unwrap();
        let file = temporary_file(parent.path()).unwrap();
        let folder = TemporaryFolder::create_in(parent.path()).unwrap();
        fs::write(place(".rcnn-2-abc.tmp"), "half").unwrap();
        remove_leftovers(parent.path());
        remove_leftovers(&place("absent"));

        let entries = fs::read_dir(parent.path()).unwrap();
        let mut left: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        left.sort();
        let mut expected = vec![
            place(".rcnn-"),
            place(".tmpabcdef"),
            place("rcnn-1-abc.tmp"),
            file.path().into(),
            folder.path().into(),
        ];
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_folder_takes_its_place_or_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let place = parent.path().join("place");
        fs::create_dir(&place).unwrap();
        let folder = TemporaryFolder::create_in(parent.path()).unwrap();
        fs::write(folder.path().join("a"), "x").unwrap();
        folder.persist(&place).unwrap();
        assert!(place.join("a").is_file());

        let folder = TemporaryFolder::create_in(parent.path()).unwrap();
        assert!(folder.persist(&place).is_err());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
