//! The smaller network: its configuration, and the weights that are left.

use burn::tensor::TensorData;
use rcnn_core::FasterRcnnConfig;
use rcnn_core::ops::record::Recorder;
use rcnn_core::weights::{ConfigOrigin, StateDict, StateTensor, Weights, parameter_shapes};

use crate::groups::Parameter;
use crate::{ChannelGroups, Kept, PruneError, PruneReport};

impl ChannelGroups {
    /// Removes all channels but these. Every number that is left is the one that was there, and names stay.
    ///
    /// # Errors
    /// When a tensor cannot be read, or the architecture cannot be built with these channels.
    pub fn prune(
        &self,
        weights: &Weights,
        kept: &Kept,
    ) -> Result<(Weights, PruneReport), PruneError> {
        let counts = kept.counts();
        let channels = |path: &str| {
            let mut layers = self.layers.iter();
            let layer = layers.find(|layer| layer.path == path)?;
            Some(self.outputs(layer, &counts))
        };
        let config = weights.config.with_channels(&channels);
        let mut tensors = StateDict::new();
        for (name, tensor) in &weights.tensors {
            let parameter = self.parameters.iter().find(|p| p.name == *name);
            let axes = parameter.map_or(&[][..], |parameter| &parameter.axes);
            let error = |reason: String| PruneError::Tensor {
                name: name.clone(),
                reason,
            };
            match parameter {
                Some(parameter) if !axes.is_empty() => {
                    let data = tensor.to_data().map_err(|e| error(e.to_string()))?;
                    let data = selected(data, parameter, kept).map_err(error)?;
                    tensors.insert(name.clone(), StateTensor::new(data));
                }
                _ => _ = tensors.insert(name.clone(), tensor.clone()),
            }
        }
        check(&config, &tensors)?;
        let pruned = Weights {
            path: weights.path.clone(),
            config,
            origin: ConfigOrigin::Given,
            tensors,
        };
        Ok((pruned, self.report(&counts)))
    }
}

/// Whether the architecture makes a network of the shapes that are left.
fn check(config: &FasterRcnnConfig, tensors: &StateDict) -> Result<(), PruneError> {
    let model = config.init::<Recorder>(&Default::default())?;
    for (name, found) in parameter_shapes(&model) {
        let expected = tensors.get(&name).map(|tensor| tensor.shape.clone());
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(PruneError::Architecture {
                backbone: config.backbone.to_string(),
                name,
                found,
                expected,
            });
        }
    }
    Ok(())
}

/// The part of a tensor, in torch's layout, that is left.
fn selected(data: TensorData, parameter: &Parameter, kept: &Kept) -> Result<TensorData, String> {
    let mut data = data;
    for axis in &parameter.axes {
        let positions = axis.positions.iter().enumerate();
        let positions = positions.filter(|(_, position)| match position {
            Some((group, unit)) => kept.units[*group].binary_search(unit).is_ok(),
            None => true,
        });
        let positions: Vec<usize> = positions.map(|(position, _)| position).collect();
        let (torch_axis, size) = (parameter.torch_axis(axis.axis), axis.positions.len());
        if data.shape.get(torch_axis) != Some(&size) {
            return Err(format!(
                "shape {:?}, where {size} are expected on axis {torch_axis}",
                data.shape
            ));
        }
        if positions.len() < size {
            data = select(&data, torch_axis, &positions);
        }
    }
    Ok(data)
}

/// Slices of a tensor along an axis.
fn select(data: &TensorData, axis: usize, positions: &[usize]) -> TensorData {
    let mut shape = data.shape.to_vec();
    let inner: usize = shape[axis + 1..].iter().product();
    let slice = inner * data.dtype.size();
    let block = slice * shape[axis];
    let mut bytes = Vec::with_capacity(data.as_bytes().len() / shape[axis] * positions.len());
    for block in data.as_bytes().chunks_exact(block) {
        for position in positions {
            bytes.extend_from_slice(&block[position * slice..][..slice]);
        }
    }
    shape[axis] = positions.len();
    TensorData::from_bytes_vec(bytes, shape, data.dtype)
}
