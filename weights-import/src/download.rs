//! Fetches published weights into a cache folder: resumed after a cut, shared between processes, and put under their name
//! only when their SHA-256 is the published one.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use ureq::http::{HeaderMap, Response, StatusCode, header};

use crate::published::Published;

/// Connections in a row that may break before a byte has come.
const ATTEMPTS: u32 = 4;

/// Where to download to and how.
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

/// Why published weights could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The server could not be reached, or the connection broke too often.
    #[error("{url}: {reason}\nwithout a network, bring the file by hand and put it at {}", path.display())]
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
    #[error("there is no home folder to cache weights in; set RCNN_CACHE to a folder")]
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
    cache_dir(&folder_named).ok_or(DownloadError::NoCacheDir)
}

/// The folder that an environment variable names.
fn folder_named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn cache_dir(named: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let caches = if cfg!(windows) {
        named("LOCALAPPDATA")
    } else {
        None
    };
    let caches = caches.or_else(|| named("XDG_CACHE_HOME"));
    named("RCNN_CACHE")
        .or_else(|| Some(named("TORCH_HOME")?.join("hub/checkpoints")))
        .or_else(|| {
            Some(
                caches
                    .or_else(|| Some(named("HOME")?.join(".cache")))?
                    .join("rcnn-burn"),
            )
        })
}

/// Where torch keeps what it has downloaded itself: below ~/.cache on every system.
fn torch_cache(named: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let home = || named("HOME").or_else(|| named("USERPROFILE"));
    named("TORCH_HOME")
        .or_else(|| Some(named("XDG_CACHE_HOME")?.join("torch")))
        .or_else(|| Some(home()?.join(".cache/torch")))
        .map(|torch| torch.join("hub/checkpoints"))
}

