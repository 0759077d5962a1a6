//! Frozen graphs: a `GraphDef` in which the variables have become constants. Of its thousands of nodes the constants that
//! were variables are read, and the order of two operations, which changed over the years.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::DType;

use super::wire::{Value, fields, shape, varint};
use super::{burn_dtype, names};
use crate::checkpoint::Contents;
use crate::error::CheckpointError;
use crate::source::Source;
use crate::storage::{Region, StoredTensor, View};

/// Key of the metadata that says whether boxes are clipped to the image before they are suppressed: `true`, `false`.
pub(super) const CLIPS_FIRST: &str = "tensorflow.clip_before_nms";

/// Scope of the nodes that suppress boxes.
const SUPPRESSION: &str = "MultiClassNonMaxSuppression";
/// Scope of the nodes that clip boxes.
const CLIPPING: &str = "ClipToWindow";

/// How a `SavedModel` begins: with version 1, and a graph.
const SAVED_MODEL: &[u8] = b"\x08\x01\x12";

/// Whether a file begins as a graph does, by itself or in a `SavedModel`.
pub(crate) fn is_graph(head: &[u8]) -> bool {
    head.starts_with(SAVED_MODEL) || begins_with_node(head)
}

/// Whether the first field is a node, whose first field is its name.
fn begins_with_node(head: &[u8]) -> bool {
    let mut rest = head;
    let name = (|| {
        let node = varint(&mut rest)? == 0x0a && varint(&mut rest)? > 2;
        let name = node && varint(&mut rest)? == 0x0a;
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        let name = rest.get(..length).filter(|_| name && length > 0)?;
        (rest.get(length) == Some(&0x12)).then_some(name)
    })();
    name.is_some_and(|name| name.iter().all(u8::is_ascii_graphic))
}

/// Reads a frozen graph, by itself or in a `SavedModel`.
pub(crate) fn read(source: &Arc<Source>) -> Result<Contents, CheckpointError> {
    if !source.head()?.starts_with(SAVED_MODEL) {
        return Graph::default().read(source, 0..source.len());
    }
    let inside = |range, field| {
        let mut found = None;
        messages(source, range, |number, range| {
            if number == field {
                found.get_or_insert(range);
            }
            Ok(())
        })?;
        found.ok_or_else(|| source.corrupt("a SavedModel without a graph"))
    };
    let graph = inside(inside(0..source.len(), 2)?, 2)?;
    Graph::default().read(source, graph)
}

