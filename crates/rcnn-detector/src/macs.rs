//! What a detection costs, part by part, from the configuration alone: multiply-accumulates of
//! convolutions and linear layers, as torch's `FlopCounterMode` counts them (two flops each).

use std::fmt;

use rcnn_backbone::{BackboneConfig, ResNetFpnConfig};
use rcnn_roi::BoxHeadConfig;
use rcnn_types::Size;
use rcnn_types::validate::require;

use crate::{ConfigError, FasterRcnnConfig, MAX_BATCH_PIXELS};

/// A part of the detector that costs and parameters are told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// First convolution of the body.
    Stem,
    /// A stage of the body, 1 to 4.
    Stage(usize),
    /// The pyramid.
    Fpn,
    /// The first stage.
    Rpn,
    /// Layers between pooled features and predictor.
    BoxHead,
    /// Classes and box deltas.
    Predictor,
}

impl Part {
    /// Every part, in the order of the pass.
    pub const ALL: [Self; 9] = [
        Self::Stem,
        Self::Stage(1),
        Self::Stage(2),
        Self::Stage(3),
        Self::Stage(4),
        Self::Fpn,
        Self::Rpn,
        Self::BoxHead,
        Self::Predictor,
    ];

    /// The part that a parameter belongs to, by its name in torchvision.
    pub fn of(parameter: &str) -> Option<Self> {
        let part = |part: &Self| {
            let prefix = match part {
                Self::Stem => ["backbone.body.conv1.", "backbone.body.bn1."].as_slice(),
                Self::Stage(1) => &["backbone.body.layer1."],
                Self::Stage(2) => &["backbone.body.layer2."],
                Self::Stage(3) => &["backbone.body.layer3."],
                Self::Stage(_) => &["backbone.body.layer4."],
                Self::Fpn => &["backbone.fpn."],
                Self::Rpn => &["rpn."],
                Self::BoxHead => &["roi_heads.box_head."],
                Self::Predictor => &["roi_heads.box_predictor."],
            };
            prefix.iter().any(|prefix| parameter.starts_with(prefix))
        };
        Self::ALL.into_iter().find(part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stem => f.pad("stem"),
            Self::Stage(stage) => f.pad(&format!("layer{stage}")),
            Self::Fpn => f.pad("fpn"),
            Self::Rpn => f.pad("rpn"),
            Self::BoxHead => f.pad("box head"),
            Self::Predictor => f.pad("predictor"),
        }
    }
}

/// Multiply-accumulates of a detection on one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Macs {
    /// Size of what the network sees: the image resized and padded.
    pub padded_size: Size,
    /// Proposals that box head and predictor are counted for: all that the first stage may keep.
    /// An image may have fewer.
    pub rois: usize,
    /// Of each layer, by its name in torchvision, in the order of the pass; residual blocks are one.
    pub layers: Vec<(String, u64)>,
}

impl Macs {
    /// Of all parts together.
    pub fn total(&self) -> u64 {
        self.layers.iter().map(|(_, macs)| macs).sum()
    }

    /// Of one part; 0 where the model does not have it.
    pub fn of(&self, part: Part) -> u64 {
        let own =
            (self.layers.iter()).filter(|(name, _)| Part::of(&format!("{name}.")) == Some(part));
        own.map(|(_, macs)| macs).sum()
    }

    /// Of each part that costs any, in the order of the pass.
    pub fn parts(&self) -> impl Iterator<Item = (Part, u64)> + '_ {
        let parts = Part::ALL.into_iter().map(|part| (part, self.of(part)));
        parts.filter(|(_, macs)| *macs > 0)
    }
}

/// A feature map's height and width.
#[derive(Clone, Copy)]
struct Grid(usize, usize);

impl Grid {
    /// The map that a stride of two makes of this one, padded as everywhere in a ResNet.
    fn halved(self) -> Self {
        Self(self.0.div_ceil(2), self.1.div_ceil(2))
    }

    /// A convolution that puts out this map.
    fn conv(self, input: usize, output: usize, kernel_size: usize, groups: usize) -> u64 {
        let weights = input / groups * output * kernel_size * kernel_size;
        (self.0 * self.1 * weights) as u64
    }
}

