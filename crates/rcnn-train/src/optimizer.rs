//! The optimizer that a configuration names.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamW, AdamWConfig, AdamWState, Sgd, SgdConfig, SgdState, SimpleOptimizer};
use burn::record::Record;
use burn::tensor::{Tensor, backend::Backend};

use crate::{OptimizerConfig, OptimizerKind};

/// One type for all kinds: burn-train is compiled for each type of optimizer, which takes minutes.
#[derive(Clone)]
pub(crate) enum AnyOptimizer<B: Backend> {
    Sgd(Sgd<B>),
    AdamW(AdamW),
}

/// The state that the kind in use has of a parameter.
#[derive(Clone, Record)]
pub(crate) struct AnyState<B: Backend, const D: usize> {
    sgd: Option<SgdState<B, D>>,
    adamw: Option<AdamWState<B, D>>,
}

impl<B: Backend> AnyOptimizer<B> {
    pub(crate) fn new(config: &OptimizerConfig) -> Self {
        let weight_decay = config.weight_decay as f32;
        match config.kind {
            OptimizerKind::Sgd => {
                let momentum = MomentumConfig::new()
                    .with_momentum(config.momentum)
                    .with_dampening(0.0);
                let sgd = SgdConfig::new()
                    .with_momentum(Some(momentum))
                    .with_weight_decay(Some(WeightDecayConfig::new(weight_decay)));
                Self::Sgd(sgd.build())
            }
            OptimizerKind::AdamW => {
                Self::AdamW(AdamWConfig::new().with_weight_decay(weight_decay).build())
            }
        }
    }
}

impl<B: Backend> SimpleOptimizer<B> for AnyOptimizer<B> {
    type State<const D: usize> = AnyState<B, D>;

    fn step<const D: usize>(
        &self,
        rate: f64,
        tensor: Tensor<B, D>,
        grad: Tensor<B, D>,
        state: Option<AnyState<B, D>>,
    ) -> (Tensor<B, D>, Option<AnyState<B, D>>) {
        let mut next = state.unwrap_or(AnyState {
            sgd: None,
            adamw: None,
        });
        let tensor = match self {
            Self::Sgd(sgd) => {
                let (tensor, state) = sgd.step(rate, tensor, grad, next.sgd);
                next.sgd = state;
                tensor
            }
            Self::AdamW(adamw) => {
                let (tensor, state) = adamw.step(rate, tensor, grad, next.adamw);
                next.adamw = state;
                tensor
            }
        };
        (tensor, Some(next))
    }

    fn to_device<const D: usize>(state: AnyState<B, D>, device: &B::Device) -> AnyState<B, D> {
        AnyState {
            sgd: state.sgd.map(|sgd| Sgd::<B>::to_device(sgd, device)),
            adamw: state
                .adamw
                .map(|adamw| <AdamW as SimpleOptimizer<B>>::to_device(adamw, device)),
        }
    }
}
