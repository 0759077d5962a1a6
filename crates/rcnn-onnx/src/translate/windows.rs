//! Operations whose window slides over images: convolutions and pooling.

use rcnn_ops::Activation;
use rcnn_ops::record::{ConvolutionOptions, Graph, Node, Operation, TensorId};

use super::{Translator, integers};
use crate::builder::{Builder, Value};
use crate::constants::{Parameters, evaluated, is_constant};
use crate::error::OnnxError;
use crate::proto::Attribute;

impl<'a> Translator<'a> {
    /// The input of a convolution or a pooling before TensorFlow's `SAME` padding, whose width depends on the image size;
    /// `None` without such padding.
    pub(super) fn same_padded(&self, node: &Node) -> Option<TensorId> {
        let (Operation::Convolution { .. } | Operation::MaxPool2d { .. }) = node.operation else {
            return None;
        };
        let padded = self.producer(node.inputs[0])?;
        matches!(padded.operation, Operation::SamePad { .. }).then(|| padded.inputs[0])
    }

    /// The unpadded input of a sliding window, and whether its padding is `SAME`.
    fn window_operand(
        &mut self,
        node: &Node,
        b: &mut Builder<'a>,
    ) -> Result<(Value, bool), OnnxError> {
        let unpadded = self.same_padded(node);
        let x = self.value(unpadded.unwrap_or(node.inputs[0]), b)?;
        Ok((x, unpadded.is_some()))
    }

    /// The value of a convolution or a pooling; `None` for another operation.
    pub(super) fn window(
        &mut self,
        node: &Node,
        b: &mut Builder<'a>,
    ) -> Result<Option<Value>, OnnxError> {
        Ok(Some(match &node.operation {
            Operation::Convolution { .. } => self.convolution(node, b)?,
            Operation::ConvTranspose {
                options,
                output_padding,
                activation: function,
                ..
            } => {
                let mut attributes = convolution_attributes(options, false);
                attributes.push(Attribute::Ints("output_padding", integers(output_padding)));
                let inputs = node.inputs.iter().map(|&id| self.value(id, b));
                let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
                let y = b.node("ConvTranspose", &inputs, &attributes);
                activation(&y, *function, b)
            }
            Operation::MaxPool2d {
                kernel,
                stride,
                padding,
                dilation,
                ceil_mode,
            } => {
                let (x, is_same) = self.window_operand(node, b)?;
                let pads = pads(padding, is_same);
                let mut attributes = pool_attributes(*kernel, *stride, pads, *ceil_mode);
                attributes.push(Attribute::Ints("dilations", integers(dilation)));
                b.node("MaxPool", &[&x], &attributes)
            }
            Operation::AvgPool2d {
                kernel,
                stride,
                padding,
                count_include_pad,
                ceil_mode,
            } => {
                let x = self.value(node.inputs[0], b)?;
                let pads = pads(padding, false);
                let mut attributes = pool_attributes(*kernel, *stride, pads, *ceil_mode);
                let counted = i64::from(*count_include_pad);
                attributes.push(Attribute::Int("count_include_pad", counted));
                b.node("AveragePool", &[&x], &attributes)
            }
            _ => return Ok(None),
        }))
    }

    /// A convolution with its norm folded, then its residual and activation.
    fn convolution(&mut self, node: &Node, b: &mut Builder<'a>) -> Result<Value, OnnxError> {
        let Operation::Convolution { options, epilogue } = &node.operation else {
            unreachable!("asked for convolutions alone");
        };
        let mut ids = node.inputs[1..].iter().copied();
        let mut next = || ids.next().expect("an operand for each flag");
        let weight = next();
        let bias = epilogue.bias.then(&mut next);
        let affine = epilogue.affine.then(|| (next(), next()));
        let residual = epilogue.residual.then(next);
        let (x, is_same) = self.window_operand(node, b)?;
        let attributes = convolution_attributes(options, is_same);
        let folded: Vec<TensorId> = (bias.into_iter())
            .chain(affine.into_iter().flat_map(|(scale, shift)| [scale, shift]))
            .chain([weight])
            .collect();
        let mut y = match affine {
            Some((scale, shift)) if folded.iter().all(|&id| is_constant(self.graph, id)) => {
                folded.iter().try_for_each(|&id| self.require_known(id))?;
                let (graph, parameters) = (self.graph, self.parameters);
                let module = self.module(node);
                let shape = &graph.tensor(weight).shape;
                let read = move || scaled_filters(graph, parameters, [weight, scale]);
                let weight = b.weights(&format!("{module}.weight"), shape, read);
                let shape = &graph.tensor(shift).shape;
                let read = move || shifts(graph, parameters, [scale, shift], bias);
                let shift = b.weights(&format!("{module}.bias"), shape, read);
                b.node("Conv", &[&x, &weight, &shift], &attributes)
            }
            _ => {
                let mut operands = vec![x, self.value(weight, b)?];
                if let Some(bias) = bias {
                    operands.push(self.value(bias, b)?);
                }
                let y = b.node("Conv", &operands, &attributes);
                match affine {
                    Some((scale, shift)) => {
                        let [scale, shift] = [self.value(scale, b)?, self.value(shift, b)?]
                            .map(|value| b.unsqueeze(&value, &[1, 2]));
                        let scaled = b.op("Mul", [&y, &scale]);
                        b.op("Add", [&scaled, &shift])
                    }
                    None => y,
                }
            }
        };
        if let Some(id) = residual {
            let mut residual = self.value(id, b)?;
            let shape = |id| &self.graph.tensor(id).shape;
            if shape(id) != shape(node.outputs[0]) {
                residual = nearest(&residual, &y, b);
            }
            y = b.op("Add", [&y, &residual]);
        }
        Ok(activation(&y, epilogue.activation, b))
    }
}

