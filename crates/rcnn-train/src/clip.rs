//! The norm of all gradients together, as `torch.nn.utils.clip_grad_norm_` limits it.
//!
//! burn-optim clips each parameter by itself, which is another method.

use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

/// Multiplies all gradients by `scale` and then, if their common norm is above `max_norm`, by
/// `max_norm / norm`. Returns the norm before clipping, where it was asked for.
pub(crate) fn scale_and_clip<B: AutodiffBackend, M: AutodiffModule<B>>(
    model: &M,
    gradients: &mut GradientsParams,
    scale: f64,
    max_norm: Option<f64>,
) -> Option<f64> {
    let norm = max_norm.map(|_| {
        let mut sum = SquareSum::<B> {
            gradients,
            sum: None,
        };
        model.visit(&mut sum);
        let sum = sum.sum.map_or(0.0, |sum| sum.into_scalar().to_f64());
        sum.sqrt() * scale
    });
    let clipped = match (norm, max_norm) {
        (Some(norm), Some(max_norm)) if norm > max_norm => max_norm / (norm + 1e-6),
        _ => 1.0,
    };
    let factor = scale * clipped;
    if factor != 1.0 {
        model.visit(&mut Scale { gradients, factor });
    }
    norm
}

use burn::tensor::cast::ToElement;

struct SquareSum<'a, B: AutodiffBackend> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for SquareSum<'_, B> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        let gradient = self.gradients.get::<B::InnerBackend, D>(parameter.id);
        let Some(gradient) = gradient else { return };
        let square = gradient.powi_scalar(2).sum();
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum + square,
            None => square,
        });
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        let id = parameter.id;
        if let Some(gradient) = self.gradients.remove::<B::InnerBackend, D>(id) {
            let scaled = gradient * self.factor;
            self.gradients.register::<B::InnerBackend, D>(id, scaled);
        }
    }
}
