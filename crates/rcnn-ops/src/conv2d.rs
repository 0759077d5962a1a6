//! The convolution layer of this project's networks.

use burn::nn::PaddingConfig2d;
use burn::nn::conv as nn;
use burn::tensor::Tensor;
use burn::tensor::ops::ConvOptions;

use crate::channels::{primitive, tensor};
use crate::{ConvEpilogue, ConvPrecision, DetectionBackend, Planned};

/// Burn's [`Conv2d`](nn::Conv2d) that runs by [`DetectionBackend::convolution`].
/// [`PaddingConfig2d::Same`] is TensorFlow's here, for every stride.
///
/// ```
/// # mod rcnn_burn { pub use burn; pub use rcnn_ops as ops; }
/// use rcnn_burn::burn::nn::conv::Conv2dConfig;
/// use rcnn_burn::ops::Conv2d;
/// # fn init<B: rcnn_ops::DetectionBackend>(device: &B::Device) -> Conv2d<B> {
/// Conv2d::from(Conv2dConfig::new([3, 64], [7, 7]).init(device))
/// # }
/// ```
pub type Conv2d<B> = Planned<nn::Conv2d<B>>;

impl<B: DetectionBackend> Planned<nn::Conv2d<B>> {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - input: `[N, C, H, W]`
    /// - output: `[N, C', H', W']`
    pub fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        self.forward_fused(input, ConvEpilogue::default())
    }

    /// Applies the layer and what follows it, in one pass over the output where the backend can.
    ///
    /// # Shapes
    /// - input: `[N, C, H, W]`
    /// - output: `[N, C', H', W']`
    pub fn forward_fused(&self, input: Tensor<B, 4>, epilogue: ConvEpilogue<B>) -> Tensor<B, 4> {
        let nn::Conv2d {
            stride,
            dilation,
            groups,
            kernel_size,
            ..
        } = self.layer;
        let (x, padding) = match (&self.layer.padding, symmetric(&self.layer.padding)) {
            (_, Some(padding)) => (primitive(input), padding),
            (PaddingConfig2d::Same, None) => {
                let reach = [0, 1].map(|axis| dilation[axis] * (kernel_size[axis] - 1) + 1);
                B::pad_same(primitive(input), reach, stride)
            }
            _ => return epilogue.apply(self.layer.forward(input)),
        };
        let options = ConvOptions::new(stride, padding, dilation, groups);
        let bias = self.layer.bias.as_ref().map(|bias| primitive(bias.val()));
        let weight = primitive(self.layer.weight.val());
        let (fast, plan) = (ConvPrecision::Fast, Some(&self.plan));
        tensor(B::convolution(
            x, weight, bias, options, epilogue, fast, plan,
        ))
    }
}

/// Pixels above and on the left, if there are as many below and on the right.
pub(crate) fn symmetric(padding: &PaddingConfig2d) -> Option<[usize; 2]> {
    match *padding {
        PaddingConfig2d::Valid => Some([0, 0]),
        PaddingConfig2d::Explicit(top, left, bottom, right) => {
            ([top, left] == [bottom, right]).then_some([top, left])
        }
        _ => None,
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::module::Module;
    use burn::nn::conv::Conv2dConfig;
    use burn::tensor::{DType, Distribution, TensorData};
    use burn_flex::Flex;
    use rcnn_cpu::conv2d::Weights;

    use super::*;
    use crate::backends::flex::plan::{KEPT_AFTER, kept_weights};

    fn layer(kernel: usize) -> Conv2d<Flex> {
        let padding = kernel / 2;
        let config = Conv2dConfig::new([16, 16], [kernel; 2]).with_padding(
            PaddingConfig2d::Explicit(padding, padding, padding, padding),
        );
        config.init(&Default::default()).into()
    }

    fn image() -> Tensor<Flex, 4> {
        let distribution = Distribution::Uniform(-1.0, 1.0);
        Tensor::random([1, 16, 12, 16], distribution, &Default::default())
    }

    fn outputs(layer: &Conv2d<Flex>, x: &Tensor<Flex, 4>) -> TensorData {
        layer.forward(x.clone()).into_data()
    }

    /// Applies a layer until its weights are kept.
    fn apply_often(layer: &Conv2d<Flex>, x: &Tensor<Flex, 4>) -> TensorData {
        let first = outputs(layer, x);
        for _ in 0..KEPT_AFTER {
            outputs(layer, x).assert_eq(&first, true);
        }
        first
    }

    #[test]
    fn prepared_weights_are_freed_with_the_layer() {
        for kernel in [1, 3] {
            let layer = layer(kernel);
            apply_often(&layer, &image());
            let clone = layer.clone();
            let prepared = kept_weights::<Weights>(&layer.plan);
            assert_eq!(prepared.len(), 1);
            drop(layer);
            assert!(prepared[0].upgrade().is_some());
            drop(clone);
            assert!(prepared[0].upgrade().is_none());
        }
    }

    #[test]
    fn prepared_weights_are_not_served_to_another_weight() {
        let x = image();
        for kernel in [1, 3] {
            let layer = layer(kernel);
            apply_often(&layer, &x);
            let old = kept_weights::<Weights>(&layer.plan);

            let other = self::layer(kernel);
            let expected = outputs(&other, &x);
            let layer = layer.load_record(other.into_record());
            outputs(&layer, &x).assert_eq(&expected, true);
            assert!(old[0].upgrade().is_none(), "the loaded weight replaces it");

            apply_often(&layer, &x);
            let mut doubled = layer.clone();
            doubled.weight = doubled.weight.clone().map(|weight| weight * 2.0);
            doubled.bias = None;
            let expected = Conv2d::from(doubled.layer.clone());
            outputs(&doubled, &x).assert_eq(&outputs(&expected, &x), true);

            let mut half = layer.clone();
            half.weight = half.weight.clone().map(|weight| weight.cast(DType::F16));
            let bias = half.bias.take();
            half.bias = bias.map(|bias| bias.map(|bias| bias.cast(DType::F16)));
            let found = half.forward(x.clone().cast(DType::F16));
            assert_eq!(found.dtype(), DType::F16);
        }
    }

    #[test]
    fn one_layer_on_large_and_small_images_keeps_weights_of_both_methods() {
        let config = Conv2dConfig::new([256, 256], [3, 3]);
        let config = config.with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        let layer: Conv2d<Flex> = config.init(&Default::default()).into();
        let image = |side| Tensor::<Flex, 4>::ones([1, 256, side, side], &Default::default());
        for side in [4, 16] {
            apply_often(&layer, &image(side));
        }
        assert_eq!(kept_weights::<Weights>(&layer.plan).len(), 2);
    }
}
