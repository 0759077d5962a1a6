//! A forward pass as data: operations, tensors and where they come from.

use burn::tensor::ops::InterpolateMode;
use burn::tensor::{DType, Slice, TensorData};

use crate::{Activation, RoiAlignOptions, RoiPoolOptions, module_of};

/// A recorded forward pass.
///
/// Shapes are those of the pass that was recorded; another size of image is another graph.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    tensors: Vec<GraphTensor>,
    pub(super) nodes: Vec<Node>,
    pub(super) outputs: Vec<(String, TensorId)>,
}

/// A tensor of a [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(usize);

/// Shape and origin of a tensor.
#[derive(Debug, Clone)]
pub struct GraphTensor {
    /// Sizes of its dimensions.
    pub shape: Vec<usize>,
    /// Type of its elements.
    pub dtype: DType,
    /// Source of its values.
    pub source: Source,
    /// Whether its values depend on parameters and constants alone, and not on an input.
    pub is_constant: bool,
}

impl GraphTensor {
    fn num_elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}

/// Source of the values of a tensor.
#[derive(Debug, Clone)]
pub enum Source {
    /// Passed in from outside under this name: images, or pooled features.
    Input(String),
    /// A parameter or buffer of the module, by its path.
    Parameter(String),
    /// Values made during the pass.
    Constant(TensorData),
    /// Computed by the node at this position in [`Graph::nodes`].
    Node(usize),
    /// A tensor that was made before the recording and is no parameter: its values are unknown.
    Unknown,
}

/// An operation in its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Operation that computes the outputs.
    pub operation: Operation,
    /// Operands, in the order that [`Operation`] says.
    pub inputs: Vec<TensorId>,
    /// Results.
    pub outputs: Vec<TensorId>,
    /// The layer that the operation belongs to: the first one shown to a forward hook after it.
    pub layer: Option<String>,
}

/// An operation and its attributes. Operands are listed in their order; those that a flag stands for
/// are there only if it is set.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Operation {
    /// Convolution and what follows it. Operands: x `[N, C, ..]`, weight `[C', C / groups, ..]`, bias,
    /// scale and shift, residual.
    Convolution {
        /// Stride, padding, dilation and groups.
        options: ConvolutionOptions,
        /// What follows.
        epilogue: Epilogue,
    },
    /// Transposed convolution and an activation. Operands: x `[N, C, ..]`, weight `[C, C' / groups, ..]`,
    /// bias.
    ConvTranspose {
        /// Stride, padding, dilation and groups.
        options: ConvolutionOptions,
        /// Rows or columns added at the end of each axis of the output.
        output_padding: Vec<usize>,
        /// Whether there is a bias.
        bias: bool,
        /// Function applied to each value at the end.
        activation: Activation,
    },
    /// Deformable convolution. Operands: x, offset, weight, mask, bias.
    DeformConvolution {
        /// Stride, padding, dilation and groups of the weight.
        options: ConvolutionOptions,
        /// Groups of the offsets.
        offset_groups: usize,
        /// Whether there is a mask.
        mask: bool,
        /// Whether there is a bias.
        bias: bool,
    },
    /// Rows times a matrix. Operands: x `[.., in features]`, weight `[in features, out features]`, bias.
    Linear {
        /// Whether there is a bias.
        bias: bool,
    },
    /// Product of two batches of matrices.
    MatMul,
    /// Scaled dot-product attention. Operands: query, key, value `[N, heads, length, width]`, then
    /// perhaps a mask and a bias.
    Attention,
    /// A scale and a shift for each channel. Operands: x `[N, C, H, W]`, scale, shift.
    ChannelAffine,
    /// TensorFlow's `SAME` padding for a convolution or a pooling, which has no other. It depends on the size of x.
    SamePad {
        /// Height and width of the kernel, its dilation included.
        kernel: [usize; 2],
        /// Step of the kernel.
        stride: [usize; 2],
        /// The number around x.
        value: f64,
    },
    /// The largest value of each window.
    MaxPool2d {
        /// Height and width of a window.
        kernel: [usize; 2],
        /// Distance of windows.
        stride: [usize; 2],
        /// Rows above and below, columns left and right.
        padding: [usize; 2],
        /// Distance of a window's elements.
        dilation: [usize; 2],
        /// Whether a window that is cut off counts.
        ceil_mode: bool,
    },
    /// The mean of each window.
    AvgPool2d {
        /// Height and width of a window.
        kernel: [usize; 2],
        /// Distance of windows.
        stride: [usize; 2],
        /// Rows above and below, columns left and right.
        padding: [usize; 2],
        /// Whether padding counts as zeros.
        count_include_pad: bool,
        /// Whether a window that is cut off counts.
        ceil_mode: bool,
    },
    /// The mean of each cell of a grid of the output's size.
    AdaptiveAvgPool2d,
    /// Resampling to the output's size.
    Interpolate {
        /// How.
        mode: InterpolateMode,
        /// Whether the centres of the corner pixels stay in place.
        align_corners: bool,
    },
    /// [`multi_scale_roi_align`](crate::multi_scale_roi_align()). Operands: features and RoIs of each
    /// level.
    RoiAlign {
        /// How boxes are pooled, a level each.
        options: Vec<RoiAlignOptions>,
        /// Rows of the output that the boxes of each level have.
        rows: Vec<Vec<usize>>,
    },
    /// [`roi_pool`](crate::roi_pool()). Operands: features, RoIs.
    RoiPool(RoiPoolOptions),
    /// [`top_k`](crate::top_k()) of as many as the output has columns.
    TopK,
    /// [`BoxCoder::decode_clipped`](crate::BoxCoder::decode_clipped). Operands: deltas, reference boxes,
    /// image sizes.
    DecodeBoxes {
        /// Weights of the deltas.
        weights: [f32; 4],
    },
    /// [`box_iou_matrix`](crate::box_iou_matrix). Operands: two lists of boxes.
    BoxIou,
    /// [`grouped_nms`](crate::grouped_nms). Operands: boxes, scores.
    Nms {
        /// IoU above which the lower score is suppressed.
        iou_threshold: f64,
    },
    /// A function of each element.
    Unary(Unary),
    /// A function of two elements. Operands: the left and the right one, broadcast.
    Binary(Binary),
    /// A function of each element and a number to its right.
    Scalar(Binary, f64),
    /// Each element, limited to a range.
    Clamp {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// Replaces elements by a number. Operands: x, mask.
    MaskFill(f64),
    /// Replaces elements by others. Operands: x, mask, the others.
    MaskWhere,
    /// Conversion to the output's type.
    Cast,
    /// The same elements in the output's shape.
    Reshape,
    /// Dimensions in another order: that of the input at each position.
    Permute(Vec<usize>),
    /// Repetition along dimensions of size one, to the output's shape.
    Expand,
    /// A part of a tensor.
    Slice(Vec<Slice>),
    /// A tensor with a part replaced. Operands: x, the part.
    SliceAssign(Vec<Slice>),
    /// Tensors, one after the other along a dimension.
    Concat(usize),
    /// Elements along a dimension, by index. Operands: x, indices of the output's shape.
    Gather(usize),
    /// Slices along a dimension, by index. Operands: x, indices.
    Select(usize),
    /// One number everywhere. No operands.
    Fill(f64),
    /// Any other operation, by Burn's name; its attributes are not recorded.
    Other(String),
}

