//! Files that are complete or absent.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::temporary::temporary_file;

/// A file that could not be written. What was there before still is.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Error of the operating system.
    pub source: io::Error,
}

/// Writes a file atomically: to a temporary file beside it, which is synced and then renamed.
///
/// `write` gets the file under its temporary name. Once it has returned, the file gets the permissions that any new file
/// has. A symbolic link stays one; what is no regular file (`/dev/null`) is rejected, as renaming would replace it.
///
/// ```
/// use std::io::Write;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("greeting.txt");
/// rcnn_files::write_whole(&path, |file| file.write_all(b"hello"))?;
/// assert_eq!(std::fs::read(&path)?, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// When `write` fails, or the folder or the disk does. Nothing is left beside the file then. What a killed process left
/// there is removed by the next one that writes into the folder.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut NamedTempFile) -> io::Result<()>,
) -> Result<(), WriteError> {
    replace(path, write).map_err(|source| WriteError {
        path: path.into(),
        source,
    })
}

fn replace(
    path: &Path,
    write: impl FnOnce(&mut NamedTempFile) -> io::Result<()>,
) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Ok(there) if there.is_file() => there,
        Ok(there) if there.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(_) => {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Err(_) => path.into(),
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = temporary_file(folder.unwrap_or(Path::new(".")))?;
    write(&mut file)?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_failure_leaves_what_was_there_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bpk");
        let broken = |file: &mut NamedTempFile| {
            file.write_all(b"half")?;
            Err(io::Error::other("no more"))
        };
        let error = write_whole(&path, broken).unwrap_err().to_string();
        assert_eq!(error, format!("{}: no more", path.display()));
        assert!(names(folder.path()).is_empty());

        fs::write(&path, b"before").unwrap();
        assert!(write_whole(&path, broken).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"before");
        write_whole(&path, |file| file.write_all(b"after")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(names(folder.path()), ["model.bpk"]);

        let nowhere = folder.path().join("no/such/folder");
        let error = write_whole(&nowhere, |_| Ok(())).unwrap_err();
        assert_eq!(error.path, nowhere);
        // It had the temporary file's name.
        let system = fs::File::create(&nowhere).unwrap_err();
        assert_eq!(error.source.to_string(), system.to_string());
    }

    #[test]
    fn a_bare_name_is_written_into_the_working_folder() {
        // The test runs in the crate's folder.
        let name = Path::new("written-by-a-test");
        write_whole(name, |file| file.write_all(b"x")).unwrap();
        fs::remove_file(name).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_it_as_they_may_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let about = fs::metadata(folder.path().join(name)).unwrap();
            about.permissions().mode()
        };
        fs::write(folder.path().join("usual"), b"x").unwrap();
        write_whole(&folder.path().join("whole"), |_| Ok(())).unwrap();
        assert_eq!(mode("whole"), mode("usual"));
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_and_devices_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, b"before").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_whole(&link, |to| to.write_all(b"after")).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"after");

        let error = write_whole(Path::new("/dev/null"), |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "/dev/null: not a regular file");
        assert!(write_whole(folder.path(), |_| Ok(())).is_err());
    }
}
