//! Recognition of a checkpoint's network by the names and shapes of its tensors.

mod branches;

use rcnn_backbone::{BackboneConfig, LevelSpec, NormKind, Shapes, StageHeadConfig};
use rcnn_detector::FasterRcnnConfig;
use rcnn_roi::BoxHeadConfig;

/// What a checkpoint holds.
pub(crate) enum Recognized {
    /// A whole detector.
    Detector(Box<FasterRcnnConfig>),
    /// An image classifier of an architecture of this name, as trained on ImageNet.
    Classifier(&'static str),
}

/// Recognises a network by its tensors. Anchors are those that are usual over its backbone: see [`check_anchors`].
///
/// # Errors
/// What was seen that is not understood, and what to pass, in words.
pub(crate) fn recognize(shapes: &Shapes) -> Result<Recognized, String> {
    // Their backbones may have torchvision's names.
    if other_detector(shapes).is_some() {
        return Err(foreign(shapes));
    }
    if let Some(backbone) = BackboneConfig::recognize(&shapes.within("backbone")) {
        return Ok(Recognized::Detector(Box::new(detector(shapes, backbone)?)));
    }
    match BackboneConfig::recognize_classifier(shapes) {
        Some(name) => Ok(Recognized::Classifier(name?)),
        None => Err(foreign(shapes)),
    }
}

fn detector(
    shapes: &Shapes,
    backbone: Result<BackboneConfig, String>,
) -> Result<FasterRcnnConfig, String> {
    for (prefix, missing) in [
        ("rpn.head.", "no region proposal network (rpn.head.*)"),
        (
            "roi_heads.box_predictor.",
            "no box predictor (roi_heads.box_predictor.*)",
        ),
    ] {
        if !shapes.any(prefix) {
            return Err(format!(
                "a backbone with {missing}; a detector over a custom backbone is loaded by the program \
                 that builds it, with Weights::open_with and load_into"
            ));
        }
    }
    let backbone = backbone?;
    let num_classes = num_classes(shapes)?;
    let out_channels = levels(&backbone).first().map_or(0, |level| level.channels);
    let mut config = FasterRcnnConfig::usual(backbone, num_classes);
    let conv = |i: usize| format!("rpn.head.conv.{i}.0.weight");
    config.rpn.conv_depth = shapes.count(conv);
    let convs = (0..config.rpn.conv_depth).map(|i| shapes.outputs(&conv(i), 4));
    let convs = convs.collect::<Result<Vec<_>, _>>()?;
    if convs.iter().any(|&channels| channels != out_channels) {
        config.rpn.conv_channels = convs;
    }
    if let BoxHeadConfig::Stage(_) = config.roi_heads.box_head {
        let head = StageHeadConfig::recognize(&shapes.within("roi_heads.box_head"))?;
        config.roi_heads.box_head = BoxHeadConfig::Stage(head);
    } else {
        let (head, pooled) = box_head(shapes, out_channels)?;
        config.roi_heads.box_head = head;
        config.roi_heads.box_roi_pool.output_size = [pooled; 2];
    }
    config.roi_heads.box_regression = shapes.any("roi_heads.box_predictor.bbox_pred.");
    if let Some(mask) = branches::mask(shapes)? {
        config = config.with_mask(mask);
    }
    if let Some(keypoint) = branches::keypoint(shapes)? {
        config = config.with_keypoint(keypoint);
    }
    Ok(config)
}

fn levels(backbone: &BackboneConfig) -> Vec<LevelSpec> {
    let network = backbone.architecture();
    network.map(|network| network.levels()).unwrap_or_default()
}

/// Checks that the first stage has as many anchors as the configuration.
///
/// # Errors
/// The message says what to pass instead.
pub(crate) fn check_anchors(shapes: &Shapes, config: &FasterRcnnConfig) -> Result<(), String> {
    let anchors = shapes.outputs("rpn.head.cls_logits.weight", 4)?;
    let generator = &config.rpn.anchor_generator;
    let levels = levels(&config.backbone).len();
    match anchors == generator.num_anchors_per_location() && levels == generator.sizes.len() {
        true => Ok(()),
        false => Err(unknown_anchors(anchors, levels)),
    }
}

/// What to pass where a detector has other anchors than is usual over its backbone.
fn unknown_anchors(anchors: usize, levels: usize) -> String {
    let each = |one: &str| vec![one; levels.min(MAX_EXAMPLE)].join(", ");
    let maps = match levels {
        1 => "its one feature map".to_string(),
        _ => format!("{levels} feature maps"),
    };
    let (sizes, ratios, end) = match anchor_example(anchors) {
        Some([sizes, ratios]) => (each(&sizes), each(&ratios), " for example"),
        None => (each("[...]"), each("[...]"), ""),
    };
    format!(
        "{anchors} anchors at each location of {maps}: their sizes and ratios cannot be inferred from the weights. Pass --config \
         FILE (Weights::open_with) with those that the model was trained with, for each map a list of sizes in \
         pixels and one of ratios, height to width, whose product is {anchors}: {{\"rpn_anchor_generator\": \
         {{\"sizes\": [{sizes}], \"aspect_ratios\": [{ratios}]}}}}{end}"
    )
}

/// Sizes and ratios of that many anchors: sizes up to torchvision's largest, each twice the one before.
fn anchor_example(anchors: usize) -> Option<[String; 2]> {
    let ratios = [
        (3, "[0.5, 1, 2]"),
        (1, "[1]"),
        (2, "[1, 2]"),
        (4, "[0.25, 0.5, 1, 2]"),
    ];
    let few = |(count, _): &(usize, &str)| {
        anchors > 0 && anchors.is_multiple_of(*count) && anchors / count <= MAX_EXAMPLE
    };
    let (count, ratios) = ratios.into_iter().find(few)?;
    let sizes = (0..anchors / count).rev().map(|octave| 512 >> octave);
    let sizes: Vec<usize> = sizes.collect();
    Some([format!("{sizes:?}"), ratios.to_string()])
}

fn num_classes(shapes: &Shapes) -> Result<usize, String> {
    shapes.outputs("roi_heads.box_predictor.cls_score.weight", 2)
}

/// The head and the side of the pooled square that it takes.
fn box_head(shapes: &Shapes, channels: usize) -> Result<(BoxHeadConfig, usize), String> {
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
    if let Some(&[size, inputs]) = shapes.get(&format!("{head}.fc6.weight")) {
        let config = match shapes.outputs(&format!("{head}.fc7.weight"), 2) {
            Ok(fc7) if fc7 != size => BoxHeadConfig::Mlp { fc6: size, fc7 },
            _ => BoxHeadConfig::TwoMlp {
                representation_size: size,
            },
        };
        return Ok((config, side(inputs, channels)?));
    }
    let convs = shapes.count(|i| format!("{head}.{i}.0.weight"));
    let conv_layers = (0..convs)
        .map(|i| shapes.outputs(&format!("{head}.{i}.0.weight"), 4))
        .collect::<Result<Vec<_>, _>>()?;
    let fc = |i: usize| format!("{head}.{}.weight", convs + 1 + 2 * i);
    let fc_layers = (0..shapes.count(fc))
        .map(|i| shapes.outputs(&fc(i), 2))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(&[_, inputs]) = shapes.get(&fc(0)) else {
        return Err(format!(
            "a box head ({head}.*) that is neither TwoMLPHead nor FastRCNNConvFCHead"
        ));
    };
    let channels = conv_layers.last().copied().unwrap_or(channels);
    let norm = format!("{head}.0.1");
    let norm = shapes
        .has(&format!("{norm}.weight"))
        .then(|| shapes.norm(&norm).or(NormKind::BatchNorm2d, 1e-5));
    Ok((
        BoxHeadConfig::ConvFc {
            conv_layers,
            fc_layers,
            norm,
        },
        side(inputs, channels)?,
    ))
}

/// Most sizes and feature maps in an example.
const MAX_EXAMPLE: usize = 6;

/// What names of other detectors begin with, behind any prefix, and whose they are.
const OTHER_DETECTORS: [(&str, &str); 6] = [
    ("backbone.bottom_up.", "detectron2's"),
    ("roi_head.bbox_head.", "MMDetection's"),
    ("bbox_head.", "MMDetection's"),
    ("model.0.conv.", "YOLO's"),
    ("transformer.encoder.", "DETR's"),
    (
        "head.classification_head.",
        "torchvision's RetinaNet's, SSD's or FCOS's",
    ),
];

/// Whose detector it is that names are of.
fn other_detector(shapes: &Shapes) -> Option<&'static str> {
    let has = |module: &str| {
        let inner = format!(".{module}");
        let is_within = |name: &str| name.starts_with(module) || name.contains(&inner);
        shapes.names().any(is_within)
    };
    let found = OTHER_DETECTORS.iter().find(|(module, _)| has(module));
    found.map(|(_, whose)| *whose)
}

