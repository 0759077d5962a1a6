//! What network a checkpoint belongs to, told by the names and shapes of its tensors.

use indexmap::IndexMap;
use rcnn_backbone::{NormKind, ResNetArch, ResNetFpnConfig};
use rcnn_detector::FasterRcnnConfig;
use rcnn_roi::BoxHeadConfig;

/// What a checkpoint holds.
pub(crate) enum Recognized {
    /// A whole detector.
    Detector(Box<FasterRcnnConfig>),
    /// A ResNet with its classifier, as trained on ImageNet.
    Classifier(ResNetArch),
}

/// Shapes by torchvision's names.
pub(crate) struct Shapes(pub(crate) IndexMap<String, Vec<usize>>);

impl Shapes {
    /// The shape of a tensor that has elements: none of its sizes is 0, nor more than a file can hold.
    fn get(&self, name: &str) -> Option<&[usize]> {
        let shape = self.0.get(name)?;
        (!shape.contains(&0)).then_some(shape)
    }

    /// The channels or features that a layer puts out, whose weight has so many dimensions.
    fn outputs(&self, weight: &str, dimensions: usize) -> Result<usize, String> {
        match self.get(weight) {
            Some(&[outputs, ref rest @ ..]) if rest.len() + 1 == dimensions => Ok(outputs),
            _ => {
                let found = self.0.get(weight).map(Vec::as_slice).unwrap_or_default();
                Err(format!(
                    "{weight} of shape {found:?}, where {dimensions} sizes from 1 are expected"
                ))
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn any(&self, prefix: &str) -> bool {
        self.0.keys().any(|name| name.starts_with(prefix))
    }

    /// Length of the run 0, 1, 2 ... for which the name exists.
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|&i| self.has(&name(i))).count()
    }

    /// # Errors
    /// What was seen that is not understood, and what to pass, in words.
    pub(crate) fn recognize(&self) -> Result<Recognized, String> {
        if self.has("backbone.body.conv1.weight") {
            return self
                .detector()
                .map(|config| Recognized::Detector(Box::new(config)));
        }
        if self.has("conv1.weight") && self.has("layer1.0.conv1.weight") {
            return self.resnet("").map(Recognized::Classifier);
        }
        Err(self.foreign())
    }

    fn detector(&self) -> Result<FasterRcnnConfig, String> {
        for (part, model) in [("mask", "Mask R-CNN"), ("keypoint", "Keypoint R-CNN")] {
            if self.any(&format!("roi_heads.{part}_head.")) {
                return Err(format!(
                    "it is a {model}, which is not supported; its box detector can be loaded with \
                     --partial --model fasterrcnn_resnet50_fpn --num-classes {}",
                    self.num_classes().unwrap_or(91)
                ));
            }
        }
        for (prefix, missing) in [
            ("backbone.fpn.", "no feature pyramid (backbone.fpn.*)"),
            ("rpn.head.", "no region proposal network (rpn.head.*)"),
            (
                "roi_heads.box_predictor.",
                "no box predictor (roi_heads.box_predictor.*)",
            ),
        ] {
            if !self.any(prefix) {
                return Err(format!(
                    "a ResNet body with {missing}; if the backbone is your own, load with \
                     Weights::open_with and load_into"
                ));
            }
        }
        let backbone = self.backbone()?;
        let num_classes = self.num_classes()?;
        let levels = backbone.num_levels();
        let out_channels = backbone.out_channels;
        let mut config = FasterRcnnConfig::resnet_fpn(backbone, num_classes);
        config.rpn.conv_depth = self.count(|i| format!("rpn.head.conv.{i}.0.weight"));
        let anchors = self.outputs("rpn.head.cls_logits.weight", 4)?;
        let usual = &config.rpn.anchor_generator;
        if anchors != usual.num_anchors_per_location() || levels != usual.sizes.len() {
            return Err(format!(
                "{anchors} anchors at each location of {levels} feature maps; weights do not tell \
                 their sizes, so pass --config FILE with {{\"rpn_anchor_generator\": {{\"sizes\": \
                 [[..], ..], \"aspect_ratios\": [[..], ..]}}}}"
            ));
        }
        let (head, pooled) = self.box_head(out_channels)?;
        config.roi_heads.box_head = head;
        config.roi_heads.box_roi_pool.output_size = [pooled; 2];
        config.roi_heads.box_regression = self.any("roi_heads.box_predictor.bbox_pred.");
        Ok(config)
    }

    fn num_classes(&self) -> Result<usize, String> {
        self.outputs("roi_heads.box_predictor.cls_score.weight", 2)
    }

    fn backbone(&self) -> Result<ResNetFpnConfig, String> {
        let arch = self.resnet("backbone.body.")?;
        let mut returned_layers = Vec::new();
        let levels = self.count(|i| format!("backbone.fpn.inner_blocks.{i}.0.weight"));
        let mut out_channels = 0;
        for level in 0..levels {
            let name = format!("backbone.fpn.inner_blocks.{level}.0.weight");
            let Some(&[out, input, 1, 1]) = self.get(&name) else {
                return Err(format!("{name} is no 1x1 convolution"));
            };
            let stage = (1..=4).find(|&stage| arch.stage_channels(stage) == input);
            returned_layers.push(stage.ok_or_else(|| {
                format!("{name} takes {input} channels, which no stage of {arch} puts out")
            })?);
            out_channels = out;
        }
        let norm = |name: &str| match self.has(&format!("{name}.num_batches_tracked")) {
            true => NormKind::BatchNorm2d,
            false => NormKind::FrozenBatchNorm2d,
        };
        let fpn_norm = "backbone.fpn.inner_blocks.0.1";
        Ok(ResNetFpnConfig {
            arch,
            norm: norm("backbone.body.bn1"),
            returned_layers,
            out_channels,
            fpn_norm: self
                .has(&format!("{fpn_norm}.weight"))
                .then(|| norm(fpn_norm)),
            ..Default::default()
        })
    }

    fn resnet(&self, prefix: &str) -> Result<ResNetArch, String> {
        let blocks: Vec<usize> = (1..=4)
            .map(|stage| self.count(|i| format!("{prefix}layer{stage}.{i}.conv1.weight")))
            .take_while(|&blocks| blocks > 0)
            .collect();
        let bottleneck = self.has(&format!("{prefix}layer1.0.conv3.weight"));
        let (width, groups) = match self.get(&format!("{prefix}layer1.0.conv2.weight")) {
            Some(&[width, per_group, 3, 3]) if per_group > 0 => (width, width / per_group),
            _ => {
                return Err(format!(
                    "{prefix}layer1.0.conv2.weight is no 3x3 convolution"
                ));
            }
        };
        let fits = |arch: &ResNetArch| {
            arch.bottleneck() == bottleneck
                && arch.groups() == groups
                && arch.stage_width(1) == width
                && !blocks.is_empty()
                && arch.blocks().starts_with(&blocks)
        };
        ResNetArch::ALL.into_iter().find(fits).ok_or_else(|| {
            let kind = if bottleneck { "bottleneck" } else { "basic" };
            let known = ResNetArch::ALL.map(ResNetArch::name).join(", ");
            format!(
                "a ResNet of {blocks:?} {kind} blocks of width {width} in {groups} group(s); \
                 known are {known}"
            )
        })
    }

    /// The head and the side of the pooled square that it takes.
    fn box_head(&self, channels: usize) -> Result<(BoxHeadConfig, usize), String> {
        let head = "roi_heads.box_head";
        let side = |inputs: usize, channels: usize| {
            let side = (inputs / channels.max(1)).isqrt();
            match side * side * channels == inputs && side > 0 {
                true => Ok(side),
                false => Err(format!(
                    "a box head that takes {inputs} features, no square of {channels} channels; \
                     pass --config FILE with \"box_roi_pool\""
                )),
            }
        };
        if let Some(&[size, inputs]) = self.get(&format!("{head}.fc6.weight")) {
            let config = BoxHeadConfig::TwoMlp {
                representation_size: size,
            };
            return Ok((config, side(inputs, channels)?));
        }
        let convs = self.count(|i| format!("{head}.{i}.0.weight"));
        let conv_layers = (0..convs)
            .map(|i| self.outputs(&format!("{head}.{i}.0.weight"), 4))
            .collect::<Result<Vec<_>, _>>()?;
        let fc = |i: usize| format!("{head}.{}.weight", convs + 1 + 2 * i);
        let fc_layers = (0..self.count(fc))
            .map(|i| self.outputs(&fc(i), 2))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(&[_, inputs]) = self.get(&fc(0)) else {
            return Err(format!(
                "a box head ({head}.*) that is neither TwoMLPHead nor FastRCNNConvFCHead"
            ));
        };
        let channels = conv_layers.last().copied().unwrap_or(channels);
        let norm = self
            .has(&format!("{head}.0.1.weight"))
            .then_some((NormKind::BatchNorm2d, 1e-5));
        Ok((
            BoxHeadConfig::ConvFc {
                conv_layers,
                fc_layers,
                norm,
            },
            side(inputs, channels)?,
        ))
    }

    fn foreign(&self) -> String {
        let known = [
            ("backbone.bottom_up.", "detectron2's"),
            ("roi_head.bbox_head.", "MMDetection's"),
            ("model.0.conv.", "YOLO's"),
            (
                "head.classification_head.",
                "torchvision's RetinaNet's, SSD's or FCOS's",
            ),
            ("features.", "a MobileNet's, VGG's or another classifier's"),
        ];
        let first: Vec<&str> = self.0.keys().take(3).map(String::as_str).collect();
        let seen = match known.iter().find(|(prefix, _)| self.any(prefix)) {
            Some((_, whose)) => format!("names like {whose}"),
            None => "unknown names".to_string(),
        };
        format!(
            "{} tensors with {seen} ({}, ...); expected torchvision's Faster R-CNN with a \
             ResNet-FPN backbone (backbone.body.*, backbone.fpn.*, rpn.head.*, roi_heads.*); one of \
             these that is not recognised can be named with --model and --num-classes",
            self.0.len(),
            first.join(", ")
        )
    }
}
