//! Batch norm as a detector uses it: with fixed statistics, a scale and a shift for each channel;
//! with those of the batch only where a trainable norm is trained.

use burn::module::{Initializer, Module, Param, RunningState};
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{DetectionBackend, channel_affine, channel_moments};
use serde::{Deserialize, Serialize};

/// Which of torchvision's two norms a layer has. They compute the same; they train differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NormKind {
    /// `torchvision.ops.FrozenBatchNorm2d`: weights and statistics are constants.
    #[default]
    FrozenBatchNorm2d,
    /// `torch.nn.BatchNorm2d`: weights are trainable, statistics are counted while training.
    BatchNorm2d,
}

/// What a forward pass is for. Only a trainable batch norm tells the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Detections: running statistics.
    #[default]
    Inference,
    /// Losses: [`NormKind::BatchNorm2d`] takes the statistics of the batch, and counts them.
    Training,
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
}

impl BatchNorm2dConfig {
    /// Weight and variance one, bias and mean zero.
    pub fn init<B: Backend>(&self, device: &B::Device) -> BatchNorm2d<B> {
        let shape = [self.num_features];
        let constant = |value: Initializer| -> Param<Tensor<B, 1>> {
            value.init::<B, 1, _>(shape, device).set_require_grad(false)
        };
        let trainable = self.kind == NormKind::BatchNorm2d;
        BatchNorm2d {
            weight: constant(Initializer::Ones).set_require_grad(trainable),
            bias: constant(Initializer::Zeros).set_require_grad(trainable),
            running_mean: RunningState::new(Tensor::zeros(shape, device)),
            running_var: RunningState::new(Tensor::ones(shape, device)),
            eps: self.eps,
            kind: self.kind,
        }
    }
}

/// Batch norm over the channels of `[N, C, H, W]` with torchvision's parameter names.
///
/// Burn's own `BatchNorm` takes batch statistics whenever its backend tracks gradients; this one when
/// it is told to.
#[derive(Module, Debug)]
pub struct BatchNorm2d<B: Backend> {
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
    #[module(skip)]
    kind: NormKind,
}

/// Weight of a batch in the running statistics.
const MOMENTUM: f64 = 0.1;

impl<B: DetectionBackend> BatchNorm2d<B> {
    /// Normalises with the running statistics, or with the batch's (see [`Phase`]).
    ///
    /// # Shapes
    /// - input, output: `[N, C, H, W]`
    pub fn forward(&self, input: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        let (mean, var) = match (phase, self.kind) {
            (Phase::Training, NormKind::BatchNorm2d) => self.batch_statistics(&input),
            _ => (
                self.running_mean.value_sync(),
                self.running_var.value_sync(),
            ),
        };
        let scale = self.weight.val() / (var + self.eps).sqrt();
        let shift = self.bias.val() - mean * scale.clone();
        channel_affine(input, scale, shift)
    }

    /// Mean and variance of a batch, which the running ones follow.
    fn batch_statistics(&self, input: &Tensor<B, 4>) -> (Tensor<B, 1>, Tensor<B, 1>) {
        let [n, _, h, w] = input.dims();
        let (mean, var) = channel_moments(input.clone());
        let follow = |running: &RunningState<Tensor<B, 1>>, batch: Tensor<B, 1>| {
            running.update(running.value_sync() * (1.0 - MOMENTUM) + batch.detach() * MOMENTUM);
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
