//! Types and shapes of what operators compute, as ONNX's specification has them.
//!
//! The builder folds with them what follows from fixed sizes, and the reader checks a written file with them.

use crate::proto::{Attribute, ElementType};

/// A size of a dimension, if it is known.
pub(crate) type Size = Option<usize>;

/// Type and shape of a tensor, as far as known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) element: ElementType,
    pub(crate) shape: Vec<Size>,
    /// Elements of a number or a short list of integers, as far as they are known.
    pub(crate) value: Option<Vec<Option<i64>>>,
}

/// Longest list of integers whose elements are kept.
pub(crate) const MOST_KNOWN: usize = 4096;

impl Fact {
    pub(crate) fn new(element: ElementType, shape: Vec<Size>) -> Self {
        Self {
            element,
            shape,
            value: None,
        }
    }

    /// Integers `[n]`, or a number.
    fn integers(rank: usize, value: Vec<Option<i64>>) -> Self {
        let shape = if rank == 0 {
            vec![]
        } else {
            vec![Some(value.len())]
        };
        Self {
            element: ElementType::Int64,
            shape,
            value: Some(value),
        }
    }

    /// All elements, if they are known.
    pub(crate) fn known(&self) -> Option<Vec<i64>> {
        self.value.as_ref()?.iter().copied().collect()
    }

    fn with(self, element: ElementType) -> Self {
        Self::new(element, self.shape)
    }
}

/// A node whose results are asked for.
pub(crate) struct Call<'a> {
    pub(crate) operator: &'a str,
    /// `None` where an operand is left out.
    pub(crate) inputs: &'a [Option<&'a Fact>],
    pub(crate) attributes: &'a [Attribute<'a>],
}

impl<'a> Call<'a> {
    fn input(&self, i: usize) -> Result<&'a Fact, String> {
        let input = self.inputs.get(i).copied().flatten();
        input.ok_or_else(|| format!("operand {i} is missing"))
    }

    fn optional(&self, i: usize) -> Option<&'a Fact> {
        self.inputs.get(i).copied().flatten()
    }

    /// Known integers of an operand that is there.
    fn values(&self, i: usize) -> Option<Vec<i64>> {
        self.optional(i)?.known()
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.attributes
            .iter()
            .find_map(|attribute| match attribute {
                Attribute::Int(found, value) if *found == name => Some(*value),
                _ => None,
            })
    }

    fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attributes
            .iter()
            .find_map(|attribute| match attribute {
                Attribute::Ints(found, values) if *found == name => Some(values.as_slice()),
                _ => None,
            })
    }

    /// An axis of an operand, from its attribute.
    fn axis(&self, x: &Fact, default: i64) -> Result<usize, String> {
        axis(self.int("axis").unwrap_or(default), x.shape.len())
    }
}

