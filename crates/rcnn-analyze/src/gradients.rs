//! Size of the loss's gradient for each parameter.

use std::collections::HashMap;

use burn::backend::Autodiff;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use rcnn_core::backbone::named_parameters;
use rcnn_core::ops::DetectionBackend;
use rcnn_core::weights::Weights;

use crate::{AnalyzeError, Sample, validate};

/// The square of each parameter's gradient norm, by name: the mean over the pictures.
pub(crate) fn norms<B: DetectionBackend>(
    weights: &Weights,
    samples: &[Sample],
    device: &B::Device,
    tick: &mut dyn FnMut(),
) -> Result<Vec<(String, f64)>, AnalyzeError> {
    let model = weights.load::<Autodiff<B>>(device)?;
    let mut sums: HashMap<ParamId, f64> = HashMap::new();
    for sample in samples {
        let Some(truth) = &sample.truth else {
            continue;
        };
        let (losses, _) = validate(&model, &sample.image, truth, device)?;
        let gradients = losses.total().backward();
        model.visit(&mut Squares::<Autodiff<B>> {
            gradients: &gradients,
            sums: &mut sums,
        });
        tick();
    }
    let named = named_parameters(&model).into_iter();
    let mean = |sum: f64| sum / samples.len() as f64;
    Ok(named
        .filter_map(|p| Some((p.name, mean(*sums.get(&p.id)?))))
        .collect())
}

/// Adds up the squares of gradients.
struct Squares<'a, B: AutodiffBackend> {
    gradients: &'a B::Gradients,
    sums: &'a mut HashMap<ParamId, f64>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Squares<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            let square = gradient.powi_scalar(2).sum();
            *self.sums.entry(param.id).or_default() += scalar(square);
        }
    }
}

fn scalar<B: Backend>(value: Tensor<B, 1>) -> f64 {
    value.into_data().iter::<f64>().sum()
}
