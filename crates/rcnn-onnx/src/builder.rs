//! A graph of ONNX operators under construction.

use std::borrow::Borrow;
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::mem::take;
use std::rc::Rc;

use burn::tensor::{TensorData, f16};

use crate::error::OnnxError;
use crate::infer::{Call, Fact, MOST_KNOWN, infer};
use crate::proto::{Attribute, Contents, Dimension, ElementType, Initializer, Message, value_info};

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

/// Nodes and constants so far. What follows from fixed sizes becomes a constant.
#[derive(Default)]
pub(crate) struct Builder<'a> {
    /// Encoded fields of the graph.
    nodes: Message,
    initializers: Vec<Initializer<'a>>,
    /// Encoded inputs and outputs of the file.
    ends: Message,
    facts: HashMap<Rc<str>, Fact>,
    /// Tensors that are operands of a node.
    used: HashSet<Rc<str>>,
    /// The first node whose operands do not fit.
    fault: Option<OnnxError>,
    opset: i64,
    /// Positions of initializers by a hash of what they hold.
    by_content: HashMap<u64, Vec<usize>>,
    /// How often a name was asked for.
    names: HashMap<String, usize>,
    /// Prefix of the names of nodes.
    scope: String,
    /// Store floats that are no single numbers in half precision.
    half: bool,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(opset: i64, half: bool) -> Self {
        Self {
            half,
            opset,
            ..Self::default()
        }
    }

    pub(crate) fn opset(&self) -> i64 {
        self.opset
    }

    /// The graph without its constants, and those.
    ///
    /// # Errors
    /// When a node's operands do not fit.
    pub(crate) fn finish(mut self) -> Result<(Message, Vec<Initializer<'a>>), OnnxError> {
        // What only folded nodes had as operands.
        let used = &self.used;
        self.initializers
            .retain(|constant| used.contains(constant.name.as_str()));
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok((self.nodes.then(self.ends), self.initializers)),
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
    fn reserve(&mut self, name: &str) -> Value {
        self.names.insert(name.to_string(), 1);
        Value(name.into())
    }

    /// An input of the file.
    pub(crate) fn input(&mut self, name: &str, element: ElementType, shape: &[Dimension]) -> Value {
        let input = self.reserve(name);
        let sizes = shape.iter().map(Dimension::fixed).collect();
        self.learn(&input, Fact::new(element, sizes));
        self.ends = take(&mut self.ends).message(11, &value_info(name, element, shape));
        input
    }

    /// The sizes of a tensor, all of which are fixed.
    ///
    /// # Errors
    /// When one is not, or a node before was at fault.
    pub(crate) fn fixed_shape<const D: usize>(
        &mut self,
        x: &Value,
    ) -> Result<[usize; D], OnnxError> {
        let fact = self.facts.get(&x.0);
        let sizes = fact.and_then(|fact| fact.shape.iter().copied().collect::<Option<Vec<_>>>());
        let found = sizes.and_then(|sizes| sizes.try_into().ok());
        found.ok_or_else(|| {
            let reason = format!("sizes that should be fixed: {fact:?}");
            let node = x.name().to_string();
            let invalid = OnnxError::Invalid { node, reason };
            self.fault.take().unwrap_or(invalid)
        })
    }

    fn learn(&mut self, value: &Value, fact: Fact) {
        self.facts.insert(value.0.clone(), fact);
    }

    /// All integers of a list that follows from fixed sizes.
    pub(crate) fn known(&self, x: &Value) -> Option<Vec<i64>> {
        self.facts.get(&x.0)?.known()
    }

    /// Adds an operator with one output.
    pub(crate) fn op<const N: usize>(&mut self, operator: &str, inputs: [&Value; N]) -> Value {
        self.node(operator, &inputs, &[])
    }

    /// Adds an operator with attributes and one output.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[impl Borrow<Value>],
        attributes: &[Attribute],
    ) -> Value {
        let [output] = self.nodes(operator, inputs, attributes);
        output
    }

    /// Adds an operator with any number of outputs.
    pub(crate) fn nodes<const N: usize>(
        &mut self,
        operator: &str,
        inputs: &[impl Borrow<Value>],
        attributes: &[Attribute],
    ) -> [Value; N] {
        let inputs: Vec<&Value> = inputs.iter().map(Borrow::borrow).collect();
        let facts = self.infer(operator, &inputs, attributes);
        if let [fact] = &facts[..]
            && fact.element == ElementType::Int64
            && let Some(values) = fact.known()
        {
            let folded = match fact.shape.is_empty() {
                true => self.int(values[0]),
                false => self.ints(&values),
            };
            return std::array::from_fn(|_| folded.clone());
        }
        let name = self.unique(format!("{}/{operator}", self.scope));
        let outputs: [Value; N] = std::array::from_fn(|i| match i {
            0 => Value(name.as_str().into()),
            _ => Value(format!("{name}:{i}").into()),
        });
        for (output, fact) in outputs.iter().zip(facts) {
            self.learn(output, fact);
        }
        self.write(&name, operator, &inputs, &outputs, attributes);
        outputs
    }

    /// Facts of a node's outputs; none once a node was at fault.
    fn infer(&mut self, operator: &str, inputs: &[&Value], attributes: &[Attribute]) -> Vec<Fact> {
        if self.fault.is_some() {
            return Vec::new();
        }
        let inputs: Vec<_> = inputs.iter().map(|x| self.facts.get(&x.0)).collect();
        let call = Call {
            operator,
            inputs: &inputs,
            attributes,
        };
        infer(&call).unwrap_or_else(|reason| {
            self.fault = Some(OnnxError::Invalid {
                node: format!("{}/{operator}", self.scope),
                reason,
            });
            Vec::new()
        })
    }

    /// Makes a tensor an output of the file; its free dimensions get these names.
    pub(crate) fn output(&mut self, name: &str, value: &Value, free: &[&str]) {
        let output = self.reserve(name);
        let node = format!("{}/{name}", self.scope);
        let node = self.unique(node);
        self.write(&node, "Identity", &[value], &[output], &[]);
        let Some(fact) = self.facts.get(&value.0) else {
            return;
        };
        let mut names = free.iter();
        let dimension = |size: &Option<usize>| match size {
            Some(size) => Dimension::Fixed(*size),
            None => Dimension::Free(names.next().copied().unwrap_or_default().to_string()),
        };
        let shape: Vec<Dimension> = fact.shape.iter().map(dimension).collect();
        let info = value_info(name, fact.element, &shape);
        self.ends = take(&mut self.ends).message(12, &info);
    }

    fn write(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&Value],
        outputs: &[Value],
        attributes: &[Attribute],
    ) {
        self.used.extend(inputs.iter().map(|x| x.0.clone()));
        let node = Message::default();
        let node = inputs.iter().fold(node, |node, x| node.text(1, x.name()));
        let node = outputs.iter().fold(node, |node, y| node.text(2, y.name()));
        let node = node.text(3, name).text(4, operator);
        let node = attributes
            .iter()
            .fold(node, |node, a| node.message(5, &a.encode()));
        self.nodes = take(&mut self.nodes).message(1, &node);
    }

    /// A constant, shared with others that hold the same.
    fn initializer(
        &mut self,
        name: &str,
        shape: &[usize],
        element: ElementType,
        contents: Contents<'a>,
    ) -> Value {
        let mut hasher = DefaultHasher::new();
        contents.with(|bytes| (shape, element as u8, bytes).hash(&mut hasher));
        let hash = hasher.finish();
        let alike = self.by_content.get(&hash).into_iter().flatten();
        let alike = alike.map(|&i| &self.initializers[i]);
        let known = alike
            .filter(|known| known.shape == shape && known.element == element)
            .find(|known| contents.with(|new| known.contents.with(|bytes| bytes == new)));
        if let Some(known) = known {
            return Value(known.name.as_str().into());
        }
        let name = self.unique(name.to_string());
        let value = Value(name.as_str().into());
        let mut fact = Fact::new(element, shape.iter().copied().map(Some).collect());
        if element == ElementType::Int64 && shape.len() < 2 {
            fact.value = contents.with(integers_of);
        }
        self.learn(&value, fact);
        let position = self.initializers.len();
        self.by_content.entry(hash).or_default().push(position);
        self.initializers.push(Initializer {
            name,
            shape: shape.to_vec(),
            element,
            contents,
        });
        value
    }

    /// Weights, perhaps in half precision, which are read when they are written.
    pub(crate) fn weights(
        &mut self,
        name: &str,
        shape: &[usize],
        read: impl Fn() -> Vec<f32> + 'a,
    ) -> Value {
        let count = shape.iter().product::<usize>();
        let half = self.half && count > 1;
        let bytes = move || {
            let data = TensorData::new(read(), [count]);
            match half {
                true => data.convert::<f16>().bytes,
                false => data.bytes,
            }
        };
        let contents = Contents::Read(Box::new(bytes));
        if !half {
            return self.initializer(name, shape, ElementType::Float, contents);
        }
        let stored = self.initializer(name, shape, ElementType::Float16, contents);
        self.cast(&stored, ElementType::Float)
    }

    /// A constant of floats.
    pub(crate) fn exact_floats(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        let contents = Contents::Bytes(bytes.collect());
        self.initializer(name, shape, ElementType::Float, contents)
    }

    /// A number.
    pub(crate) fn float(&mut self, value: f32) -> Value {
        self.exact_floats(&format!("{value}"), &[], vec![value])
    }

    /// A constant of integers.
    pub(crate) fn integers(&mut self, name: &str, shape: &[usize], values: &[i64]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        let contents = Contents::Bytes(bytes.collect());
        self.initializer(name, shape, ElementType::Int64, contents)
    }

    /// A list of integers: axes, a shape.
    pub(crate) fn ints(&mut self, values: &[i64]) -> Value {
        self.integers(&format!("{values:?}"), &[values.len()], values)
    }

    /// An integer.
    pub(crate) fn int(&mut self, value: i64) -> Value {
        self.integers(&format!("{value}"), &[], &[value])
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

    pub(crate) fn concat(&mut self, parts: &[impl Borrow<Value>], axis: i64) -> Value {
        match parts {
            [one] => Value::clone(one.borrow()),
            _ => self.node("Concat", parts, &[Attribute::Int("axis", axis)]),
        }
    }

    /// Elements `start..end` along an axis.
    pub(crate) fn slice(&mut self, x: &Value, axis: i64, start: i64, end: i64) -> Value {
        let [start, end, axis] = [start, end, axis].map(|i| self.ints(&[i]));
        self.op("Slice", [x, &start, &end, &axis])
    }

    /// Columns `start`, `start + step`, ... of `[rows, columns]`.
    pub(crate) fn every(&mut self, x: &Value, start: i64, step: i64) -> Value {
        let [start, end, axis, step] = [start, i64::MAX, 1, step].map(|i| self.ints(&[i]));
        self.op("Slice", [x, &start, &end, &axis, &step])
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

    /// The least or the largest along axes.
    pub(crate) fn reduce(&mut self, operator: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        let keep = Attribute::Int("keepdims", i64::from(keep));
        // Sums have had their axes as an operand from the beginning.
        if self.opset < 18 && operator != "ReduceSum" {
            let axes = Attribute::Ints("axes", axes.to_vec());
            return self.node(operator, &[x], &[axes, keep]);
        }
        let axes = self.ints(axes);
        self.node(operator, &[x, &axes], &[keep])
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

/// Elements of a list that is short enough.
pub(crate) fn integers_of(bytes: &[u8]) -> Option<Vec<Option<i64>>> {
    let (values, _) = bytes.as_chunks::<8>();
    let value = |bytes: &[u8; 8]| Some(i64::from_le_bytes(*bytes));
    (values.len() <= MOST_KNOWN).then(|| values.iter().map(value).collect())
}
