//! The modules of Inception v2: the backbone and the box head.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::{Conv2d, DetectionBackend, Forward, Phase, global_average_pool, max_pool_same};

use super::config::ConvSettings;
use super::{InceptionBlock, InceptionV2Config, InceptionV2HeadConfig};
use crate::stage::{Block, BlockState};
use crate::{
    Architecture, Backbone, BackboneConfig, BackboneConfigError, ConvNorm, FeatureMaps, LevelSpec,
    Stage, conv_norm_relu,
};

/// Inception v2 up to `Mixed_4e`. Made by [`InceptionV2Config::init`].
#[derive(Module, Debug)]
pub struct InceptionV2<B: Backend> {
    /// First layer, with a stride of 2 and a max-pool after it.
    pub conv2d_1a_7x7: SeparableConv<B>,
    /// Second layer.
    pub conv2d_2b_1x1: ConvNorm<B>,
    /// Third layer, with a max-pool after it.
    pub conv2d_2c_3x3: ConvNorm<B>,
    /// 256 channels.
    pub mixed_3b: InceptionBlock<B>,
    /// 320 channels.
    pub mixed_3c: InceptionBlock<B>,
    /// 576 channels at half the resolution.
    pub mixed_4a: InceptionBlock<B>,
    /// 576 channels.
    pub mixed_4b: InceptionBlock<B>,
    /// 576 channels.
    pub mixed_4c: InceptionBlock<B>,
    /// 576 channels.
    pub mixed_4d: InceptionBlock<B>,
    /// 576 channels, the feature map.
    pub mixed_4e: InceptionBlock<B>,
    #[module(skip)]
    config: InceptionV2Config,
}

/// A convolution of each colour by itself, then a 1x1 convolution with norm and ReLU.
#[derive(Module, Debug)]
pub struct SeparableConv<B: Backend> {
    /// Several maps of each colour.
    pub depthwise: Conv2d<B>,
    /// Channels of all of them.
    pub pointwise: ConvNorm<B>,
}

impl<B: DetectionBackend> SeparableConv<B> {
    fn forward(&self, images: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        conv_norm_relu(&self.pointwise, self.depthwise.forward(images), phase)
    }
}

impl InceptionV2Config {
    /// Makes the module with random weights.
    ///
    /// # Errors
    /// Where [`validate`](Architecture::validate) fails.
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<InceptionV2<B>, BackboneConfigError> {
        self.validate()?;
        let settings = self.settings();
        let [first, second, third] = self.stem();
        let maps = 3 * self.colour_multiplier();
        let depthwise = Conv2dConfig::new([3, maps], [7, 7])
            .with_stride([2, 2])
            .with_groups(3)
            .with_padding(PaddingConfig2d::Explicit(3, 3, 3, 3))
            .with_bias(false);
        let mut depthwise = depthwise.init(device);
        depthwise.padding = PaddingConfig2d::Same;
        let mut blocks = self.blocks().into_iter();
        let mut block = || {
            let (spec, input) = blocks.next().expect("as many as there are fields");
            let mut block = spec.init(input, settings, device);
            if self.dropped_blocks.iter().any(|name| name == spec.name) {
                block.drop();
            }
            block
        };
        Ok(InceptionV2 {
            conv2d_1a_7x7: SeparableConv {
                depthwise: depthwise.into(),
                pointwise: settings.conv([maps, first], 1, 1, device),
            },
            conv2d_2b_1x1: settings.conv([first, second], 1, 1, device),
            conv2d_2c_3x3: settings.conv([second, third], 3, 1, device),
            mixed_3b: block(),
            mixed_3c: block(),
            mixed_4a: block(),
            mixed_4b: block(),
            mixed_4c: block(),
            mixed_4d: block(),
            mixed_4e: block(),
            config: self.clone(),
        })
    }
}

impl<B: DetectionBackend> InceptionV2<B> {
    /// Makes a block the identity in this module alone, and says whether there is such a block and it keeps the shape of
    /// its input.
    pub(crate) fn drop_block(&mut self, block: &str) -> bool {
        let stages = self.config.stages();
        let mut blocks = stages.iter().flat_map(|stage| &stage.blocks);
        let keeps_shape = |other: &Block| other.state == BlockState::Droppable;
        if !blocks.any(|other| other.name == block && keeps_shape(other)) {
            return false;
        }
        match block {
            // Of few channels, these keep the shape of their input too.
            "mixed_3b" => self.mixed_3b.drop(),
            "mixed_3c" => self.mixed_3c.drop(),
            "mixed_4b" => self.mixed_4b.drop(),
            "mixed_4c" => self.mixed_4c.drop(),
            "mixed_4d" => self.mixed_4d.drop(),
            "mixed_4e" => self.mixed_4e.drop(),
            _ => false,
        }
    }
}

