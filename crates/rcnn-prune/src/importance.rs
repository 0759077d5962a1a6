//! How much each unit of channels matters.

use std::collections::HashMap;

use burn::backend::Autodiff;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use image::RgbImage;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rcnn_core::Instances;
use rcnn_core::backbone::named_parameters;
use rcnn_core::image::to_tensor;
use rcnn_core::ops::{DetectionBackend, Subsample};
use rcnn_core::weights::Weights;

use crate::groups::Parameter;
use crate::{ChannelGroups, PruneError};

/// A labelled picture to estimate importance on.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The picture.
    pub image: RgbImage,
    /// The objects on it, in its pixels.
    pub objects: Instances,
}

/// How much each unit of each group matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// By group and unit, from 0.
    pub(crate) units: Vec<Vec<f64>>,
    /// Whether the numbers of different groups are of one scale, so that they can be set against what is saved.
    pub(crate) is_global: bool,
}

impl Importance {
    /// Estimates how much the square of the loss changes without a unit, by the first order of Taylor's series
    /// (Molchanov et al. 2019, <https://arxiv.org/abs/1906.10771>): the square of the sum of weight times gradient
    /// over the unit's part of a tensor, summed over tensors and pictures.
    ///
    /// The losses are those of validation: with running statistics, and the same draws for the same pictures.
    /// `progress` is called after each picture, with how many there were and how many there will be.
    ///
    /// # Errors
    /// Without pictures that have objects, where the weights do not fit, labels are not the model's, or a loss is
    /// not finite.
    pub fn by_taylor<B: DetectionBackend>(
        groups: &ChannelGroups,
        weights: &Weights,
        samples: &[Sample],
        device: &B::Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, PruneError> {
        if samples.iter().all(|sample| sample.objects.is_empty()) {
            return Err(PruneError::NoPictures);
        }
        let model = weights.load::<Autodiff<B>>(device)?;
        let mut importance = Self::zeros(groups, true);
        let names = named_parameters(&model).into_iter();
        let names: HashMap<String, ParamId> = names.map(|p| (p.name, p.id)).collect();
        let parameters = groups.parameters.iter().filter(|p| !p.axes.is_empty());
        let parameters: HashMap<ParamId, &Parameter> = parameters
            .filter_map(|p| Some((*names.get(&p.name)?, p)))
            .collect();
        for (done, sample) in samples.iter().enumerate() {
            let image: Tensor<Autodiff<B>, 3> = to_tensor(&sample.image, device);
            let mut random = StdRng::seed_from_u64(done as u64);
            let subsample = &mut Subsample::Random(&mut random);
            let objects = std::slice::from_ref(&sample.objects);
            let (losses, _) = model.validate(&[image], objects, subsample)?;
            let gradients = losses.total().backward();
            model.visit(&mut Taylor::<Autodiff<B>> {
                gradients: &gradients,
                parameters: &parameters,
                importance: &mut importance,
            });
            progress(done + 1, samples.len());
        }
        importance.finite(groups)
    }

    /// Estimates importance by the squared norms of a unit's weights, relative to the mean of its group: a
    /// guess that needs no pictures.
    ///
    /// # Errors
    /// Where a tensor is missing or cannot be read.
    pub fn by_norm(groups: &ChannelGroups, weights: &Weights) -> Result<Self, PruneError> {
        let mut importance = Self::zeros(groups, false);
        for layer in &groups.layers {
            let parameter = &groups.parameters[layer.parameter];
            let error = |reason: String| PruneError::Tensor {
                name: parameter.name.clone(),
                reason,
            };
            let tensor = weights.tensors.get(&parameter.name);
            let tensor = tensor.ok_or_else(|| error("missing".into()))?;
            let data = tensor.to_data().map_err(|e| error(e.to_string()))?;
            let shape = data.shape.to_vec();
            let squares: Vec<f64> = data.iter::<f64>().map(|value| value * value).collect();
            for axis in &parameter.axes {
                let sums = sums(&squares, &shape, parameter.torch_axis(axis.axis));
                importance.add(&axis.positions, sums.into_iter());
            }
        }
        for units in &mut importance.units {
            let mean = units.iter().sum::<f64>() / units.len() as f64;
            if mean > 0.0 {
                units.iter_mut().for_each(|unit| *unit /= mean);
            }
        }
        importance.finite(groups)
    }

    fn zeros(groups: &ChannelGroups, is_global: bool) -> Self {
        let units = groups.groups().iter().map(|group| vec![0.0; group.units]);
        Self {
            units: units.collect(),
            is_global,
        }
    }

    /// Adds the values of an axis to the units at its positions.
    fn add(&mut self, positions: &[Option<(usize, usize)>], values: impl Iterator<Item = f64>) {
        for (position, value) in positions.iter().zip(values) {
            if let Some((group, unit)) = position {
                self.units[*group][*unit] += value;
            }
        }
    }

    fn finite(self, groups: &ChannelGroups) -> Result<Self, PruneError> {
        for (group, units) in groups.groups().iter().zip(&self.units) {
            if let Some(&value) = units.iter().find(|unit| !unit.is_finite()) {
                return Err(PruneError::NotFinite {
                    layer: group.layers.first().cloned().unwrap_or_default(),
                    value,
                });
            }
        }
        Ok(self)
    }
}

/// Adds what the gradients of a picture say.
struct Taylor<'a, B: AutodiffBackend> {
    gradients: &'a B::Gradients,
    parameters: &'a HashMap<ParamId, &'a Parameter>,
    importance: &'a mut Importance,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Taylor<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(parameter) = self.parameters.get(&param.id) else {
            return;
        };
        let value = param.val();
        let Some(gradient) = value.grad(self.gradients) else {
            return;
        };
        let products: Vec<f64> = (value.inner() * gradient).into_data().iter().collect();
        for axis in &parameter.axes {
            let sums = sums(&products, &parameter.shape, axis.axis);
            // Several positions of an axis may be of one unit: a channel that was flattened.
            let mut units: HashMap<(usize, usize), f64> = HashMap::new();
            let found = axis.positions.iter().zip(sums);
            for (position, sum) in found {
                if let Some(unit) = position {
                    *units.entry(*unit).or_default() += sum;
                }
            }
            for ((group, unit), sum) in units {
                self.importance.units[group][unit] += sum * sum;
            }
        }
    }
}

/// Sums over all axes but one.
fn sums(values: &[f64], shape: &[usize], axis: usize) -> Vec<f64> {
    let size = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let mut sums = vec![0.0; size];
    for (run, values) in values.chunks(inner.max(1)).enumerate() {
        sums[run % size] += values.iter().sum::<f64>();
    }
    sums
}