/// Facts of the outputs of a node.
///
/// # Errors
/// Says what is wrong with its operands.
pub(crate) fn infer(call: &Call) -> Result<Vec<Fact>, String> {
    let x = || call.input(0);
    let one = |fact| Ok(vec![fact]);
    match call.operator {
        "Relu" | "Clip" | "HardSigmoid" | "Neg" | "Abs" | "Ceil" | "Erf" | "Exp" | "Floor"
        | "Log" | "Reciprocal" | "Round" | "Sqrt" | "Tanh" | "Sigmoid" | "Softmax" => {
            let x = x()?;
            let mut y = x.clone().with(x.element);
            if call.operator == "Neg" {
                let negated = |values: &Vec<Option<i64>>| {
                    values.iter().map(|value| value.map(|v| -v)).collect()
                };
                y.value = x.value.as_ref().map(negated);
            }
            one(y)
        }
        "Identity" => one(x()?.clone()),
        "Not" => one(elements(x()?, ElementType::Bool)?.clone()),
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" => {
            let (a, b) = (x()?, call.input(1)?);
            one(arithmetic(call.operator, a, b)?)
        }
        "Min" | "Max" => {
            let mut y = x()?.clone();
            for i in 1..call.inputs.len() {
                y = arithmetic(call.operator, &y, call.input(i)?)?;
            }
            one(y)
        }
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => {
            let y = arithmetic(call.operator, x()?, call.input(1)?)?;
            one(y.with(ElementType::Bool))
        }
        "And" | "Or" => {
            let [a, b] = [elements(x()?, ElementType::Bool)?, call.input(1)?];
            one(arithmetic(call.operator, a, b)?)
        }
        "Where" => {
            let condition = elements(x()?, ElementType::Bool)?;
            let (a, b) = (call.input(1)?, call.input(2)?);
            let y = arithmetic(call.operator, a, b)?;
            let shape = broadcast(&condition.shape, &y.shape)?;
            one(Fact::new(y.element, shape))
        }
        "Cast" => {
            let x = x()?;
            let to = call.int("to").and_then(ElementType::from_code);
            let to = to.ok_or("no type to cast to")?;
            let same = to == x.element;
            one(if same { x.clone() } else { x.clone().with(to) })
        }
        "Conv" | "ConvTranspose" => one(convolution(call)?),
        "MaxPool" | "AveragePool" => {
            let kernel = call.ints("kernel_shape").ok_or("no kernel_shape")?;
            one(windows(
                call,
                x()?,
                kernel,
                x()?.shape.get(1).copied().flatten(),
            )?)
        }
        "GlobalAveragePool" => {
            let x = ranked(x()?, 4)?;
            let shape = vec![x.shape[0], x.shape[1], Some(1), Some(1)];
            one(Fact::new(x.element, shape))
        }
        "Gemm" => {
            let (a, b) = (ranked(x()?, 2)?, ranked(call.input(1)?, 2)?);
            agree(a.shape[1], b.shape[0])?;
            let shape = vec![a.shape[0], b.shape[1]];
            let shape = match call.optional(2) {
                Some(c) => broadcast(&shape, &c.shape)?,
                None => shape,
            };
            one(Fact::new(a.element, shape))
        }
        "MatMul" => {
            let (a, b) = (x()?, call.input(1)?);
            let (rows, columns) = (a.shape.len(), b.shape.len());
            if rows < 2 || columns < 2 {
                return Err("operands are no matrices".into());
            }
            agree(a.shape[rows - 1], b.shape[columns - 2])?;
            let mut shape = broadcast(&a.shape[..rows - 2], &b.shape[..columns - 2])?;
            shape.extend([a.shape[rows - 2], b.shape[columns - 1]]);
            one(Fact::new(a.element, shape))
        }
        "Shape" => {
            let sizes = x()?.shape.iter().map(|size| size.map(|size| size as i64));
            one(Fact::integers(1, sizes.collect()))
        }
        "Reshape" => one(reshape(x()?, call.input(1)?)?),
        "Expand" => {
            let (x, to) = (x()?, call.input(1)?);
            let shape = broadcast(&x.shape, &sizes(to)?)?;
            one(Fact::new(x.element, shape))
        }
        "Transpose" => {
            let x = x()?;
            let order = call.ints("perm").ok_or("no perm")?;
            let order: Result<Vec<usize>, _> =
                order.iter().map(|i| axis(*i, x.shape.len())).collect();
            let shape = order?.into_iter().map(|i| x.shape[i]).collect();
            one(Fact::new(x.element, shape))
        }
        "Unsqueeze" => {
            let x = x()?;
            let axes = call.values(1).ok_or("axes are not known")?;
            let rank = x.shape.len() + axes.len();
            let mut axes = axes
                .into_iter()
                .map(|i| axis(i, rank))
                .collect::<Result<Vec<_>, _>>()?;
            axes.sort_unstable();
            let mut shape = x.shape.clone();
            axes.into_iter()
                .for_each(|axis| shape.insert(axis, Some(1)));
            one(reshaped(x, shape))
        }
        "Squeeze" => {
            let x = x()?;
            let axes = call.values(1).ok_or("axes are not known")?;
            let mut shape = x.shape.clone();
            for i in axes.into_iter().rev() {
                agree(shape.remove(axis(i, x.shape.len())?), Some(1))?;
            }
            one(reshaped(x, shape))
        }
        "Concat" => one(concat(call)?),
        "Slice" => one(slice(call)?),
        "Gather" => one(gather(x()?, call.input(1)?, call.axis(x()?, 0)?)?),
        "GatherElements" => {
            let (x, index) = (x()?, elements(call.input(1)?, ElementType::Int64)?);
            ranked(index, x.shape.len())?;
            one(Fact::new(x.element, index.shape.clone()))
        }
        "GatherND" => {
            let (x, index) = (x()?, elements(call.input(1)?, ElementType::Int64)?);
            let batch = call.int("batch_dims").unwrap_or(0) as usize;
            let (last, rest) = index.shape.split_last().ok_or("indices are a number")?;
            let depth = last.ok_or("the depth of indices is not known")?;
            let left = x.shape.get(batch + depth..).ok_or("indices are too deep")?;
            one(Fact::new(x.element, [rest, left].concat()))
        }
        "ScatterND" | "ScatterElements" => {
            let (x, index, updates) = (x()?, call.input(1)?, call.input(2)?);
            elements(index, ElementType::Int64)?;
            elements(updates, x.element)?;
            one(Fact::new(x.element, x.shape.clone()))
        }
        "Range" => {
            let [start, end, step] = [0, 1, 2].map(|i| call.optional(i).and_then(Fact::known));
            let known = match (start, end, step) {
                (Some(start), Some(end), Some(step)) if step[..] == [1] => Some(start[0]..end[0]),
                _ => None,
            };
            one(match known {
                Some(range) if range.clone().count() <= MOST_KNOWN => {
                    Fact::integers(1, range.map(Some).collect())
                }
                Some(range) => Fact::new(ElementType::Int64, vec![Some(range.count())]),
                None => Fact::new(x()?.element, vec![None]),
            })
        }
        "TopK" => {
            let x = x()?;
            let axis = call.axis(x, -1)?;
            let mut shape = x.shape.clone();
            shape[axis] = call.values(1).map(|k| k[0] as usize);
            let index = Fact::new(ElementType::Int64, shape.clone());
            Ok(vec![Fact::new(x.element, shape), index])
        }
        "NonZero" => {
            let shape = vec![Some(x()?.shape.len()), None];
            one(Fact::new(ElementType::Int64, shape))
        }
        "NonMaxSuppression" => {
            let (boxes, scores) = (ranked(x()?, 3)?, ranked(call.input(1)?, 3)?);
            agree(boxes.shape[2], Some(4))?;
            agree(boxes.shape[0], scores.shape[0])?;
            agree(boxes.shape[1], scores.shape[2])?;
            one(Fact::new(ElementType::Int64, vec![None, Some(3)]))
        }
        "RoiAlign" => {
            let (x, boxes) = (ranked(x()?, 4)?, ranked(call.input(1)?, 2)?);
            agree(boxes.shape[1], Some(4))?;
            agree(call.input(2)?.shape[0], boxes.shape[0])?;
            let side = |name| call.int(name).map(|side| side as usize);
            let bins = [side("output_height"), side("output_width")];
            let shape = vec![boxes.shape[0], x.shape[1], bins[0], bins[1]];
            one(Fact::new(x.element, shape))
        }
        "Pad" => {
            let x = x()?;
            let rank = x.shape.len();
            let pads = call.input(1)?.value.clone();
            let pads = pads.filter(|pads| pads.len() == 2 * rank);
            let side = |(axis, size): (usize, &Size)| {
                let pads = pads.as_ref()?;
                let both = pads[axis]? + pads[axis + rank]?;
                usize::try_from((*size)? as i64 + both).ok()
            };
            let shape = x.shape.iter().enumerate().map(side).collect();
            one(Fact::new(x.element, shape))
        }
        "Resize" => {
            let x = x()?;
            let shape = match call.optional(3) {
                Some(sizes_of) => sizes(sizes_of)?,
                None => vec![x.shape[0], x.shape[1], None, None],
            };
            one(Fact::new(x.element, shape))
        }
        "ReduceMin" | "ReduceMax" | "ReduceSum" | "ArgMax" => one(reduced(call)?),
        other => Err(format!("operator {other} is not known")),
    }
}

fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let from_end = if axis < 0 { axis + rank as i64 } else { axis };
    let found = usize::try_from(from_end).ok().filter(|axis| *axis < rank);
    found.ok_or_else(|| format!("axis {axis} of {rank} dimensions"))
}

fn elements(x: &Fact, expected: ElementType) -> Result<&Fact, String> {
    match x.element == expected {
        true => Ok(x),
        false => Err(format!("elements are {:?}, not {expected:?}", x.element)),
    }
}

fn ranked(x: &Fact, rank: usize) -> Result<&Fact, String> {
    match x.shape.len() == rank {
        true => Ok(x),
        false => Err(format!("{} dimensions, not {rank}", x.shape.len())),
    }
}

/// A size that two operands share.
fn agree(a: Size, b: Size) -> Result<Size, String> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Err(format!("sizes {a} and {b} differ")),
        (a, b) => Ok(a.or(b)),
    }
}

fn broadcast(a: &[Size], b: &[Size]) -> Result<Vec<Size>, String> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Size], axis: usize| match (axis + shape.len()).checked_sub(rank) {
        Some(axis) => shape[axis],
        None => Some(1),
    };
    let size = |axis| match (at(a, axis), at(b, axis)) {
        (Some(1), size) | (size, Some(1)) => Ok(size),
        (a, b) => agree(a, b),
    };
    (0..rank).map(size).collect()
}

