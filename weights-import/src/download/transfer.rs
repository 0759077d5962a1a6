//! The bytes of one file, over HTTP, into a part file: below [`fetch`](super::fetch).

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ureq::http::{HeaderMap, Response, StatusCode, header};

use super::{DownloadError, io_error};

/// Connections in a row that may break before a byte has come.
pub(super) const ATTEMPTS: u32 = 4;

/// One file on its way.
pub(super) struct Transfer<'t> {
    pub(super) url: String,
    /// Where the file will be, for messages.
    pub(super) target: &'t Path,
    /// Where it is written.
    pub(super) part: &'t Path,
    /// Whether to show a bar.
    pub(super) progress: bool,
}

/// How a connection ended that did not bring the rest of the file.
enum Broken {
    /// Asking again may help.
    Dropped(String),
    Failed(DownloadError),
}

impl Transfer<'_> {
    /// Fills the part file up to its end, over as many connections as that takes.
    pub(super) fn run(&self) -> Result<(), DownloadError> {
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
            tracing::warn!("{}: {reason}; continuing from byte {after}", self.url);
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
        let (start, total) = match response.status() {
            StatusCode::OK => (0, content_length(response.headers())),
            StatusCode::PARTIAL_CONTENT => match content_range(&response) {
                (Some(start), total) if start == have => (start, total),
                _ => {
                    return Err(
                        self.start_over(file, "the server sent another range than requested")
                    );
                }
            },
            // The part is as long as the file, or longer.
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => match content_range(&response) {
                (_, Some(total)) if total == have => return Ok(()),
                _ => {
                    return Err(
                        self.start_over(file, "the part downloaded before does not fit the file")
                    );
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