impl FasterRcnnConfig {
    /// Multiply-accumulates of a detection on an image of this height and width, which the transform
    /// resizes first.
    ///
    /// # Errors
    /// Where [`validate`](Self::validate) fails, the backbone is a custom one, or the image would be
    /// resized to more than [`MAX_BATCH_PIXELS`].
    pub fn macs(&self, image_size: Size) -> Result<Macs, ConfigError> {
        self.validate()?;
        let BackboneConfig::ResnetFpn(backbone) = &self.backbone else {
            return Err(ConfigError::CustomBackbone);
        };
        let resized = self.transform.resized(image_size);
        let padded = |side: usize| side.next_multiple_of(self.transform.size_divisible);
        let padded_size = Size::new(padded(resized.height), padded(resized.width));
        require(
            padded_size.pixels() <= MAX_BATCH_PIXELS,
            "image_size",
            image_size,
            format_args!(
                "an image of at most {MAX_BATCH_PIXELS} pixels after resizing, not {}x{}",
                padded_size.height, padded_size.width
            ),
        )?;

        let (mut layers, levels) =
            backbone_macs(backbone, Grid(padded_size.height, padded_size.width));
        let channels = backbone.out_channels;
        let anchors = self.rpn.anchor_generator.num_anchors_per_location();
        let over_levels = |output: usize, kernel_size: usize| {
            let maps = levels.iter();
            maps.map(|map| map.conv(channels, output, kernel_size, 1))
                .sum::<u64>()
        };
        for i in 0..self.rpn.conv_depth {
            layers.push((format!("rpn.head.conv.{i}"), over_levels(channels, 3)));
        }
        layers.push(("rpn.head.cls_logits".into(), over_levels(anchors, 1)));
        layers.push(("rpn.head.bbox_pred".into(), over_levels(4 * anchors, 1)));

        let kept = |map: &Grid| (map.0 * map.1 * anchors).min(self.rpn.pre_nms_top_n_test);
        let proposals: usize = levels.iter().map(kept).sum();
        let rois = proposals.min(self.rpn.post_nms_top_n_test);
        let [height, width] = self.roi_heads.box_roi_pool.output_size;
        let head = &self.roi_heads.box_head;
        let pooled = [channels, height, width];
        for (name, macs) in box_head_macs(head, pooled) {
            layers.push((format!("roi_heads.box_head.{name}"), rois as u64 * macs));
        }
        let scores = (rois * head.out_features(pooled) * self.num_classes) as u64;
        layers.push(("roi_heads.box_predictor.cls_score".into(), scores));
        if self.roi_heads.box_regression {
            layers.push(("roi_heads.box_predictor.bbox_pred".into(), 4 * scores));
        }
        Ok(Macs {
            padded_size,
            rois,
            layers,
        })
    }
}

/// Body and pyramid, and the maps that they put out.
fn backbone_macs(backbone: &ResNetFpnConfig, image: Grid) -> (Vec<(String, u64)>, Vec<Grid>) {
    let arch = backbone.arch;
    let body = backbone.body().built_stages();
    let stem = image.halved();
    let mut map = stem.halved();
    let mut layers = vec![("backbone.body.conv1".to_string(), stem.conv(3, 64, 7, 1))];
    let (mut fpn, mut levels) = (Vec::new(), Vec::new());
    for stage in &body {
        let (width, output) = (arch.stage_width(stage.number), stage.out_channels);
        for &block in &stage.blocks {
            let first = block == 0;
            let input = if first { stage.in_channels } else { output };
            let before = map;
            if first && stage.stride == 2 {
                map = map.halved();
            }
            let mut macs = match arch.bottleneck() {
                true => {
                    before.conv(input, width, 1, 1)
                        + map.conv(width, width, 3, arch.groups())
                        + map.conv(width, output, 1, 1)
                }
                false => map.conv(input, output, 3, 1) + map.conv(output, output, 3, 1),
            };
            if first && stage.has_downsample() {
                macs += map.conv(input, output, 1, 1);
            }
            layers.push((format!("backbone.body.layer{}.{block}", stage.number), macs));
        }
        if backbone.returned_layers.contains(&stage.number) {
            let (level, channels) = (levels.len(), backbone.out_channels);
            for (blocks, macs) in [
                ("inner_blocks", map.conv(output, channels, 1, 1)),
                ("layer_blocks", map.conv(channels, channels, 3, 1)),
            ] {
                fpn.push((format!("backbone.fpn.{blocks}.{level}"), macs));
            }
            levels.push(map);
        }
    }
    layers.extend(fpn);
    if backbone.max_pool_level {
        levels.push(map.halved());
    }
    (layers, levels)
}

