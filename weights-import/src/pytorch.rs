//! The two containers of `torch.save`, below [`Checkpoint`](crate::Checkpoint): today's zip archive, and the run of
//! pickles and raw storages of before PyTorch 1.6.
//!
//! Either way a pickle describes the tensors and refers to storages by key; this file finds the bytes of each
//! storage, [`torch_objects`](crate::pickle::torch_objects) makes tensors of the two.
//!
//! Why not burn-store's `PytorchReader` (0.21)? It ignores strides, so that transposed, sliced and channels-last tensors
//! come out as other numbers; it fills up with zeros where a file is cut off or a storage is missing; and it opens the
//! archive anew for each tensor.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive};

use crate::checkpoint::Contents;
use crate::error::CheckpointError;
use crate::pickle::torch_objects::StorageRef;
use crate::pickle::{Pickle, PickleError, Value, walk};
use crate::source::{Reader, Source};
use crate::storage::Region;

/// What compressed entries may inflate to, all in all, in bytes. torch itself does not compress.
const MAX_INFLATED: u64 = 4 << 30;

const LEGACY_MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const LEGACY_PROTOCOL: usize = 1001;

/// How much of a legacy file is read at first, in bytes: more than the pickles of the largest detector take.
const LEGACY_HEAD: usize = 1 << 20;

/// Reads a zip archive of `torch.save`: `<any>/data.pkl`, `<any>/data/<key>`, `<any>/byteorder`.
pub(crate) fn zip(source: &Arc<Source>) -> Result<Contents, CheckpointError> {
    let mut archive = Archive::open(source)?;
    if archive.index("constants.pkl").is_some() {
        return Err(
            source.not_a_state_dict("it is a TorchScript archive; save model.state_dict() instead")
        );
    }
    if let Some(order) = archive.entry("byteorder")?
        && order.read(source)? != b"little"
    {
        return Err(source
            .unsupported("its numbers are big-endian; save it again on a little-endian machine"));
    }
    let Some(region) = archive.entry("data.pkl")? else {
        return Err(source.corrupt("data.pkl is missing"));
    };
    let pickle = region.read(source)?;
    let pickle = Pickle::read(&pickle).map_err(|error| match error {
        PickleError::Cut { .. } => source.corrupt("data.pkl ends too early"),
        PickleError::Bad { at, reason } => source.corrupt(format!("data.pkl, byte {at}: {reason}")),
    })?;
    let mut storages = HashMap::new();
    for storage in storage_refs(source, &pickle)? {
        if storage.element().is_none() {
            continue; // nothing that reads its tensors asks for it
        }
        let (key, needed) = (storage.key, size_of(source, &storage)?);
        let region = match storages.remove(key) {
            Some(region) => region,
            None => match archive.entry(&format!("data/{key}"))? {
                Some(region) => region,
                None => return Err(source.corrupt(format!("storage `{key}` is missing"))),
            },
        };
        let found = region.len();
        if found < needed {
            return Err(source.truncated(format!("{needed} bytes of storage `{key}`"), found));
        }
        storages.insert(key, region);
    }
    walk::tensors(source, &pickle, &storages)
}

/// A zip archive whose entries all lie in one folder.
struct Archive<'s> {
    zip: ZipArchive<BufReader<Reader<'s>>>,
    source: &'s Source,
    /// The folder with its slash; the writer's choice.
    prefix: String,
    /// What inflated entries may still take.
    budget: u64,
}

