//! The convolution layer of this project's networks.

use std::fmt;
use std::ops::{Deref, DerefMut};

use burn::module::{
    AutodiffModule, Content, Devices, DisplaySettings, HasAutodiffModule, Module, ModuleDisplay,
    ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::nn::PaddingConfig2d;
use burn::nn::conv as nn;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::ConvOptions;

use crate::channels::{primitive, tensor};
use crate::{ConvEpilogue, ConvPrecision, DetectionBackend, LayerPlan};

/// Burn's [`Conv2d`](nn::Conv2d) that runs by [`DetectionBackend::convolution`], and owns what the
/// backend prepares of its weight. [`PaddingConfig2d::Same`] is TensorFlow's here, for every stride.
///
/// Parameters, their names and records are those of Burn's layer, which this dereferences to and is made
/// from:
///
/// ```
/// # mod rcnn_burn { pub use burn; pub use rcnn_ops as ops; }
/// use rcnn_burn::burn::nn::conv::Conv2dConfig;
/// use rcnn_burn::ops::Conv2d;
/// # fn init<B: rcnn_ops::DetectionBackend>(device: &B::Device) -> Conv2d<B> {
/// Conv2d::from(Conv2dConfig::new([3, 64], [7, 7]).init(device))
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Conv2d<B: Backend> {
    layer: nn::Conv2d<B>,
    plan: LayerPlan,
}

impl<B: DetectionBackend> Conv2d<B> {
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

impl<B: Backend> From<nn::Conv2d<B>> for Conv2d<B> {
    fn from(layer: nn::Conv2d<B>) -> Self {
        let plan = LayerPlan::default();
        Self { layer, plan }
    }
}

impl<B: Backend> Deref for Conv2d<B> {
    type Target = nn::Conv2d<B>;

    fn deref(&self) -> &nn::Conv2d<B> {
        &self.layer
    }
}

impl<B: Backend> DerefMut for Conv2d<B> {
    fn deref_mut(&mut self) -> &mut nn::Conv2d<B> {
        &mut self.layer
    }
}

impl<B: Backend> Conv2d<B> {
    /// With another layer in the place of this one. Its weight may be the same, and then the plan serves on.
    fn map_layer(self, map: impl FnOnce(nn::Conv2d<B>) -> nn::Conv2d<B>) -> Self {
        let Self { layer, plan } = self;
        let layer = map(layer);
        Self { layer, plan }
    }
}

impl<B: Backend> Module<B> for Conv2d<B> {
    type Record = <nn::Conv2d<B> as Module<B>>::Record;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.layer.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        self.map_layer(|layer| layer.fork(device))
    }

    fn to_device(self, device: &B::Device) -> Self {
        self.map_layer(|layer| layer.to_device(device))
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        self.layer.visit(visitor);
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        self.map_layer(|layer| layer.map(mapper))
    }

    fn load_record(self, record: Self::Record) -> Self {
        self.map_layer(|layer| layer.load_record(record))
    }

    fn into_record(self) -> Self::Record {
        self.layer.into_record()
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for Conv2d<B> {
    type InnerModule = Conv2d<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        Conv2d {
            layer: self.layer.valid(),
            plan: self.plan.clone(),
        }
    }

    fn from_inner(Conv2d { layer, plan }: Self::InnerModule) -> Self {
        let layer = nn::Conv2d::from_inner(layer);
        Self { layer, plan }
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for Conv2d<B::InnerBackend> {
    type TrainModule = Conv2d<B>;
}

impl<B: Backend> ModuleDisplayDefault for Conv2d<B> {
    fn content(&self, content: Content) -> Option<Content> {
        ModuleDisplayDefault::content(&self.layer, content)
    }

    fn num_params(&self) -> usize {
        Module::num_params(&self.layer)
    }
}

impl<B: Backend> ModuleDisplay for Conv2d<B> {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        self.layer.custom_settings()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        self.layer.custom_content(content)
    }
}

impl<B: Backend> fmt::Display for Conv2d<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layer.fmt(f)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::nn::conv::Conv2dConfig;
    use burn::tensor::{DType, Distribution, TensorData};
    use burn_flex::Flex;

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
            let prepared = kept_weights(&layer.plan);
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
            let old = kept_weights(&layer.plan);

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
        assert_eq!(kept_weights(&layer.plan).len(), 2);
    }
}
