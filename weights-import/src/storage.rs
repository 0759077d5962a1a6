//! Tensors that still lie in their file, below every format: a mapped file, a range of bytes, a shape and strides,
//! checked when the file is opened and copied once, into row-major order, when asked for.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{BoolStore, DType, TensorData};
use memmap2::Mmap;

use crate::error::CheckpointError;

const _: () = assert!(
    cfg!(target_endian = "little"),
    "checkpoints hold little-endian numbers"
);

/// The most that an expanded or overlapping view may grow to when copied, in bytes.
const MAX_EXPANDED: usize = 256 << 20;

/// A checkpoint's bytes, usually a file mapped into memory, and the errors that name it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, CheckpointError> {
        let io = |source| CheckpointError::Io {
            path: path.to_path_buf(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let about = file.metadata().map_err(io)?;
        if about.is_dir() {
            return Err(io(io::ErrorKind::IsADirectory.into()));
        }
        if about.len() == 0 {
            return Err(CheckpointError::Empty {
                path: path.to_path_buf(),
            });
        }
        // SAFETY: the map is only read. As with every mapped file, the caller must not shorten or
        // overwrite it meanwhile; this project replaces files by renaming, which leaves maps whole.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            bytes: Bytes::Mapped(map),
        }))
    }

    /// Bytes of the program itself, under a name for errors.
    pub(crate) fn of_static(name: &str, bytes: &'static [u8]) -> Arc<Self> {
        Arc::new(Self {
            path: name.into(),
            bytes: Bytes::Static(bytes),
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
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

/// The bytes of one storage, which several tensors may share.
#[derive(Debug, Clone)]
pub(crate) enum Region {
    /// In the file, at a range that lies within it.
    Mapped(Range<usize>),
    /// Inflated from a compressed zip entry.
    Inflated(Arc<[u8]>),
}

impl Region {
    pub(crate) fn bytes<'s>(&'s self, source: &'s Source) -> &'s [u8] {
        match self {
            Self::Mapped(range) => &source.bytes()[range.clone()],
            Self::Inflated(bytes) => bytes,
        }
    }
}

/// A tensor in a checkpoint: its shape and element type, and the way to its data. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// The sizes of its dimensions; none for a single number.
    pub shape: Vec<usize>,
    /// The type of its elements, as stored.
    pub dtype: DType,
    source: Arc<Source>,
    region: Region,
    /// Where the first element begins in the region, in bytes.
    start: usize,
    /// Size and stride, both in elements, of the dimensions with more than one element, joined where they can be.
    layout: Vec<(usize, usize)>,
}

/// Where a tensor lies in its storage, in elements.
pub(crate) struct View {
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

impl StoredTensor {
    /// The tensor called `key` that is all of `range` of the file, in row-major order.
    pub(crate) fn whole(
        source: &Arc<Source>,
        key: &str,
        range: Range<usize>,
        shape: Vec<usize>,
        dtype: DType,
    ) -> Result<Self, CheckpointError> {
        let needed =
            element_count(&shape).and_then(|count| count.checked_mul(element_size(dtype)?));
        if range.start > range.end || needed != Some(range.len()) {
            let found = range.len();
            return Err(source.corrupt(format!(
                "tensor `{key}` of shape {shape:?} and type {dtype:?} has {found} bytes"
            )));
        }
        if range.end > source.bytes().len() {
            let found = source.bytes().len().saturating_sub(range.start);
            return Err(source.truncated(format!("{} bytes of tensor `{key}`", range.len()), found));
        }
        let layout = vec![(range.len(), 1)];
        Ok(Self {
            shape,
            dtype,
            source: source.clone(),
            region: Region::Mapped(range),
            start: 0,
            layout,
        })
    }

    /// The tensor called `key` that is a view of `region`.
    pub(crate) fn view(
        source: &Arc<Source>,
        key: &str,
        region: Region,
        view: View,
        dtype: DType,
    ) -> Result<Self, CheckpointError> {
        let View {
            offset,
            shape,
            strides,
        } = view;
        let corrupt =
            |what: &str| Err(source.corrupt(format!("tensor `{key}` of shape {shape:?} {what}")));
        let Some(size) = element_size(dtype) else {
            return Err(source.unsupported_dtype(key, dtype.name()));
        };
        if shape.len() != strides.len() {
            return corrupt("has another number of strides");
        }
        let held = region.bytes(source).len();
        let Some(needed) = element_count(&shape).and_then(|count| count.checked_mul(size)) else {
            return corrupt("has more elements than can be counted");
        };
        let mut layout = vec![];
        if needed > 0 {
            layout = joined(shape.iter().copied().zip(strides.iter().copied()));
            let last = layout.iter().try_fold(offset, |at, &(count, stride)| {
                at.checked_add((count - 1).checked_mul(stride)?)
            });
            if last
                .and_then(|last| last.checked_add(1)?.checked_mul(size))
                .is_none_or(|end| end > held)
            {
                return corrupt(&format!(
                    "and strides {strides:?} reaches past its storage of {held} bytes"
                ));
            }
            if needed > held.max(MAX_EXPANDED) {
                return corrupt(&format!(
                    "is a view of {held} bytes, too large to be written out"
                ));
            }
        }
        let start = if needed > 0 { offset * size } else { 0 };
        Ok(Self {
            shape,
            dtype,
            source: source.clone(),
            region,
            start,
            layout,
        })
    }

    /// The number of elements.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Copies the elements out of the file, in row-major order and in the type they are stored in.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`] when memory does not suffice.
    pub fn data(&self) -> Result<TensorData, CheckpointError> {
        let size = self.dtype.size();
        let count = self.num_elements();
        let from = &self.region.bytes(&self.source)[self.start..];
        if let ([] | [(_, 1)], DType::F32) = (self.layout.as_slice(), self.dtype) {
            // As numbers, for bytes would be copied once more to be aligned.
            let mut values = self.room(count)?;
            let (numbers, _) = from[..count * size].as_chunks();
            values.extend(numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)));
            return Ok(TensorData::new(values, self.shape.clone()));
        }
        let mut bytes = self.room(count * size)?;
        match (self.layout.as_slice(), size) {
            _ if count == 0 => {}
            ([] | [(_, 1)], _) => bytes.extend_from_slice(&from[..count * size]),
            (layout, 1) => gather::<1>(from, layout, &mut bytes),
            (layout, 2) => gather::<2>(from, layout, &mut bytes),
            (layout, 4) => gather::<4>(from, layout, &mut bytes),
            (layout, _) => gather::<8>(from, layout, &mut bytes),
        }
        if self.dtype == DType::Bool(BoolStore::Native) {
            bytes
                .iter_mut()
                .for_each(|byte| *byte = (*byte != 0).into()); // a Rust bool is 0 or 1, a file's byte anything
        }
        Ok(TensorData::from_bytes_vec(
            bytes,
            self.shape.clone(),
            self.dtype,
        ))
    }

    fn room<T>(&self, len: usize) -> Result<Vec<T>, CheckpointError> {
        let mut room = Vec::new();
        room.try_reserve_exact(len)
            .map_err(|error| CheckpointError::Io {
                path: self.source.path.clone(),
                source: io::Error::new(io::ErrorKind::OutOfMemory, error),
            })?;
        Ok(room)
    }
}

/// The size of an element in bytes: 1, 2, 4 or 8, or none for packed types.
fn element_size(dtype: DType) -> Option<usize> {
    match dtype {
        DType::QFloat(_) => None,
        dtype => Some(dtype.size()),
    }
}

fn element_count(shape: &[usize]) -> Option<usize> {
    // Without the zeros first, so that no product of a part of the shape overflows either.
    let count = shape
        .iter()
        .filter(|&&size| size > 0)
        .try_fold(1usize, |count, &size| count.checked_mul(size))?;
    Some(if shape.contains(&0) { 0 } else { count })
}

/// The dimensions without those of size 1, neighbours that are one run of memory made one.
fn joined(dimensions: impl Iterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    let mut layout: Vec<(usize, usize)> = vec![];
    for (size, stride) in dimensions.filter(|&(size, _)| size > 1) {
        match layout.last_mut() {
            Some((outer, outer_stride)) if size.checked_mul(stride) == Some(*outer_stride) => {
                *outer *= size;
                *outer_stride = stride;
            }
            _ => layout.push((size, stride)),
        }
    }
    layout
}

/// Appends the elements of `N` bytes that `layout` picks from `from`, the last dimension running fastest.
fn gather<const N: usize>(from: &[u8], layout: &[(usize, usize)], into: &mut Vec<u8>) {
    let Some((&(row, step), outer)) = layout.split_last() else {
        return;
    };
    let mut index = vec![0; outer.len()];
    loop {
        let base: usize = index
            .iter()
            .zip(outer)
            .map(|(i, (_, stride))| i * stride)
            .sum();
        for i in 0..row {
            let at = (base + i * step) * N;
            into.extend_from_slice(&from[at..at + N]);
        }
        // Count up like an odometer, from the innermost of the outer dimensions.
        let Some(dimension) = (0..outer.len()).rev().find(|&d| index[d] + 1 < outer[d].0) else {
            return;
        };
        index[dimension] += 1;
        index[dimension + 1..].fill(0);
    }
}
