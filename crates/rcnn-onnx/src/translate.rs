//! From a recorded graph to ONNX operators.
//!
//! A recording has the sizes of one batch. The graph is recorded twice, with batches that differ in
//! everything that is free: a size that both have is fixed, and the others are left to the runtime.

mod windows;

use std::collections::{BTreeSet, HashMap};

use burn::tensor::ops::InterpolateMode;
use burn::tensor::{DType, Slice};
use rcnn_ops::record::{Binary, Graph, Node, Operation, Source, TensorId, Unary};

use crate::builder::{Builder, Value};
use crate::constants::{Parameters, evaluated, is_constant, is_known};
use crate::error::OnnxError;
use crate::proto::{Attribute, ElementType};

/// The end of a dimension in a slice.
const END: i64 = i64::MAX;

pub(crate) struct Translator<'a> {
    graph: &'a Graph,
    /// The same operations on a batch of other sizes.
    other: &'a Graph,
    parameters: &'a Parameters,
    values: HashMap<TensorId, Value>,
}

impl<'a> Translator<'a> {
    pub(crate) fn new(
        [graph, other]: [&'a Graph; 2],
        parameters: &'a Parameters,
    ) -> Result<Self, OnnxError> {
        let ranks = |graph: &Graph| -> Vec<usize> {
            let outputs = graph.nodes().iter().map(|node| node.outputs[0]);
            outputs.map(|id| graph.tensor(id).shape.len()).collect()
        };
        if ranks(graph) != ranks(other) {
            return Err(OnnxError::SizeDependent);
        }
        Ok(Self {
            graph,
            other,
            parameters,
            values: HashMap::new(),
        })
    }

    /// Says what an input of the recording is.
    pub(crate) fn bind(&mut self, name: &str, value: Value) {
        if let Some((_, id)) = self.graph.inputs().find(|(input, _)| *input == name) {
            self.values.insert(id, value);
        }
    }

    /// An output of the recording, with the operators that lead to it; `None` if there is none of that name.
    pub(crate) fn output(
        &mut self,
        name: &str,
        b: &mut Builder<'a>,
    ) -> Result<Option<Value>, OnnxError> {
        let output = self.graph.outputs().find(|(output, _)| *output == name);
        output.map(|(_, id)| self.compute(id, b)).transpose()
    }

    /// Sizes of an output as recorded.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        let output = self.graph.outputs().find(|(output, _)| *output == name);
        output.map(|(_, id)| self.graph.tensor(id).shape.as_slice())
    }

    fn compute(&mut self, id: TensorId, b: &mut Builder<'a>) -> Result<Value, OnnxError> {
        // The nodes that are missing, in the order of the recording.
        let (mut missing, mut open) = (BTreeSet::new(), vec![id]);
        while let Some(id) = open.pop() {
            if self.values.contains_key(&id) || is_constant(self.graph, id) {
                continue;
            }
            if let Source::Node(node) = self.graph.tensor(id).source
                && missing.insert(node)
            {
                open.extend(self.operands(&self.graph.nodes()[node]));
            }
        }
        for node in missing {
            let node = &self.graph.nodes()[node];
            b.scope(self.module(node));
            self.translate(node, b)?;
        }
        self.value(id, b)
    }

    /// Operands of a node's operators, which for some patterns are not those of the node.
    fn operands(&self, node: &Node) -> Vec<TensorId> {
        if let Some(x) = self.relu(node) {
            return vec![x];
        }
        let mut inputs = node.inputs.clone();
        match node.operation {
            Operation::SliceAssign(_) if self.padding(node).is_some() => vec![node.inputs[1]],
            _ => {
                if let Some(x) = self.same_padded(node) {
                    inputs[0] = x;
                }
                inputs
            }
        }
    }