/// Of one proposal, layer by layer.
fn box_head_macs(
    head: &BoxHeadConfig,
    [channels, height, width]: [usize; 3],
) -> Vec<(String, u64)> {
    let (convs, fcs) = match head {
        BoxHeadConfig::TwoMlp {
            representation_size: size,
        } => (&[][..], &[*size, *size][..]),
        BoxHeadConfig::ConvFc {
            conv_layers,
            fc_layers,
            ..
        } => (&conv_layers[..], &fc_layers[..]),
    };
    let (mut layers, mut input) = (Vec::new(), channels);
    for (i, &output) in convs.iter().enumerate() {
        let macs = Grid(height, width).conv(input, output, 3, 1);
        layers.push((i.to_string(), macs));
        input = output;
    }
    input *= height * width;
    for (i, &output) in fcs.iter().enumerate() {
        let name = match head {
            BoxHeadConfig::TwoMlp { .. } => format!("fc{}", 6 + i),
            // Flattening and each ReLU have a place of their own.
            BoxHeadConfig::ConvFc { .. } => (convs.len() + 1 + 2 * i).to_string(),
        };
        layers.push((name, (input * output) as u64));
        input = output;
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_belong_to_parts() {
        for (name, part) in [
            ("backbone.body.bn1.weight", Some(Part::Stem)),
            ("backbone.body.layer3.1.conv2.weight", Some(Part::Stage(3))),
            ("backbone.fpn.inner_blocks.0.0.bias", Some(Part::Fpn)),
            ("rpn.head.cls_logits.bias", Some(Part::Rpn)),
            ("roi_heads.box_head.fc6.weight", Some(Part::BoxHead)),
            (
                "roi_heads.box_predictor.cls_score.bias",
                Some(Part::Predictor),
            ),
            ("optimizer.step", None),
        ] {
            assert_eq!(Part::of(name), part, "{name}");
        }
    }

    #[test]
    fn what_is_removed_costs_nothing() {
        let mut config = FasterRcnnConfig::default();
        let whole = config.macs(Size::new(800, 1088)).expect("a count");
        assert_eq!(
            (whole.padded_size, whole.rois),
            (Size::new(800, 1088), 1000)
        );
        let texts = [
            "drop-stage layer4",
            "rpn-convs 0",
            "box-head none",
            "no-box-regression",
        ];
        let operations = texts.map(|text| text.parse().expect("an operation"));
        config = config.operated(&operations).expect("a configuration");
        let cut = config.macs(Size::new(800, 1088)).expect("a count");
        assert_eq!(cut.of(Part::Stage(3)), whole.of(Part::Stage(3)));
        assert_eq!(cut.of(Part::Stage(4)), 0);
        assert_eq!(cut.of(Part::BoxHead), 0);
        assert_eq!(cut.of(Part::Predictor), 1000 * 91 * 256 * 49);
        // A tiny image has fewer proposals than are asked for, and is padded.
        config.transform.min_size = vec![16];
        let tiny = config.macs(Size::new(16, 20)).expect("a count");
        assert_eq!(tiny.padded_size, Size::new(32, 32));
        assert_eq!(tiny.rois, (64 + 16 + 4 + 1) * 3);
        assert!(FasterRcnnConfig::custom(2).macs(Size::new(8, 8)).is_err());
        config.transform.min_size = vec![1 << 24];
        config.transform.max_size = 1 << 24;
        let huge = config.macs(Size::new(16, 20)).unwrap_err().to_string();
        assert!(
            huge.contains("image_size = Size { height: 16, width: 20 }"),
            "{huge}"
        );
    }
}
