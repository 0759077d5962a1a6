//! Distillation: the losses of a student against its teacher, and their weights.

use burn::config::Config;
use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::backend::Backend;
use derive_setters::Setters;
use rcnn_core::ops::binary_cross_entropy_with_logits;
use rcnn_types::validate::{InvalidField, is_weight, require};
use serde::{Deserialize, Serialize};

/// Weights of the distillation losses, relative to the losses on the labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(prefix = "with_")]
pub struct DistillationConfig {
    /// Weight of the feature maps' loss, summed over the levels: one minus Pearson's correlation of each channel with
    /// the teacher's (PKD: Cao et al. 2022, <https://arxiv.org/abs/2207.02039>). 6 in MMRazor's recipes.
    pub features: f64,
    /// Weight of the logits' loss: divergence of objectness and of class probabilities from the teacher's, whose
    /// classes and anchors must be the student's. 0 leaves it out.
    pub logits: f64,
}

impl Config for DistillationConfig {}

impl Default for DistillationConfig {
    fn default() -> Self {
        Self {
            features: 6.0,
            logits: 0.0,
        }
    }
}

/// Names of the losses, as those of the detector.
pub(crate) const FEATURES: &str = "loss_pkd";
pub(crate) const LOGITS: &str = "loss_logits";

impl DistillationConfig {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidField> {
        let weights = [
            ("distillation.features", self.features),
            ("distillation.logits", self.logits),
        ];
        for (field, weight) in weights {
            require(is_weight(weight), field, weight, "0 or more")?;
        }
        let some = self.features > 0.0 || self.logits > 0.0;
        let expected = "more than 0, as `distillation.logits` is not";
        require(some, "distillation.features", self.features, expected)
    }

    /// Names of the losses that count.
    pub(crate) fn loss_names(&self) -> impl Iterator<Item = &'static str> {
        let losses = [(FEATURES, self.features), (LOGITS, self.logits)];
        let losses = losses.into_iter().filter(|(_, weight)| *weight > 0.0);
        losses.map(|(name, _)| name)
    }
}

/// Half the mean squared difference of maps whose channels are normalised over the batch and all locations, which is one
/// minus Pearson's correlation, averaged over the channels.
///
/// # Shapes
/// - student, teacher: `[N, C, H, W]`
/// - output: `[1]`
pub(crate) fn pkd<B: Backend>(student: Tensor<B, 4>, teacher: Tensor<B, 4>) -> Tensor<B, 1> {
    let difference = normalised(student) - normalised(teacher);
    difference.powi_scalar(2).mean() / 2.0
}

/// The channels of a map with mean 0 and variance 1, as `[C, N * H * W]`.
fn normalised<B: Backend>(map: Tensor<B, 4>) -> Tensor<B, 2> {
    let [n, c, h, w] = map.dims();
    let count = n * h * w;
    let rows = map.swap_dims(0, 1).reshape([c, count]);
    let centred = rows.clone() - rows.mean_dim(1);
    let squares = centred.clone().powi_scalar(2).sum_dim(1);
    let variance = squares / count.saturating_sub(1).max(1) as f64;
    // The slope of the root is infinite for a channel that is the same everywhere.
    centred / (variance.clamp_min(1e-12).sqrt() + 1e-6)
}

/// Mean divergence of the student's probabilities of an object from the teacher's, both as logits `[N]`.
pub(crate) fn objectness_divergence<B: Backend>(
    student: Tensor<B, 1>,
    teacher: Tensor<B, 1>,
) -> Tensor<B, 1> {
    let probability = sigmoid(teacher.clone());
    let entropy = binary_cross_entropy_with_logits(teacher, probability.clone());
    binary_cross_entropy_with_logits(student, probability) - entropy
}

/// Mean divergence of the student's class probabilities from the teacher's, both as logits `[K, C]`.
pub(crate) fn class_divergence<B: Backend>(
    student: Tensor<B, 2>,
    teacher: Tensor<B, 2>,
) -> Tensor<B, 1> {
    let samples = student.dims()[0].max(1) as f64;
    let probability = softmax(teacher.clone(), 1);
    let difference = log_softmax(teacher, 1) - log_softmax(student, 1);
    (probability * difference).sum() / samples
}

