//! Batch norm as a detector uses it: with fixed statistics, a scale and a shift for each channel;
//! with those of the batch only where a trainable norm is trained.

use burn::module::{Initializer, Module, Param, RunningState};
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{DetectionBackend, Phase, channel_affine, channel_moments};
use serde::{Deserialize, Serialize};

/// Kind of norm: torchvision's two, and TensorFlow's. They compute the same and train differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NormKind {
    /// `torchvision.ops.FrozenBatchNorm2d`: weights and statistics are constants.
    #[default]
    FrozenBatchNorm2d,
    /// `torch.nn.BatchNorm2d`: weights are trainable, statistics are counted while training.
    BatchNorm2d,
    /// Weights are trainable, statistics are constants: `is_training=False` of TensorFlow's `batch_norm`.
    FixedStatistics,
}

/// Makes a [`BatchNorm2d`].
#[derive(Debug, Clone)]
pub struct BatchNorm2dConfig {
    /// Channels of the input.
    pub num_features: usize,
    /// Frozen or trainable.
    pub kind: NormKind,
    /// Added to the variance. torchvision's published COCO weights of `fasterrcnn_resnet50_fpn`
    /// want 0, everything else 1e-5.
    pub eps: f64,
    /// How much a batch counts in the running statistics: 0.1 in torch.
    pub momentum: f64,
}

impl BatchNorm2dConfig {
    /// Makes the module: weight and variance one, bias and mean zero.
    pub fn init<B: Backend>(&self, device: &B::Device) -> BatchNorm2d<B> {
        let shape = [self.num_features];
        let constant = |value: Initializer| value.init::<B, 1, _>(shape, device);
        let norm = Norm {
            weight: constant(Initializer::Ones),
            bias: constant(Initializer::Zeros),
            running_mean: RunningState::new(Tensor::zeros(shape, device)),
            running_var: RunningState::new(Tensor::ones(shape, device)),
            eps: self.eps,
            momentum: self.momentum,
            has_fixed_statistics: self.kind == NormKind::FixedStatistics,
        };
        match self.kind {
            NormKind::FrozenBatchNorm2d => BatchNorm2d::FrozenBatchNorm2d(norm.no_grad()),
            NormKind::BatchNorm2d | NormKind::FixedStatistics => BatchNorm2d::BatchNorm2d(norm),
        }
    }
}

/// Batch norm over the channels of `[N, C, H, W]` with torchvision's parameter names.
///
/// Burn's own `BatchNorm` takes batch statistics whenever its backend tracks gradients; this one when
/// it is told to and its weight is trained. The variants are for [`NormKind`]: what lists parameters
/// tells by them that a `FrozenBatchNorm2d` has buffers only.
#[derive(Module, Debug)]
pub enum BatchNorm2d<B: Backend> {
    /// Weight and bias are buffers: no gradient reaches them, whatever their flags say.
    FrozenBatchNorm2d(Norm<B>),
    /// Weight and bias are parameters.
    BatchNorm2d(Norm<B>),
}

/// The tensors of a [`BatchNorm2d`].
#[derive(Module, Debug)]
pub struct Norm<B: Backend> {
    /// Scale, `[C]`.
    pub weight: Param<Tensor<B, 1>>,
    /// Shift, `[C]`.
    pub bias: Param<Tensor<B, 1>>,
    /// Mean that is subtracted, `[C]`.
    pub running_mean: RunningState<Tensor<B, 1>>,
    /// Variance that is divided by, `[C]`.
    pub running_var: RunningState<Tensor<B, 1>>,
    /// Added to the variance.
    pub eps: f64,
    /// Weight of a batch in the running statistics.
    pub momentum: f64,
    /// Whether training, too, normalises by the running statistics, and leaves them.
    pub has_fixed_statistics: bool,
}

impl<B: DetectionBackend> BatchNorm2d<B> {
    /// Normalises with the running statistics, or with the batch's (see [`Phase`]).
    ///
    /// A `BatchNorm2d` whose weight is frozen keeps to its running statistics in training too, and
    /// they stay; torchvision's would go on counting, so that a frozen part would still move.
    ///
    /// # Shapes
    /// - input, output: `[N, C, H, W]`
    pub fn forward(&self, input: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        let (scale, shift) = self.fixed(phase).unwrap_or_else(|| {
            let (Self::FrozenBatchNorm2d(norm) | Self::BatchNorm2d(norm)) = self;
            let (mean, var) = norm.batch_statistics(&input);
            self.affine(mean, var)
        });
        channel_affine(input, scale, shift)
    }

