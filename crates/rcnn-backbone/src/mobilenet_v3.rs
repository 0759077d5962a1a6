//! MobileNetV3 without its classifier: the body of torchvision's smallest detectors.
//!
//! Howard et al. 2019 (<https://arxiv.org/abs/1905.02244>), as in `torchvision.models.mobilenetv3`.

mod published;

use rcnn_ops::Activation;
use serde::{Deserialize, Serialize};

use crate::sequential::{
    InvertedResidualSpec, LayerSpec, SequentialArch, SequentialConfig, StageSpec,
};
use crate::{BackboneConfig, mobilenet};

pub(crate) use published::PUBLISHED;

/// A member of the family, under torchvision's builder name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
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
        let conv = |out, kernel, stride| LayerSpec::ConvNormActivation {
            out,
            kernel,
            stride,
            activation,
        };
        let mut layers = vec![conv(STEM, 3, 2)];
        let mut input = STEM;
        for &(kernel, expanded, out, squeeze, hardswish, stride) in rows {
            layers.push(LayerSpec::InvertedResidual(InvertedResidualSpec {
                kernel,
                expanded,
                has_expansion: expanded != input,
                out,
                squeeze: squeeze.then(|| mobilenet::divisible(expanded / 4)),
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
