//! Burn's side of recording, and all that depends on its internals: a channel of Burn's router whose
//! client notes operations in a [`Graph`] and executes none.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::backend::{DTypeUsage, DTypeUsageSet, DeviceId, DeviceOps, ExecutionError};
use burn::tensor::{DType, Shape, TensorData};
use burn_ir::{
    BaseOperationIr, BoolOperationIr, FloatOperationIr, ModuleOperationIr, NumericOperationIr,
    OperationIr, ScalarIr, TensorIr,
};
use burn_router::{BackendRouter, MultiBackendBridge, RouterTensor, RunnerChannel, RunnerClient};
use burn_std::future::DynFut;

use super::graph::{
    Binary, ConvolutionOptions, Epilogue, Graph, GraphTensor, Node, Operation, Source, TensorId,
    Unary,
};
use crate::Activation;

/// A backend that records operations and computes nothing: see [`record`](super::record()).
///
/// Its tensors have shapes and no values: reading one back fails, unless it was made from data during
/// the recording.
pub type Recorder = BackendRouter<RecorderChannel>;

/// Tensor of a [`Recorder`], of any kind.
pub(super) type RecorderTensor = RouterTensor<RecorderClient>;

thread_local! {
    /// The recordings of this thread, an inner one after the one around it.
    static TAPES: RefCell<Vec<Tape>> = const { RefCell::new(Vec::new()) };
}

/// A recording in progress.
#[derive(Default)]
pub(super) struct Tape {
    graph: Graph,
    ids: HashMap<u64, TensorId>,
    /// Paths of parameters.
    parameters: HashMap<u64, String>,
    /// Nodes that have been attributed to a layer.
    attributed: usize,
}

impl Tape {
    /// Begins a recording on this thread, inside of those that there are.
    pub(super) fn begin(parameters: HashMap<u64, String>) {
        let tape = Self {
            parameters,
            ..Self::default()
        };
        TAPES.with_borrow_mut(|tapes| tapes.push(tape));
    }

    /// Ends the innermost recording of this thread.
    pub(super) fn end() -> Graph {
        let tape = TAPES.with_borrow_mut(Vec::pop);
        tape.unwrap_or_default().graph
    }

    /// Calls a function with the innermost recording of this thread, if there is one.
    pub(super) fn with<T>(f: impl FnOnce(&mut Self) -> T) -> Option<T> {
        // Tensors may outlive the thread's variables.
        let result = TAPES.try_with(|tapes| tapes.borrow_mut().last_mut().map(f));
        result.ok().flatten()
    }

    pub(super) fn input(&mut self, name: &str, tensor: &RecorderTensor) {
        self.define(&ir(tensor), Source::Input(name.to_string()), false);
    }

    pub(super) fn output(&mut self, name: String, tensor: &RecorderTensor) {
        let id = self.operand(&ir(tensor));
        self.graph.outputs.push((name, id));
    }

    /// Attributes the operations since the last call to a layer.
    pub(super) fn layer(&mut self, name: &str) {
        for node in &mut self.graph.nodes[self.attributed..] {
            node.layer = Some(name.to_string());
        }
        self.attributed = self.graph.nodes.len();
    }

    fn define(&mut self, tensor: &TensorIr, source: Source, is_constant: bool) -> TensorId {
        let id = self.graph.add_tensor(GraphTensor {
            shape: tensor.shape.to_vec(),
            dtype: tensor.dtype,
            source,
            is_constant,
        });
        self.ids.insert(tensor.id.value(), id);
        id
    }

    fn operand(&mut self, tensor: &TensorIr) -> TensorId {
        let id = tensor.id.value();
        if let Some(known) = self.ids.get(&id) {
            return *known;
        }
        match self.parameters.get(&id).cloned() {
            Some(path) => self.define(tensor, Source::Parameter(path), true),
            None => self.define(tensor, Source::Unknown, false),
        }
    }

    fn node(&mut self, operation: Operation, inputs: &[&TensorIr], outputs: &[&TensorIr]) {
        let inputs: Vec<TensorId> = inputs.iter().map(|tensor| self.operand(tensor)).collect();
        // An unknown operation without operands may be a draw of random numbers.
        let is_constant = match operation {
            Operation::Other(_) if inputs.is_empty() => false,
            _ => inputs.iter().all(|id| self.graph.tensor(*id).is_constant),
        };
        let source = Source::Node(self.graph.nodes.len());
        let outputs = outputs
            .iter()
            .map(|tensor| self.define(tensor, source.clone(), is_constant))
            .collect();
        self.graph.nodes.push(Node {
            operation,
            inputs,
            outputs,
            layer: None,
        });
    }
}

fn ir(tensor: &RecorderTensor) -> TensorIr {
    tensor.clone().into_ir()
}