fn foreign(shapes: &Shapes) -> String {
    let is_classifier = shapes.any("features.");
    let classifier = is_classifier.then_some("an image classifier's");
    let first: Vec<&str> = shapes.names().take(3).collect();
    let seen = match other_detector(shapes).or(classifier) {
        Some(whose) => format!("names like {whose}"),
        None => "unknown names".to_string(),
    };
    format!(
        "{} tensors with {seen} ({}, ...); expected torchvision's Faster, Mask or Keypoint R-CNN \
             (backbone.*, rpn.head.*, roi_heads.*) over one of {}; one of these that is not recognised \
             can be named with --model and --num-classes",
        shapes.names().len(),
        first.join(", "),
        BackboneConfig::names().collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::anchor_example;

    /// The example for 16 anchors had six.
    #[test]
    fn an_example_has_as_many_anchors_as_it_is_for() {
        let count = |list: &String| list.split(',').count();
        for anchors in 1..40 {
            if let Some([sizes, ratios]) = anchor_example(anchors) {
                assert_eq!(count(&sizes) * count(&ratios), anchors);
            }
        }
        let example = ["[64, 128, 256, 512]", "[0.25, 0.5, 1, 2]"].map(String::from);
        assert_eq!(anchor_example(16), Some(example));
        assert_eq!(anchor_example(0), None);
        assert_eq!(anchor_example(31), None);
    }
}
