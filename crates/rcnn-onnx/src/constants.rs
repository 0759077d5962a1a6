//! Values of a recorded graph that follow from parameters alone: norms are folded with them.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData, backend::Backend};
use rcnn_ops::ModulePath;
use rcnn_ops::record::{Binary, Graph, Operation, Source, TensorId, Unary};

/// Reads a parameter when it is needed, so that there is no copy of all of them.
type Read = Box<dyn Fn() -> TensorData>;

/// Parameters and buffers of a module by the paths that a recording gives them.
#[derive(Default)]
pub(crate) struct Parameters {
    path: ModulePath,
    by_path: HashMap<String, (Vec<usize>, Read)>,
}

impl Parameters {
    pub(crate) fn of<B: Backend, M: Module<B>>(module: &M) -> Self {
        let mut parameters = Self::default();
        module.visit(&mut parameters);
        parameters
    }

    fn array(&self, path: &str) -> Option<Array> {
        let (_, read) = self.by_path.get(path)?;
        Array::from_data(read())
    }
}

impl<B: Backend> ModuleVisitor<B> for Parameters {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.exit(container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let read = Box::new(move || tensor.to_data());
        self.by_path.insert(self.path.to_string(), (shape, read));
    }
}

/// Floats and their shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Array {
    fn from_data(data: TensorData) -> Option<Self> {
        let shape = data.shape.to_vec();
        let values = data.convert::<f32>().into_vec().ok()?;
        Some(Self { shape, values })
    }

    fn map(mut self, function: impl Fn(f32) -> f32) -> Self {
        let values = self.values.iter_mut();
        values.for_each(|value| *value = function(*value));
        self
    }

    /// The values repeated to a shape that they broadcast to.
    fn expand(&self, shape: &[usize]) -> Option<Self> {
        let added = shape.len().checked_sub(self.shape.len())?;
        let mut strides = vec![0; shape.len()];
        let mut stride = 1;
        for (axis, &size) in self.shape.iter().enumerate().rev() {
            match size == shape[added + axis] {
                true => strides[added + axis] = stride,
                false if size == 1 => {}
                false => return None,
            }
            stride *= size;
        }
        let count = shape.iter().product();
        let value = |mut index: usize| {
            let mut at = 0;
            for (size, stride) in shape.iter().zip(&strides).rev() {
                at += index % size * stride;
                index /= size;
            }
            self.values[at]
        };
        Some(Self {
            shape: shape.to_vec(),
            values: (0..count).map(value).collect(),
        })
    }
}

/// Whether the parameters that a constant follows from are there, in the shapes that were recorded.
pub(crate) fn is_known(graph: &Graph, parameters: &Parameters, id: TensorId) -> bool {
    let tensor = graph.tensor(id);
    let fits = match &tensor.source {
        Source::Parameter(path) => {
            let found = parameters.by_path.get(path);
            found.is_some_and(|(shape, _)| *shape == tensor.shape)
        }
        Source::Node(node) => {
            let mut operands = graph.nodes()[*node].inputs.iter();
            operands.all(|&id| is_known(graph, parameters, id))
        }
        _ => true,
    };
    fits && is_constant(graph, id)
}

/// The values of a tensor that [`is_known`].
pub(crate) fn evaluated(graph: &Graph, parameters: &Parameters, id: TensorId) -> Array {
    let array = evaluate(graph, parameters, id);
    array.expect("a parameter of the model, or a function of some")
}

fn evaluate(graph: &Graph, parameters: &Parameters, id: TensorId) -> Option<Array> {
    let tensor = graph.tensor(id);
    let node = match &tensor.source {
        Source::Parameter(path) => return parameters.array(path),
        Source::Constant(data) if tensor.dtype.is_float() => return Array::from_data(data.clone()),
        Source::Node(node) if is_constant(graph, id) => &graph.nodes()[*node],
        _ => return None,
    };
    let operand = |i: usize| evaluate(graph, parameters, node.inputs[i]);
    let shape = &tensor.shape;
    Some(match &node.operation {
        Operation::Unary(function) => operand(0)?.map(unary(*function)?),
        Operation::Scalar(function, number) => {
            let (function, number) = (binary(*function)?, *number as f32);
            operand(0)?.map(|value| function(value, number))
        }
        Operation::Binary(function) => {
            let function = binary(*function)?;
            let [mut left, right] = [operand(0)?.expand(shape)?, operand(1)?.expand(shape)?];
            let pairs = left.values.iter_mut().zip(right.values);
            pairs.for_each(|(left, right)| *left = function(*left, right));
            left
        }
        Operation::Reshape => Array {
            shape: shape.clone(),
            ..operand(0)?
        },
        Operation::Expand => operand(0)?.expand(shape)?,
        Operation::Cast => operand(0)?,
        Operation::Fill(number) => Array {
            shape: shape.clone(),
            values: vec![*number as f32; shape.iter().product()],
        },
        _ => return None,
    })
}

/// Whether [`evaluate`] has values for it.
pub(crate) fn is_constant(graph: &Graph, id: TensorId) -> bool {
    let tensor = graph.tensor(id);
    if !tensor.is_constant || !tensor.dtype.is_float() {
        return false;
    }
    match &tensor.source {
        Source::Parameter(_) | Source::Constant(_) => true,
        Source::Node(node) => {
            let node = &graph.nodes()[*node];
            let known = match &node.operation {
                Operation::Unary(function) => unary(*function).is_some(),
                Operation::Scalar(function, _) | Operation::Binary(function) => {
                    binary(*function).is_some()
                }
                Operation::Reshape | Operation::Expand | Operation::Cast | Operation::Fill(_) => {
                    true
                }
                _ => false,
            };
            known && node.inputs.iter().all(|&id| is_constant(graph, id))
        }
        _ => false,
    }
}

fn unary(function: Unary) -> Option<fn(f32) -> f32> {
    Some(match function {
        Unary::Abs => f32::abs,
        Unary::Exp => f32::exp,
        Unary::Log => f32::ln,
        Unary::Recip => f32::recip,
        Unary::Sqrt => f32::sqrt,
        _ => return None,
    })
}

fn binary(function: Binary) -> Option<fn(f32, f32) -> f32> {
    Some(match function {
        Binary::Add => |a, b| a + b,
        Binary::Sub => |a, b| a - b,
        Binary::Mul => |a, b| a * b,
        Binary::Div => |a, b| a / b,
        Binary::Pow => f32::powf,
        _ => return None,
    })
}
