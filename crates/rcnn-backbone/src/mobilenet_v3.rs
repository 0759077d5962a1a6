//! MobileNetV3 without its classifier: the body of torchvision's smallest detectors.
//!
//! Howard et al. 2019 (<https://arxiv.org/abs/1905.02244>), as in `torchvision.models.mobilenetv3`.

mod published;

use rcnn_ops::Activation;
use serde::{Deserialize, Serialize};

use crate::sequential::{
    BlockNames, InvertedResidualSpec, LayerSpec, SequentialArch, SequentialConfig, StageSpec,
};
use crate::{BackboneConfig, mobilenet};

pub(crate) use published::PUBLISHED;

/// A member of the family, under torchvision's builder name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "torchvision's names")]
pub enum MobileNetV3Arch {
    #[serde(rename = "mobilenet_v3_large")]
    Large,
    #[serde(rename = "mobilenet_v3_small")]
    Small,
}

/// A row of the paper's table: kernel, channels of the depthwise convolution and of the output, squeeze and
/// excitation, Hardswish instead of ReLU, stride.
type Row = (usize, usize, usize, bool, bool, usize);

/// Table 1.
const LARGE: [Row; 15] = [
    (3, 16, 16, false, false, 1),
    (3, 64, 24, false, false, 2),
    (3, 72, 24, false, false, 1),
    (5, 72, 40, true, false, 2),
    (5, 120, 40, true, false, 1),
    (5, 120, 40, true, false, 1),
    (3, 240, 80, false, true, 2),
    (3, 200, 80, false, true, 1),
    (3, 184, 80, false, true, 1),
    (3, 184, 80, false, true, 1),
    (3, 480, 112, true, true, 1),
    (3, 672, 112, true, true, 1),
    (5, 672, 160, true, true, 2),
    (5, 960, 160, true, true, 1),
    (5, 960, 160, true, true, 1),
];

/// Table 2.
const SMALL: [Row; 11] = [
    (3, 16, 16, true, false, 2),
    (3, 72, 24, false, false, 2),
    (3, 88, 24, false, false, 1),
    (5, 96, 40, true, true, 2),
    (5, 240, 40, true, true, 1),
    (5, 240, 40, true, true, 1),
    (5, 120, 48, true, true, 1),
    (5, 144, 48, true, true, 1),
    (5, 288, 96, true, true, 2),
    (5, 576, 96, true, true, 1),
    (5, 576, 96, true, true, 1),
];

/// Channels of the stem's output.
const STEM: usize = 16;

impl SequentialArch for MobileNetV3Arch {
    const ALL: &'static [Self] = &[Self::Large, Self::Small];
    const MARK: &'static str = "1.block.0.0.weight";