/// The filters of a convolution, each times the scale of its norm.
fn scaled_filters(
    graph: &Graph,
    parameters: &Parameters,
    [weight, scale]: [TensorId; 2],
) -> Vec<f32> {
    let [mut weight, scale] = [weight, scale].map(|id| evaluated(graph, parameters, id).values);
    let filter = weight.len() / scale.len().max(1);
    for (filter, scale) in weight.chunks_mut(filter.max(1)).zip(&scale) {
        filter.iter_mut().for_each(|value| *value *= scale);
    }
    weight
}

/// The shift of a norm, to which the convolution's bias is added.
fn shifts(
    graph: &Graph,
    parameters: &Parameters,
    [scale, shift]: [TensorId; 2],
    bias: Option<TensorId>,
) -> Vec<f32> {
    let values = |id| evaluated(graph, parameters, id).values;
    let mut shift = values(shift);
    if let Some(bias) = bias {
        let pairs = values(bias).into_iter().zip(values(scale));
        let sums = shift.iter_mut().zip(pairs);
        sums.for_each(|(shift, (bias, scale))| *shift += bias * scale);
    }
    shift
}

/// Resampled to the size of another, from the nearest pixel to the upper left.
fn nearest(x: &Value, like: &Value, b: &mut Builder) -> Value {
    let [from, to] = [x, like].map(|value| b.shape(value));
    let (start, size) = (b.slice(&from, 0, 0, 2), b.slice(&to, 0, 2, 4));
    let sizes = b.concat(&[&start, &size], 0);
    let none = Value::none();
    let attributes = [
        Attribute::Text("mode", "nearest"),
        Attribute::Text("coordinate_transformation_mode", "asymmetric"),
        Attribute::Text("nearest_mode", "floor"),
    ];
    b.node("Resize", &[x, &none, &none, &sizes], &attributes)
}

fn activation(x: &Value, activation: Activation, b: &mut Builder) -> Value {
    let gate = [
        Attribute::Float("alpha", 1.0 / 6.0),
        Attribute::Float("beta", 0.5),
    ];
    match activation {
        Activation::None => x.clone(),
        Activation::Relu => b.op("Relu", [x]),
        Activation::Relu6 => {
            let (low, high) = (b.float(0.0), b.float(6.0));
            b.op("Clip", [x, &low, &high])
        }
        Activation::Hardsigmoid => b.node("HardSigmoid", &[x], &gate),
        Activation::Hardswish => {
            let gate = b.node("HardSigmoid", &[x], &gate);
            b.op("Mul", [x, &gate])
        }
    }
}

/// Padding on both sides, or as much as makes an output for every step of the window.
fn pads(padding: &[usize], is_same: bool) -> Attribute<'static> {
    match is_same {
        true => Attribute::Text("auto_pad", "SAME_UPPER"),
        false => Attribute::Ints("pads", integers(&[padding, padding].concat())),
    }
}

fn convolution_attributes(options: &ConvolutionOptions, is_same: bool) -> Vec<Attribute<'static>> {
    vec![
        Attribute::Ints("strides", integers(&options.stride)),
        pads(&options.padding, is_same),
        Attribute::Ints("dilations", integers(&options.dilation)),
        Attribute::Int("group", options.groups as i64),
    ]
}

fn pool_attributes(
    kernel: [usize; 2],
    stride: [usize; 2],
    pads: Attribute<'static>,
    ceil_mode: bool,
) -> Vec<Attribute<'static>> {
    vec![
        Attribute::Ints("kernel_shape", integers(&kernel)),
        Attribute::Ints("strides", integers(&stride)),
        pads,
        Attribute::Int("ceil_mode", i64::from(ceil_mode)),
    ]
}
