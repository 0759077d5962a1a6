//! A graph of ONNX operators under construction.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use burn::tensor::{TensorData, f16};

use crate::proto::{Attribute, ElementType, Initializer, Message};

/// A tensor of the graph, by its name.
#[derive(Debug, Clone)]
pub(crate) struct Value(Rc<str>);

impl Value {
    /// An operand that is left out.
    pub(crate) fn none() -> Self {
        Self("".into())
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

/// Nodes and constants so far.
#[derive(Default)]
pub(crate) struct Builder {
    /// Encoded fields of the graph.
    pub(crate) nodes: Message,
    pub(crate) initializers: Vec<Initializer>,
    /// Positions of initializers by a hash of what they hold.
    by_content: HashMap<u64, Vec<usize>>,
    /// How often a name was asked for.
    names: HashMap<String, usize>,
    /// Prefix of the names of nodes.
    scope: String,
    /// Store floats that are no single numbers in half precision.
    half: bool,
}

impl Builder {
    pub(crate) fn new(half: bool) -> Self {
        Self {
            half,
            ..Self::default()
        }
    }

    /// Names the nodes that follow after the part of the network that they belong to.
    pub(crate) fn scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    fn unique(&mut self, name: String) -> String {
        let count = self.names.entry(name.clone()).or_default();
        *count += 1;
        match *count {
            1 => name,
            count => {
                let numbered = format!("{name}#{count}");
                self.unique(numbered)
            }
        }
    }

    /// A name that the file's user sees.
    pub(crate) fn reserve(&mut self, name: &str) -> Value {
        self.names.insert(name.to_string(), 1);
        Value(name.into())
    }

    /// Adds an operator with one output.
    pub(crate) fn op<const N: usize>(&mut self, operator: &str, inputs: [&Value; N]) -> Value {
        self.node(operator, &inputs, &[])
    }

    /// Adds an operator with attributes and one output.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[&Value],
        attributes: &[Attribute],
    ) -> Value {
        let [output] = self.nodes(operator, inputs, attributes);
        output
    }

    /// Adds an operator with any number of outputs.
    pub(crate) fn nodes<const N: usize>(
        &mut self,
        operator: &str,
        inputs: &[&Value],
        attributes: &[Attribute],
    ) -> [Value; N] {
        let name = self.unique(format!("{}/{operator}", self.scope));
        let outputs = std::array::from_fn(|i| match i {
            0 => Value(name.as_str().into()),
            _ => Value(format!("{name}:{i}").into()),
        });
        self.write(&name, operator, inputs, &outputs, attributes);
        outputs
    }

    /// Gives a tensor the name of an output of the file.
    pub(crate) fn output(&mut self, name: &str, value: &Value) {
        let output = self.reserve(name);
        let node = format!("{}/{name}", self.scope);
        let node = self.unique(node);
        self.write(&node, "Identity", &[value], &[output], &[]);
    }

    fn write(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&Value],
        outputs: &[Value],
        attributes: &[Attribute],
    ) {
        let node = Message::default();
        let node = inputs.iter().fold(node, |node, x| node.text(1, x.name()));
        let node = outputs.iter().fold(node, |node, y| node.text(2, y.name()));
        let node = node.text(3, name).text(4, operator);
        let node = attributes
            .iter()
            .fold(node, |node, a| node.message(5, &a.encode()));
        self.nodes = std::mem::take(&mut self.nodes).message(1, &node);
    }

    /// A constant, shared with others that hold the same.
    fn initializer(
        &mut self,
        name: &str,
        shape: &[usize],
        element: ElementType,
        bytes: Vec<u8>,
    ) -> Value {
        let mut hasher = DefaultHasher::new();
        (shape, element as u8, &bytes).hash(&mut hasher);
        let hash = hasher.finish();
        let alike = self.by_content.get(&hash).into_iter().flatten();
        let known = alike
            .map(|&i| &self.initializers[i])
            .find(|known| known.shape == shape && known.element == element && known.bytes == bytes);
        if let Some(known) = known {
            return Value(known.name.as_str().into());
        }
        let name = self.unique(name.to_string());
        let value = Value(name.as_str().into());
        let position = self.initializers.len();
        self.by_content.entry(hash).or_default().push(position);
        self.initializers.push(Initializer {
            name,
            shape: shape.to_vec(),
            element,
            bytes,
        });
        value
    }