/// Burn's number of a tensor, the same in clones.
pub(super) fn number(tensor: RecorderTensor) -> u64 {
    tensor.into_ir().id.value()
}

/// A tensor that nothing has computed.
pub(super) fn empty(shape: Shape, dtype: DType) -> RecorderTensor {
    let id = RecorderClient.create_empty_handle();
    RouterTensor::new(id, shape, dtype, RecorderClient)
}

/// Records an operation of ours and gives its outputs.
pub(super) fn operation<const N: usize>(
    operation: Operation,
    inputs: Vec<RecorderTensor>,
    outputs: [(Vec<usize>, DType); N],
) -> [RecorderTensor; N] {
    let outputs = outputs.map(|(shape, dtype)| empty(shape.into(), dtype));
    let inputs: Vec<TensorIr> = inputs.into_iter().map(RouterTensor::into_ir).collect();
    let results = outputs.each_ref().map(ir);
    Tape::with(|tape| {
        let inputs: Vec<&TensorIr> = inputs.iter().collect();
        tape.node(operation, &inputs, &results.each_ref());
    });
    outputs
}

/// The only device of a [`Recorder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecorderDevice;

impl burn_std::device::Device for RecorderDevice {
    fn from_id(_id: DeviceId) -> Self {
        Self
    }

    fn to_id(&self) -> DeviceId {
        DeviceId::new(0, 0)
    }
}

impl DeviceOps for RecorderDevice {}

/// The channel that makes Burn's router a [`Recorder`].
#[derive(Debug, Clone, Copy)]
pub struct RecorderChannel;

impl RunnerChannel for RecorderChannel {
    type Device = RecorderDevice;
    type Bridge = RecorderBridge;
    type Client = RecorderClient;
    type FloatElem = f32;
    type IntElem = i32;
    type BoolElem = u8;

    fn name(_device: &RecorderDevice) -> String {
        "recorder".to_string()
    }

    fn init_client(_device: &RecorderDevice) -> RecorderClient {
        RecorderClient
    }

    fn get_tensor_handle(_tensor: &TensorIr, _client: &RecorderClient) {}

    fn register_tensor(
        _client: &RecorderClient,
        _handle: (),
        shape: Shape,
        dtype: DType,
    ) -> RecorderTensor {
        empty(shape, dtype)
    }
}

/// Transfer of tensors between recorder devices, of which there is one.
pub struct RecorderBridge;

impl MultiBackendBridge for RecorderBridge {
    type TensorHandle = ();
    type Device = RecorderDevice;

    fn change_backend_float(_tensor: (), _shape: Shape, _device: &RecorderDevice) {}

    fn change_backend_int(_tensor: (), _shape: Shape, _device: &RecorderDevice) {}

    fn change_backend_bool(_tensor: (), _shape: Shape, _device: &RecorderDevice) {}
}

/// Notes operations in the recording of the thread that calls.
#[derive(Debug, Clone, Copy)]
pub struct RecorderClient;

impl RunnerClient for RecorderClient {
    type Device = RecorderDevice;

    fn register_op(&self, op: OperationIr) {
        // `Init` says that a tensor has been made from data, which `register_tensor_data` has noted.
        if matches!(op, OperationIr::Drop(_) | OperationIr::Init(_)) {
            return;
        }
        Tape::with(|tape| {
            let (inputs, outputs): (Vec<_>, Vec<_>) =
                (op.inputs().collect(), op.outputs().collect());
            tape.node(translate(&op), &inputs, &outputs);
        });
    }

    fn read_tensor_async(&self, tensor: TensorIr) -> DynFut<Result<TensorData, ExecutionError>> {
        let data = Tape::with(|tape| {
            let id = tape.ids.get(&tensor.id.value())?;
            match &tape.graph.tensor(*id).source {
                Source::Constant(data) => Some(data.clone()),
                _ => None,
            }
        });
        let result = data.flatten().ok_or_else(|| ExecutionError::WithContext {
            reason: format!(
                "a recording has no values, but those of a tensor of shape {:?} were asked for: code \
                 that reads tensors back can't be recorded",
                tensor.shape.to_vec()
            ),
        });
        Box::pin(async move { result })
    }

    fn sync(&self) -> Result<(), ExecutionError> {
        Ok(())
    }

