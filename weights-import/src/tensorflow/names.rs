//! The variables of the Object Detection API's Faster R-CNN over Inception v2 as the parameters of this project's: other
//! names, other layouts, and the coordinates and classes that both count differently.

use burn::tensor::DType;
use rcnn_backbone::tensorflow;

use crate::storage::StoredTensor;
use crate::{Checkpoint, CheckpointError};

/// Last parts of the names of variables.
const VARIABLES: [&str; 8] = [
    "weights",
    "biases",
    "depthwise_weights",
    "pointwise_weights",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
];

/// Whether a constant is called as layers call their variables.
pub(super) fn is_variable(name: &str) -> bool {
    let (_, last) = name.rsplit_once('/').unwrap_or(("", name));
    VARIABLES.contains(&last)
}

/// The tensors under this project's names and in torch's layouts. Variables of the training alone (momenta, averages,
/// `global_step`) are left out, and so are those of other networks.
///
/// # Errors
/// When predictors do not have four numbers a box or two an anchor, or cannot be read.
pub(crate) fn parameters(
    checkpoint: &Checkpoint,
) -> Result<Vec<(String, StoredTensor)>, CheckpointError> {
    let mut parameters = vec![];
    for (variable, tensor) in checkpoint.iter() {
        if let Some(name) = tensorflow::parameter(variable) {
            let tensor = arranged(&name, variable, tensor)?;
            parameters.push((name, tensor));
        }
    }
    Ok(parameters)
}

/// A variable as the parameter of a name has it.
fn arranged(
    name: &str,
    variable: &str,
    tensor: &StoredTensor,
) -> Result<StoredTensor, CheckpointError> {
    match name.rsplit_once('.').map_or(name, |(module, _)| module) {
        "rpn.head.cls_logits" => objectness(variable, tensor),
        "rpn.head.bbox_pred" => deltas(variable, tensor, 0),
        "roi_heads.box_predictor.bbox_pred" => deltas(variable, tensor, 1),
        _ => Ok(match tensor.shape[..] {
            // The kernel of a depthwise convolution: channels, and how many are made of each.
            [height, width, channels, each] if variable.ends_with("/depthwise_weights") => {
                let outputs = channels * each;
                let strides = [1, 0, width * outputs, outputs];
                tensor.reordered(vec![outputs, 1, height, width], &strides)
            }
            [height, width, inputs, outputs] => {
                let strides = [1, outputs, width * inputs * outputs, inputs * outputs];
                tensor.reordered(vec![outputs, inputs, height, width], &strides)
            }
            [inputs, outputs] => tensor.reordered(vec![outputs, inputs], &[1, outputs]),
            _ => tensor.clone(),
        }),
    }
}

/// A layer's weight as a matrix of one row an output, or its bias as one column; and what torch's shape of it has after
/// the outputs.
struct Layer {
    values: Vec<f32>,
    inputs: usize,
    rest: Vec<usize>,
}

impl Layer {
    fn read(variable: &str, tensor: &StoredTensor) -> Result<Self, CheckpointError> {
        let (outputs, rest) = match tensor.shape[..] {
            [outputs] => (outputs, vec![]),
            [inputs, outputs] => (outputs, vec![inputs]),
            [1, 1, inputs, outputs] => (outputs, vec![inputs, 1, 1]),
            _ => {
                let found = &tensor.shape;
                return Err(tensor.source.unsupported(format!(
                    "tensor `{variable}` of shape {found:?}: expected a linear layer or a 1x1 convolution"
                )));
            }
        };
        let inputs = rest.first().copied().unwrap_or(1);
        let rows = tensor.reordered(vec![outputs, inputs], &[1, outputs]);
        let values = rows.data()?.convert_dtype(DType::F32);
        Ok(Self {
            values: values.into_vec().expect("it has just been made f32"),
            inputs,
            rest,
        })
    }

    /// The row of an output.
    fn row(&self, output: usize) -> &[f32] {
        &self.values[output * self.inputs..][..self.inputs]
    }

    fn outputs(&self) -> usize {
        self.values.len() / self.inputs.max(1)
    }

    /// Other rows in the place of these.
    fn with_rows(self, tensor: &StoredTensor, rows: Vec<Vec<f32>>) -> StoredTensor {
        let shape = [vec![rows.len()], self.rest].concat();
        tensor.with_values(shape, rows.concat())
    }
}

/// Logits of the background and of an object as one of an object: the softmax of two is the sigmoid of their difference.
fn objectness(variable: &str, tensor: &StoredTensor) -> Result<StoredTensor, CheckpointError> {
    let layer = Layer::read(variable, tensor)?;
    require_multiple(variable, tensor, &layer, 2)?;
    let difference = |anchor: usize| {
        let [background, object] = [2 * anchor, 2 * anchor + 1].map(|output| layer.row(output));
        let difference = object.iter().zip(background).map(|(o, b)| o - b);
        difference.collect()
    };
    let rows = (0..layer.outputs() / 2).map(difference).collect();
    Ok(layer.with_rows(tensor, rows))
}

/// Box deltas `ty, tx, th, tw` as `tx, ty, tw, th`, with zeros for classes that TensorFlow has none for: the background.
fn deltas(
    variable: &str,
    tensor: &StoredTensor,
    without: usize,
) -> Result<StoredTensor, CheckpointError> {
    let layer = Layer::read(variable, tensor)?;
    require_multiple(variable, tensor, &layer, 4)?;
    let zeros = vec![vec![0.0; layer.inputs]; 4 * without];
    let swapped = (0..layer.outputs()).map(|output| layer.row(output ^ 1).to_vec());
    let rows = zeros.into_iter().chain(swapped).collect();
    Ok(layer.with_rows(tensor, rows))
}

fn require_multiple(
    variable: &str,
    tensor: &StoredTensor,
    layer: &Layer,
    of: usize,
) -> Result<(), CheckpointError> {
    let outputs = layer.outputs();
    match outputs > 0 && outputs.is_multiple_of(of) {
        true => Ok(()),
        false => Err(tensor.source.unsupported(format!(
            "tensor `{variable}` has {outputs} outputs: expected a multiple of {of}"
        ))),
    }
}
