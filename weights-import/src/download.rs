//! Fetches published weights into a cache folder: resumed after a cut, shared between processes, and put under their name
//! only when their SHA-256 is the published one.

mod transfer;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use etcetera::base_strategy::{BaseStrategy, Xdg, choose_base_strategy};

use self::transfer::Transfer;
use crate::published::{Published, sha256};

/// Options of a download: folder, progress.
#[derive(Debug, Clone)]
pub struct DownloadOptions {
    /// The cache folder; none for [`default_cache_dir`].
    pub cache_dir: Option<PathBuf>,
    /// Whether to show a progress bar on standard error, if that is a terminal.
    pub progress: bool,
    /// A folder of a server to take the file from instead of where it is published: a mirror.
    pub base_url: Option<String>,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self {
            cache_dir: None,
            progress: true,
            base_url: None,
        }
    }
}

/// Errors of downloading published weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The server could not be reached, or the connection broke too often.
    #[error("{url}: {reason}\nwithout a network, download the file elsewhere and put it at {}", path.display())]
    Network {
        /// What was asked for.
        url: String,
        /// What went wrong.
        reason: String,
        /// Where a file brought by hand is found.
        path: PathBuf,
    },
    /// The server answered with something else than the file.
    #[error("{url}: the server answered {status}\nif you have the file, put it at {}", path.display())]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status: "404 Not Found".
        status: String,
        /// Where a file brought by hand is found.
        path: PathBuf,
    },
    /// A file is not the published one.
    #[error("{}: its SHA-256 begins with {found}, the published file's with {expected}{}", path.display(), hint(*kept))]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// The digits published.
        expected: String,
        /// As many digits of the file's hash.
        found: String,
        /// Whether the file is still there: it was not downloaded just now.
        kept: bool,
    },
    /// The cache folder or a file in it could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No environment variable says where the home folder is.
    #[error("no home folder to cache weights in; set RCNN_CACHE to a folder")]
    NoCacheDir,
}

fn hint(kept: bool) -> &'static str {
    if kept {
        "; delete it to download it again"
    } else {
        "; the download was discarded"
    }
}

/// The folder for downloads: `$RCNN_CACHE`, or torch's own if `$TORCH_HOME` says where, or `rcnn-burn` in the user's
/// folder of caches.
///
/// # Errors
///
/// [`DownloadError::NoCacheDir`] if there is none.
pub fn default_cache_dir() -> Result<PathBuf, DownloadError> {
    let user = choose_base_strategy().ok().map(|user| user.cache_dir());
    cache_dir(&folder_named, user).ok_or(DownloadError::NoCacheDir)
}

/// The folder that an environment variable names.
fn folder_named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn cache_dir(named: &dyn Fn(&str) -> Option<PathBuf>, user: Option<PathBuf>) -> Option<PathBuf> {
    named("RCNN_CACHE")
        .or_else(|| Some(named("TORCH_HOME")?.join("hub/checkpoints")))
        .or_else(|| Some(user?.join("rcnn-burn")))
}

/// Where torch keeps what it has downloaded itself: in the folders of XDG on every system.
fn torch_cache(named: &dyn Fn(&str) -> Option<PathBuf>, xdg: Option<PathBuf>) -> Option<PathBuf> {
    named("TORCH_HOME")
        .or_else(|| Some(xdg?.join("torch")))
        .map(|torch| torch.join("hub/checkpoints"))
}

/// The path of a published file, which is downloaded unless it is in the cache or torch has it.
///
/// A file is used only if its SHA-256 begins as published. Until then a download is called `<name>.part`; a later call
/// goes on with it. Of several processes that want the same file one downloads, the others wait.
///
/// ```no_run
/// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_ops::backend_types::*; pub use weights_import as weights; }
/// use rcnn_burn::weights::Weights;
/// use rcnn_burn::weights::{download, published};
///
/// let file = download::fetch(published::find("COCO_V1")?, &Default::default())?;
/// let weights = Weights::open(file)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// See [`DownloadError`]; those of the network say where to put a file that was brought by hand.
pub fn fetch(published: &Published, options: &DownloadOptions) -> Result<PathBuf, DownloadError> {
    let folder = match &options.cache_dir {
        Some(folder) => folder.clone(),
        None => default_cache_dir()?,
    };
    let xdg = || Xdg::new().ok().map(|xdg| xdg.cache_dir());
    let torch = match options.cache_dir {
        Some(_) => None,
        None => torch_cache(&folder_named, xdg()),
    };
    fetch_into(&folder, torch.as_deref(), published, options)
}

fn fetch_into(
    folder: &Path,
    torch: Option<&Path>,
    published: &Published,
    options: &DownloadOptions,
) -> Result<PathBuf, DownloadError> {
    let name = published.file_name();
    let target = folder.join(name);
    if is_there(&target, published)? {
        return Ok(target);
    }
    if let Some(path) = torch.map(|torch| torch.join(name))
        && is_there(&path, published).unwrap_or(false)
    {
        return Ok(path);
    }
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    let _lock = lock(&folder.join(format!("{name}.lock")))?;
    if is_there(&target, published)? {
        return Ok(target); // another process has just brought it
    }
    let url = match &options.base_url {
        Some(base) => format!("{}/{name}", base.trim_end_matches('/')),
        None => published.url.to_string(),
    };
    let part = folder.join(format!("{name}.part"));
    Transfer {
        url,
        target: &target,
        part: &part,
        progress: options.progress,
    }
    .run()?;
    match other_hash(&part, published)? {
        None => fs::rename(&part, &target).map_err(io_error(&target))?,
        Some(found) => {
            fs::remove_file(&part).map_err(io_error(&part))?;
            return Err(wrong_hash(part, published, found, false));
        }
    }
    Ok(target)
}

/// Whether a file exists and is the published one.
fn is_there(path: &Path, published: &Published) -> Result<bool, DownloadError> {
    if !path.exists() {
        return Ok(false);
    }
    match other_hash(path, published)? {
        None => Ok(true),
        Some(found) => Err(wrong_hash(path.to_path_buf(), published, found, true)),
    }
}

/// The begin of a file's hash, if it is not the published one.
fn other_hash(path: &Path, published: &Published) -> Result<Option<String>, DownloadError> {
    let digits = File::open(path).and_then(sha256).map_err(io_error(path))?;
    let found = &digits[..published.hash_prefix().len().min(digits.len())];
    Ok((found != published.hash_prefix()).then(|| found.to_string()))
}

fn wrong_hash(path: PathBuf, published: &Published, found: String, kept: bool) -> DownloadError {
    DownloadError::WrongHash {
        path,
        expected: published.hash_prefix().into(),
        found,
        kept,
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> DownloadError {
    |source| DownloadError::Io {
        path: path.to_path_buf(),
        source,
    }
}

/// Waits for the right to download a file; the system takes it back when the process ends.
fn lock(path: &Path) -> Result<File, DownloadError> {
    // The file stays: removing it would let two processes hold locks on two files of its name.
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(io_error(path))?;
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => {
            tracing::info!(
                "waiting for another process that downloads {}",
                path.with_extension("").display()
            );
            file.lock().map_err(io_error(path))?;
        }
        Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {} // some network folders
        Err(fs::TryLockError::Error(error)) => return Err(io_error(path)(error)),
        Ok(()) => {}
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
