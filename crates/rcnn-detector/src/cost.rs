//! Costs of a detection, layer by layer: multiply-accumulates of convolutions and matrix products, as
//! torch's `FlopCounterMode` counts them (two flops each). They are read off the recorded forward pass.

use std::collections::HashMap;
use std::fmt;

use rcnn_backbone::Backbone;
use rcnn_ops::record::{Graph, Recorder};
use rcnn_types::Size;

use crate::{DetectError, FasterRcnn, FasterRcnnConfig};

/// A part of the detector, by which costs and parameters are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// First convolution of the body.
    Stem,
    /// A stage of the body, 1 to 4.
    Stage(usize),
    /// The pyramid.
    Fpn,
    /// Anything else in the backbone: all of a custom one.
    Backbone,
    /// The first stage.
    Rpn,
    /// Layers between pooled features and predictor.
    BoxHead,
    /// Classes and box deltas.
    Predictor,
}

impl Part {
    /// Every part, in the order of the pass.
    pub const ALL: [Self; 10] = [
        Self::Stem,
        Self::Stage(1),
        Self::Stage(2),
        Self::Stage(3),
        Self::Stage(4),
        Self::Fpn,
        Self::Backbone,
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
                Self::Backbone => &["backbone."],
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
            Self::Backbone => f.pad("backbone"),
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
    /// Of each layer that has any, by the path of the module with the weights, in the order of the
    /// pass.
    pub layers: Vec<(String, u64)>,
}

impl Macs {
    /// Reads the counts off a [recorded](FasterRcnn::record) detection.
    pub fn from_graph(graph: &Graph) -> Self {
        let (mut layers, mut places) = (Vec::new(), HashMap::new());
        for node in graph.nodes() {
            let macs = graph.macs(node);
            if macs == 0 {
                continue;
            }
            let name = graph.module(node).or(node.layer.as_deref());
            let name = name.unwrap_or("backbone");
            let place = *places.entry(name).or_insert(layers.len());
            if place == layers.len() {
                layers.push((name.to_string(), 0));
            }
            layers[place].1 += macs;
        }
        let shape = |input: &str| {
            let found = graph.inputs().find(|(name, _)| *name == input);
            found.map_or(&[][..], |(_, id)| &graph.tensor(id).shape)
        };
        let size = |input: &str, axis: usize| shape(input).get(axis).copied().unwrap_or(0);
        Self {
            padded_size: Size::new(size("images", 2), size("images", 3)),
            rois: size("pooled", 0),
            layers,
        }
    }

    /// Sum over all layers.
    pub fn total(&self) -> u64 {
        self.layers.iter().map(|(_, macs)| macs).sum()
    }

    /// Sum over the layers of one part; 0 where the model does not have it.
    pub fn of(&self, part: Part) -> u64 {
        let own =
            (self.layers.iter()).filter(|(name, _)| Part::of(&format!("{name}.")) == Some(part));
        own.map(|(_, macs)| macs).sum()
    }

    /// Sums of the parts that cost anything, in the order of the pass.
    pub fn parts(&self) -> impl Iterator<Item = (Part, u64)> + '_ {
        let parts = Part::ALL.into_iter().map(|part| (part, self.of(part)));
        parts.filter(|(_, macs)| *macs > 0)
    }
}

impl FasterRcnnConfig {
    /// Multiply-accumulates of a detection on an image of this size, which the transform
    /// resizes first. For a custom backbone, see [`FasterRcnn::macs`].
    ///
    /// # Errors
    /// Where [`init`](Self::init) fails, or the image would be resized to more than
    /// [`MAX_BATCH_PIXELS`](crate::MAX_BATCH_PIXELS).
    pub fn macs(&self, image_size: Size) -> Result<Macs, DetectError> {
        self.init::<Recorder>(&Default::default())?.macs(image_size)
    }
}

impl<N: Backbone<Recorder>> FasterRcnn<Recorder, N> {
    /// Multiply-accumulates of a detection on an image of this size, whatever the
    /// backbone.
    ///
    /// ```
    /// # use burn::module::Module;
    /// # use burn::nn::conv::{Conv2d, Conv2dConfig};
    /// # use burn::tensor::{Tensor, backend::Backend};
    /// # use rcnn_backbone::{FeatureMaps, LevelSpec};
    /// # use rcnn_detector::FasterRcnnConfig;
    /// # use rcnn_ops::{Forward, record::Recorder};
    /// #[derive(Module, Debug)]
    /// struct Patches<B: Backend> {
    ///     conv: Conv2d<B>,
    /// }
    ///
    /// impl<B: Backend> rcnn_backbone::Backbone<B> for Patches<B> {
    ///     fn forward(&self, images: Tensor<B, 4>, _cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
    ///         FeatureMaps::single(self.conv.forward(images))
    ///     }
    ///
    ///     fn levels(&self) -> Vec<LevelSpec> {
    ///         vec![LevelSpec::new("0", 64, 16)]
    ///     }
    /// }
    ///
    /// let device = Default::default();
    /// let conv = Conv2dConfig::new([3, 64], [16, 16]).with_stride([16, 16]);
    /// let backbone = Patches::<Recorder> { conv: conv.init(&device) };
    /// let mut config = FasterRcnnConfig::custom(2);
    /// config.rpn.anchor_generator.sizes.truncate(1);
    /// config.rpn.anchor_generator.aspect_ratios.truncate(1);
    /// let model = config.init_with_backbone(backbone, &device)?;
    /// let macs = model.macs((800, 800).into())?;
    /// assert_eq!(macs.layers[0], ("backbone.conv".to_string(), 50 * 50 * 64 * 3 * 16 * 16));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn macs(&self, image_size: Size) -> Result<Macs, DetectError> {
        Ok(Macs::from_graph(&self.record(image_size)?))
    }
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
            ("backbone.convs.0.weight", Some(Part::Backbone)),
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