fn arithmetic(operator: &str, a: &Fact, b: &Fact) -> Result<Fact, String> {
    elements(b, a.element)?;
    let shape = broadcast(&a.shape, &b.shape)?;
    let function: fn(i64, i64) -> Option<i64> = match operator {
        "Add" => |a, b| a.checked_add(b),
        "Sub" => |a, b| a.checked_sub(b),
        "Mul" => |a, b| a.checked_mul(b),
        "Div" => |a, b| a.checked_div(b),
        "Mod" => |a, b| a.checked_rem_euclid(b),
        "Min" => |a, b| Some(a.min(b)),
        "Max" => |a, b| Some(a.max(b)),
        _ => |_, _| None,
    };
    let value = match (&a.value, &b.value) {
        (Some(a), Some(b)) if shape.len() < 2 => {
            let count = a.len().max(b.len());
            let at =
                |values: &[Option<i64>], i: usize| values[if values.len() == 1 { 0 } else { i }];
            let each = (0..count).map(|i| function(at(a, i)?, at(b, i)?));
            Some(each.collect())
        }
        _ => None,
    };
    Ok(Fact {
        element: a.element,
        shape,
        value,
    })
}

/// The same elements in another shape.
fn reshaped(x: &Fact, shape: Vec<Size>) -> Fact {
    let value = x.value.clone().filter(|_| shape.len() < 2);
    Fact {
        element: x.element,
        shape,
        value,
    }
}

/// A shape that a tensor of integers holds.
fn sizes(shape: &Fact) -> Result<Vec<Size>, String> {
    elements(ranked(shape, 1)?, ElementType::Int64)?;
    if let Some(value) = &shape.value {
        let size = |size: &Option<i64>| size.and_then(|size| usize::try_from(size).ok());
        return Ok(value.iter().map(size).collect());
    }
    let rank = shape.shape[0].ok_or("the number of dimensions is not known")?;
    Ok(vec![None; rank])
}

fn product(shape: &[Size]) -> Option<usize> {
    shape.iter().copied().product()
}