impl<B: DetectionBackend> Backbone<B> for InceptionV2<B> {
    fn forward(&self, images: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
        let mut x = self.conv2d_1a_7x7.forward(images, cx.phase);
        cx.layer("conv2d_1a_7x7", &x);
        x = conv_norm_relu(&self.conv2d_2b_1x1, max_pool_same(x, 3, 2), cx.phase);
        cx.layer("conv2d_2b_1x1", &x);
        x = conv_norm_relu(&self.conv2d_2c_3x3, x, cx.phase);
        cx.layer("conv2d_2c_3x3", &x);
        x = max_pool_same(x, 3, 2);
        for (name, block) in [
            ("mixed_3b", &self.mixed_3b),
            ("mixed_3c", &self.mixed_3c),
            ("mixed_4a", &self.mixed_4a),
            ("mixed_4b", &self.mixed_4b),
            ("mixed_4c", &self.mixed_4c),
            ("mixed_4d", &self.mixed_4d),
            ("mixed_4e", &self.mixed_4e),
        ] {
            x = block.forward(x, cx.phase);
            cx.layer(name, &x);
        }
        FeatureMaps::single(x)
    }

    fn levels(&self) -> Vec<LevelSpec> {
        self.config.levels()
    }

    fn stages(&self) -> Vec<Stage> {
        self.config.stages()
    }

    /// Every layer takes any size.
    fn size_divisibility(&self) -> usize {
        1
    }

    fn config(&self) -> BackboneConfig {
        BackboneConfig::InceptionV2(self.config.clone())
    }
}

/// Inception v2 from `Mixed_5a` on, and the mean of each channel. Made by [`InceptionV2HeadConfig::init`].
#[derive(Module, Debug)]
pub struct InceptionV2Head<B: Backend> {
    /// 1024 channels at half the resolution.
    pub mixed_5a: InceptionBlock<B>,
    /// 1024 channels.
    pub mixed_5b: InceptionBlock<B>,
    /// 1024 channels.
    pub mixed_5c: InceptionBlock<B>,
}

impl InceptionV2HeadConfig {
    /// Makes the module with random weights, for features of these channels.
    pub fn init<B: Backend>(&self, channels: usize, device: &B::Device) -> InceptionV2Head<B> {
        let settings: ConvSettings = *self;
        let blocks = self.blocks(channels);
        let [mixed_5a, mixed_5b, mixed_5c] =
            blocks.map(|(block, input)| block.init(input, settings, device));
        InceptionV2Head {
            mixed_5a,
            mixed_5b,
            mixed_5c,
        }
    }
}

impl<B: DetectionBackend> InceptionV2Head<B> {
    /// Applies the head to pooled features.
    ///
    /// # Shapes
    /// - pooled: `[K, channels, height, width]`
    /// - output: `[K, out_features]`
    pub fn forward(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 2> {
        let mut x = pooled;
        for (name, block) in [
            ("mixed_5a", &self.mixed_5a),
            ("mixed_5b", &self.mixed_5b),
            ("mixed_5c", &self.mixed_5c),
        ] {
            x = block.forward(x, cx.phase);
            cx.layer(name, &x);
        }
        let [boxes, channels, ..] = x.dims();
        global_average_pool(x).reshape([boxes, channels])
    }
}

#[cfg(test)]
mod tests {
    use rcnn_ops::backend_types::Flex;

    use super::*;
    use crate::inception_v2::InceptionV2Depth;

    /// `mixed_3c` of few channels could be dropped by its stage, and stayed.
    #[test]
    fn every_block_that_a_stage_calls_droppable_is_dropped() {
        for depth_multiplier in [1.0, 0.05] {
            let depth = InceptionV2Depth {
                depth_multiplier,
                min_depth: 4,
            };
            let config = InceptionV2Config {
                depth,
                ..Default::default()
            };
            let mut model = config.init::<Flex>(&Default::default()).unwrap();
            let stages = config.stages();
            let blocks = stages.iter().flat_map(|stage| &stage.blocks);
            for block in blocks {
                let can_be = block.state == BlockState::Droppable;
                assert_eq!(model.drop_block(&block.name), can_be, "{}", block.name);
            }
        }
    }
}
