//! Linear layers as an operation of [`DetectionBackend`], so that a backend's own kernel serves them.

use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::DetectionBackend;
use crate::channels::{primitive, tensor};

/// Applies a linear layer, as its own `forward` does but with the kernel of
/// [`DetectionBackend::fully_connected`].
///
/// # Shapes
/// - input: `[K, in features]`
/// - output: `[K, out features]`
pub fn linear<B: DetectionBackend>(module: &Linear<B>, input: Tensor<B, 2>) -> Tensor<B, 2> {
    let bias = module.bias.as_ref().map(|bias| primitive(bias.val()));
    let weight = primitive(module.weight.val());
    tensor(B::fully_connected(primitive(input), weight, bias))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::{Distribution, Tolerance};
    use burn_flex::Flex;

    use super::*;

    #[test]
    fn kernel_is_burns() {
        let device = Default::default();
        for (rows, ins, outs) in [
            (70, 33, 16),
            (131, 1100, 48),
            (400, 600, 80),
            (3, 40, 16),
            (90, 20, 7),
            // More than a few outputs for each thread.
            (66, 130, 1072),
        ] {
            for bias in [true, false] {
                let module = LinearConfig::new(ins, outs).with_bias(bias).init(&device);
                let distribution = Distribution::Uniform(-1.0, 1.0);
                let x = Tensor::<Flex, 2>::random([ins, rows], distribution, &device).transpose();
                let expected = module.forward(x.clone()).into_data();
                let found = linear(&module, x).into_data();
                found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
            }
        }
    }
}
