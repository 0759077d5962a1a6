//! Convolution as an operation of [`DetectionBackend`], so that a backend's own kernels serve
//! inference and training.

use burn::tensor::backend::Backend;
use burn::tensor::ops::{ConvOptions, FloatTensor, InterpolateMode, InterpolateOptions};
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::channels::{primitive, tensor};
use crate::{Activation, DetectionBackend, channel_affine};

/// Accuracy of a convolution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ConvPrecision {
    /// By the fastest method. Winograd's has errors of 1e-6 (64 channels) to 3e-6 (512), relative to the
    /// output's largest value.
    #[default]
    Fast,
    /// No less exact than plain sums, whose errors are 6e-7: for a pass that leads to gradients, which
    /// jump where an error tips a ReLU.
    Exact,
}

/// Operations after a convolution: `activation(y * scale + shift + residual)`. By default none.
#[derive(Debug, Clone)]
pub struct ConvEpilogue<B: Backend> {
    /// Scale and shift of each channel, `[C']`, such as a batch norm with fixed statistics has.
    pub affine: Option<(Tensor<B, 1>, Tensor<B, 1>)>,
    /// A shortcut's output, `[N, C', H', W']`. One of other sizes than H' and W' is brought to them,
    /// each pixel taken from the nearest, as in a feature pyramid.
    pub residual: Option<Tensor<B, 4>>,
    /// Last operation.
    pub activation: Activation,
}

impl<B: Backend> Default for ConvEpilogue<B> {
    fn default() -> Self {
        Self {
            affine: None,
            residual: None,
            activation: Activation::None,
        }
    }
}

impl<B: DetectionBackend> ConvEpilogue<B> {
    /// Applies the epilogue to the output of a convolution, `[N, C', H', W']`.
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
        self.activation.apply(sum)
    }
}

/// Brings a map, `[N, C, H, W]`, to another size, each pixel taken from the nearest.
pub(crate) fn nearest<B: DetectionBackend>(map: Tensor<B, 4>, size: [usize; 2]) -> Tensor<B, 4> {
    match map.dims() {
        [_, _, height, width] if [height, width] == size => map,
        _ => tensor(B::interpolate_nearest(primitive(map), size)),
    }
}

/// [`DetectionBackend::interpolate_nearest`], by Burn's operation.
pub(crate) fn interpolate<B: DetectionBackend>(
    x: FloatTensor<B>,
    size: [usize; 2],
) -> FloatTensor<B> {
    B::interpolate(x, size, InterpolateOptions::new(InterpolateMode::Nearest))
}

/// The gradient of [`interpolate`], by Burn's operation.
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) fn interpolate_backward<B: DetectionBackend>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let grad = tensor::<B, 4>(grad);
    let [_, _, height, width] = grad.dims();
    let options = InterpolateOptions::new(InterpolateMode::Nearest);
    B::interpolate_backward(x, primitive(grad), [height, width], options)
}

/// [`DetectionBackend::interpolate_nearest_backward`], composed of Burn's operations: for each pixel the sum over
/// those that were taken from it, along one axis and then the other.
///
/// Burn's own operation is wrong in burn-cubecl 0.21. Of a gradient that lies channels-last, such as the gradient of
/// another interpolation, its kernel (`interpolate_nearest_backward_kernel`) reads vectors of channels at the
/// positions of single ones, beyond the end for the most part; and it finds the pixels to sum over by a division
/// of floats, in the gradient's precision.
pub(crate) fn nearest_backward<B: DetectionBackend>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let [_, _, height, width] = tensor::<B, 4>(x).dims();
    let sums = sum_of_nearest(tensor::<B, 4>(grad), 2, height);
    primitive(sum_of_nearest(sums, 3, width))
}

fn sum_of_nearest<B: Backend>(grad: Tensor<B, 4>, axis: usize, length: usize) -> Tensor<B, 4> {
    let (mut shape, device) = (grad.dims(), grad.device());
    let from = std::mem::replace(&mut shape[axis], length);
    let nearest: Vec<i32> = (0..from).map(|i| (i * length / from) as i32).collect();
    let nearest = Tensor::<B, 1, Int>::from_ints(nearest.as_slice(), &device);
    let sums = Tensor::<B, 4>::zeros(shape, &device).cast(grad.dtype());
    sums.select_assign(axis, nearest, grad, IndexingUpdateOp::Add)
}

pub(crate) fn forward<B: DetectionBackend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    options: ConvOptions<2>,
    epilogue: ConvEpilogue<B>,
) -> FloatTensor<B> {
    let output = B::conv2d(x, weight, bias, options);
    primitive(epilogue.apply(tensor(output)))
}

