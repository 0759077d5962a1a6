//! TensorFlow's `SAME` padding: an output for every `stride` pixels of the input, whatever the kernel. Where the zeros
//! do not come out even, the one more stands at the end.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorMetadata};

use crate::DetectionBackend;
use crate::channels::{primitive, tensor};

/// Pixels to add before and after along an axis.
pub(crate) fn margins(size: usize, kernel: usize, stride: usize) -> [usize; 2] {
    let reach = (size.div_ceil(stride).max(1) - 1) * stride + kernel;
    let total = reach.saturating_sub(size);
    [total / 2, total - total / 2]
}

/// Zeros that a convolution of a map of a height and width adds at both ends, and those that it is to be given, along both
/// axes.
pub(crate) fn padding(
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
) -> ([usize; 2], [[usize; 2]; 2]) {
    let mut even = [0, 0];
    let mut uneven = [[0, 0], [0, 0]];
    for (axis, size) in size.into_iter().enumerate() {
        match margins(size, kernel[axis], stride[axis]) {
            [before, after] if before == after => even[axis] = before,
            margins => uneven[axis] = margins,
        }
    }
    (even, uneven)
}

/// [`DetectionBackend::pad_same`], composed of Burn's operations.
pub(crate) fn pad<B: DetectionBackend>(
    x: FloatTensor<B>,
    kernel: [usize; 2],
    stride: [usize; 2],
) -> (FloatTensor<B>, [usize; 2]) {
    let size = [2, 3].map(|axis| x.shape()[axis]);
    let (even, [[top, bottom], [left, right]]) = padding(size, kernel, stride);
    let padded = match [top, bottom, left, right] {
        [0, 0, 0, 0] => x,
        _ => primitive(tensor::<B, 4>(x).pad((left, right, top, bottom), 0.0)),
    };
    (padded, even)
}

/// The largest value of each window, with TensorFlow's `SAME` padding, which counts for nothing.
///
/// # Shapes
/// - input: `[N, C, H, W]`
/// - output: `[N, C, ceil(H / stride), ceil(W / stride)]`, for odd kernels or strides from 2
pub fn max_pool_same<B: DetectionBackend>(
    input: Tensor<B, 4>,
    kernel: usize,
    stride: usize,
) -> Tensor<B, 4> {
    tensor(B::max_pool_same(primitive(input), kernel, stride))
}

/// [`DetectionBackend::max_pool_same`], by [`DetectionBackend::max_pool`].
pub(crate) fn max_pool<B: DetectionBackend>(
    x: FloatTensor<B>,
    kernel: usize,
    stride: usize,
) -> FloatTensor<B> {
    // Windows may reach past the end by less than they are padded before.
    let before = [2, 3].map(|axis| margins(x.shape()[axis], kernel, stride)[0]);
    B::max_pool(x, [kernel; 2], [stride; 2], before, true)
}

/// The mean of each 3x3 window, with a stride of 1; at the border, that of the pixels there are.
///
/// # Shapes
/// - input, output: `[N, C, H, W]`
pub fn average_pool3x3<B: DetectionBackend>(input: Tensor<B, 4>) -> Tensor<B, 4> {
    tensor(B::average_pool(primitive(input)))
}

pub(crate) fn average<B: DetectionBackend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::avg_pool2d(x, [3, 3], [1, 1], [1, 1], false, false)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Distribution, Tolerance};
    use burn_flex::Flex;

    use super::*;
    use crate::channels;

    fn random(shape: [usize; 4]) -> Tensor<Flex, 4> {
        let distribution = Distribution::Uniform(-1.0, 1.0);
        Tensor::random(shape, distribution, &Default::default())
    }

    #[test]
    fn one_more_zero_stands_at_the_end() {
        for (size, kernel, stride, expected) in [
            (6, 3, 2, [0, 1]),
            (7, 3, 2, [1, 1]),
            (600, 7, 2, [2, 3]),
            (7, 7, 2, [3, 3]),
            (5, 3, 1, [1, 1]),
            (14, 2, 2, [0, 0]),
            (1, 3, 2, [1, 1]),
        ] {
            assert_eq!(margins(size, kernel, stride), expected);
        }
    }

    #[test]
    fn padded_maps_are_the_reference_in_either_layout() {
        for shape in [[1, 3, 6, 10], [2, 40, 6, 7], [3, 17, 5, 8], [1, 16, 7, 7]] {
            let planes = primitive(random(shape));
            let last = Flex::max_pool(planes.clone(), [1, 1], [1, 1], [0, 0], false);
            for x in [planes, last] {
                for (kernel, stride) in [(7, 2), (3, 2), (2, 1)] {
                    let (found, even) = Flex::pad_same(x.clone(), [kernel; 2], [stride; 2]);
                    let (expected, by) = pad::<Flex>(x.clone(), [kernel; 2], [stride; 2]);
                    assert_eq!(even, by);
                    let [found, expected] =
                        [found, expected].map(|x| tensor::<Flex, 4>(x).into_data());
                    found.assert_eq(&expected, true);
                }
            }
        }
    }

    /// As TensorFlow computes them: windows of a row of numbers.
    #[test]
    fn maxima_are_tensorflows() {
        let row = |values: &[f32]| {
            let tensor = Tensor::<Flex, 1>::from_floats(values, &Default::default());
            tensor.reshape([1, 1, 1, values.len()])
        };
        for (input, expected) in [
            (vec![-1.0, -2.0, -3.0, -4.0], vec![-1.0, -3.0]),
            (vec![-1.0, -2.0, -3.0, -4.0, -5.0], vec![-1.0, -2.0, -4.0]),
            (vec![-7.0], vec![-7.0]),
        ] {
            let found = max_pool_same(row(&input), 3, 2).into_data();
            found.assert_eq(&row(&expected).into_data(), true);
        }
    }

    #[test]
    fn means_and_maps_side_by_side_are_the_reference_in_either_layout() {
        for [n, c, h, w] in [[1, 16, 5, 7], [2, 40, 1, 3], [3, 8, 9, 1], [2, 32, 4, 4]] {
            let planes = [
                random([n, c, h, w]),
                random([n, 16, h, w]),
                random([n, 7, h, w]),
            ];
            // A convolution leaves its output with the channels last.
            let last = planes.clone().map(|map| {
                tensor::<Flex, 4>(Flex::max_pool(
                    primitive(map),
                    [1, 1],
                    [1, 1],
                    [0, 0],
                    false,
                ))
            });
            for maps in [planes.clone(), last] {
                let x = primitive(maps[0].clone());
                let [found, expected] = [Flex::average_pool(x.clone()), average::<Flex>(x)]
                    .map(|x| tensor::<Flex, 4>(x).into_data());
                found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
                let maps = maps.map(primitive).to_vec();
                let found = tensor::<Flex, 4>(Flex::concat_channels(maps.clone())).into_data();
                let expected = tensor::<Flex, 4>(channels::concat::<Flex>(maps)).into_data();
                found.assert_eq(&expected, true);
            }
        }
    }
}
