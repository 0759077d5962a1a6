//! Transposed convolution as an operation of [`DetectionBackend`].

use burn::nn::conv::ConvTranspose2d;
use burn::tensor::Tensor;
use burn::tensor::ops::{ConvTransposeOptions, FloatTensor};

use crate::channels::{primitive, tensor};
use crate::{Activation, DetectionBackend};

/// Applies a transposed convolution layer and an activation, by
/// [`DetectionBackend::transposed_convolution`].
///
/// # Shapes
/// - input: `[N, C, H, W]`
/// - output: `[N, C', H', W']`
pub fn conv_transpose2d<B: DetectionBackend>(
    module: &ConvTranspose2d<B>,
    input: Tensor<B, 4>,
    activation: Activation,
) -> Tensor<B, 4> {
    let options = ConvTransposeOptions::new(
        module.stride,
        module.padding,
        module.padding_out,
        module.dilation,
        module.groups,
    );
    let bias = module.bias.as_ref().map(|bias| primitive(bias.val()));
    let (x, weight) = (primitive(input), primitive(module.weight.val()));
    tensor(B::transposed_convolution(
        x, weight, bias, options, activation,
    ))
}

pub(crate) fn forward<B: DetectionBackend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    options: ConvTransposeOptions<2>,
    activation: Activation,
) -> FloatTensor<B> {
    let output = B::conv_transpose2d(x, weight, bias, options);
    primitive(activation.apply(tensor::<B, 4>(output)))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Autodiff;
    use burn::nn::conv::ConvTranspose2dConfig;
    use burn::tensor::{Distribution, Tolerance};
    use burn_flex::Flex;

    use super::*;

    type B = Autodiff<Flex>;

    /// Values and gradients, with and without a bias, of the mask and the keypoint head's layers and of
    /// sizes that Burn's own operation computes.
    #[test]
    fn transposed_convolutions_are_burns() {
        let device = Default::default();
        for (channels, kernel, stride, padding, out, groups, bias) in [
            ([32, 16], 2, 2, 0, 0, 1, true),
            ([32, 17], 4, 2, 1, 0, 1, true),
            ([16, 8], 3, 2, 1, 1, 1, false),
            ([8, 8], 2, 2, 0, 0, 2, true),
            ([8, 4], 1, 2, 0, 0, 1, true),
        ] {
            let module = ConvTranspose2dConfig::new(channels, [kernel; 2])
                .with_stride([stride; 2])
                .with_padding([padding; 2])
                .with_padding_out([out; 2])
                .with_groups(groups)
                .with_bias(bias)
                .init::<B>(&device);
            let distribution = Distribution::Uniform(-1.0, 1.0);
            let x = Tensor::<B, 4>::random([3, channels[0], 7, 9], distribution, &device);
            let x = x.require_grad();
            let burn = Activation::Relu.apply(module.forward(x.clone()));
            let ours = conv_transpose2d(&module, x.clone(), Activation::Relu);
            let [found, expected] = [ours, burn].map(|output| {
                let gradients = output.clone().powi_scalar(2).sum().backward();
                let mut results = vec![output.into_data()];
                results.extend(x.grad(&gradients).map(Tensor::into_data));
                results.extend(module.weight.grad(&gradients).map(Tensor::into_data));
                let bias = module.bias.as_ref();
                results.extend(
                    bias.and_then(|bias| bias.grad(&gradients))
                        .map(Tensor::into_data),
                );
                results
            });
            assert_eq!(found.len(), 3 + usize::from(bias));
            for (found, expected) in found.iter().zip(&expected) {
                found.assert_approx_eq(expected, Tolerance::<f32>::rel_abs(1e-3, 1e-3));
            }
        }
    }
}
