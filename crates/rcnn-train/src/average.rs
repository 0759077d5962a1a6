//! The exponential moving average of a model's weights and norm statistics.

use std::collections::VecDeque;

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorPrimitive};

/// A model whose weights and statistics follow those of the trained one. It is part of what a checkpoint holds.
#[derive(Module, Debug)]
pub(crate) struct Average<B: Backend, M> {
    pub(crate) model: M,
    /// Moves of the parameters that it has followed, `[1]`.
    moves: Param<Tensor<B, 1, Int>>,
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> Average<B, M> {
    /// An average that begins as the model is.
    pub(crate) fn new(model: &M, device: &B::Device) -> Self {
        // Clones share their norm statistics; this copies them.
        let copy = M::from_inner(model.valid());
        Self {
            model: copy.map(&mut NewIds),
            moves: Param::initialized(ParamId::new(), Tensor::zeros([1], device)),
        }
    }

    /// Follows a move of the parameters: each value `a` becomes `a + (1 - d) * (value - a)`, which is `d * a + (1 - d) *
    /// value` and leaves what is frozen as it is. The decay `d` of move `t`, from 1, is `(1 + t) / (10 + t)`, at most
    /// `decay`, as TensorFlow's `ExponentialMovingAverage` has it, so that the first weights are soon forgotten.
    pub(crate) fn follow(self, model: &M, decay: f64) -> Self {
        let moves = self.moves.map(|moves| moves + 1);
        let move_number = moves.val().into_data().iter::<f64>().next().unwrap_or(1.0);
        let mut values = Values::<B>(VecDeque::new());
        model.visit(&mut values);
        let mut follow = Follow {
            values,
            weight: 1.0 - decay.min((1.0 + move_number) / (10.0 + move_number)),
        };
        Self {
            model: self.model.map(&mut follow),
            moves,
        }
    }
}

/// Gives parameters identifiers of their own, so that the optimizer does not take them for the trained ones, and takes
/// their gradients off.
struct NewIds;

impl<B: Backend> ModuleMapper<B> for NewIds {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(ParamId::new(), tensor.set_require_grad(false), mapper)
    }
}

/// Values of a model in the order in which its parameters are visited, which is that in which they are mapped.
struct Values<B: AutodiffBackend>(VecDeque<TensorPrimitive<B::InnerBackend>>);

impl<B: AutodiffBackend> ModuleVisitor<B> for Values<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.push_back(param.val().inner().into_primitive());
    }
}

struct Follow<B: AutodiffBackend> {
    values: Values<B>,
    weight: f64,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Follow<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let value = self.values.0.pop_front().expect("the same architecture");
        let value = Tensor::<B::InnerBackend, D>::from_primitive(value);
        let (id, average, mapper) = param.consume();
        let average = average.inner();
        let value = value.to_device(&average.device());
        let next = average.clone() + (value - average) * self.weight;
        Param::from_mapped_value(id, Tensor::from_inner(next), mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Autodiff;
    use burn::tensor::TensorData;
    use rcnn_core::Flex;
    use rcnn_core::backbone::{BatchNorm2d, BatchNorm2dConfig, NormKind};

    use super::*;

    type B = Autodiff<Flex>;

    /// Adds to every value, statistics included.
    struct Add(f32);

    impl ModuleMapper<B> for Add {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let (id, tensor, mapper) = param.consume();
            let moved = Tensor::from_inner(tensor.inner() + self.0).require_grad();
            Param::from_mapped_value(id, moved, mapper)
        }
    }

    fn values(norm: &BatchNorm2d<B>) -> Vec<TensorData> {
        let (BatchNorm2d::BatchNorm2d(norm) | BatchNorm2d::FrozenBatchNorm2d(norm)) = norm;
        let statistics = [norm.running_mean.value(), norm.running_var.value()];
        let weights = [norm.weight.val(), norm.bias.val()];
        let all = weights.into_iter().chain(statistics);
        all.map(|tensor| tensor.into_data()).collect()
    }

    /// Against a plain average by hand: weight, bias, mean and variance begin at 1, 0, 0 and 1.
    #[test]
    fn averages_are_those_of_the_formula() {
        let device = Default::default();
        let config = BatchNorm2dConfig {
            num_features: 3,
            kind: NormKind::BatchNorm2d,
            eps: 1e-5,
            momentum: 0.1,
        };
        let mut norm = config.init::<B>(&device);
        let mut average = Average::new(&norm, &device);
        let mut expected = [1f64, 0.0, 0.0, 1.0];
        let mut now = expected;
        for (t, step) in [(1, 0.5), (2, -2.0), (3, 0.25), (4, 1.0)] {
            norm = norm.map(&mut Add(step));
            average = average.follow(&norm, 0.3);
            let decay = f64::min(0.3, f64::from(1 + t) / f64::from(10 + t));
            for (value, average) in now.iter_mut().zip(&mut expected) {
                *value += f64::from(step);
                *average = decay * *average + (1.0 - decay) * *value;
            }
        }
        for (found, expected) in values(&average.model).iter().zip(expected) {
            for value in found.iter::<f64>() {
                assert!((value - expected).abs() < 1e-6, "{value} {expected}");
            }
        }
        // The trained model is none the wiser.
        assert!(
            values(&norm).iter().zip(now).all(|(found, now)| {
                found.iter::<f64>().all(|value| (value - now).abs() < 1e-6)
            })
        );
    }

    /// What is frozen stays the same bit for bit.
    #[test]
    fn an_average_of_one_value_is_that_value() {
        let device = Default::default();
        let weight = Tensor::<B, 1>::from_floats([0.1, 1.0 / 3.0, -1e-7], &device);
        let param = Param::initialized(ParamId::new(), weight);
        let mut average = Average::new(&param, &device);
        for _ in 0..50 {
            average = average.follow(&param, 0.999);
        }
        let [before, after] = [&param, &average.model].map(|param| param.val().into_data());
        assert_eq!(before, after);
        assert_ne!(param.id, average.model.id);
    }
}
