//! Tensors that still lie in their file, below every format: a range of bytes, a shape and strides, checked when the file
//! is opened and read once, into row-major order, when asked for.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{BoolStore, Bytes, DType, TensorData};
use bytemuck::Pod;
use rayon::prelude::*;
use rcnn_backbone::NormFacts;

use crate::error::CheckpointError;
use crate::source::Source;
use crate::tensorflow;

const _: () = assert!(
    cfg!(target_endian = "little"),
    "checkpoints hold little-endian numbers"
);

/// The most that an expanded or overlapping view may grow to when copied, in bytes.
const MAX_EXPANDED: usize = 256 << 20;

/// The bytes of one storage, which several tensors may share.
#[derive(Debug, Clone)]
pub(crate) enum Region {
    /// In the file, at a range that lies within it.
    Stored(Range<usize>),
    /// Inflated from a compressed zip entry.
    Inflated(Arc<[u8]>),
}

impl Region {
    /// The number of bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Stored(range) => range.len(),
            Self::Inflated(bytes) => bytes.len(),
        }
    }

    /// A copy of all bytes.
    pub(crate) fn read(&self, source: &Source) -> Result<Vec<u8>, CheckpointError> {
        match self {
            Self::Stored(range) => source.read(range.clone()),
            Self::Inflated(bytes) => Ok(bytes.to_vec()),
        }
    }

    /// Fills `into` with the bytes from `at` on, which lie within the region.
    fn read_at(&self, source: &Source, at: usize, into: &mut [u8]) -> Result<(), CheckpointError> {
        match self {
            Self::Stored(range) => source.read_at(range.start + at, into),
            Self::Inflated(bytes) => {
                into.copy_from_slice(&bytes[at..at + into.len()]);
                Ok(())
            }
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
    pub(crate) source: Arc<Source>,
    region: Region,
    /// Where the first element begins in the region, in bytes.
    start: usize,
    /// Size and stride, both in elements, of the dimensions with more than one element, joined where they can be.
    layout: Vec<(usize, usize)>,
    checksum: Option<Checksum>,
    /// Of a norm's running variance: what torch wrote of the norm besides its tensors.
    pub(crate) norm: NormFacts,
}

/// TensorFlow's checksum of all bytes of a tensor.
#[derive(Debug, Clone)]
struct Checksum {
    /// The tensor's name in the file.
    key: Arc<str>,
    value: u32,
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
        source.require(key, &range)?;
        let count = range.len() / dtype.size();
        Ok(Self {
            shape,
            dtype,
            source: source.clone(),
            region: Region::Stored(range),
            start: 0,
            layout: joined([(count, 1)]),
            checksum: None,
            norm: NormFacts::default(),
        })
    }

    /// The tensor, whose bytes must have this checksum when they are read.
    pub(crate) fn with_checksum(mut self, key: &str, value: u32) -> Self {
        self.checksum = Some(Checksum {
            key: key.into(),
            value,
        });
        self
    }

    /// The elements of a tensor in row-major order as one of another shape, given what each of its dimensions
    /// steps over.
    pub(crate) fn reordered(&self, shape: Vec<usize>, strides: &[usize]) -> Self {
        // Of a single number that stands for all there is nothing to step over.
        let is_repeated = self.layout.iter().any(|(_, stride)| *stride == 0);
        let step = if is_repeated { 0 } else { 1 };
        let strides = strides.iter().map(|stride| stride * step);
        Self {
            layout: joined(shape.iter().copied().zip(strides)),
            shape,
            ..self.clone()
        }
    }

    /// Another tensor of the same file, of values that were computed.
    pub(crate) fn with_values(&self, shape: Vec<usize>, values: Vec<f32>) -> Self {
        let layout = joined([(values.len(), 1)]);
        Self {
            shape,
            dtype: DType::F32,
            source: self.source.clone(),
            region: Region::Inflated(bytemuck::cast_slice(&values).into()),
            start: 0,
            layout,
            checksum: None,
            norm: NormFacts::default(),
        }
    }

    /// The transpose of a matrix that is all of its region, in row-major order.
    pub(crate) fn transposed(mut self) -> Self {
        if let &[rows, cols] = self.shape.as_slice() {
            self.shape = vec![cols, rows];
            self.layout = joined([(cols, 1), (rows, cols)]);
        }
        self
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
        let held = region.len();
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
            checksum: None,
            norm: NormFacts::default(),
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
    /// [`CheckpointError::Io`] when the file cannot be read any more or memory does not suffice.
    pub fn data(&self) -> Result<TensorData, CheckpointError> {
        let bytes = match self.dtype.size() {
            1 => {
                let mut elements = self.elements::<u8>()?;
                if self.dtype == DType::Bool(BoolStore::Native) {
                    // A Rust bool is 0 or 1, a file's byte anything.
                    elements
                        .iter_mut()
                        .for_each(|byte| *byte = (*byte != 0).into());
                }
                Bytes::from_elems(elements)
            }
            // Aligned as the elements are: else they would be copied once more to be so.
            2 => Bytes::from_elems(self.elements::<u16>()?),
            4 => Bytes::from_elems(self.elements::<u32>()?),
            _ => Bytes::from_elems(self.elements::<u64>()?),
        };
        Ok(TensorData {
            bytes,
            shape: self.shape.clone().into(),
            dtype: self.dtype,
        })
    }

    fn elements<T: Pod + Send + Sync>(&self) -> Result<Vec<T>, CheckpointError> {
        let count = self.num_elements();
        if count == 0 {
            return Ok(vec![]);
        }
        let last: usize = self.layout.iter().map(|(n, stride)| (n - 1) * stride).sum();
        let mut held = self.source.room(last + 1)?;
        let into = bytemuck::cast_slice_mut(&mut held);
        self.region.read_at(&self.source, self.start, into)?;
        if let Some(Checksum { key, value }) = &self.checksum
            && tensorflow::checksum(into) != *value
        {
            let reason = format!("tensor `{key}` does not have its checksum");
            return Err(self.source.corrupt(reason));
        }
        if let [] | [(_, 1)] = self.layout.as_slice() {
            return Ok(held);
        }
        let mut elements = self.source.room(count)?;
        match *self.layout.as_slice() {
            [(cols, 1), (_, stride)] if stride == cols => transpose(&held, cols, &mut elements),
            ref layout => gather(&held, layout, &mut elements),
        }
        Ok(elements)
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
fn joined(dimensions: impl IntoIterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    let mut layout: Vec<(usize, usize)> = vec![];
    for (size, stride) in dimensions.into_iter().filter(|&(size, _)| size > 1) {
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

/// Fills `into` with the transpose of a matrix of so many columns. It is waiting for memory, which threads do together.
pub(crate) fn transpose<T: Copy + Send + Sync>(from: &[T], cols: usize, into: &mut [T]) {
    const BAND: usize = 64;
    let rows = from.len() / cols.max(1);
    let bands = into.par_chunks_mut((BAND * rows).max(1)).enumerate();
    bands.for_each(|(band, into)| {
        let layout = [(into.len() / rows, 1), (rows, cols)];
        gather(&from[band * BAND..], &layout, into);
    });
}

/// Fills `into` with the elements that `layout` (size and stride of each dimension) picks from `from`, the last dimension
/// running fastest. Matrices are walked in squares, so that what is read and written stays in cache.
fn gather<T: Copy>(from: &[T], layout: &[(usize, usize)], into: &mut [T]) {
    const SIDE: usize = 32;
    if into.is_empty() {
        return;
    }
    let (planes, matrix) = layout.split_at(layout.len().saturating_sub(2));
    let [(rows, down), (cols, right)] = match *matrix {
        [rows, cols] => [rows, cols],
        [cols] => [(1, 0), cols],
        _ => [(1, 0), (1, 0)],
    };
    for (plane, into) in into.chunks_exact_mut(rows * cols).enumerate() {
        let (_, base) = planes
            .iter()
            .rev()
            .fold((plane, 0), |(rest, at), (size, stride)| {
                (rest / size, at + rest % size * stride)
            });
        for top in (0..rows).step_by(SIDE) {
            for left in (0..cols).step_by(SIDE) {
                for row in top..rows.min(top + SIDE) {
                    for col in left..cols.min(left + SIDE) {
                        into[row * cols + col] = from[base + row * down + col * right];
                    }
                }
            }
        }
    }
}