impl<'s> Archive<'s> {
    fn open(source: &'s Source) -> Result<Self, CheckpointError> {
        let zip = match ZipArchive::new(BufReader::new(source.reader())) {
            Ok(zip) => zip,
            Err(error) => {
                // The directory's last record takes 22 bytes and a comment of at most 64 KiB.
                let length = source.len();
                let tail = source.read(length.saturating_sub((1 << 16) + 22)..length)?;
                let mut records = tail.windows(22);
                return Err(
                    match records.any(|record| record.starts_with(b"PK\x05\x06")) {
                        true => source.corrupt(format!("zip archive: {error}")),
                        false => {
                            source.truncated("a zip archive with its directory at the end", length)
                        }
                    },
                );
            }
        };
        let prefixes = zip
            .file_names()
            .filter_map(|name| name.strip_suffix("data.pkl"));
        let prefix = prefixes
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('/'))
            .min_by_key(|p| p.len());
        let prefix = prefix
            .ok_or_else(|| source.unknown("a zip archive that torch.save did not write"))?
            .to_string();
        Ok(Self {
            zip,
            source,
            prefix,
            budget: MAX_INFLATED,
        })
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.zip.index_for_name(&format!("{}{name}", self.prefix))
    }

    /// The bytes of an entry: where they lie in the file, or inflated. None if there is no such entry.
    fn entry(&mut self, name: &str) -> Result<Option<Region>, CheckpointError> {
        let Some(index) = self.index(name) else {
            return Ok(None);
        };
        let source = self.source;
        let broken =
            |error: &dyn std::fmt::Display| source.corrupt(format!("zip entry `{name}`: {error}"));
        let file = self
            .zip
            .by_index_raw(index)
            .map_err(|error| broken(&error))?;
        match file.compression() {
            _ if file.encrypted() => Err(broken(&"it is encrypted")),
            CompressionMethod::Stored => {
                // Without its checksum: torch does not check it either, and may be told not to write it.
                let size = file.compressed_size();
                let start = file
                    .data_start()
                    .ok_or_else(|| broken(&"it has no place"))?;
                let held = source.len() as u64;
                match start.checked_add(size) {
                    Some(end) if end <= held => {
                        Ok(Some(Region::Stored(start as usize..end as usize)))
                    }
                    _ => Err(source.truncated(
                        format!("{size} bytes of zip entry `{name}`"),
                        held.saturating_sub(start) as usize,
                    )),
                }
            }
            CompressionMethod::Deflated => {
                drop(file);
                let file = self.zip.by_index(index).map_err(|error| broken(&error))?;
                let mut bytes = vec![];
                file.take(self.budget + 1)
                    .read_to_end(&mut bytes)
                    .map_err(|error| broken(&error))?;
                let left = self.budget.checked_sub(bytes.len() as u64);
                self.budget =
                    left.ok_or_else(|| broken(&"it inflates to more than the supported size"))?;
                Ok(Some(Region::Inflated(bytes.into())))
            }
            other => Err(source.unsupported(format!(
                "its zip entries are compressed by {other}, which is not supported"
            ))),
        }
    }
}

/// Whether a file begins as the legacy format does: with a pickle of its magic number.
pub(crate) fn is_legacy(bytes: &[u8]) -> bool {
    // A pickle of that number takes 15 bytes, or 26 with a frame.
    Pickle::read(&bytes[..bytes.len().min(32)])
        .is_ok_and(|pickle| pickle[pickle.root] == Value::Int(LEGACY_MAGIC))
}

/// Reads the legacy format: pickles of the magic number, the protocol, the system, the object and the storage keys,
/// then for each key the number of elements, in 8 bytes, and the elements.
pub(crate) fn legacy(source: &Arc<Source>) -> Result<Contents, CheckpointError> {
    // How long the pickles are shows when they have been read.
    let mut length = LEGACY_HEAD;
    loop {
        let head = source.read(0..length.min(source.len()))?;
        if let Some(contents) = legacy_from(source, &head)? {
            return Ok(contents);
        }
        length = length.saturating_mul(4);
    }
}

