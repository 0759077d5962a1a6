//! Max-pool as an operation of [`DetectionBackend`].

use burn::nn::pool::MaxPool2d;
use burn::tensor::Tensor;

use crate::DetectionBackend;
use crate::channels::{primitive, tensor};
use crate::conv2d::symmetric;

/// Applies a max-pool module, as its own `forward` does but with the kernel of
/// [`DetectionBackend::max_pool`].
///
/// # Shapes
/// - input: `[N, C, H, W]`
/// - output: `[N, C, H', W']`
pub fn max_pool2d<B: DetectionBackend>(module: &MaxPool2d, input: Tensor<B, 4>) -> Tensor<B, 4> {
    match symmetric(&module.padding) {
        Some(padding) if module.dilation == [1, 1] => {
            let (kernel, stride) = (module.kernel_size, module.stride);
            let input = primitive(input);
            tensor(B::max_pool(
                input,
                kernel,
                stride,
                padding,
                module.ceil_mode,
            ))
        }
        _ => module.forward(input),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::nn::PaddingConfig2d;
    use burn::nn::pool::MaxPool2dConfig;
    use burn::tensor::Distribution;
    use burn_flex::Flex;

    use super::*;

    fn random(shape: [usize; 4]) -> Tensor<Flex, 4> {
        Tensor::random(
            shape,
            Distribution::Uniform(-2.0, -1.0),
            &Default::default(),
        )
    }

    /// All values are negative: padding must not count as zero.
    #[test]
    fn maxima_are_burns() {
        for (kernel, stride, padding) in [(3, 2, 1), (1, 2, 0), (2, 2, 0), (3, 1, 1), (5, 3, 2)] {
            let module = MaxPool2dConfig::new([kernel, kernel])
                .with_strides([stride, stride])
                .with_padding(PaddingConfig2d::Explicit(
                    padding, padding, padding, padding,
                ))
                .init();
            for shape in [[2, 3, 9, 14], [1, 2, 40, 67], [1, 1, 3, 3]] {
                if shape[2] + 2 * padding >= kernel {
                    let x = random(shape);
                    let found = max_pool2d(&module, x.clone()).into_data();
                    found.assert_eq(&module.forward(x).into_data(), true);
                }
            }
        }
    }
}
