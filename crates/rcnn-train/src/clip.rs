//! The norm of all gradients together, as `torch.nn.utils.clip_grad_norm_` limits it.
//!
//! burn-optim clips each parameter by itself, which is another method.

use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::cast::ToElement;

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

#[cfg(test)]
mod tests {
    use burn::backend::Autodiff;
    use burn::nn::LinearConfig;
    use rcnn_core::Flex;

    use super::*;

    #[test]
    fn the_norm_is_that_of_all_parameters_together() {
        type B = Autodiff<Flex>;
        let device = Default::default();
        let model = LinearConfig::new(2, 3).init::<B>(&device);
        let gradients = || {
            let sum = model.weight.val().sum() * 3.0 + model.bias.as_ref().unwrap().val().sum();
            GradientsParams::from_grads(sum.backward(), &model)
        };
        let values = |gradients: &GradientsParams| {
            let weight = gradients.get::<Flex, 2>(model.weight.id).unwrap();
            let bias = gradients
                .get::<Flex, 1>(model.bias.as_ref().unwrap().id)
                .unwrap();
            let first = |data: burn::tensor::TensorData| data.iter::<f64>().next().unwrap();
            [first(weight.into_data()), first(bias.into_data())]
        };
        let norm = 57f64.sqrt(); // Six of 3 and three of 1.
        let close = |found: [f64; 2], expected: [f64; 2]| {
            assert!(
                found
                    .iter()
                    .zip(expected)
                    .all(|(a, b)| (a - b).abs() < 1e-5),
                "{found:?} {expected:?}"
            );
        };

        let mut clipped = gradients();
        let found = scale_and_clip::<B, _>(&model, &mut clipped, 1.0, Some(1.0)).unwrap();
        assert!((found - norm).abs() < 1e-5);
        close(values(&clipped), [3.0 / norm, 1.0 / norm]);

        let mut averaged = gradients();
        scale_and_clip::<B, _>(&model, &mut averaged, 0.5, Some(100.0));
        close(values(&averaged), [1.5, 0.5]);

        let mut untouched = gradients();
        let found = scale_and_clip::<B, _>(&model, &mut untouched, 1.0, None);
        assert_eq!(found, None);
        close(values(&untouched), [3.0, 1.0]);
    }
}
