//! TensorFlow's checkpoints ("tensor bundles"): an index, which is a [`table`], and files of raw numbers beside it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::burn_dtype;
use super::table;
use super::wire::{Value, fields, shape};
use crate::checkpoint::Contents;
use crate::error::CheckpointError;
use crate::source::{MAX_HEADER, Source};
use crate::storage::StoredTensor;

/// The index's record of a tensor.
#[derive(Default)]
struct Entry {
    dtype: u64,
    /// `None` where the sizes are unknown.
    shape: Option<Vec<usize>>,
    shard: usize,
    offset: usize,
    size: usize,
    checksum: Option<u32>,
    is_partitioned: bool,
}

/// The index's header.
#[derive(Default)]
struct Header {
    shards: usize,
    big_endian: bool,
}

/// Whether a file is an index: it ends as a table does.
pub(crate) fn is_index(source: &Source) -> bool {
    let start = source.len().checked_sub(table::MAGIC.len());
    start.is_some_and(|start| {
        let tail = source.read(start..source.len());
        tail.is_ok_and(|tail| tail == table::MAGIC)
    })
}

/// Reads an index and finds the tensors in the files that it names.
pub(crate) fn read(source: &Arc<Source>) -> Result<Contents, CheckpointError> {
    if source.len() > MAX_HEADER {
        return Err(source.corrupt(format!("an index of {} bytes", source.len())));
    }
    let index = source.read(0..source.len())?;
    let entries =
        table::entries(&index).map_err(|reason| source.corrupt(format!("the index: {reason}")))?;
    let mut entries = entries.into_iter();
    let header = match entries.next() {
        Some((key, value)) if key.is_empty() => header(&value),
        _ => None,
    };
    let header =
        header.ok_or_else(|| source.corrupt("the index does not begin with its header"))?;
    if header.big_endian {
        return Err(source.unsupported("a checkpoint of big-endian numbers"));
    }
    let mut shards = Shards {
        index: &source.path,
        count: header.shards,
        open: HashMap::new(),
    };
    let mut contents = Contents::default();
    for (key, value) in entries {
        let key = String::from_utf8_lossy(&key).into_owned();
        let entry = entry(&value)
            .ok_or_else(|| source.corrupt(format!("the index: the entry of `{key}` is damaged")))?;
        if entry.is_partitioned {
            contents
                .leave_out(source.unsupported(format!("tensor `{key}` is stored in partitions")));
            continue;
        }
        let Some(dtype) = burn_dtype(entry.dtype) else {
            // A text among the tensors, such as the names of a Keras model's objects.
            contents.leave_out(source.unsupported_dtype(&key, format!("DataType {}", entry.dtype)));
            continue;
        };
        let Some(shape) = entry.shape else {
            return Err(source.corrupt(format!("the index: tensor `{key}` has no sizes")));
        };
        if entry.shard >= header.shards {
            let (shard, count) = (entry.shard, header.shards);
            return Err(source.corrupt(format!(
                "the index: tensor `{key}` lies in file {shard} of {count}"
            )));
        }
        let shard = shards.open(entry.shard)?;
        let range = entry.offset..entry.offset.saturating_add(entry.size);
        let mut tensor = StoredTensor::whole(shard, &key, range, shape, dtype)?;
        if let Some(checksum) = entry.checksum {
            tensor = tensor.with_checksum(&key, checksum);
        }
        contents.tensors.insert(key, tensor);
    }
    Ok(contents)
}

/// The files of numbers beside an index, opened when a tensor lies in them.
struct Shards<'a> {
    index: &'a Path,
    count: usize,
    open: HashMap<usize, Arc<Source>>,
}

impl Shards<'_> {
    fn open(&mut self, shard: usize) -> Result<&Arc<Source>, CheckpointError> {
        let source = match self.open.remove(&shard) {
            Some(open) => open,
            None => {
                let path = self.path(shard);
                if !path.exists() {
                    return Err(CheckpointError::Unsupported {
                        path: self.index.into(),
                        reason: format!(
                            "the index of a TensorFlow checkpoint whose tensors lie in {}, which is not beside it",
                            path.file_name().unwrap_or_default().display()
                        ),
                    });
                }
                Source::open(&path)?
            }
        };
        Ok(self.open.entry(shard).or_insert(source))
    }

    /// `model.ckpt.data-00000-of-00001` of `model.ckpt.index`.
    fn path(&self, shard: usize) -> PathBuf {
        self.index
            .with_extension(format!("data-{shard:05}-of-{:05}", self.count))
    }
}

/// Reads a `BundleHeaderProto`.
fn header(message: &[u8]) -> Option<Header> {
    let mut header = Header::default();
    for field in fields(message) {
        match field? {
            (1, value) => header.shards = usize::try_from(value.varint()?).ok()?,
            (2, value) => header.big_endian = value.varint()? != 0,
            _ => {}
        }
    }
    Some(header)
}

/// Reads a `BundleEntryProto`.
fn entry(message: &[u8]) -> Option<Entry> {
    let mut entry = Entry {
        shape: Some(vec![]),
        ..Default::default()
    };
    let size = |value: Value<'_>| usize::try_from(value.varint()?).ok();
    for field in fields(message) {
        match field? {
            (1, value) => entry.dtype = value.varint()?,
            (2, value) => entry.shape = shape(value.bytes()?),
            (3, value) => entry.shard = size(value)?,
            (4, value) => entry.offset = size(value)?,
            (5, value) => entry.size = size(value)?,
            (6, Value::Fixed32(checksum)) => entry.checksum = Some(checksum),
            (7, _) => entry.is_partitioned = true,
            _ => {}
        }
    }
    Some(entry)
}
