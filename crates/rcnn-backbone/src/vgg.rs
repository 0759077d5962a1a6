//! VGG without its classifier: the backbone of the paper on Faster R-CNN.
//!
//! Simonyan and Zisserman 2014 (<https://arxiv.org/abs/1409.1556>), as in `torchvision.models.vgg`.

mod published;

use serde::{Deserialize, Serialize};

use crate::BackboneConfig;
use crate::sequential::{LayerSpec, SequentialArch, SequentialConfig, StageSpec};

pub(crate) use published::PUBLISHED;

/// A member of the family, under torchvision's builder name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "torchvision's names")]
pub enum VggArch {
    Vgg11,
    #[serde(rename = "vgg11_bn")]
    Vgg11Bn,
    Vgg13,
    #[serde(rename = "vgg13_bn")]
    Vgg13Bn,
    Vgg16,
    #[serde(rename = "vgg16_bn")]
    Vgg16Bn,
    Vgg19,
    #[serde(rename = "vgg19_bn")]
    Vgg19Bn,
}

/// Channels of the convolutions of each stage.
const CHANNELS: [usize; 5] = [64, 128, 256, 512, 512];

impl VggArch {
    /// Convolutions of each stage: configurations A, B, D and E of the paper.
    fn convolutions(self) -> [usize; 5] {
        match self {
            Self::Vgg11 | Self::Vgg11Bn => [1, 1, 2, 2, 2],
            Self::Vgg13 | Self::Vgg13Bn => [2, 2, 2, 2, 2],
            Self::Vgg16 | Self::Vgg16Bn => [2, 2, 3, 3, 3],
            Self::Vgg19 | Self::Vgg19Bn => [2, 2, 4, 4, 4],
        }
    }

    fn has_norms(self) -> bool {
        self.name().ends_with("_bn")
    }
}

impl SequentialArch for VggArch {
    const ALL: &'static [Self] = &[
        Self::Vgg16,
        Self::Vgg16Bn,
        Self::Vgg11,
        Self::Vgg11Bn,
        Self::Vgg13,
        Self::Vgg13Bn,
        Self::Vgg19,
        Self::Vgg19Bn,
    ];
    const MARK: &'static str = "0.weight";

    fn name(self) -> &'static str {
        match self {
            Self::Vgg11 => "vgg11",
            Self::Vgg11Bn => "vgg11_bn",
            Self::Vgg13 => "vgg13",
            Self::Vgg13Bn => "vgg13_bn",
            Self::Vgg16 => "vgg16",
            Self::Vgg16Bn => "vgg16_bn",
            Self::Vgg19 => "vgg19",
            Self::Vgg19Bn => "vgg19_bn",
        }
    }

    /// `conv1` to `conv5`, each with its pooling; blocks have the paper's names, `conv1_1` to `conv5_4`.
    fn stages(self) -> Vec<StageSpec> {
        let stages = self.convolutions().into_iter().zip(CHANNELS);
        let stage = |(number, (convolutions, out)): (usize, (usize, usize))| {
            let name = format!("conv{}", number + 1);
            let (mut layers, mut blocks) = (Vec::new(), Vec::new());
            for convolution in 1..=convolutions {
                blocks.push((layers.len(), format!("{name}_{convolution}")));
                layers.push(LayerSpec::Conv { out });
                layers.extend(self.has_norms().then_some(LayerSpec::Norm));
                layers.push(LayerSpec::Relu);
            }
            layers.push(LayerSpec::MaxPool);
            StageSpec {
                name,
                map: layers.len() - 2,
                layers,
                blocks,
            }
        };
        stages.enumerate().map(stage).collect()
    }

    fn backbone(self) -> SequentialConfig<Self> {
        SequentialConfig::features(self)
    }

    fn any(config: SequentialConfig<Self>) -> BackboneConfig {
        BackboneConfig::Vgg(config)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;
    use rcnn_ops::backend_types::Flex;

    use super::*;
    use crate::{Architecture, Backbone, BlockState, Forward};

    /// Places in torchvision's `vgg16().features` and `vgg16_bn().features`.
    #[test]
    fn convolutions_have_torchvisions_places() {
        for (arch, expected) in [
            (
                VggArch::Vgg16,
                [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
            ),
            (
                VggArch::Vgg16Bn,
                [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40],
            ),
        ] {
            let stages = SequentialConfig::features(arch).stages();
            let blocks = stages.iter().flat_map(|stage| &stage.blocks);
            let places = blocks.map(|block| block.modules[0].parse::<usize>().unwrap());
            assert!(places.eq(expected), "{arch:?}");
        }
    }

    #[test]
    fn the_last_pooling_is_left_out_as_in_the_paper() {
        let features = SequentialConfig::features(VggArch::Vgg16);
        let trimmed = SequentialConfig {
            trim_last_stage: true,
            ..features.clone()
        };
        let strides = [features, trimmed].map(|config| config.levels()[0].stride);
        assert_eq!(strides, [32, 16]);
    }

    /// A map is that of the convolution before, where the last one of its stage is dropped.
    #[test]
    fn a_pyramid_has_the_map_of_a_stage_whose_last_convolution_is_dropped() {
        let config = SequentialConfig {
            dropped_blocks: vec!["conv5_3".into()],
            ..SequentialConfig::with_fpn(VggArch::Vgg16)
        };
        assert_eq!(config.validate(), Ok(()));
        let device = Default::default();
        let backbone = config.init::<Flex>(&device).expect("a backbone");
        let images = Tensor::zeros([1, 3, 32, 32], &device);
        let maps = backbone.forward(images, &mut Forward::inference());
        assert_eq!(maps.validate(&backbone.levels(), [1, 3, 32, 32]), Ok(()));
    }

    #[test]
    fn a_convolution_goes_with_its_norm() {
        let config = SequentialConfig {
            dropped_blocks: vec!["conv5_2".into()],
            ..SequentialConfig::features(VggArch::Vgg16Bn)
        };
        assert_eq!(config.validate(), Ok(()));
        let stages = config.stages();
        assert_eq!(stages[4].blocks[1].state, BlockState::Dropped);
        for parameter in ["37.weight", "38.running_mean"] {
            assert!(stages[4].is_dropped(parameter), "{parameter}");
        }
        assert!(!stages[4].is_dropped("40.weight"));
        let error = SequentialConfig {
            dropped_blocks: vec!["conv4_1".into()],
            ..config
        };
        let error = error.validate().unwrap_err().to_string();
        assert!(error.contains("from 256 to 512"), "{error}");
    }
}