pub(crate) fn backward<B: DetectionBackend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    options: ConvOptions<2>,
    [of_x, of_weight, of_bias]: [bool; 3],
) -> [Option<FloatTensor<B>>; 3] {
    let x_grad = || x_grad::<B>(x.clone(), weight.clone(), grad.clone(), options.clone());
    let x_grad = of_x.then(x_grad);
    let weight_grad = || B::conv2d_weight_backward(x, weight, grad.clone(), options);
    let weight_grad = of_weight.then(weight_grad);
    [x_grad, weight_grad, of_bias.then(|| bias_grad::<B>(grad))]
}

/// The gradient of a convolution's input.
fn x_grad<B: DetectionBackend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    options: ConvOptions<2>,
) -> FloatTensor<B> {
    let [_, _, kernel_height, kernel_width] = tensor::<B, 4>(weight.clone()).dims();
    let is_sparse = [kernel_height, kernel_width] == [1, 1]
        && options.padding == [0, 0]
        && options.stride != [1, 1];
    if !is_sparse {
        return B::conv2d_x_backward(x, weight, grad, options);
    }
    // burn-cubecl 0.21 gets this gradient wrong: its `conv_transpose2d_direct_kernel` sums over no outputs at all
    // where a stride is larger than the window. Only one pixel of each stride goes into an output: those are
    // computed as without a stride, and the others get a zero.
    let [stride_y, stride_x] = options.stride;
    let [n, c, height, width] = tensor::<B, 4>(x).dims();
    let grad = tensor::<B, 4>(grad);
    let [_, _, rows, columns] = grad.dims();
    let device = grad.device();
    let seen = Tensor::<B, 4>::zeros([n, c, rows, columns], &device);
    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], options.groups);
    let at = B::conv2d_x_backward(primitive(seen), weight, primitive(grad), options);
    let at = tensor::<B, 4>(at).reshape([n, c, rows, 1, columns, 1]);
    let spread = Tensor::<B, 6>::zeros([n, c, rows, stride_y, columns, stride_x], &device)
        .cast(at.dtype())
        .slice_assign([0..n, 0..c, 0..rows, 0..1, 0..columns, 0..1], at)
        .reshape([n, c, rows * stride_y, columns * stride_x]);
    primitive(spread.slice([0..n, 0..c, 0..height, 0..width]))
}

/// The sum of each channel of `[N, C', H', W']`.
pub(crate) fn bias_grad<B: DetectionBackend>(grad: FloatTensor<B>) -> FloatTensor<B> {
    let sums = tensor::<B, 4>(grad).sum_dims(&[0, 2, 3]);
    let channels = sums.dims()[1];
    primitive(sums.reshape([channels]))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Distribution, Tolerance};
    use burn_flex::Flex;

    use super::*;
    use crate::LayerPlan;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<Flex, D> {
        let distribution = Distribution::Uniform(-1.0, 1.0);
        Tensor::random(shape, distribution, &Default::default())
    }

    #[test]
    fn fused_is_one_after_the_other() {
        let activations = [
            Activation::None,
            Activation::Relu,
            Activation::Relu6,
            Activation::Hardswish,
            Activation::Hardsigmoid,
        ];
        let cases = [(3, 1, 1), (3, 2, 1), (1, 1, 1), (1, 2, 1), (3, 1, 4)];
        let cases = cases.into_iter().enumerate();
        for ((case, (kernel, stride, groups)), bits) in
            cases.flat_map(|case| (0..64).map(move |bits| (case, bits)))
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
                activation: activations[(case + bits) % activations.len()],
            };
            let precision = match on(2) {
                true => ConvPrecision::Exact,
                false => ConvPrecision::Fast,
            };
            let bias = on(3).then(|| primitive(random::<1>([20])));
            let plan = LayerPlan::default();
            let plan = on(5).then_some(&plan);
            let options = ConvOptions::new([stride; 2], [kernel / 2; 2], [1; 2], groups);
            let (x, weight) = (primitive(x), primitive(weight));
            let expected = forward::<Flex>(
                x.clone(),
                weight.clone(),
                bias.clone(),
                options.clone(),
                epilogue.clone(),
            );
            let found = Flex::convolution(x, weight, bias, options, epilogue, precision, plan);
            let [found, expected] =
                [found, expected].map(|output| tensor::<Flex, 4>(output).into_data());
            found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-4));
        }
    }

    /// Burn's gradient, which is right on Flex.
    #[test]
    fn gradients_of_upsampling_are_burns() {
        for (from, to) in [([4, 5], [8, 10]), ([2, 3], [3, 5]), ([6, 6], [4, 3])] {
            let x = || primitive(random([2, 3, from[0], from[1]]));
            let grad = primitive(random([2, 3, to[0], to[1]]));
            let expected = interpolate_backward::<Flex>(x(), grad.clone());
            let found = nearest_backward::<Flex>(x(), grad);
            let [found, expected] =
                [found, expected].map(|grad| tensor::<Flex, 4>(grad).into_data());
            found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
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
            let fast = ConvPrecision::Fast;
            let found = Flex::convolution(x, weight, None, options, epilogue, fast, None);
            let found = tensor::<Flex, 4>(found).into_data();
            found.assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(0.0));
        }
    }
}