    /// Scale and shift of each channel, `[C]`, unless they depend on the input.
    pub(crate) fn fixed(&self, phase: Phase) -> Option<(Tensor<B, 1>, Tensor<B, 1>)> {
        let norm = match (phase, self) {
            (Phase::Training, Self::BatchNorm2d(norm))
                if !norm.has_fixed_statistics && !norm.is_frozen() =>
            {
                return None;
            }
            (_, Self::FrozenBatchNorm2d(norm) | Self::BatchNorm2d(norm)) => norm,
        };
        let [mean, var] = [&norm.running_mean, &norm.running_var].map(|s| constant(s.value_sync()));
        Some(self.affine(mean, var))
    }

    /// Scale and shift for these statistics.
    fn affine(&self, mean: Tensor<B, 1>, var: Tensor<B, 1>) -> (Tensor<B, 1>, Tensor<B, 1>) {
        let (weight, bias, eps) = match self {
            Self::FrozenBatchNorm2d(norm) => {
                let (weight, bias) = (norm.weight.val(), norm.bias.val());
                (constant(weight), constant(bias), norm.eps)
            }
            Self::BatchNorm2d(norm) => (norm.weight.val(), norm.bias.val(), norm.eps),
        };
        let scale = weight / (var + eps).sqrt();
        let shift = bias - mean * scale.clone();
        (scale, shift)
    }
}

/// What wants no gradient, whatever it was loaded as: one tracked constant would make everything
/// after it tracked. (`detach` keeps the wish for a gradient.)
fn constant<B: Backend>(tensor: Tensor<B, 1>) -> Tensor<B, 1> {
    tensor.set_require_grad(false)
}

impl<B: DetectionBackend> Norm<B> {
    /// Without autodiff nothing requires a gradient, and nothing is frozen.
    fn is_frozen(&self) -> bool {
        let weight = self.weight.val();
        B::ad_enabled(&weight.device()) && !weight.is_require_grad()
    }

    /// Mean and variance of a batch, which the running ones follow.
    fn batch_statistics(&self, input: &Tensor<B, 4>) -> (Tensor<B, 1>, Tensor<B, 1>) {
        let [n, _, h, w] = input.dims();
        let (mean, var) = channel_moments(input.clone());
        let follow = |running: &RunningState<Tensor<B, 1>>, batch: Tensor<B, 1>| {
            running.update(
                running.value_sync() * (1.0 - self.momentum) + batch.detach() * self.momentum,
            );
            // Written through at once: saving reads the state as it stands.
            running.value_sync();
        };
        follow(&self.running_mean, mean.clone());
        // torch counts the unbiased variance.
        let count = (n * h * w) as f64;
        let unbiased = count / (count - 1.0).max(1.0);
        follow(&self.running_var, var.clone() * unbiased);
        (mean, var)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Autodiff;
    use burn::module::ModuleMapper;
    use burn::tensor::Distribution;
    use rcnn_ops::backend_types::Flex;

    use super::*;

    type B = Autodiff<Flex>;

    struct Trainable(bool);

    impl ModuleMapper<B> for Trainable {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            param.set_require_grad(self.0)
        }
    }

    /// Whether the weight gets a gradient, and whether the statistics move, in training.
    fn trained(kind: NormKind, flag: bool) -> [bool; 2] {
        let device = Default::default();
        let config = BatchNorm2dConfig {
            num_features: 2,
            kind,
            eps: 1e-5,
            momentum: 0.1,
        };
        let norm = match config.init::<B>(&device) {
            BatchNorm2d::FrozenBatchNorm2d(norm) => {
                BatchNorm2d::FrozenBatchNorm2d(norm.map(&mut Trainable(flag)))
            }
            BatchNorm2d::BatchNorm2d(mut norm) => {
                norm.weight = norm.weight.set_require_grad(flag);
                BatchNorm2d::BatchNorm2d(norm)
            }
        };
        let input = Tensor::random([2, 2, 3, 3], Distribution::Default, &device).require_grad();
        let gradients = norm.forward(input, Phase::Training).sum().backward();
        let (BatchNorm2d::FrozenBatchNorm2d(norm) | BatchNorm2d::BatchNorm2d(norm)) = norm;
        let mean: Vec<f32> = norm.running_mean.value().into_data().iter().collect();
        let gradient = norm.weight.val().grad(&gradients);
        [gradient.is_some(), mean != [0.0, 0.0]]
    }

    #[test]
    fn what_is_frozen_neither_learns_nor_counts() {
        assert_eq!(trained(NormKind::BatchNorm2d, true), [true, true]);
        assert_eq!(trained(NormKind::BatchNorm2d, false), [false, false]);
        assert_eq!(trained(NormKind::FrozenBatchNorm2d, false), [false, false]);
        // A flag that got lost changes nothing.
        assert_eq!(trained(NormKind::FrozenBatchNorm2d, true), [false, false]);
    }
}