/// Attributes of a convolution, one number an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvolutionOptions {
    /// Step of the kernel.
    pub stride: Vec<usize>,
    /// Zeros on both sides.
    pub padding: Vec<usize>,
    /// Distance of the kernel's elements.
    pub dilation: Vec<usize>,
    /// Groups of channels.
    pub groups: usize,
}

impl ConvolutionOptions {
    pub(super) fn new(
        stride: &[usize],
        padding: &[usize],
        dilation: &[usize],
        groups: usize,
    ) -> Self {
        Self {
            stride: stride.to_vec(),
            padding: padding.to_vec(),
            dilation: dilation.to_vec(),
            groups,
        }
    }
}

/// Operations after the sums of a [`Convolution`](Operation::Convolution), in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epilogue {
    /// A bias.
    pub bias: bool,
    /// A scale and a shift for each channel.
    pub affine: bool,
    /// A residual, resampled to the output's size from the nearest pixel where its own differs.
    pub residual: bool,
    /// Function applied to each value at the end.
    pub activation: Activation,
}

/// A function of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Unary {
    Abs,
    Ceil,
    Erf,
    Exp,
    Floor,
    Log,
    Not,
    Recip,
    Round,
    Sqrt,
    Tanh,
}

/// A function of two elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Equal,
    Greater,
    GreaterEqual,
    Lower,
    LowerEqual,
    And,
    Or,
}

impl Graph {
    /// The operations, each after those that it depends on.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A tensor.
    pub fn tensor(&self, id: TensorId) -> &GraphTensor {
        &self.tensors[id.0]
    }

    /// Names and tensors of the inputs.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, TensorId)> {
        let ids = self.tensors.iter().enumerate();
        ids.filter_map(|(i, tensor)| match &tensor.source {
            Source::Input(name) => Some((name.as_str(), TensorId(i))),
            _ => None,
        })
    }

    /// Names and tensors of the outputs.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, TensorId)> {
        self.outputs.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// The module whose weights an operation has: the path of the first parameter that an operand is,
    /// or is computed from without any input, less the parameter's own name.
    pub fn module(&self, node: &Node) -> Option<&str> {
        let parameter = node.inputs.iter().find_map(|id| self.parameter(*id))?;
        Some(module_of(parameter))
    }

    fn parameter(&self, id: TensorId) -> Option<&str> {
        match &self.tensor(id).source {
            Source::Parameter(name) => Some(name),
            Source::Node(node) if self.tensor(id).is_constant => {
                let mut operands = self.nodes[*node].inputs.iter();
                operands.find_map(|id| self.parameter(*id))
            }
            _ => None,
        }
    }

    /// Multiply-accumulates of an operation, as torch's `FlopCounterMode` counts them (two flops each):
    /// those of convolutions and matrix products.
    pub fn macs(&self, node: &Node) -> u64 {
        let input = |i: usize| self.tensor(node.inputs[i]);
        let output = || self.tensor(node.outputs[0]).num_elements();
        // For each element that comes out, or of a transposed convolution goes in.
        let kernel = |weight: &GraphTensor| weight.shape[1..].iter().product::<usize>() as u64;
        match &node.operation {
            Operation::Convolution { .. } => output() * kernel(input(1)),
            Operation::DeformConvolution { .. } => output() * kernel(input(2)),
            Operation::ConvTranspose { .. } => input(0).num_elements() * kernel(input(1)),
            Operation::Linear { .. } | Operation::MatMul => {
                output() * input(0).shape.last().map_or(1, |&size| size as u64)
            }
            Operation::Attention => {
                let [query, key] = [input(0), input(1)];
                let keys = key.shape[key.shape.len() - 2] as u64;
                (query.num_elements() + output()) * keys
            }
            _ => 0,
        }
    }

    pub(super) fn add_tensor(&mut self, tensor: GraphTensor) -> TensorId {
        self.tensors.push(tensor);
        TensorId(self.tensors.len() - 1)
    }
}
