//! MobileNetV2 without its classifier: the backbone of torchvision's tutorial on object detection.
//!
//! Sandler et al. 2018 (<https://arxiv.org/abs/1801.04381>), as in `torchvision.models.mobilenetv2`.

mod published;

use rcnn_ops::Activation;
use serde::{Deserialize, Serialize};

use crate::sequential::{
    BlockNames, InvertedResidualSpec, LayerSpec, SequentialArch, SequentialConfig, StageSpec,
};
use crate::{BackboneConfig, mobilenet};

pub(crate) use published::PUBLISHED;

/// The family's one member, under torchvision's builder name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "torchvision's names")]
pub enum MobileNetV2Arch {
    #[serde(rename = "mobilenet_v2")]
    MobileNetV2,
}

/// The paper's table 2: factor of expansion, channels of the output, number of blocks, stride of the first.
const ROWS: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

/// Channels of the first convolution.
const STEM: usize = 32;
/// Channels of the last convolution.
const LAST: usize = 1280;

impl SequentialArch for MobileNetV2Arch {
    const ALL: &'static [Self] = &[Self::MobileNetV2];
    const MARK: &'static str = "1.conv.0.0.weight";

    fn name(self) -> &'static str {
        "mobilenet_v2"
    }

    fn stages(self) -> Vec<StageSpec> {
        let activation = Activation::Relu6;
        let conv = mobilenet::convolutions(activation);
        let mut layers = vec![conv(STEM, 3, 2)];
        let mut input = STEM;
        for [expansion, out, blocks, stride] in ROWS {
            for block in 0..blocks {
                layers.push(LayerSpec::InvertedResidual(InvertedResidualSpec {
                    kernel: 3,
                    expanded: input * expansion,
                    has_expansion: expansion != 1,
                    out,
                    squeeze: None,
                    activation,
                    stride: if block == 0 { stride } else { 1 },
                    names: BlockNames::Conv,
                }));
                input = out;
            }
        }
        layers.push(conv(LAST, 1, 1));
        mobilenet::stages(layers)
    }

    fn backbone(self) -> SequentialConfig<Self> {
        SequentialConfig::features(self)
    }

    fn any(config: SequentialConfig<Self>) -> BackboneConfig {
        BackboneConfig::MobilenetV2(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Architecture, BlockState};

    /// As `mobilenet_backbone` of torchvision computes them.
    #[test]
    fn stages_begin_where_torchvision_has_them() {
        let config = SequentialConfig::features(MobileNetV2Arch::MobileNetV2);
        let stages = config.stages();
        let first = stages.iter().map(|stage| stage.modules[0].as_str());
        assert!(first.eq(["0", "2", "4", "7", "14", "18"]), "{stages:?}");
        let channels = stages.iter().map(|stage| stage.channels);
        assert!(channels.eq([16, 24, 32, 96, 320, 1280]), "{stages:?}");
        let blocks = stages.iter().flat_map(|stage| &stage.blocks);
        let droppable = blocks.filter(|block| block.state == BlockState::Droppable);
        let places = droppable.map(|block| block.modules[0].as_str());
        let residual = ["3", "5", "6", "8", "9", "10", "12", "13", "15", "16"];
        assert!(places.eq(residual), "{stages:?}");
        assert_eq!(config.levels()[0].stride, 32);
    }
}