/// Reads the legacy format, its pickles from `head`; none if that is not the whole file, and they go on behind it.
fn legacy_from(source: &Arc<Source>, head: &[u8]) -> Result<Option<Contents>, CheckpointError> {
    let mut at = 0;
    let mut next = |what: &str| match Pickle::read(&head[at..]) {
        Ok(pickle) => {
            at += pickle.length;
            Ok(Some(pickle))
        }
        Err(PickleError::Cut { .. }) if head.len() < source.len() => Ok(None),
        Err(PickleError::Cut { needed }) => Err(source.truncated(
            format!("a pickle of {needed} bytes or more, {what},"),
            head.len() - at,
        )),
        Err(PickleError::Bad { at: offset, reason }) => {
            Err(source.corrupt(format!("{what}, byte {}: {reason}", at + offset)))
        }
    };
    let Some(_) = next("the magic number")? else {
        return Ok(None);
    };
    let Some(protocol) = next("the protocol version")? else {
        return Ok(None);
    };
    if protocol.size(protocol.root) != Some(LEGACY_PROTOCOL) {
        return Err(source.corrupt(format!("its protocol is not {LEGACY_PROTOCOL}")));
    }
    let Some(_) = next("the system's description")? else {
        return Ok(None);
    };
    let Some(object) = next("the tensors' description")? else {
        return Ok(None);
    };
    let Some(keys) = next("the list of storages")? else {
        return Ok(None);
    };

    let mut refs = HashMap::new();
    for storage in storage_refs(source, &object)? {
        refs.insert(storage.key, storage);
    }
    let mut storages = HashMap::new();
    for &key in keys
        .sequence(keys.root)
        .ok_or_else(|| source.corrupt("it has no list of storages"))?
    {
        let storage = keys.str(key).and_then(|key| refs.get(key));
        let storage =
            storage.ok_or_else(|| source.corrupt("it lists a storage that no tensor has"))?;
        let (key, needed) = (storage.key, size_of(source, storage)?);
        let left = source.len() - at;
        let Some(rest) = left.checked_sub(8) else {
            return Err(source.truncated(format!("8 bytes before storage `{key}`"), left));
        };
        let mut count = [0; 8];
        source.read_at(at, &mut count)?;
        let element = storage.element().map_or(1, |(size, _)| size) as u64;
        if u64::from_le_bytes(count).checked_mul(element) != Some(needed as u64) {
            return Err(source.corrupt(format!(
                "storage `{key}` has another size than its tensors say"
            )));
        }
        if rest < needed {
            return Err(source.truncated(format!("{needed} bytes of storage `{key}`"), rest));
        }
        storages.insert(key, Region::Stored(at + 8..at + 8 + needed));
        at += 8 + needed;
    }
    if let Some(key) = refs.keys().find(|key| !storages.contains_key(*key)) {
        return Err(source.corrupt(format!("storage `{key}` is missing")));
    }
    walk::tensors(source, &object, &storages).map(Some)
}

/// All storages that a pickle refers to, some more than once.
fn storage_refs<'a>(
    source: &Source,
    pickle: &Pickle<'a>,
) -> Result<Vec<StorageRef<'a>>, CheckpointError> {
    let is_module = |id| {
        let kind = pickle.sequence(id).and_then(|parts| parts.first().copied());
        kind.and_then(|kind| pickle.str(kind)) == Some("module") // the class of a whole module, with its source code
    };
    let ids = pickle.values().filter_map(|value| match value {
        Value::Persistent(id) if !is_module(*id) => Some(*id),
        _ => None,
    });
    ids.map(|id| {
        StorageRef::read(pickle, id)
            .ok_or_else(|| source.corrupt("a reference to a storage is malformed"))
    })
    .collect()
}

fn size_of(source: &Source, storage: &StorageRef) -> Result<usize, CheckpointError> {
    let key = storage.key;
    if storage.element().is_none() {
        return Err(source.unsupported_dtype(&format!("(storage {key})"), storage.class));
    }
    storage
        .bytes()
        .ok_or_else(|| source.corrupt(format!("storage `{key}` is larger than memory")))
}
