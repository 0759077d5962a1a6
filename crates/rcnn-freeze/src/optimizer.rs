//! An optimizer that holds no state for what is frozen.

use std::collections::HashSet;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{GradientsParams, MultiGradientsParams, Optimizer, SimpleOptimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

/// Wraps one of Burn's optimizers and drops the state (momentum, moments) of parameters that are frozen: it
/// takes no memory, and a parameter that is thawed starts clean. Burn's optimizers alone, like torch's, do not
/// update a frozen parameter either, but keep its state and continue from it.
#[derive(Clone)]
pub struct FreezingOptimizer<O, M, B>
where
    O: SimpleOptimizer<B::InnerBackend>,
    M: AutodiffModule<B>,
    B: AutodiffBackend,
{
    inner: OptimizerAdaptor<O, M, B>,
    /// Parameters that were frozen at the last step.
    frozen: HashSet<ParamId>,
}

impl<O, M, B> From<OptimizerAdaptor<O, M, B>> for FreezingOptimizer<O, M, B>
where
    O: SimpleOptimizer<B::InnerBackend>,
    M: AutodiffModule<B>,
    B: AutodiffBackend,
{
    fn from(inner: OptimizerAdaptor<O, M, B>) -> Self {
        Self {
            inner,
            frozen: HashSet::new(),
        }
    }
}

impl<O, M, B> FreezingOptimizer<O, M, B>
where
    O: SimpleOptimizer<B::InnerBackend>,
    M: AutodiffModule<B>,
    B: AutodiffBackend,
{
    fn forget(&mut self, module: &M) {
        let mut frozen = Frozen::default();
        module.visit(&mut frozen);
        if frozen.0 == self.frozen {
            return;
        }
        let mut record = self.inner.to_record();
        record.retain(|id, _| !frozen.0.contains(id));
        self.inner = self.inner.clone().load_record(record);
        self.frozen = frozen.0;
    }
}

impl<O, M, B> Optimizer<M, B> for FreezingOptimizer<O, M, B>
where
    O: SimpleOptimizer<B::InnerBackend>,
    M: AutodiffModule<B>,
    B: AutodiffBackend,
{
    type Record = <OptimizerAdaptor<O, M, B> as Optimizer<M, B>>::Record;

    fn step(&mut self, rate: f64, module: M, gradients: GradientsParams) -> M {
        self.forget(&module);
        self.inner.step(rate, module, gradients)
    }

    fn step_multi(&mut self, rate: f64, module: M, gradients: MultiGradientsParams) -> M {
        self.forget(&module);
        self.inner.step_multi(rate, module, gradients)
    }

    fn to_record(&self) -> Self::Record {
        self.inner.to_record()
    }

    fn load_record(self, record: Self::Record) -> Self {
        self.inner.load_record(record).into()
    }
}

#[derive(Default)]
struct Frozen(HashSet<ParamId>);

impl<B: Backend> ModuleVisitor<B> for Frozen {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if !param.is_require_grad() {
            self.0.insert(param.id);
        }
    }
}