    fn create_empty_handle(&self) -> burn_ir::TensorId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        burn_ir::TensorId::new(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn register_tensor_data(&self, data: TensorData) -> RecorderTensor {
        let tensor = empty(data.shape.clone(), data.dtype);
        Tape::with(|tape| tape.define(&ir(&tensor), Source::Constant(data), true));
        tensor
    }

    fn device(&self) -> RecorderDevice {
        RecorderDevice
    }

    fn seed(&self, _seed: u64) {}

    fn dtype_usage(&self, _dtype: DType) -> DTypeUsageSet {
        DTypeUsage::general()
    }
}

fn translate(op: &OperationIr) -> Operation {
    let known = match op {
        OperationIr::BaseFloat(op) | OperationIr::BaseInt(op) | OperationIr::BaseBool(op) => {
            base(op)
        }
        OperationIr::NumericFloat(_, op) | OperationIr::NumericInt(_, op) => numeric(op),
        OperationIr::Float(_, op) => float(op),
        OperationIr::Bool(op) => bool(op),
        OperationIr::Module(op) => module(op),
        OperationIr::Int(burn_ir::IntOperationIr::IntoFloat(_)) => Some(Operation::Cast),
        OperationIr::Int(burn_ir::IntOperationIr::Matmul(_)) => Some(Operation::MatMul),
        _ => None,
    };
    known.unwrap_or_else(|| Operation::Other(name(op)))
}

/// Burn's name of an operation: the variant around its description.
fn name(op: &OperationIr) -> String {
    let text = format!("{op:?}");
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    let description = words.iter().position(|word| word.ends_with("OpIr"));
    words[description.unwrap_or(1).saturating_sub(1)].to_string()
}

fn number_of(scalar: ScalarIr) -> f64 {
    scalar.elem()
}

fn base(op: &BaseOperationIr) -> Option<Operation> {
    Some(match op {
        BaseOperationIr::Reshape(_) => Operation::Reshape,
        BaseOperationIr::SwapDims(op) => {
            let mut axes: Vec<usize> = (0..op.input.shape.num_dims()).collect();
            axes.swap(op.dim1, op.dim2);
            Operation::Permute(axes)
        }
        BaseOperationIr::Permute(op) => Operation::Permute(op.axes.clone()),
        BaseOperationIr::Expand(_) => Operation::Expand,
        BaseOperationIr::Slice(op) => Operation::Slice(op.ranges.clone()),
        BaseOperationIr::SliceAssign(op) => Operation::SliceAssign(op.ranges.clone()),
        BaseOperationIr::Select(op) => Operation::Select(op.dim),
        BaseOperationIr::Gather(op) => Operation::Gather(op.dim),
        BaseOperationIr::MaskWhere(_) => Operation::MaskWhere,
        BaseOperationIr::MaskFill(op) => Operation::MaskFill(number_of(op.value)),
        BaseOperationIr::Equal(_) => Operation::Binary(Binary::Equal),
        BaseOperationIr::EqualElem(op) => Operation::Scalar(Binary::Equal, number_of(op.rhs)),
        BaseOperationIr::Cat(op) => Operation::Concat(op.dim),
        BaseOperationIr::Cast(_) => Operation::Cast,
        // What an empty tensor holds is anything.
        BaseOperationIr::Empty(_) | BaseOperationIr::Zeros(_) => Operation::Fill(0.0),
        BaseOperationIr::Ones(_) => Operation::Fill(1.0),
        _ => return None,
    })
}

fn numeric(op: &NumericOperationIr) -> Option<Operation> {
    use NumericOperationIr as Ir;
    let scalar = |function, rhs: ScalarIr| Operation::Scalar(function, number_of(rhs));
    Some(match op {
        Ir::Add(_) => Operation::Binary(Binary::Add),
        Ir::Sub(_) => Operation::Binary(Binary::Sub),
        Ir::Mul(_) => Operation::Binary(Binary::Mul),
        Ir::Div(_) => Operation::Binary(Binary::Div),
        Ir::Powi(_) => Operation::Binary(Binary::Pow),
        Ir::Greater(_) => Operation::Binary(Binary::Greater),
        Ir::GreaterEqual(_) => Operation::Binary(Binary::GreaterEqual),
        Ir::Lower(_) => Operation::Binary(Binary::Lower),
        Ir::LowerEqual(_) => Operation::Binary(Binary::LowerEqual),
        Ir::AddScalar(op) => scalar(Binary::Add, op.rhs),
        Ir::SubScalar(op) => scalar(Binary::Sub, op.rhs),
        Ir::MulScalar(op) => scalar(Binary::Mul, op.rhs),
        Ir::DivScalar(op) => scalar(Binary::Div, op.rhs),
        Ir::PowiScalar(op) => scalar(Binary::Pow, op.rhs),
        Ir::GreaterElem(op) => scalar(Binary::Greater, op.rhs),
        Ir::GreaterEqualElem(op) => scalar(Binary::GreaterEqual, op.rhs),
        Ir::LowerElem(op) => scalar(Binary::Lower, op.rhs),
        Ir::LowerEqualElem(op) => scalar(Binary::LowerEqual, op.rhs),
        Ir::Abs(_) => Operation::Unary(Unary::Abs),
        Ir::Full(op) => Operation::Fill(number_of(op.value)),
        Ir::Clamp(op) => Operation::Clamp {
            min: number_of(op.min),
            max: number_of(op.max),
        },
        _ => return None,
    })
}

fn float(op: &FloatOperationIr) -> Option<Operation> {
    Some(match op {
        FloatOperationIr::Ceil(_) => Operation::Unary(Unary::Ceil),
        FloatOperationIr::Erf(_) => Operation::Unary(Unary::Erf),
        FloatOperationIr::Exp(_) => Operation::Unary(Unary::Exp),
        FloatOperationIr::Floor(_) => Operation::Unary(Unary::Floor),
        FloatOperationIr::Log(_) => Operation::Unary(Unary::Log),
        FloatOperationIr::Recip(_) => Operation::Unary(Unary::Recip),
        FloatOperationIr::Round(_) => Operation::Unary(Unary::Round),
        FloatOperationIr::Sqrt(_) => Operation::Unary(Unary::Sqrt),
        FloatOperationIr::Tanh(_) => Operation::Unary(Unary::Tanh),
        FloatOperationIr::Powf(_) => Operation::Binary(Binary::Pow),
        FloatOperationIr::PowfScalar(op) => Operation::Scalar(Binary::Pow, number_of(op.rhs)),
        FloatOperationIr::IntoInt(_) => Operation::Cast,
        FloatOperationIr::Matmul(_) => Operation::MatMul,
        _ => return None,
    })
}

fn bool(op: &BoolOperationIr) -> Option<Operation> {
    Some(match op {
        BoolOperationIr::IntoFloat(_) | BoolOperationIr::IntoInt(_) => Operation::Cast,
        BoolOperationIr::Not(_) => Operation::Unary(Unary::Not),
        BoolOperationIr::And(_) => Operation::Binary(Binary::And),
        BoolOperationIr::Or(_) => Operation::Binary(Binary::Or),
    })
}

/// The options of a convolution, of any number of axes.
macro_rules! options {
    ($options:expr) => {
        options!($options, $options.groups)
    };
    ($options:expr, $groups:expr) => {{
        let options = &$options;
        ConvolutionOptions::new(
            &options.stride,
            &options.padding,
            &options.dilation,
            $groups,
        )
    }};
}

fn module(op: &ModuleOperationIr) -> Option<Operation> {
    use ModuleOperationIr as Ir;
    let convolution = |options, bias: &Option<TensorIr>| Operation::Convolution {
        options,
        epilogue: Epilogue {
            bias: bias.is_some(),
            ..Epilogue::default()
        },
    };
    let transposed =
        |options, output_padding: &[usize], bias: &Option<TensorIr>| Operation::ConvTranspose {
            options,
            output_padding: output_padding.to_vec(),
            bias: bias.is_some(),
            activation: Activation::None,
        };
    Some(match op {
        Ir::Conv1d(op) => convolution(options!(op.options), &op.bias),
        Ir::Conv2d(op) => convolution(options!(op.options), &op.bias),
        Ir::Conv3d(op) => convolution(options!(op.options), &op.bias),
        Ir::ConvTranspose1d(op) => {
            transposed(options!(op.options), &op.options.padding_out, &op.bias)
        }
        Ir::ConvTranspose2d(op) => {
            transposed(options!(op.options), &op.options.padding_out, &op.bias)
        }
        Ir::ConvTranspose3d(op) => {
            transposed(options!(op.options), &op.options.padding_out, &op.bias)
        }
        Ir::DeformableConv2d(op) => Operation::DeformConvolution {
            options: options!(op.options, op.options.weight_groups),
            offset_groups: op.options.offset_groups,
            mask: op.mask.is_some(),
            bias: op.bias.is_some(),
        },
        Ir::Linear(op) => Operation::Linear {
            bias: op.bias.is_some(),
        },
        Ir::Attention(_) => Operation::Attention,
        Ir::MaxPool2d(op) => Operation::MaxPool2d {
            kernel: op.kernel_size,
            stride: op.stride,
            padding: op.padding,
            dilation: op.dilation,
            ceil_mode: op.ceil_mode,
        },
        Ir::AvgPool2d(op) => Operation::AvgPool2d {
            kernel: op.kernel_size,
            stride: op.stride,
            padding: op.padding,
            count_include_pad: op.count_include_pad,
            ceil_mode: op.ceil_mode,
        },
        Ir::AdaptiveAvgPool2d(_) => Operation::AdaptiveAvgPool2d,
        Ir::Interpolate(op) => Operation::Interpolate {
            mode: op.options.mode.clone().into(),
            align_corners: op.options.align_corners,
        },
        _ => return None,
    })
}