    fn producer(&self, id: TensorId) -> Option<&'a Node> {
        match self.graph.tensor(id).source {
            Source::Node(node) => Some(&self.graph.nodes()[node]),
            _ => None,
        }
    }

    /// The operand of Burn's `relu`: a fill with zeros where an element is at most zero.
    fn relu(&self, node: &Node) -> Option<TensorId> {
        let Operation::MaskFill(0.0) = node.operation else {
            return None;
        };
        let mask = self.producer(node.inputs[1])?;
        let is_relu = matches!(mask.operation, Operation::Scalar(Binary::LowerEqual, 0.0))
            && mask.inputs[0] == node.inputs[0];
        is_relu.then_some(node.inputs[0])
    }

    /// The number that Burn's `pad` surrounds a tensor with, and how wide on each side.
    fn padding(&self, node: &Node) -> Option<(f32, Vec<i64>)> {
        let Operation::SliceAssign(slices) = &node.operation else {
            return None;
        };
        let Operation::Fill(number) = self.producer(node.inputs[0])?.operation else {
            return None;
        };
        let sides = |graph: &Graph| {
            let [part, whole] = [node.inputs[1], node.outputs[0]].map(|id| &graph.tensor(id).shape);
            let axes = part.iter().zip(whole).enumerate();
            let (mut before, after): (Vec<i64>, Vec<i64>) = axes
                .map(|(axis, (part, whole))| {
                    let start = slices.get(axis).map_or(0, |slice| slice.start as i64);
                    (start, *whole as i64 - *part as i64 - start)
                })
                .unzip();
            before.extend(after);
            before
        };
        let [found, other] = [self.graph, self.other].map(sides);
        (found == other).then_some((number as f32, found))
    }

    /// The module of a node, or its layer.
    fn module(&self, node: &Node) -> String {
        let module = self.graph.module(node).map(str::to_string);
        module.or_else(|| node.layer.clone()).unwrap_or_default()
    }

    fn unsupported(&self, node: &Node, what: impl Into<String>) -> OnnxError {
        OnnxError::Unsupported {
            operation: what.into(),
            module: self.module(node),
            layer: node.layer.clone().unwrap_or_default(),
        }
    }

    /// A tensor that is there, or a constant.
    fn value(&mut self, id: TensorId, b: &mut Builder<'a>) -> Result<Value, OnnxError> {
        if let Some(value) = self.values.get(&id) {
            return Ok(value.clone());
        }
        let tensor = self.graph.tensor(id);
        let value = match &tensor.source {
            Source::Constant(data) if !tensor.dtype.is_float() => {
                let integers: Vec<i64> = data.iter().collect();
                b.integers("constant", &tensor.shape, &integers)
            }
            source => {
                let name = match source {
                    Source::Parameter(path) => path.as_str(),
                    _ => "constant",
                };
                let (graph, parameters) = (self.graph, self.parameters);
                self.require_known(id)?;
                let read = move || evaluated(graph, parameters, id).values;
                b.weights(name, &tensor.shape, read)
            }
        };
        self.values.insert(id, value.clone());
        Ok(value)
    }

    fn require_known(&self, id: TensorId) -> Result<(), OnnxError> {
        match is_known(self.graph, self.parameters, id) {
            true => Ok(()),
            false => Err(OnnxError::UnknownTensor {
                shape: self.graph.tensor(id).shape.clone(),
            }),
        }
    }

    /// Sizes of a tensor, `None` where they are free.
    fn sizes(&self, id: TensorId) -> Vec<Option<usize>> {
        let [found, other] = [self.graph, self.other].map(|graph| &graph.tensor(id).shape);
        let pairs = found.iter().zip(other);
        pairs.map(|(a, b)| (a == b).then_some(*a)).collect()
    }

    /// A shape for `Reshape` that leaves free sizes to the runtime.
    fn new_shape(&self, node: &Node) -> Option<Vec<i64>> {
        let (from, to) = (self.sizes(node.inputs[0]), self.sizes(node.outputs[0]));
        let (shape, other) = (
            &self.graph.tensor(node.inputs[0]).shape,
            &self.graph.tensor(node.outputs[0]).shape,
        );
        let mut inferred = false;
        let sizes = to.iter().enumerate().map(|(axis, size)| match size {
            Some(size) => Some(*size as i64),
            // The same free size in the same place.
            None if from.get(axis) == Some(&None) && shape[axis] == other[axis] => Some(0),
            None if !inferred => {
                inferred = true;
                Some(-1)
            }
            None => None,
        });
        sizes.collect()
    }

    fn translate(&mut self, node: &Node, b: &mut Builder<'a>) -> Result<(), OnnxError> {
        let output = node.outputs[0];
        let value = self.operator(node, b)?;
        self.values.insert(output, value);
        Ok(())
    }

    fn operator(&mut self, node: &Node, b: &mut Builder<'a>) -> Result<Value, OnnxError> {
        if let Some(x) = self.relu(node) {
            let x = self.value(x, b)?;
            return Ok(b.op("Relu", [&x]));
        }
        if let Some((number, pads)) = self.padding(node) {
            let x = self.value(node.inputs[1], b)?;
            let (pads, number) = (b.ints(&pads), b.float(number));
            return Ok(b.op("Pad", [&x, &pads, &number]));
        }
        if let Some(value) = self.window(node, b)? {
            return Ok(value);
        }
        let inputs: Result<Vec<Value>, _> =
            node.inputs.iter().map(|&id| self.value(id, b)).collect();
        let inputs = inputs?;
        let all: Vec<&Value> = inputs.iter().collect();
        let x = all.first().copied();
        let rank = |id: TensorId| self.graph.tensor(id).shape.len();
        let output = node.outputs[0];
        let one = |b: &mut Builder<'a>, operator: &str| b.node(operator, &all, &[]);
        Ok(match (&node.operation, x) {
            (Operation::Linear { bias }, Some(x)) => match rank(node.inputs[0]) {
                2 => b.node("Gemm", &all, &[]),
                _ => {
                    let product = b.op("MatMul", [x, all[1]]);
                    match bias {
                        true => b.op("Add", [&product, all[2]]),
                        false => product,
                    }
                }
            },
            (Operation::MatMul, _) => one(b, "MatMul"),
            (Operation::ChannelAffine, Some(x)) => {
                let [scale, shift] = [1, 2].map(|i| b.unsqueeze(all[i], &[1, 2]));
                let scaled = b.op("Mul", [x, &scale]);
                b.op("Add", [&scaled, &shift])
            }
            (Operation::AdaptiveAvgPool2d, _) if self.sizes(output)[2..] == [Some(1), Some(1)] => {
                one(b, "GlobalAveragePool")
            }
            (
                Operation::Interpolate {
                    mode,
                    align_corners,
                },
                Some(x),
            ) => self.interpolate(node, x, mode, *align_corners, b)?,
            (Operation::Unary(function), _) => one(b, unary(*function)),
            (Operation::Binary(function), _) => one(b, binary(*function)),
            (Operation::Scalar(function, number), Some(x)) => {
                let number = match self.graph.tensor(node.inputs[0]).dtype.is_float() {
                    true => b.float(*number as f32),
                    false => b.int(*number as i64),
                };
                b.op(binary(*function), [x, &number])
            }
            (Operation::Clamp { min, max }, Some(x)) => {
                let [min, max] = [min, max].map(|limit| b.float(*limit as f32));
                b.op("Clip", [x, &min, &max])
            }
            (Operation::MaskFill(number), Some(x)) => {
                let number = b.float(*number as f32);
                b.op("Where", [all[1], &number, x])
            }
            (Operation::MaskWhere, Some(x)) => b.op("Where", [all[1], all[2], x]),
            (Operation::Cast, Some(x)) => {
                let to = match self.graph.tensor(output).dtype {
                    dtype if dtype.is_float() => ElementType::Float,
                    DType::Bool(_) => ElementType::Bool,
                    _ => ElementType::Int64,
                };
                b.cast(x, to)
            }
            (Operation::Reshape, Some(x)) => match self.new_shape(node) {
                Some(shape) => b.reshape(x, &shape),
                None => {
                    let what = "a reshape with several sizes that depend on the image's";
                    return Err(self.unsupported(node, what));
                }
            },
            (Operation::Permute(axes), Some(x)) => b.transpose(x, &integers(axes)),
            (Operation::Expand, Some(x)) => {
                let (from, to) = (self.sizes(node.inputs[0]), self.sizes(output));
                let added = to.len() - from.len();
                let size = |(axis, size): (usize, &Option<usize>)| match size {
                    Some(size) => Some(*size as i64),
                    // As free as it was.
                    None => (axis >= added && from[axis - added].is_none()).then_some(1),
                };
                let shape: Option<Vec<i64>> = to.iter().enumerate().map(size).collect();
                let Some(shape) = shape else {
                    let what = "a repetition as often as the image's size says";
                    return Err(self.unsupported(node, what));
                };
                let shape = b.ints(&shape);
                b.op("Expand", [x, &shape])
            }
            (Operation::Slice(slices), Some(x)) => self.slice(node, x, slices, b)?,
            (Operation::Concat(axis), _) => b.concat(&all, *axis as i64),
            (Operation::Gather(axis), _) => {
                let axis = Attribute::Int("axis", *axis as i64);
                b.node("GatherElements", &all, &[axis])
            }
            (Operation::Select(axis), Some(x)) => b.gather(x, all[1], *axis as i64),
            (operation, _) => {
                let name = format!("{operation:?}");
                let name = match operation {
                    Operation::Other(name) => name.clone(),
                    _ => name.split([' ', '(']).next().unwrap_or("").to_string(),
                };
                return Err(self.unsupported(node, name));
            }
        })
    }

    fn interpolate(
        &self,
        node: &Node,
        x: &Value,
        mode: &InterpolateMode,
        align_corners: bool,
        b: &mut Builder<'a>,
    ) -> Result<Value, OnnxError> {
        let (input, output) = (node.inputs[0], node.outputs[0]);
        let corners = match align_corners {
            true => "align_corners",
            false => "half_pixel",
        };
        let mode = match mode {
            InterpolateMode::Nearest => ["nearest", "asymmetric"],
            InterpolateMode::Bilinear => ["linear", corners],
            InterpolateMode::Bicubic => ["cubic", corners],
            other => {
                let what = format!("Interpolate, {other:?}");
                return Err(self.unsupported(node, what));
            }
        };
        let mut attributes = vec![
            Attribute::Text("mode", mode[0]),
            Attribute::Text("coordinate_transformation_mode", mode[1]),
        ];
        if mode[0] == "nearest" {
            attributes.push(Attribute::Text("nearest_mode", "floor"));
        }
        let none = Value::none();
        if let [Some(height), Some(width)] = self.sizes(output)[2..] {
            let shape = b.shape(x);
            let start = b.slice(&shape, 0, 0, 2);
            let size = b.ints(&[height as i64, width as i64]);
            let sizes = b.concat(&[&start, &size], 0);
            return Ok(b.node("Resize", &[x, &none, &none, &sizes], &attributes));
        }
        let scales = |graph: &Graph| -> Vec<f32> {
            let [from, to] = [input, output].map(|id| &graph.tensor(id).shape);
            let pairs = from.iter().zip(to);
            pairs.map(|(from, to)| *to as f32 / *from as f32).collect()
        };
        let [found, other] = [self.graph, self.other].map(scales);
        if found != other {
            let what =
                "Interpolate to a size that is neither fixed nor a fixed multiple of its input's";
            return Err(self.unsupported(node, what));
        }
        let scales = b.exact_floats("scales", &[found.len()], found);
        Ok(b.node("Resize", &[x, &none, &scales], &attributes))
    }

    fn slice(
        &self,
        node: &Node,
        x: &Value,
        slices: &[Slice],
        b: &mut Builder<'a>,
    ) -> Result<Value, OnnxError> {
        let (from, to) = (self.sizes(node.inputs[0]), self.sizes(node.outputs[0]));
        let shape = &self.graph.tensor(node.inputs[0]).shape;
        let mut y = x.clone();
        for (axis, slice) in slices.iter().enumerate() {
            let whole = slice.end.is_none_or(|end| end == shape[axis] as isize);
            if slice.start == 0 && whole && slice.step == 1 {
                continue;
            }
            if slice.step < 1 || (!whole && from[axis].is_none() && to[axis].is_none()) {
                let what = "a slice that ends where the image's size says, or runs backwards";
                return Err(self.unsupported(node, what));
            }
            let end = match slice.end {
                Some(end) if !whole => end as i64,
                _ => END,
            };
            let parts = [slice.start as i64, end, axis as i64, slice.step as i64];
            let [start, end, axis, step] = parts.map(|i| b.ints(&[i]));
            y = b.op("Slice", [&y, &start, &end, &axis, &step]);
        }
        Ok(y)
    }
}

fn integers(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&size| size as i64).collect()
}

fn unary(function: Unary) -> &'static str {
    match function {
        Unary::Abs => "Abs",
        Unary::Ceil => "Ceil",
        Unary::Erf => "Erf",
        Unary::Exp => "Exp",
        Unary::Floor => "Floor",
        Unary::Log => "Log",
        Unary::Not => "Not",
        Unary::Recip => "Reciprocal",
        Unary::Round => "Round",
        Unary::Sqrt => "Sqrt",
        Unary::Tanh => "Tanh",
    }
}

fn binary(function: Binary) -> &'static str {
    match function {
        Binary::Add => "Add",
        Binary::Sub => "Sub",
        Binary::Mul => "Mul",
        Binary::Div => "Div",
        Binary::Pow => "Pow",
        Binary::Equal => "Equal",
        Binary::Greater => "Greater",
        Binary::GreaterEqual => "GreaterOrEqual",
        Binary::Lower => "Less",
        Binary::LowerEqual => "LessOrEqual",
        Binary::And => "And",
        Binary::Or => "Or",
    }
}
