//! The bytes of a checkpoint, below every format: a file, read piece by piece where a tensor or a header is wanted, or
//! bytes of the program itself; and the errors that name it.
//!
//! Files are not mapped into memory: another process that shortens or rewrites a mapped file breaks whoever holds the
//! map, which no safe function may ask its caller to rule out. A file that changes while it is read gives an error here,
//! or the numbers that are then in it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rcnn_files::Content;

use crate::error::CheckpointError;

/// The most that the header of a safetensors or burnpack file may take, in bytes (the limit of their own readers).
pub(crate) const MAX_HEADER: usize = 100 << 20;

/// A checkpoint's bytes, and the errors that name it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    len: usize,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    /// Locked from seeking to reading.
    File(Mutex<File>),
    Static(&'static [u8]),
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, CheckpointError> {
        let path = path.to_path_buf();
        let open = || -> io::Result<(File, usize)> {
            let file = File::open(&path)?;
            let about = file.metadata()?;
            if about.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            // The length of a pipe is 0, which is no reason to call it empty.
            if !about.is_file() {
                let reason =
                    "a pipe or device, where a file is expected that can be read in any order";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            let len = usize::try_from(about.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
            Ok((file, len))
        };
        match open() {
            Ok((_, 0)) => Err(CheckpointError::Empty { path }),
            Ok((file, len)) => Ok(Arc::new(Self {
                path,
                len,
                bytes: Bytes::File(Mutex::new(file)),
            })),
            Err(source) => Err(CheckpointError::Io { path, source }),
        }
    }

    /// Bytes of the program itself, under a name for errors.
    pub(crate) fn from_static(name: &str, bytes: &'static [u8]) -> Arc<Self> {
        Arc::new(Self {
            path: name.into(),
            len: bytes.len(),
            bytes: Bytes::Static(bytes),
        })
    }

    /// The number of bytes when it was opened.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Fills `into` with the bytes from `at` on.
    pub(crate) fn read_at(&self, at: usize, into: &mut [u8]) -> Result<(), CheckpointError> {
        self.fill(at, into).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                let reason = "the file was cut off while it was open";
                self.io(io::Error::new(source.kind(), reason))
            }
            _ => self.io(source),
        })
    }

    fn fill(&self, at: usize, into: &mut [u8]) -> io::Result<()> {
        match &self.bytes {
            Bytes::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(at as u64))?;
                file.read_exact(into)
            }
            Bytes::Static(bytes) => {
                let from = bytes.get(at..).and_then(|rest| rest.get(..into.len()));
                into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    /// A copy of the bytes of a range.
    pub(crate) fn read(&self, range: Range<usize>) -> Result<Vec<u8>, CheckpointError> {
        let mut bytes = self.room(range.len())?;
        self.read_at(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// The first bytes, which tell the format.
    pub(crate) fn head(&self) -> Result<Vec<u8>, CheckpointError> {
        self.read(0..self.len.min(Content::HEAD))
    }

    /// Reads from the first byte on.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            source: self,
            at: 0,
        }
    }

    /// The header whose length, of `N` bytes, stands at `at`, and the place where it ends.
    pub(crate) fn header<const N: usize>(
        &self,
        at: usize,
        length: impl Fn([u8; N]) -> u64,
    ) -> Result<(Vec<u8>, usize), CheckpointError> {
        let start = at + N;
        let Some(rest) = self.len.checked_sub(start) else {
            return Err(self.truncated(format!("a header of {start} bytes or more"), self.len));
        };
        let mut field = [0; N];
        self.read_at(at, &mut field)?;
        match usize::try_from(length(field)) {
            Ok(length) if length > MAX_HEADER => {
                Err(self.corrupt(format!("a header of {length} bytes")))
            }
            Ok(length) if length <= rest => {
                let end = start + length;
                Ok((self.read(start..end)?, end))
            }
            Ok(length) => Err(self.truncated(format!("a header of {length} bytes"), rest)),
            Err(_) => Err(self.corrupt("a header longer than memory")),
        }
    }

    /// Whether the range of the tensor called `key` lies within the file.
    pub(crate) fn require(&self, key: &str, range: &Range<usize>) -> Result<(), CheckpointError> {
        if range.end <= self.len {
            return Ok(());
        }
        let found = self.len.saturating_sub(range.start);
        Err(self.truncated(format!("{} bytes of tensor `{key}`", range.len()), found))
    }

    /// Zeros to be read into.
    pub(crate) fn room<T: bytemuck::Zeroable>(
        &self,
        len: usize,
    ) -> Result<Vec<T>, CheckpointError> {
        bytemuck::allocation::try_zeroed_slice_box(len)
            .map(Vec::from)
            .map_err(|()| self.io(io::ErrorKind::OutOfMemory.into()))
    }

    pub(crate) fn io(&self, source: io::Error) -> CheckpointError {
        CheckpointError::Io {
            path: self.path.clone(),
            source,
        }
    }

    pub(crate) fn unknown(&self, found: impl Into<String>) -> CheckpointError {
        CheckpointError::UnknownFormat {
            path: self.path.clone(),
            found: found.into(),
        }
    }

    pub(crate) fn truncated(&self, expected: impl Into<String>, found: usize) -> CheckpointError {
        CheckpointError::Truncated {
            path: self.path.clone(),
            expected: expected.into(),
            found,
        }
    }

    pub(crate) fn corrupt(&self, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Corrupt {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    pub(crate) fn unsupported(&self, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Unsupported {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    pub(crate) fn not_a_state_dict(&self, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::NotAStateDict {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    pub(crate) fn unsupported_dtype(&self, key: &str, dtype: impl Into<String>) -> CheckpointError {
        CheckpointError::UnsupportedDType {
            path: self.path.clone(),
            key: key.into(),
            dtype: dtype.into(),
        }
    }
}

/// A place in a [`Source`] to read on from.
pub(crate) struct Reader<'s> {
    source: &'s Source,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let at = usize::try_from(self.at).unwrap_or(usize::MAX);
        let count = self.source.len.saturating_sub(at).min(into.len());
        if count > 0 {
            self.source.fill(at, &mut into[..count])?;
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => (self.source.len as u64).checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
