//! Convolution as an operation of [`DetectionBackend`], so that a backend's own kernels serve
//! inference and training.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{ConvOptions, FloatTensor, InterpolateMode, InterpolateOptions};

use crate::channels::{primitive, tensor};
use crate::{DetectionBackend, channel_affine};

/// What follows a convolution: `y * scale + shift + residual`, then perhaps a ReLU. By default
/// nothing.
#[derive(Debug, Clone)]
pub struct ConvEpilogue<B: Backend> {
    /// Scale and shift of each channel, `[C']`, such as a batch norm with fixed statistics has.
    pub affine: Option<(Tensor<B, 1>, Tensor<B, 1>)>,
    /// A shortcut's output, `[N, C', H', W']`. One of other sizes than H' and W' is brought to them,
    /// each pixel taken from the nearest, as in a feature pyramid.
    pub residual: Option<Tensor<B, 4>>,
    /// Whether a ReLU comes last.
    pub relu: bool,
    /// Whether the convolution has to be as exact as plain sums: see
    /// [`DetectionBackend::tracked_convolution`].
    pub exact: bool,
}

impl<B: Backend> Default for ConvEpilogue<B> {
    fn default() -> Self {
        Self {
            affine: None,
            residual: None,
            relu: false,
            exact: false,
        }
    }
}

/// Applies a convolution module, as its own `forward` does but with the kernels of
/// [`DetectionBackend::convolution`].
///
/// # Shapes
/// - input: `[N, C, H, W]`
/// - output: `[N, C', H', W']`
pub fn conv2d<B: DetectionBackend>(module: &Conv2d<B>, input: Tensor<B, 4>) -> Tensor<B, 4> {
    let Some(options) = options(module) else {
        return module.forward(input);
    };
    let bias = module.bias.as_ref().map(|bias| primitive(bias.val()));
    let weight = primitive(module.weight.val());
    tensor(B::convolution(primitive(input), weight, bias, options))
}

/// Applies a convolution module and what follows it, in one go where the backend can
/// ([`DetectionBackend::fused_convolution`]).
///
/// # Shapes
/// - input: `[N, C, H, W]`
/// - output: `[N, C', H', W']`
pub fn fused_conv2d<B: DetectionBackend>(
    module: &Conv2d<B>,
    input: Tensor<B, 4>,
    epilogue: ConvEpilogue<B>,
) -> Tensor<B, 4> {
    let Some(options) = options(module) else {
        return epilogue.apply(module.forward(input));
    };
    let bias = module.bias.as_ref().map(|bias| primitive(bias.val()));
    let (x, weight) = (primitive(input), primitive(module.weight.val()));
    tensor(B::fused_convolution(x, weight, bias, options, epilogue))
}

/// Above and left, if padding is the same below and right; else is nobody's in detection.
pub(crate) fn symmetric(padding: &PaddingConfig2d) -> Option<[usize; 2]> {
    match *padding {
        PaddingConfig2d::Valid => Some([0, 0]),
        PaddingConfig2d::Explicit(top, left, bottom, right) => {
            ([top, left] == [bottom, right]).then_some([top, left])
        }
        _ => None,
    }
}

fn options<B: Backend>(module: &Conv2d<B>) -> Option<ConvOptions<2>> {
    let padding = symmetric(&module.padding)?;
    let (stride, dilation) = (module.stride, module.dilation);
    Some(ConvOptions::new(stride, padding, dilation, module.groups))
}

impl<B: DetectionBackend> ConvEpilogue<B> {
    /// Does to the output of a convolution, `[N, C', H', W']`, what this says.
    pub fn apply(self, output: Tensor<B, 4>) -> Tensor<B, 4> {
        let scaled = match self.affine {
            Some((scale, shift)) => channel_affine(output, scale, shift),
            None => output,
        };
        let sum = match self.residual {
            Some(residual) => {
                let [_, _, height, width] = scaled.dims();
                scaled + nearest(residual, [height, width])
            }
            None => scaled,
        };
        if self.relu { relu(sum) } else { sum }
    }
}

/// Brings a map, `[N, C, H, W]`, to another size, each pixel taken from the nearest.
pub(crate) fn nearest<B: Backend>(map: Tensor<B, 4>, size: [usize; 2]) -> Tensor<B, 4> {
    match map.dims() {
        [_, _, height, width] if [height, width] == size => map,
        _ => interpolate(map, size, InterpolateOptions::new(InterpolateMode::Nearest)),
    }
}

pub(crate) fn fused<B: DetectionBackend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    options: ConvOptions<2>,
    epilogue: ConvEpilogue<B>,
) -> FloatTensor<B> {
    let output = B::convolution(x, weight, bias, options);
    primitive(epilogue.apply(tensor(output)))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Distribution, Tolerance};
    use burn_flex::Flex;

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<Flex, D> {
        let distribution = Distribution::Uniform(-1.0, 1.0);
        Tensor::random(shape, distribution, &Default::default())
    }

    #[test]
    fn fused_is_one_after_the_other() {
        for (kernel, stride, groups, bits) in
            [(3, 1, 1), (3, 2, 1), (1, 1, 1), (1, 2, 1), (3, 1, 4)]
                .into_iter()
                .flat_map(|(k, stride, groups)| (0..64).map(move |bits| (k, stride, groups, bits)))
        {
            let on = |bit: usize| bits >> bit & 1 == 1;
            let (x, weight) = (
                random([2, 16, 12, 16]),
                random([20, 16 / groups, kernel, kernel]),
            );
            let (height, width) = (12 / stride, 16usize / stride);
            let by = if on(4) { 2 } else { 1 };
            let epilogue = ConvEpilogue::<Flex> {
                affine: on(0).then(|| (random([20]), random([20]))),
                residual: on(1).then(|| random([2, 20, height / by, width.div_ceil(3 * by - 2)])),
                relu: on(2),
                exact: on(5),
            };
            let bias = on(3).then(|| primitive(random::<1>([20])));
            let options = ConvOptions::new([stride; 2], [kernel / 2; 2], [1; 2], groups);
            let [found, expected] = [Flex::fused_convolution, fused::<Flex>].map(|run| {
                let (x, weight) = (primitive(x.clone()), primitive(weight.clone()));
                let output = run(x, weight, bias.clone(), options.clone(), epilogue.clone());
                tensor::<Flex, 4>(output).into_data()
            });
            found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-4));
        }
    }

    /// After a convolution that gives zeros.
    #[test]
    fn upsampling_is_burns() {
        for (from, to) in [
            ([4, 5], [8, 10]),
            ([4, 5], [7, 9]),
            ([13, 17], [25, 34]),
            ([6, 6], [4, 3]),
        ] {
            let residual = random([2, 3, from[0], from[1]]);
            let expected = nearest(residual.clone(), to);
            let epilogue = ConvEpilogue {
                residual: Some(residual),
                ..Default::default()
            };
            let (x, weight) = (random([2, 16, to[0], to[1]]), random([3, 16, 1, 1]) * 0.0);
            let options = ConvOptions::new([1; 2], [0; 2], [1; 2], 1);
            let (x, weight) = (primitive(x), primitive(weight));
            let found = Flex::fused_convolution(x, weight, None, options, epilogue);
            let found = tensor::<Flex, 4>(found).into_data();
            found.assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(0.0));
        }
    }
}