fn reshape(x: &Fact, to: &Fact) -> Result<Fact, String> {
    elements(ranked(to, 1)?, ElementType::Int64)?;
    let Some(value) = &to.value else {
        return Ok(Fact::new(x.element, sizes(to)?));
    };
    let mut shape: Vec<Size> = Vec::with_capacity(value.len());
    for (axis, size) in value.iter().enumerate() {
        shape.push(match size {
            Some(0) => *x.shape.get(axis).ok_or("no dimension to keep")?,
            Some(size @ 1..) => Some(*size as usize),
            _ => None,
        });
    }
    let all = product(&x.shape);
    let free: Vec<usize> = (0..shape.len()).filter(|&i| shape[i].is_none()).collect();
    match (&free[..], all) {
        ([], Some(all)) if product(&shape) != Some(all) => {
            return Err(format!(
                "{:?} has not as many elements as {shape:?}",
                x.shape
            ));
        }
        ([free], Some(all)) => {
            let others: usize = shape.iter().flatten().product();
            if others == 0 || all % others != 0 {
                return Err(format!("{:?} does not fit into {shape:?}", x.shape));
            }
            shape[*free] = Some(all / others);
        }
        _ => {}
    }
    Ok(reshaped(x, shape))
}

/// Elements of a list of integers whose length is known.
fn partly_known(x: &Fact) -> Option<Vec<Option<i64>>> {
    match (&x.value, x.element, &x.shape[..]) {
        (Some(value), ..) => Some(value.clone()),
        (None, ElementType::Int64, [Some(count)]) if *count <= MOST_KNOWN => {
            Some(vec![None; *count])
        }
        _ => None,
    }
}

fn concat(call: &Call) -> Result<Fact, String> {
    let first = call.input(0)?;
    let at = call.axis(first, 0)?;
    let mut y = first.clone();
    y.value = partly_known(first);
    for i in 1..call.inputs.len() {
        let x = elements(ranked(call.input(i)?, first.shape.len())?, first.element)?;
        for (axis, (size, other)) in y.shape.iter_mut().zip(&x.shape).enumerate() {
            *size = match axis == at {
                true => size.zip(*other).map(|(a, b)| a + b),
                false => agree(*size, *other)?,
            };
        }
        let values = y.value.zip(partly_known(x));
        y.value = values.map(|(a, b)| [a, b].concat());
    }
    Ok(y)
}

fn slice(call: &Call) -> Result<Fact, String> {
    let x = call.input(0)?;
    let [starts, ends] = [1, 2].map(|i| call.values(i));
    let axes = call.values(3).ok_or("axes are not known")?;
    let steps = call.values(4).unwrap_or_else(|| vec![1; axes.len()]);
    let mut y = Fact::new(x.element, x.shape.clone());
    for (i, (&of, &step)) in axes.iter().zip(&steps).enumerate() {
        let at = axis(of, x.shape.len())?;
        let bounds = x.shape[at].zip(starts.as_ref()).zip(ends.as_ref());
        let Some(((size, starts), ends)) = bounds.filter(|_| step > 0) else {
            y.shape[at] = None;
            continue;
        };
        let place = |i: i64| {
            let i = if i < 0 { i + size as i64 } else { i };
            i.clamp(0, size as i64) as usize
        };
        let range = place(starts[i])..place(ends[i]).max(place(starts[i]));
        y.shape[at] = Some(range.len().div_ceil(step as usize));
        if let (1, 1, Some(value)) = (x.shape.len(), step, &x.value) {
            y.value = Some(value[range].to_vec());
        }
    }
    Ok(y)
}