    fn name(self) -> &'static str {
        match self {
            Self::Large => "mobilenet_v3_large",
            Self::Small => "mobilenet_v3_small",
        }
    }

    fn stages(self) -> Vec<StageSpec> {
        let rows: &[Row] = match self {
            Self::Large => &LARGE,
            Self::Small => &SMALL,
        };
        let activation = Activation::Hardswish;
        let conv = mobilenet::convolutions(activation);
        let mut layers = vec![conv(STEM, 3, 2)];
        let mut input = STEM;
        for &(kernel, expanded, out, squeeze, hardswish, stride) in rows {
            layers.push(LayerSpec::InvertedResidual(InvertedResidualSpec {
                kernel,
                expanded,
                has_expansion: expanded != input,
                out,
                squeeze: squeeze.then(|| mobilenet::divisible(expanded / 4)),
                names: BlockNames::Block,
                activation: if hardswish {
                    activation
                } else {
                    Activation::Relu
                },
                stride,
            }));
            input = out;
        }
        layers.push(conv(6 * input, 1, 1));
        mobilenet::stages(layers)
    }

    fn backbone(self) -> SequentialConfig<Self> {
        SequentialConfig::with_fpn(self)
    }

    /// The classifier's. Under a pyramid torchvision puts other norms in, with the usual ones.
    fn classifier_norm() -> (f64, f64) {
        (1e-3, 0.01)
    }

    fn any(config: SequentialConfig<Self>) -> BackboneConfig {
        BackboneConfig::MobilenetV3(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Architecture, BlockState};

    fn large() -> SequentialConfig<MobileNetV3Arch> {
        SequentialConfig::with_fpn(MobileNetV3Arch::Large)
    }

    /// As `mobilenet_backbone` of torchvision computes them.
    #[test]
    fn stages_begin_where_torchvision_has_them() {
        for (arch, begins, channels, strides) in [
            (
                MobileNetV3Arch::Large,
                [0, 2, 4, 7, 13, 16],
                [16, 24, 40, 80, 160, 960],
                [2, 4, 8, 16, 32, 32],
            ),
            (
                MobileNetV3Arch::Small,
                [0, 1, 2, 4, 9, 12],
                [16, 16, 24, 40, 96, 576],
                [2, 4, 8, 16, 32, 32],
            ),
        ] {
            let stages = SequentialConfig::with_fpn(arch).stages();
            let first = stages.iter().map(|stage| stage.modules[0].as_str());
            let expected = begins.map(|place| format!("body.{place}"));
            assert!(first.eq(expected.iter().map(String::as_str)), "{stages:?}");
            assert!(stages.iter().map(|stage| stage.channels).eq(channels));
            assert!(stages.iter().map(|stage| stage.stride).eq(strides));
        }
        let levels = large().levels();
        let levels: Vec<_> = levels.iter().map(|l| (l.name.as_str(), l.stride)).collect();
        assert_eq!(levels, [("0", 32), ("1", 32), ("pool", 64)]);
    }

    #[test]
    fn blocks_are_dropped_in_their_own_terms() {
        let droppable = |config: &SequentialConfig<MobileNetV3Arch>| {
            let blocks = config.stages().into_iter().flat_map(|stage| stage.blocks);
            let blocks = blocks.filter(|block| block.state == BlockState::Droppable);
            blocks
                .map(|block| block.modules[0].clone())
                .collect::<Vec<_>>()
        };
        let mut config = large();
        let residual = [1, 3, 5, 6, 8, 9, 10, 12, 14, 15].map(|place| format!("body.{place}"));
        // Those after the last map are there under a pyramid too: the next stage follows them.
        assert_eq!(droppable(&config), residual);
        config.dropped_blocks = vec!["stage4.1".into()];
        assert_eq!(config.validate(), Ok(()));
        assert!(!droppable(&config).contains(&"body.14".to_string()));

        config.returned_layers = vec![3, 4];
        let stages = config.stages();
        assert!(!stages[5].is_built, "the body ends with the last map");
        assert!(!droppable(&config).contains(&"body.15".to_string()));
    }

    #[test]
    fn what_cannot_be_dropped_is_named() {
        let error = |stages: &[&str], blocks: &[&str]| {
            let config = SequentialConfig {
                dropped_stages: stages.iter().map(|s| s.to_string()).collect(),
                dropped_blocks: blocks.iter().map(|s| s.to_string()).collect(),
                ..large()
            };
            config.validate().unwrap_err().to_string()
        };
        for (found, says) in [
            (
                error(&[], &["stage4.0"]),
                "from 112 to 160 with a stride of 2",
            ),
            (
                error(&[], &["stage3.4"]),
                "from 80 to 112 with a stride of 1",
            ),
            (error(&[], &["stage0.0"]), "known are stage0.1, stage1.0"),
            (error(&[], &["14"]), "no block 14"),
            (error(&["stage0"], &[]), "expected some of stage1, stage2"),
            (error(&["stage4"], &[]), "return stage3 instead"),
        ] {
            assert!(found.contains(says), "`{says}` is not in: {found}");
        }
        let dropped = SequentialConfig {
            dropped_stages: vec!["stage2".into()],
            ..large()
        };
        assert_eq!(dropped.validate(), Ok(()));
        let strides: Vec<_> = dropped.levels().iter().map(|level| level.stride).collect();
        assert_eq!(strides, [16, 16, 32]);
    }
}
