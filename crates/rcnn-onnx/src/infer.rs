//! Types and shapes of what operators compute, as ONNX's specification has them.
//!
//! The builder folds with them what follows from fixed sizes, and the reader checks a written file with them.

mod shapes;
mod windows;

use crate::proto::{Attribute, ElementType};
use shapes::{arithmetic, sizes};

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

    fn text(&self, name: &str) -> Option<&'a str> {
        self.attributes
            .iter()
            .find_map(|attribute| match attribute {
                Attribute::Text(found, value) if *found == name => Some(*value),
                _ => None,
            })
    }

    /// An axis of an operand, from its attribute.
    fn axis(&self, x: &Fact, default: i64) -> Result<usize, String> {
        axis(self.int("axis").unwrap_or(default), x.shape.len())
    }
}

/// Most dimensions of a tensor.
const MOST_AXES: usize = 64;

/// Facts of the outputs of a node.
///
/// # Errors
/// Says what is wrong with its operands.
pub(crate) fn infer(call: &Call) -> Result<Vec<Fact>, String> {
    let outputs = outputs(call)?;
    // Each of a few nodes could have twice as many as the one before.
    let axes = outputs.iter().map(|output| output.shape.len()).max();
    match axes.filter(|axes| *axes > MOST_AXES) {
        Some(axes) => Err(format!("{axes} dimensions")),
        None => Ok(outputs),
    }
}

fn outputs(call: &Call) -> Result<Vec<Fact>, String> {
    let x = || call.input(0);
    let one = |fact| Ok(vec![fact]);
    match call.operator {
        "Relu" | "Clip" | "HardSigmoid" | "Neg" | "Abs" | "Ceil" | "Erf" | "Exp" | "Floor"
        | "Log" | "Reciprocal" | "Round" | "Sqrt" | "Tanh" | "Sigmoid" | "Softmax" => {
            let x = x()?;
            let mut y = x.clone().with(x.element);
            if call.operator == "Neg" {
                let negated = |values: &Vec<Option<i64>>| {
                    let values = values.iter();
                    values
                        .map(|value| value.and_then(i64::checked_neg))
                        .collect()
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
        "Conv" | "ConvTranspose" => one(windows::convolution(call)?),
        "MaxPool" | "AveragePool" => one(windows::pooling(call)?),
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
        "Reshape" => one(shapes::reshape(x()?, call.input(1)?)?),
        "Expand" => {
            let (x, to) = (x()?, call.input(1)?);
            let shape = broadcast(&x.shape, &sizes(to)?)?;
            one(Fact::new(x.element, shape))
        }
        "Transpose" => one(shapes::transpose(call)?),
        "Unsqueeze" => one(shapes::unsqueeze(call)?),
        "Squeeze" => one(shapes::squeeze(call)?),
        "Concat" => one(shapes::concat(call)?),
        "Slice" => one(shapes::slice(call)?),
        "Gather" => one(shapes::gather(call)?),
        "GatherElements" => {
            let (x, index) = (x()?, elements(call.input(1)?, ElementType::Int64)?);
            ranked(index, x.shape.len())?;
            one(Fact::new(x.element, index.shape.clone()))
        }
        "GatherND" => one(shapes::gather_nd(call)?),
        "ScatterND" | "ScatterElements" => {
            let (x, index, updates) = (x()?, call.input(1)?, call.input(2)?);
            elements(index, ElementType::Int64)?;
            elements(updates, x.element)?;
            one(Fact::new(x.element, x.shape.clone()))
        }
        "Range" => one(shapes::range(call)?),
        "TopK" => {
            let x = x()?;
            let axis = call.axis(x, -1)?;
            let mut shape = x.shape.clone();
            let k = call.values(1).and_then(|k| k.first().copied());
            shape[axis] = k.and_then(|k| usize::try_from(k).ok());
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
            agree(ranked(call.input(2)?, 1)?.shape[0], boxes.shape[0])?;
            let side = |name| call.int(name).and_then(|side| usize::try_from(side).ok());
            let bins = [side("output_height"), side("output_width")];
            let shape = vec![boxes.shape[0], x.shape[1], bins[0], bins[1]];
            one(Fact::new(x.element, shape))
        }
        "MaxRoiPool" => {
            let (x, boxes) = (ranked(x()?, 4)?, ranked(call.input(1)?, 2)?);
            elements(boxes, x.element)?;
            agree(boxes.shape[1], Some(5))?;
            let [height, width] = call.ints("pooled_shape").unwrap_or_default() else {
                return Err("no pooled_shape".into());
            };
            let bins = [height, width].map(|side| usize::try_from(*side).ok());
            let shape = vec![boxes.shape[0], x.shape[1], bins[0], bins[1]];
            one(Fact::new(x.element, shape))
        }
        "Pad" => one(shapes::pad(call)?),
        "Resize" => {
            let x = x()?;
            let shape = match (call.optional(3), &x.shape[..]) {
                (Some(sizes_of), _) => sizes(sizes_of)?,
                (None, [batch, channels, _, _]) => vec![*batch, *channels, None, None],
                (None, _) => return Err("not four dimensions".into()),
            };
            one(Fact::new(x.element, shape))
        }
        "ReduceMin" | "ReduceMax" | "ReduceSum" | "ArgMax" => one(shapes::reduced(call)?),
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

#[cfg(test)]
mod tests;