fn gather(x: &Fact, index: &Fact, axis: usize) -> Result<Fact, String> {
    elements(index, ElementType::Int64)?;
    let (before, after) = (&x.shape[..axis], &x.shape[axis + 1..]);
    let shape = [before, &index.shape, after].concat();
    let picked = |value: &Vec<Option<i64>>, index: Vec<i64>| {
        let count = value.len() as i64;
        let place = |i: i64| if i < 0 { i + count } else { i };
        let pick = |i: i64| value.get(usize::try_from(place(i)).ok()?).copied();
        index.into_iter().map(pick).collect::<Option<Vec<_>>>()
    };
    let value = match (&x.value, index.known()) {
        (Some(value), Some(index)) if shape.len() < 2 => {
            Some(picked(value, index).ok_or("an index is out of range")?)
        }
        _ => None,
    };
    Ok(Fact {
        element: x.element,
        shape,
        value,
    })
}

fn convolution(call: &Call) -> Result<Fact, String> {
    let (x, weight) = (call.input(0)?, call.input(1)?);
    ranked(weight, x.shape.len())?;
    let groups = call.int("group").unwrap_or(1) as usize;
    let kernel: Option<Vec<i64>> = weight.shape[2..]
        .iter()
        .map(|size| size.map(|size| size as i64))
        .collect();
    let kernel = kernel.ok_or("the kernel's size is not known")?;
    let channels = |axis: usize| weight.shape[axis].map(|channels| channels * groups);
    let (taken, made) = match call.operator {
        "Conv" => (channels(1), weight.shape[0]),
        _ => (weight.shape[0], channels(1)),
    };
    agree(x.shape[1], taken)?;
    if let Some(bias) = call.optional(2) {
        agree(ranked(bias, 1)?.shape[0], made)?;
    }
    windows(call, x, &kernel, made)
}

/// Output of an operator whose window slides over `[N, C, ..]`.
fn windows(call: &Call, x: &Fact, kernel: &[i64], channels: Size) -> Result<Fact, String> {
    let axes = kernel.len();
    ranked(x, axes + 2)?;
    let ones = vec![1; axes];
    let zeros = vec![0; 2 * axes];
    let strides = call.ints("strides").unwrap_or(&ones);
    let dilations = call.ints("dilations").unwrap_or(&ones);
    let pads = call.ints("pads").unwrap_or(&zeros);
    let added = call.ints("output_padding").unwrap_or(&zeros);
    let side = |axis: usize| {
        let size = x.shape[axis + 2]? as i64;
        let (stride, before) = (strides[axis], pads[axis]);
        let reach = dilations[axis] * (kernel[axis] - 1) + 1;
        let both = before + pads[axis + axes];
        let made = if call.operator == "ConvTranspose" {
            (size - 1) * stride + reach - both + added[axis]
        } else {
            let span = size + both - reach;
            let whole = span.div_euclid(stride) + 1;
            // A window that is cut off counts if it begins before the padding at the end.
            let more = call.int("ceil_mode") == Some(1)
                && span.rem_euclid(stride) != 0
                && whole * stride < size + before;
            whole + i64::from(more)
        };
        usize::try_from(made).ok()
    };
    let shape = [x.shape[0], channels]
        .into_iter()
        .chain((0..axes).map(side));
    Ok(Fact::new(x.element, shape.collect()))
}

fn reduced(call: &Call) -> Result<Fact, String> {
    let x = call.input(0)?;
    let rank = x.shape.len();
    let axes = match call.operator {
        "ArgMax" => vec![call.int("axis").unwrap_or(0)],
        _ => match (call.ints("axes"), call.values(1)) {
            (Some(axes), _) => axes.to_vec(),
            (None, Some(axes)) => axes,
            (None, None) => (0..rank as i64).collect(),
        },
    };
    let axes = axes
        .into_iter()
        .map(|i| axis(i, rank))
        .collect::<Result<Vec<_>, _>>()?;
    let keep = call.int("keepdims") != Some(0);
    let sizes = x.shape.iter().enumerate();
    let sizes = sizes.filter_map(|(axis, size)| match axes.contains(&axis) {
        true => keep.then_some(Some(1)),
        false => Some(*size),
    });
    let element = match call.operator {
        "ArgMax" => ElementType::Int64,
        _ => x.element,
    };
    Ok(Fact::new(element, sizes.collect()))
}

#[cfg(test)]
mod tests;
