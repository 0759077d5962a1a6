//! Images as a network takes them: normalised, resized and padded, as operations of
//! [`DetectionBackend`].

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor, TensorData};
use rcnn_types::Size;

use crate::DetectionBackend;
use crate::channels::{primitive, tensor};

/// Normalisation, size and padding of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageFit {
    /// Mean of each channel, subtracted.
    pub mean: [f32; 3],
    /// Deviation of each channel, divided by.
    pub std: [f32; 3],
    /// Size that the image is resized to.
    pub size: Size,
    /// Where a new pixel lies in the image.
    pub positions: PixelPositions,
    /// Size with the zeros below and at the right, no less than `size`.
    pub padded: Size,
}

/// Position of the pixels of a resized image in the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PixelPositions {
    /// Their centres lie where they are in both images, as in torch.
    #[default]
    Centres,
    /// Their left and upper edges do, as in TensorFlow's `resize_bilinear` of version 1.
    Edges,
}

/// Normalises an image, resizes it bilinearly, and pads it with zeros
/// (`normalize`, `resize` and `batch_images` of torchvision's `GeneralizedRCNNTransform`).
///
/// Burn's `interpolate` leaves the precision of the source positions to the backend (Flex: f64).
/// torch has f32, and across a thousand pixels the difference shows in the features: here they are
/// torch's on every backend.
///
/// # Shapes
/// - image: `[3, H, W]`, with at least one pixel
/// - output: `[3, padded height, padded width]`
pub fn fit_image<B: DetectionBackend>(image: Tensor<B, 3>, fit: &ImageFit) -> Tensor<B, 3> {
    tensor(B::fit_image(primitive(image), fit))
}

/// As composed of Burn's operations.
pub(crate) fn reference<B: DetectionBackend>(
    image: FloatTensor<B>,
    fit: &ImageFit,
) -> FloatTensor<B> {
    let image: Tensor<B, 3> = tensor(image);
    let device = image.device();
    let channels = |values: [f32; 3]| {
        Tensor::<B, 3>::from_data(TensorData::new(values.to_vec(), [3, 1, 1]), &device)
    };
    let Size { height, width } = fit.size;
    let normalized = (image - channels(fit.mean)) / channels(fit.std);
    let image = resize(
        resize(normalized, 2, width, fit.positions),
        1,
        height,
        fit.positions,
    );
    let margins = (0, fit.padded.width - width, 0, fit.padded.height - height);
    primitive(match margins {
        (0, 0, 0, 0) => image,
        _ => image.pad(margins, 0.0),
    })
}

/// Along one axis.
fn resize<B: DetectionBackend>(
    image: Tensor<B, 3>,
    axis: usize,
    to: usize,
    positions: PixelPositions,
) -> Tensor<B, 3> {
    let from = image.dims()[axis];
    if from == to {
        return image;
    }
    let taps: Vec<Tap> = taps(from, to, positions).collect();
    let device = image.device();
    let index = |of: fn(&Tap) -> usize| {
        let at: Vec<i32> = taps.iter().map(|tap| of(tap) as i32).collect();
        Tensor::<B, 1, Int>::from_ints(at.as_slice(), &device)
    };
    // For every channel by itself: Flex is slow at repeating along an outer axis.
    let channels = image.dims()[0];
    let mut shape = [channels, 1, 1];
    shape[axis] = to;
    let weights: Vec<f32> = taps.iter().map(|tap| tap.weight).collect();
    let weight = Tensor::<B, 1>::from_floats(weights.repeat(channels).as_slice(), &device);
    let weight = weight.reshape(shape);
    let low = image.clone().select(axis, index(|tap| tap.low));
    let high = image.select(axis, index(|tap| tap.high));
    low * (weight.clone() * -1.0 + 1.0) + high * weight
}

/// The two positions that a new one lies between, and how far it is from the first.
#[derive(Clone, Copy)]
pub(crate) struct Tap {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) weight: f32,
}

/// Those of all positions along an axis.
pub(crate) fn taps(from: usize, to: usize, positions: PixelPositions) -> impl Iterator<Item = Tap> {
    let scale = from as f32 / to as f32;
    (0..to).map(move |i| {
        let position = match positions {
            PixelPositions::Centres => (scale * (i as f32 + 0.5) - 0.5).max(0.0),
            PixelPositions::Edges => scale * i as f32,
        };
        let low = (position as usize).min(from - 1);
        Tap {
            low,
            high: (low + 1).min(from - 1),
            weight: (position - low as f32).clamp(0.0, 1.0),
        }
    })
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Distribution, Tolerance};
    use burn_flex::Flex;

    use super::*;

    #[test]
    fn kernel_is_reference() {
        let sizes = [[7, 9], [1, 1], [40, 33], [3, 50]];
        let all = sizes.iter().flat_map(|&a| sizes.map(|b| (a, b)));
        let both = [PixelPositions::Centres, PixelPositions::Edges];
        for ((from, size), positions) in all.flat_map(|sizes| both.map(|p| (sizes, p))) {
            let fit = ImageFit {
                mean: [0.1, 0.5, 0.4],
                std: [0.3, 0.2, 0.5],
                size: Size::new(size[0], size[1]),
                positions,
                padded: Size::new(size[0].next_multiple_of(8), size[1].next_multiple_of(8)),
            };
            let image = Tensor::<Flex, 3>::random(
                [3, from[0], from[1]],
                Distribution::Default,
                &Default::default(),
            );
            // Not in a row: pixels of channels, as a decoder gives them.
            let turned = image.clone().permute([1, 2, 0]) * 1.0;
            for image in [image, turned.permute([2, 0, 1])] {
                let expected = tensor::<Flex, 3>(reference::<Flex>(primitive(image.clone()), &fit));
                let found = fit_image(image, &fit).into_data();
                found.assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
            }
        }
    }
}