    /// A constant of floats.
    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Value {
        let half = self.half && values.len() > 1;
        let data = TensorData::new(values, shape.to_vec());
        if half {
            let bytes = data.convert::<f16>().bytes.to_vec();
            let stored = self.initializer(name, shape, ElementType::Float16, bytes);
            return self.cast(&stored, ElementType::Float);
        }
        self.initializer(name, shape, ElementType::Float, data.bytes.to_vec())
    }

    /// A number.
    pub(crate) fn float(&mut self, value: f32) -> Value {
        self.floats(&format!("{value}"), &[], vec![value])
    }

    /// A constant of integers.
    pub(crate) fn integers(&mut self, name: &str, shape: &[usize], values: &[i64]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.initializer(name, shape, ElementType::Int64, bytes.collect())
    }

    /// A list of integers: axes, a shape.
    pub(crate) fn ints(&mut self, values: &[i64]) -> Value {
        self.integers(&format!("{values:?}"), &[values.len()], values)
    }

    /// An integer.
    pub(crate) fn int(&mut self, value: i64) -> Value {
        self.integers(&format!("{value}"), &[], &[value])
    }

    /// The default of an input of this name.
    pub(crate) fn default_of(&mut self, input: &Value, shape: &[usize], values: &[i64]) {
        self.initializers.push(Initializer {
            name: input.name().to_string(),
            shape: shape.to_vec(),
            element: ElementType::Int64,
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        });
    }

    pub(crate) fn cast(&mut self, x: &Value, to: ElementType) -> Value {
        self.node("Cast", &[x], &[Attribute::Int("to", to as i64)])
    }

    /// Sizes of a tensor, `[rank]`.
    pub(crate) fn shape(&mut self, x: &Value) -> Value {
        self.op("Shape", [x])
    }

    /// Size of one dimension, `[1]`.
    pub(crate) fn size(&mut self, x: &Value, axis: i64) -> Value {
        let (shape, axis) = (self.shape(x), self.ints(&[axis]));
        self.op("Gather", [&shape, &axis])
    }

    pub(crate) fn concat(&mut self, parts: &[&Value], axis: i64) -> Value {
        match parts {
            [one] => Value::clone(one),
            _ => self.node("Concat", parts, &[Attribute::Int("axis", axis)]),
        }
    }

    /// Elements `start..end` along an axis.
    pub(crate) fn slice(&mut self, x: &Value, axis: i64, start: i64, end: i64) -> Value {
        let [start, end, axis] = [start, end, axis].map(|i| self.ints(&[i]));
        self.op("Slice", [x, &start, &end, &axis])
    }

    pub(crate) fn unsqueeze(&mut self, x: &Value, axes: &[i64]) -> Value {
        let axes = self.ints(axes);
        self.op("Unsqueeze", [x, &axes])
    }

    pub(crate) fn squeeze(&mut self, x: &Value, axis: i64) -> Value {
        let axis = self.ints(&[axis]);
        self.op("Squeeze", [x, &axis])
    }

    pub(crate) fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.ints(shape);
        self.op("Reshape", [x, &shape])
    }

    pub(crate) fn transpose(&mut self, x: &Value, axes: &[i64]) -> Value {
        let axes = Attribute::Ints("perm", axes.to_vec());
        self.node("Transpose", &[x], &[axes])
    }

    pub(crate) fn gather(&mut self, x: &Value, indices: &Value, axis: i64) -> Value {
        self.node("Gather", &[x, indices], &[Attribute::Int("axis", axis)])
    }

    /// 0, 1, ... up to a size `[1]`.
    pub(crate) fn range(&mut self, size: &Value) -> Value {
        let end = self.squeeze(size, 0);
        let (start, step) = (self.int(0), self.int(1));
        self.op("Range", [&start, &end, &step])
    }

    /// The highest of each row, at most that many: values and their columns.
    pub(crate) fn top_k(&mut self, x: &Value, most: usize) -> [Value; 2] {
        let (columns, most) = (self.size(x, 1), self.ints(&[most as i64]));
        let k = self.op("Min", [&columns, &most]);
        self.nodes("TopK", &[x, &k], &[Attribute::Int("axis", 1)])
    }

    /// Places where a condition holds, `[count, rank]`.
    pub(crate) fn places(&mut self, condition: &Value) -> Value {
        let places = self.op("NonZero", [condition]);
        self.transpose(&places, &[1, 0])
    }

    /// Column of `[count, columns]`, `[count]`.
    pub(crate) fn column(&mut self, x: &Value, column: i64) -> Value {
        let column = self.int(column);
        self.gather(x, &column, 1)
    }
}