#[cfg(test)]
mod tests {
    use burn::backend::Autodiff;
    use burn::tensor::TensorData;
    use rcnn_core::Flex;

    use super::*;

    type B = Autodiff<Flex>;

    // Of `tests/reference/make_distillation.py`: losses and norms of their gradients.
    const PKD: [f64; 2] = [0.982579026, 0.125907807];
    const OBJECTNESS: [f64; 2] = [0.871982552, 0.332659342];
    const CLASSES: [f64; 2] = [1.704307325, 0.874563770];

    /// Its inputs.
    fn wave<const D: usize>(shape: [usize; D], frequency: f64, phase: f64) -> Tensor<B, D> {
        let count = shape.iter().product();
        let values = (0..count).map(|i| (frequency * i as f64 + phase).sin() as f32);
        let data = TensorData::new(values.collect(), shape);
        Tensor::from_data(data, &Default::default()).require_grad()
    }

    fn close(name: &str, loss: Tensor<B, 1>, of: Tensor<B, 1>, expected: [f64; 2]) {
        let gradients = loss.clone().backward();
        let gradient = of.grad(&gradients).expect(name);
        let number = |tensor: TensorData| tensor.iter::<f64>().next().unwrap();
        let found = [
            number(loss.into_data()),
            number(gradient.powi_scalar(2).sum().sqrt().into_data()),
        ];
        let is_close = |(a, b): (&f64, f64)| (a - b).abs() < 1e-5 * b.abs().max(1.0);
        assert!(
            found.iter().zip(expected).all(is_close),
            "{name}: {found:?} {expected:?}"
        );
    }

    #[test]
    fn losses_are_those_of_the_formulas() {
        let flat = wave([2 * 3 * 4 * 5], 0.7, 0.0);
        let student = flat.clone().reshape([2, 3, 4, 5]);
        let teacher = wave([2, 3, 4, 5], 1.3, 0.5) * 3.0 + 1.0;
        close("pkd", pkd(student, teacher), flat, PKD);
        let flat = wave([24], 0.9, 0.1);
        let teacher = wave([24], 0.4, 1.0) * 4.0;
        let loss = objectness_divergence(flat.clone() * 3.0, teacher);
        close("objectness", loss, flat, OBJECTNESS);
        let flat = wave([24], 1.1, 0.2);
        let teacher = wave([6, 4], 0.6, 0.3) * 2.0;
        let loss = class_divergence(flat.clone().reshape([6, 4]) * 3.0, teacher);
        close("classes", loss, flat, CLASSES);
    }

    /// The slope of the deviation was infinite.
    #[test]
    fn a_channel_that_is_the_same_everywhere_has_a_finite_gradient() {
        let student = Tensor::<B, 4>::ones([1, 2, 3, 3], &Default::default()).require_grad();
        let loss = pkd(student.clone(), wave([1, 2, 3, 3], 1.0, 0.0));
        let gradient = student.grad(&loss.backward()).unwrap().into_data();
        assert!(gradient.iter::<f32>().all(f32::is_finite));
        let loss = pkd(wave([1, 2, 1, 1], 1.0, 0.0), wave([1, 2, 1, 1], 2.0, 0.0));
        assert_eq!(loss.into_data().iter::<f32>().next(), Some(0.0));
    }

    #[test]
    fn a_student_that_says_the_same_loses_nothing() {
        let logits = wave([6, 4], 0.6, 0.3) * 5.0;
        let losses = [
            class_divergence(logits.clone(), logits.clone()),
            objectness_divergence(logits.clone().reshape([24]), logits.reshape([24])),
            // Scale and offset do not matter.
            pkd(
                wave([2, 2, 3, 3], 0.7, 0.0),
                wave([2, 2, 3, 3], 0.7, 0.0) * 9.0 - 4.0,
            ),
        ];
        for loss in losses {
            let loss = loss.into_data().iter::<f64>().next().unwrap();
            assert!(loss.abs() < 1e-5, "{loss}");
        }
    }
}
