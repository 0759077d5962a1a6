//! The linear layer of this project's networks.

use burn::nn;
use burn::tensor::Tensor;

use crate::channels::{primitive, tensor};
use crate::{DetectionBackend, Planned};

/// Burn's [`Linear`](nn::Linear) that runs by [`DetectionBackend::fully_connected`].
///
/// ```
/// # mod rcnn_burn { pub use burn; pub use rcnn_ops as ops; }
/// use rcnn_burn::burn::nn::LinearConfig;
/// use rcnn_burn::ops::Linear;
/// # fn init<B: rcnn_ops::DetectionBackend>(device: &B::Device) -> Linear<B> {
/// Linear::from(LinearConfig::new(12544, 1024).init(device))
/// # }
/// ```
pub type Linear<B> = Planned<nn::Linear<B>>;

impl<B: DetectionBackend> Planned<nn::Linear<B>> {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - input: `[K, in features]`
    /// - output: `[K, out features]`
    pub fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let bias = self.layer.bias.as_ref().map(|bias| primitive(bias.val()));
        let weight = primitive(self.layer.weight.val());
        let plan = Some(&self.plan);
        tensor(B::fully_connected(primitive(input), weight, bias, plan))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::module::Module;
    use burn::nn::LinearConfig;
    use burn::tensor::{Distribution, Tolerance};
    use burn_flex::Flex;
    use rcnn_cpu::linear::Weights;

    use super::*;
    use crate::backends::flex::plan::{KEPT_AFTER, kept_weights};

    fn layer(ins: usize, outs: usize, bias: bool) -> Linear<Flex> {
        let config = LinearConfig::new(ins, outs).with_bias(bias);
        config.init(&Default::default()).into()
    }

    fn rows(rows: usize, ins: usize) -> Tensor<Flex, 2> {
        let distribution = Distribution::Uniform(-1.0, 1.0);
        Tensor::random([ins, rows], distribution, &Default::default()).transpose()
    }

    #[test]
    fn kernel_is_burns() {
        for (count, ins, outs) in [
            (70, 33, 16),
            (131, 1100, 48),
            (400, 600, 80),
            (3, 40, 16),
            (90, 20, 7),
            // More than a few outputs for each thread.
            (66, 130, 1072),
        ] {
            for bias in [true, false] {
                let layer = layer(ins, outs, bias);
                let x = rows(count, ins);
                let expected = layer.layer.forward(x.clone()).into_data();
                let found = layer.forward(x).into_data();
                found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
            }
        }
    }

    /// Applies a layer until its weights are kept, and once more; returns how many are.
    fn apply_often(layer: &Linear<Flex>, x: &Tensor<Flex, 2>) -> usize {
        let first = layer.forward(x.clone()).into_data();
        for _ in 0..KEPT_AFTER {
            let again = layer.forward(x.clone()).into_data();
            again.assert_eq(&first, true);
        }
        kept_weights::<Weights>(&layer.plan).len()
    }

    #[test]
    fn arranged_weights_give_the_same_bits_and_are_freed_with_the_layer() {
        let layer = layer(600, 176, true);
        assert_eq!(apply_often(&layer, &rows(70, 600)), 1);
        let arranged = kept_weights::<Weights>(&layer.plan);
        drop(layer);
        assert!(arranged[0].upgrade().is_none());
    }

    #[test]
    fn weights_are_arranged_for_a_few_rows_alone() {
        let layer = layer(40, 16, true);
        for count in [3, 300] {
            assert_eq!(apply_often(&layer, &rows(count, 40)), 0, "{count}");
        }
    }

    #[test]
    fn arranged_weights_are_not_served_to_another_weight() {
        let (mut layer, x) = (layer(40, 32, true), rows(70, 40));
        apply_often(&layer, &x);
        let old = kept_weights::<Weights>(&layer.plan);

        let other = self::layer(40, 32, true);
        let expected = other.forward(x.clone()).into_data();
        layer = layer.load_record(other.into_record());
        let found = layer.forward(x.clone()).into_data();
        found.assert_eq(&expected, true);
        assert!(old[0].upgrade().is_none(), "the loaded weight replaces it");

        apply_often(&layer, &x);
        layer.weight = layer.weight.clone().map(|weight| weight * 2.0);
        let expected = Linear::from(layer.layer.clone());
        let found = layer.forward(x.clone()).into_data();
        found.assert_eq(&expected.forward(x).into_data(), true);
    }
}