/// The path of a published file, which is downloaded unless it is in the cache or torch has it.
///
/// A file is used only if its SHA-256 begins as published. Until then a download is called `<name>.part`; a later call
/// goes on with it. Of several processes that want the same file one downloads, the others wait.
///
/// # Errors
///
/// See [`DownloadError`]; those of the network say where to put a file that was brought by hand.
pub fn fetch(published: &Published, options: &DownloadOptions) -> Result<PathBuf, DownloadError> {
    let folder = match &options.cache_dir {
        Some(folder) => folder.clone(),
        None => default_cache_dir()?,
    };
    let torch = torch_cache(&folder_named).filter(|_| options.cache_dir.is_none());
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
    Download {
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
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(io_error(path))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(io_error(path))? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    let digits: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
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

/// One file on its way.
struct Download<'d> {
    url: String,
    target: &'d Path,
    part: &'d Path,
    progress: bool,
}

/// How a connection ended that did not bring the rest of the file.
enum Broken {
    /// Asking again may help.
    Dropped(String),
    Failed(DownloadError),
}

impl Download<'_> {
    /// Fills the part file up to its end, over as many connections as that takes.
    fn run(&self) -> Result<(), DownloadError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(self.part)
            .map_err(io_error(self.part))?;
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build()
            .into();
        let bar = self.bar();
        let mut fruitless = 0;
        loop {
            let before = file.seek(SeekFrom::End(0)).map_err(io_error(self.part))?;
            let reason = match self.connect(&agent, &mut file, before, &bar) {
                Ok(()) => break,
                Err(Broken::Failed(error)) => return Err(error),
                Err(Broken::Dropped(reason)) => reason,
            };
            let after = file.metadata().map_err(io_error(self.part))?.len();
            fruitless = if after > before { 1 } else { fruitless + 1 };
            if fruitless >= ATTEMPTS {
                return Err(self.network(reason));
            }
            tracing::warn!("{}: {reason}; going on from byte {after}", self.url);
            thread::sleep(Duration::from_millis(250) * fruitless.pow(2));
        }
        bar.finish_and_clear();
        file.sync_all().map_err(io_error(self.part))
    }

    /// Asks for what follows the first `have` bytes, and appends it.
    fn connect(
        &self,
        agent: &ureq::Agent,
        file: &mut File,
        have: u64,
        bar: &ProgressBar,
    ) -> Result<(), Broken> {
        let mut request = agent
            .get(&self.url)
            .header(header::ACCEPT_ENCODING, "identity");
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = request.call().map_err(|error| self.broken(error))?;
        let (start, total) =
            match response.status() {
                StatusCode::OK => (0, content_length(response.headers())),
                StatusCode::PARTIAL_CONTENT => match content_range(&response) {
                    (Some(start), total) if start == have => (start, total),
                    _ => {
                        return Err(self
                            .start_over(file, "the server sent another range than was asked for"));
                    }
                },
                // The part is as long as the file, or longer.
                StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => match content_range(&response) {
                    (_, Some(total)) if total == have => return Ok(()),
                    _ => {
                        return Err(self
                            .start_over(file, "the part downloaded before does not fit the file"));
                    }
                },
                status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                    return Err(Broken::Dropped(format!("the server answered {status}")));
                }
                status => {
                    let (url, path) = (self.url.clone(), self.target.to_path_buf());
                    return Err(Broken::Failed(DownloadError::Status {
                        url,
                        status: status.to_string(),
                        path,
                    }));
                }
            };
        self.truncate(file, start)?;
        bar.set_length(total.unwrap_or(0));
        self.copy(response, file, start, bar)?;
        let have = file.stream_position().map_err(|error| self.failed(error))?;
        match total {
            Some(total) if have < total => Err(Broken::Dropped(format!(
                "the connection ended at byte {have} of {total}"
            ))),
            Some(total) if have > total => {
                Err(self.start_over(file, "the server sent more than it said it would"))
            }
            _ => Ok(()),
        }
    }

    fn copy(
        &self,
        response: Response<ureq::Body>,
        file: &mut File,
        start: u64,
        bar: &ProgressBar,
    ) -> Result<(), Broken> {
        let mut body = response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        let mut buffer = vec![0; 1 << 16];
        bar.set_position(start);
        bar.reset_eta();
        loop {
            match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    file.write_all(&buffer[..count])
                        .map_err(|error| self.failed(error))?;
                    bar.inc(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Dropped(error.to_string())),
            }
        }
    }

    fn truncate(&self, file: &mut File, length: u64) -> Result<(), Broken> {
        file.set_len(length)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map(drop)
            .map_err(|error| self.failed(error))
    }

    fn start_over(&self, file: &mut File, reason: &str) -> Broken {
        self.truncate(file, 0)
            .err()
            .unwrap_or_else(|| Broken::Dropped(reason.into()))
    }

    fn failed(&self, error: io::Error) -> Broken {
        Broken::Failed(io_error(self.part)(error))
    }

    fn network(&self, reason: String) -> DownloadError {
        DownloadError::Network {
            url: self.url.clone(),
            reason,
            path: self.target.to_path_buf(),
        }
    }

    /// A connection that broke is tried again; one that cannot be made is not.
    fn broken(&self, error: ureq::Error) -> Broken {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof,
        };
        match &error {
            ureq::Error::Timeout(_) => Broken::Dropped(error.to_string()),
            ureq::Error::Io(cause)
                if matches!(
                    cause.kind(),
                    BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof
                ) =>
            {
                Broken::Dropped(error.to_string())
            }
            _ => Broken::Failed(self.network(error.to_string())),
        }
    }

    fn bar(&self) -> ProgressBar {
        if !self.progress || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let name = self
            .target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
        );
        let bar = ProgressBar::new(0).with_message(name);
        match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The begin and the total of `bytes 10-19/20`, or of `bytes */20`.
fn content_range(response: &Response<ureq::Body>) -> (Option<u64>, Option<u64>) {
    let range = response
        .headers()
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    let Some((range, total)) =
        range.and_then(|range| range.strip_prefix("bytes ")?.split_once('/'))
    else {
        return (None, None);
    };
    let start = range
        .split_once('-')
        .and_then(|(start, _)| start.parse().ok());
    (start, total.parse().ok())
}

#[cfg(test)]
mod tests;