/// Calls `see` with the number and the range of each message in a range of the file. Other fields are passed over.
fn messages(
    source: &Source,
    range: Range<usize>,
    mut see: impl FnMut(u64, Range<usize>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let mut at = range.start;
    while at < range.end {
        let head = source.read(at..range.end.min(at + 20))?;
        let mut rest = &head[..];
        let damaged = || source.corrupt(format!("not a TensorFlow graph (byte {at})"));
        let tag = varint(&mut rest).ok_or_else(damaged)?;
        let value = varint(&mut rest).ok_or_else(damaged)?;
        let start = at + head.len() - rest.len();
        match tag & 7 {
            0 => at = start,
            2 => {
                let left = range.end - start;
                let length = usize::try_from(value).ok().filter(|length| *length <= left);
                let Some(length) = length else {
                    return Err(
                        source.truncated(format!("{value} bytes of a node at {start}"), left)
                    );
                };
                see(tag >> 3, start..start + length)?;
                at = start + length;
            }
            _ => return Err(damaged()),
        }
    }
    Ok(())
}

/// The parts of a graph that have been read.
#[derive(Default)]
struct Graph {
    /// Constants, of which some were variables.
    constants: Vec<(String, Result<StoredTensor, CheckpointError>)>,
    /// Constants that a node `<constant>/read` reads, as it does former variables.
    read: HashSet<String>,
    /// Inputs of the nodes of suppressions.
    suppression: HashMap<String, Vec<String>>,
    /// Nodes that suppress boxes.
    suppress: Vec<String>,
}

impl Graph {
    fn read(
        mut self,
        source: &Arc<Source>,
        range: Range<usize>,
    ) -> Result<Contents, CheckpointError> {
        messages(source, range, |number, range| {
            if number != 1 {
                return Ok(());
            }
            let node = source.read(range.clone())?;
            self.node(source, &node, range.start).ok_or_else(|| {
                source.corrupt(format!("the node at byte {} is damaged", range.start))
            })
        })?;
        let mut contents = Contents::default();
        for (name, tensor) in std::mem::take(&mut self.constants) {
            if !names::is_variable(&name) && !self.read.contains(&name) {
                continue;
            }
            match tensor {
                Ok(tensor) => {
                    contents.tensors.insert(name, tensor);
                }
                Err(error @ CheckpointError::UnsupportedDType { .. }) => contents.leave_out(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(first) = self.clips_first() {
            let metadata = &mut contents.metadata;
            metadata.insert(CLIPS_FIRST.into(), first.to_string());
        }
        if contents.is_empty() {
            return Err(source.not_a_state_dict(
                "a TensorFlow graph without weights, since its variables are not constants; give the frozen graph \
                 (frozen_inference_graph.pb) or the checkpoint (*.index, in a SavedModel variables/variables.index)",
            ));
        }
        Ok(contents)
    }

    /// Takes what is wanted of a `NodeDef` that starts at a place of the file; `None` where it is damaged.
    fn node(&mut self, source: &Arc<Source>, node: &[u8], start: usize) -> Option<()> {
        let (mut name, mut operation, mut inputs, mut value) = ("", "", vec![], None);
        for field in fields(node) {
            match field? {
                (1, field) => name = field.text()?,
                (2, field) => operation = field.text()?,
                (3, field) => inputs.push(field.text()?),
                (5, field) => value = value.or(attribute(field.bytes()?)?),
                _ => {}
            }
        }
        if operation == "Identity"
            && let Some(constant) = name.strip_suffix("/read")
        {
            self.read.insert(constant.into());
        }
        if name.contains(SUPPRESSION) {
            if operation.starts_with("NonMaxSuppression") {
                self.suppress.push(name.into());
            }
            let inputs = inputs.iter().map(|input| node_of(input).to_string());
            self.suppression.insert(name.into(), inputs.collect());
        }
        if operation == "Const"
            && let Some(tensor) = value
        {
            let place = |bytes: &[u8]| start + (bytes.as_ptr().addr() - node.as_ptr().addr());
            let tensor = constant(source, name, tensor, place)?;
            self.constants.push((name.to_string(), tensor));
        }
        Some(())
    }

    /// Whether what is suppressed has been clipped, in the same suppression; `None` without any.
    fn clips_first(&self) -> Option<bool> {
        let first = self.suppress.first()?;
        let (mut seen, mut left) = (HashSet::new(), vec![first.as_str()]);
        while let Some(node) = left.pop() {
            if node.contains(SUPPRESSION) && node.contains(CLIPPING) {
                return Some(true);
            }
            if seen.insert(node)
                && let Some(inputs) = self.suppression.get(node)
            {
                left.extend(inputs.iter().map(String::as_str));
            }
        }
        Some(false)
    }
}

/// The node that an input comes from: `^node` and `node:1` are of `node`.
fn node_of(input: &str) -> &str {
    let input = input.strip_prefix('^').unwrap_or(input);
    input.split_once(':').map_or(input, |(node, _)| node)
}

/// The tensor of the attribute `value`; none in others.
fn attribute(entry: &[u8]) -> Option<Option<&[u8]>> {
    let (mut key, mut value) = ("", None);
    for field in fields(entry) {
        match field? {
            (1, field) => key = field.text()?,
            (2, field) => value = Some(field.bytes()?),
            _ => {}
        }
    }
    let Some(value) = value.filter(|_| key == "value") else {
        return Some(None);
    };
    for field in fields(value) {
        if let (8, tensor) = field? {
            return Some(Some(tensor.bytes()?));
        }
    }
    Some(None)
}

/// Reads a `TensorProto`; `None` where it is damaged. `place` says where bytes of it stand in the file.
fn constant(
    source: &Arc<Source>,
    key: &str,
    tensor: &[u8],
    place: impl Fn(&[u8]) -> usize,
) -> Option<Result<StoredTensor, CheckpointError>> {
    let (mut dtype, mut sizes, mut content, mut values) = (0, Some(vec![]), None, vec![]);
    for field in fields(tensor) {
        match field? {
            (1, field) => dtype = field.varint()?,
            (2, field) => sizes = shape(field.bytes()?),
            (4, field) => content = Some(field.bytes()?),
            (5, Value::Fixed32(bits)) => values.extend(bits.to_le_bytes()),
            (5, field) => values.extend(field.bytes()?),
            _ => {}
        }
    }
    let Some(burn_dtype) = burn_dtype(dtype) else {
        return Some(Err(
            source.unsupported_dtype(key, format!("DataType {dtype}"))
        ));
    };
    let Some(sizes) = sizes else {
        return Some(Err(source.corrupt(format!("tensor `{key}` has no sizes"))));
    };
    if let Some(content) = content.filter(|content| !content.is_empty()) {
        let start = place(content);
        let range = start..start + content.len();
        return Some(StoredTensor::whole(source, key, range, sizes, burn_dtype));
    }
    if burn_dtype != DType::F32 {
        return Some(Err(
            source.unsupported_dtype(key, "single values of another type than float")
        ));
    }
    Some(repeated(source, key, values, sizes))
}

/// A tensor of values of which the last stands for all that follow.
fn repeated(
    source: &Arc<Source>,
    key: &str,
    mut values: Vec<u8>,
    shape: Vec<usize>,
) -> Result<StoredTensor, CheckpointError> {
    let width = size_of::<f32>();
    if values.is_empty() {
        values = vec![0; width];
    }
    let held = values.len() / width;
    let strides = match held {
        1 => Some(vec![0; shape.len()]),
        _ => row_major(&shape),
    };
    let count = shape
        .iter()
        .try_fold(1usize, |count, &size| count.checked_mul(size));
    let fits = count.filter(|count| held == 1 || (held <= *count && *count <= MAX_REPEATED));
    let (Some(count), Some(strides)) = (fits, strides) else {
        return Err(source.corrupt(format!(
            "tensor `{key}` of shape {shape:?} has {held} values"
        )));
    };
    if held > 1 {
        let last = values[(held - 1) * width..].to_vec();
        values.extend(last.repeat(count - held));
    }
    let view = View {
        offset: 0,
        shape,
        strides,
    };
    StoredTensor::view(
        source,
        key,
        Region::Inflated(values.into()),
        view,
        DType::F32,
    )
}

/// The most elements of a tensor whose last value is repeated after others.
const MAX_REPEATED: usize = 1 << 24;

/// Strides of the dimensions in row-major order, in elements.
pub(super) fn row_major(shape: &[usize]) -> Option<Vec<usize>> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].checked_mul(shape[axis])?;
    }
    Some(strides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_begin_with_a_named_node() {
        assert!(is_graph(b"\x0a\x1f\x0a\x0cimage_tensor\x12\x0bPlaceholder"));
        for head in [
            &b""[..],
            b"\x0a",
            b"\x0a\x1f\x0a\x00\x12",
            b"\x0a\x1f\x0a\x02\n\n\x12",
            b"\x0a\x1f\x12\x0cimage_tensor\x12",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x80\x02",
        ] {
            assert!(!is_graph(head), "{head:?}");
        }
    }

    #[test]
    fn nodes_of_inputs() {
        assert_eq!(["a/b", "^a/b", "a/b:1"].map(node_of), ["a/b"; 3]);
    }
}
