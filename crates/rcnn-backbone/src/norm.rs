//! Batch norm with fixed statistics, as a detector uses it: a scale and a shift for each channel.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};
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
            running_mean: constant(Initializer::Zeros),
            running_var: constant(Initializer::Ones),
            eps: self.eps,
        }
    }
}

/// Batch norm over the channels of `[N, C, H, W]` with torchvision's parameter names.
///
/// Burn's own `BatchNorm` switches to batch statistics whenever its backend tracks gradients;
/// this one always uses the running statistics.
#[derive(Module, Debug)]
pub struct BatchNorm2d<B: Backend> {
    /// Scale, `[C]`.
    pub weight: Param<Tensor<B, 1>>,
    /// Shift, `[C]`.
    pub bias: Param<Tensor<B, 1>>,
    /// Mean that is subtracted, `[C]`.
    pub running_mean: Param<Tensor<B, 1>>,
    /// Variance that is divided by, `[C]`.
    pub running_var: Param<Tensor<B, 1>>,
    /// Added to the variance.
    pub eps: f64,
}

impl<B: Backend> BatchNorm2d<B> {
    /// Normalises with the running statistics.
    ///
    /// # Shapes
    /// - input, output: `[N, C, H, W]`
    pub fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        let channels = input.dims()[1];
        let scale = self.weight.val() / (self.running_var.val() + self.eps).sqrt();
        let shift = self.bias.val() - self.running_mean.val() * scale.clone();
        let per_channel = |t: Tensor<B, 1>| t.reshape([1, channels, 1, 1]);
        input * per_channel(scale) + per_channel(shift)
    }
}
