//! Whole detectors, stage by stage: every stage starts from torchvision's output of the stage
//! before where a selection lies between them, so that a break says where.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Tensor, activation::relu, backend::Backend};
use parity::{Fixture, assert_close, synthetic};
use rcnn_burn::backbone::{
    Backbone, BackboneConfig, FeatureMaps, Forward, LevelSpec, NormKind, Phase, ResNetArch,
    ResNetFpnConfig,
};
use rcnn_burn::ops::backend_types::{Flex, FlexDevice};
use rcnn_burn::ops::{BBox, DetectionBackend};
use rcnn_burn::roi::{BoxHeadConfig, ClassScores};
use rcnn_burn::rpn::Proposals;
use rcnn_burn::weights::{load_state_dict, parameter_shapes};
use rcnn_burn::{FasterRcnn, FasterRcnnConfig, ImageList, Instance, Instances};
use serde_json::{Map, Value};

use crate::{Check, Extent};

/// Largest difference of features and raw outputs, relative to the largest value.
const FEATURES: f32 = 1e-4;
/// Largest difference of boxes in pixels.
const PIXELS: f32 = 0.05;
/// Largest difference of scores.
const SCORES: f32 = 1e-3;

/// The configuration that a case's settings describe.
pub(crate) fn config(case: &Value) -> FasterRcnnConfig {
    let text = |name: &str| case[name].as_str().expect("a string");
    let size = |name: &str| case[name].as_u64().expect("a number") as usize;
    let num_classes = size("num_classes");
    let norm = match text("norm") {
        "batch" => NormKind::BatchNorm2d,
        _ => NormKind::FrozenBatchNorm2d,
    };
    let mut config = match text("variant") {
        "custom" => FasterRcnnConfig::custom(num_classes),
        "v2" => FasterRcnnConfig::fasterrcnn_resnet50_fpn_v2(num_classes),
        "paper" => FasterRcnnConfig::fasterrcnn_vgg16(num_classes),
        "inception_v2" => FasterRcnnConfig::faster_rcnn_inception_v2_coco(num_classes),
        "builder" => {
            let named = FasterRcnnConfig::named(text("arch"), num_classes);
            let mut config = named.expect("a detector");
            let network = config.backbone.architecture_mut();
            network.expect("no custom backbone").set_norm(norm);
            config
        }
        "mobilenet" => {
            let mut backbone = BackboneConfig::named(text("arch")).expect("a MobileNet");
            let network = backbone.architecture_mut();
            network.expect("no custom backbone").set_norm(norm);
            FasterRcnnConfig::new(backbone, num_classes)
        }
        "features" => {
            let name = format!("{}_features", text("arch"));
            let mut backbone = BackboneConfig::named(&name).expect("a backbone of one map");
            let network = backbone.architecture_mut().expect("no custom backbone");
            network.set_norm(norm);
            if norm == NormKind::FrozenBatchNorm2d {
                network.set_norm_eps(1e-5);
            }
            FasterRcnnConfig::new(backbone, num_classes)
        }
        variant => {
            let mut backbone = ResNetFpnConfig {
                arch: text("arch").parse().expect("a ResNet"),
                norm,
                ..Default::default()
            };
            if variant == "narrow" {
                backbone.out_channels = size("out_channels");
            }
            if let Some(layers) = case.get("returned_layers") {
                backbone.returned_layers = serde_json::from_value(layers.clone()).expect("stages");
            }
            FasterRcnnConfig::new(backbone, num_classes)
        }
    };
    if case.get("representation_size").is_some() {
        config.roi_heads.box_head = BoxHeadConfig::TwoMlp {
            representation_size: size("representation_size"),
        };
    }
    config.roi_heads.box_dropout = 0.0; // torchvision's box heads have none
    // The options carry torchvision's names, as the configuration's JSON does.
    let mut json = serde_json::to_value(&config).expect("JSON");
    for options in [&case["options"], &case["branches"]] {
        let fields = json.as_object_mut().expect("an object");
        merge(fields, options.as_object().unwrap_or(&Map::new()));
    }
    config = serde_json::from_value(json).expect("a configuration");
    config.validate().expect("a valid configuration");
    config
}

fn merge(into: &mut Map<String, Value>, options: &Map<String, Value>) {
    for (name, value) in options {
        match (into.get_mut(name), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => merge(inner, value),
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The model with the rule's weights and the case's gains.
pub(crate) fn with_weights<B: Backend, M: Module<B>>(
    case: &Value,
    mut model: M,
    torch_name: impl Fn(&str) -> String,
) -> M {
    let changes = synthetic::Changes {
        gains: serde_json::from_value(case["gains"].clone()).expect("gains"),
        body_bias: case["body_bias"].as_f64().unwrap_or(0.0) as f32,
        norm_weight: case["norm_weight"].as_f64().unwrap_or(0.6) as f32,
    };
    let weights = synthetic::state_dict(&parameter_shapes(&model), &changes, torch_name);
    load_state_dict(&mut model, weights, true).expect("the rule covers every parameter");
    model
}

/// The case's pictures.
pub(crate) fn images<B: Backend>(case: &Value, device: &B::Device) -> Vec<Tensor<B, 3>> {
    let images = case["images"].as_array().expect("images").iter();
    images
        .map(|image| {
            let side = |name: &str| image[name].as_u64().expect("a number") as usize;
            let name = image["name"].as_str().expect("a name");
            synthetic::image(name, side("height"), side("width"), device)
        })
        .collect()
}

/// Compares every stage of a detector, and detections, made twice where it says so.
fn run<B: DetectionBackend, N: Backbone<B>>(
    fixture: &Fixture,
    model: FasterRcnn<B, N>,
    device: &B::Device,
    torch_name: impl Fn(&str) -> String,
    twice: bool,
) {
    let case = &fixture.settings;
    let model = with_weights(case, model, torch_name);
    let images = images(case, device);

    let batch = model.transform.forward(&images).expect("images");
    fixture.assert_sampled("transform.images", batch.tensors.clone(), 1e-5);
    let sizes: Vec<usize> = batch
        .image_sizes
        .iter()
        .flat_map(|size| [size.height, size.width])
        .collect();
    assert_eq!(sizes, fixture.ints("transform.sizes"));

    let cx = &mut Forward::inference();
    let features = model.features(&batch).expect("feature maps");
    for (name, map) in features.iter() {
        fixture.assert_sampled(&format!("features.{name}"), map.clone(), FEATURES);
    }
    let raw = model.rpn.head.forward(&features, cx);
    for (level, (objectness, deltas)) in raw.objectness.iter().zip(&raw.deltas).enumerate() {
        fixture.assert_sampled(
            &format!("rpn.objectness.{level}"),
            objectness.clone(),
            FEATURES,
        );
        fixture.assert_sampled(&format!("rpn.deltas.{level}"), deltas.clone(), FEATURES);
    }
    let anchors = model.rpn.anchors(&features, batch.padded_size());
    // TensorFlow's are not rounded to whole pixels, and the last bits of their roots differ.
    let is_rounded = model.rpn.config.anchor_generator.strides.is_none();
    let tolerance = if is_rounded { 0.0 } else { 1e-6 };
    fixture.assert_sampled("rpn.anchors", Tensor::cat(anchors.clone(), 0), tolerance);

    let proposals =
        model
            .rpn
            .select_proposals(&raw, &anchors, &batch.image_sizes, Phase::Inference);
    let mut expected = Vec::new();
    for (i, found) in proposals.iter().enumerate() {
        let boxes = fixture.boxes(&format!("proposals.{i}"));
        let scores = fixture.floats(&format!("proposal_scores.{i}")).1;
        let reference = Proposals { boxes, scores };
        let unlabelled = |proposals: &Proposals| -> Instances {
            let scored = proposals.boxes.iter().zip(&proposals.scores);
            scored.map(|(b, score)| (*b, 0, *score)).collect()
        };
        let (found, wanted) = (unlabelled(found), unlabelled(&reference));
        assert_same(&format!("proposals of image {i}"), &found, &wanted);
        expected.push(reference);
    }

    // From here on with torchvision's proposals, in torchvision's order.
    let boxes: Vec<&[BBox]> = expected.iter().map(|p| p.boxes.as_slice()).collect();
    let pooled = model.pooled_features(&batch, &features, &expected);
    fixture.assert_sampled("pooled", pooled.clone(), FEATURES);
    let head = model.roi_heads.box_head.forward(pooled, cx);
    fixture.assert_sampled("box_head", head.clone(), FEATURES);
    let predictions = model.roi_heads.box_predictor.forward(head, cx);
    fixture.assert_sampled("class_logits", predictions.class_logits.clone(), FEATURES);
    fixture.assert_sampled(
        "box_regression",
        predictions.box_regression.clone().expect("box deltas"),
        FEATURES,
    );
    let scores = model
        .roi_heads
        .box_branch()
        .class_scores(predictions, &boxes, &batch.image_sizes);
    assert_class_scores(fixture, &batch, &scores, &boxes);

    let detections = model.detect(&images).expect("images");
    assert_eq!(detections.len(), images.len());
    for (i, found) in detections.iter().enumerate() {
        let expected = expected_detections(fixture, i);
        assert_same(&format!("detections of image {i}"), found, &expected);
        assert_branches(fixture, i, found, &expected);
    }
    if twice {
        let again = model.detect(&images).expect("images");
        assert_eq!(detections, again, "two runs differ");
    }
}

/// Asserts that the probabilities are the softmax of torchvision's logits, that torchvision's detections
/// are among the boxes, and that all boxes lie inside their image.
fn assert_class_scores<B: Backend>(
    fixture: &Fixture,
    batch: &ImageList<B>,
    found: &[ClassScores],
    proposals: &[&[BBox]],
) {
    let shape = fixture.ints("class_logits#shape");
    let (_, logits) = fixture.floats("class_logits");
    let softmax = |row: &[f32]| {
        let exp: Vec<f64> = row.iter().map(|logit| f64::from(*logit).exp()).collect();
        let sum: f64 = exp.iter().sum();
        exp.into_iter().map(move |exp| (exp / sum) as f32)
    };
    let expected: Vec<f32> = logits.chunks(shape[1]).flat_map(softmax).collect();
    let scores: Vec<f32> = found.iter().flat_map(|all| all.scores.clone()).collect();
    assert_close("class_scores", &scores, &expected, SCORES);

    assert_eq!(found.len(), proposals.len(), "images of class_scores");
    let sizes = batch.image_sizes.iter().zip(&batch.original_sizes);
    for (i, (all, (&resized, &original))) in found.iter().zip(sizes).enumerate() {
        assert_eq!(all.num_classes, shape[1], "classes of image {i}");
        let count = proposals[i].len() * all.num_classes;
        assert_eq!(all.boxes.len(), count, "boxes of image {i}");
        let (height, width) = (resized.height as f32, resized.width as f32);
        let inside = |b: &BBox| 0.0 <= b[0] && b[2] <= width && 0.0 <= b[1] && b[3] <= height;
        assert!(all.boxes.iter().all(inside), "a box outside of image {i}");

        let classes = (0..all.num_classes).cycle();
        let scored = classes.zip(all.boxes.iter().zip(&all.scores));
        let mut scored: Instances = scored
            .map(|(label, (b, score))| (*b, label, *score))
            .collect();
        scored.resize(resized, original);
        for expected in expected_detections(fixture, i).iter() {
            let known = scored.iter().any(|found| is_same(&found, &expected));
            assert!(known, "class_scores of image {i} are without {expected:?}");
        }
    }
}

/// The same class, and box and score within the tolerances.
fn is_same(found: &Instance, expected: &Instance) -> bool {
    let mut sides = found.bbox.iter().zip(&expected.bbox);
    found.label == expected.label
        && (found.score - expected.score).abs() <= SCORES
        && sides.all(|(f, e)| (f - e).abs() <= PIXELS)
}

/// torchvision's detections of an image.
pub(crate) fn expected_detections(fixture: &Fixture, image: usize) -> Instances {
    let part = |name: &str| format!("detections.{image}.{name}");
    Instances {
        scores: Some(fixture.floats(&part("scores")).1),
        ..Instances::new(fixture.boxes(&part("boxes")), fixture.ints(&part("labels")))
    }
}

/// The same boxes, labels and scores, in the same order but for scores closer than the tolerance.
pub(crate) fn assert_same(what: &str, found: &Instances, expected: &Instances) {
    assert_eq!(found.len(), expected.len(), "number of {what}");
    let mut left: Vec<_> = found.iter().collect();
    for expected in expected.iter() {
        let position = left.iter().position(|found| is_same(found, &expected));
        let position =
            position.unwrap_or_else(|| panic!("{what}: expected {expected:?}; left: {left:?}"));
        left.remove(position);
    }
    let scores = |all: &Instances| all.scores.clone().expect("scores");
    assert_close(what, &scores(found), &scores(expected), SCORES);
}

/// The same masks and keypoints of the detections of an image, where the case has both branches.
fn assert_branches(fixture: &Fixture, image: usize, found: &Instances, expected: &Instances) {
    let name = |part: &str| format!("detections.{image}.{part}");
    if !fixture.has(&name("masks")) {
        assert!(found.mask_probabilities.is_none() && found.keypoints.is_none());
        return;
    }
    let [masks, points, scores] =
        ["masks", "keypoints", "keypoints_scores"].map(|part| fixture.floats(&name(part)).1);
    let masks_found = found.mask_probabilities.as_ref().expect("masks");
    let points_found = found.keypoints.as_ref().expect("keypoints");
    let scores_found = found.keypoint_scores.as_ref().expect("scores");
    for (index, expected) in expected.iter().enumerate() {
        let mut all = found.iter();
        let at = all.position(|found| is_same(&found, &expected));
        let at = at.expect("compared before");
        let what = |part: &str| format!("{part} of detection {index} of image {image}");
        let mask = &masks_found[at].values;
        let wanted = &masks[index * mask.len()..][..mask.len()];
        assert_close(&what("mask"), mask, wanted, SCORES);
        let points_found = points_found[at].0.as_flattened();
        let wanted = &points[index * points_found.len()..];
        for (found, expected) in points_found.iter().zip(wanted) {
            let error = (found - expected).abs();
            assert!(error <= PIXELS, "{}: {error}", what("keypoints"));
        }
        let scores_found = &scores_found[at];
        let wanted = &scores[index * scores_found.len()..][..scores_found.len()];
        assert_close(&what("keypoint scores"), scores_found, wanted, SCORES);
    }
}

/// Cases that every backend runs.
const SMALL: [&str; 6] = [
    "mask_keypoint",
    "mobilenet_v3_large_frozen",
    "resnet18_frozen",
    "resnet18_options",
    "resnet18_shapes",
    "resnet50_v2",
];

/// Cases of many operations, left out where each takes its time, and one whose box head is larger than a buffer of
/// Mesa's software adapter.
const LARGE: [&str; 17] = [
    "inception_v2",
    "mobilenet_v2_features",
    "mobilenet_v3_large_320",
    "mobilenet_v3_large_features",
    "mobilenet_v3_small_features",
    "mobilenet_v3_small_frozen",
    "resnet101_frozen",
    "resnet18_batchnorm",
    "resnet18_fixed_size",
    "resnet18_levels",
    "resnet34_layers23",
    "resnet50_frozen",
    "resnext50_32x4d_frozen",
    "vgg11_bn_features",
    "vgg16_features",
    "vgg16_roi_pool",
    "wide_resnet50_2_frozen",
];

/// Further cases, by the names in `PARITY_CASES`: those of full size, which `make_models.py` writes when it is given their
/// names.
fn of_full_size() -> Vec<&'static str> {
    let names = std::env::var("PARITY_CASES").unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(|name| &*name.to_string().leak()).collect()
}

/// What runs on a backend: small cases, or all.
pub(crate) fn checks<B: DetectionBackend>(extent: Extent) -> Vec<Check<B>> {
    let case = |name: &'static str| {
        let check = move |device: &B::Device| {
            let fixture = Fixture::open(name);
            let model = config(&fixture.settings).init::<B>(device);
            // With every branch, and fast.
            let twice = extent == Extent::All || name == "mask_keypoint";
            let model = model.expect("a model");
            run(&fixture, model, device, str::to_string, twice);
        };
        Check::new(name, check)
    };
    let large = LARGE.into_iter().filter(|_| extent == Extent::All);
    let names = SMALL.into_iter().chain(large).chain(of_full_size());
    let mut checks: Vec<_> = names.map(case).collect();
    checks.push(Check::new("custom_backbone", custom_backbone::<B>));
    if extent == Extent::All {
        checks.push(Check::new("backbones", backbones::<B>));
    }
    checks
}

/// Feature maps of backbones that are in no whole detector here, as `features` of torchvision's classifiers.
fn backbones<B: DetectionBackend>(device: &B::Device) {
    let fixture = Fixture::open("backbones");
    let images = images::<B>(&fixture.settings, device);
    for arch in fixture.settings["archs"].as_array().expect("names") {
        let arch = arch.as_str().expect("a name");
        let config = BackboneConfig::named(&format!("{arch}_features")).expect("a backbone");
        let backbone = config.init::<B>(device).expect("a network");
        let mut backbone = backbone.expect("no custom one");
        let shapes = parameter_shapes(&backbone);
        let of_detector = |name: &str| format!("backbone.{name}");
        let weights = synthetic::state_dict(&shapes, &Default::default(), of_detector);
        load_state_dict(&mut backbone, weights, true).expect("the rule covers every parameter");
        let input = Tensor::stack(images.clone(), 0);
        let maps = backbone.forward(input, &mut Forward::inference());
        let (_, map) = maps.iter().next().expect("a map");
        fixture.assert_sampled(arch, map.clone(), FEATURES);
    }
}

/// What runs on the host alone.
pub(crate) fn host_checks() -> Vec<(&'static str, fn())> {
    vec![("state_dicts", state_dicts), ("macs", macs)]
}

/// Every parameter of every architecture has torchvision's name and shape.
fn state_dicts() {
    let archs: Map<String, Value> = Fixture::json("state_dicts");
    for (name, expected) in archs {
        let config = FasterRcnnConfig::named(&name, 91).expect("a network");
        let model = config.init::<Flex>(&FlexDevice).expect("a model");
        let found: BTreeMap<_, _> = parameter_shapes(&model).into_iter().collect();
        let expected: BTreeMap<String, Vec<usize>> =
            serde_json::from_value(expected).expect("shapes");
        assert_eq!(found, expected, "{name}");
    }
}

/// Multiply-accumulates of every part are those that torch counts.
fn macs() {
    let cases: Map<String, Value> = Fixture::json("macs");
    for (name, case) in cases {
        let config = match &name[..] {
            "resnext50_32x4d" => {
                let backbone = ResNetFpnConfig {
                    arch: ResNetArch::ResNeXt50_32x4d,
                    ..Default::default()
                };
                FasterRcnnConfig::new(backbone, 91)
            }
            "resnet34_layers13" => {
                let backbone = ResNetFpnConfig {
                    arch: ResNetArch::ResNet34,
                    ..Default::default()
                };
                let levels = "levels 0,2,pool".parse().expect("an operation");
                let config = FasterRcnnConfig::new(backbone, 4);
                config.with_surgery(&[levels]).expect("a configuration")
            }
            _ => FasterRcnnConfig::named(&name, 91).expect("a network"),
        };
        let size = serde_json::from_value(case["image_size"].clone()).expect("two numbers");
        let found = config.costs(size).expect("costs");
        assert_eq!(found.padded_size, size, "{name}");
        assert_eq!(Some(found.rois as u64), case["rois"].as_u64(), "{name}");
        let parts = found.parts().into_iter();
        let parts = parts.map(|(part, cost)| (part.to_string(), cost.macs));
        let found: BTreeMap<String, u64> = parts.collect();
        let expected: BTreeMap<String, u64> =
            serde_json::from_value(case["macs"].clone()).expect("counts");
        assert_eq!(found, expected, "{name}");
    }
}

/// torchvision's "anything with `out_channels`": convolutions, one feature map, no pyramid.
#[derive(Module, Debug)]
struct Plain<B: Backend> {
    convs: Vec<Conv2d<B>>,
}

impl<B: Backend> Plain<B> {
    fn new(device: &B::Device) -> Self {
        let conv = |channels: [usize; 2]| {
            Conv2dConfig::new(channels, [3, 3])
                .with_stride([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(device)
        };
        Self {
            convs: [[3, 16], [16, 32], [32, 64], [64, 64]].map(conv).into(),
        }
    }
}

impl<B: Backend> Backbone<B> for Plain<B> {
    fn forward(&self, images: Tensor<B, 4>, _cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
        FeatureMaps::single(
            self.convs
                .iter()
                .fold(images, |x, conv| relu(conv.forward(x))),
        )
    }

    fn levels(&self) -> Vec<LevelSpec> {
        vec![LevelSpec::new("0", 64, 16)]
    }
}

fn custom_backbone<B: DetectionBackend>(device: &B::Device) {
    let fixture = Fixture::open("custom_backbone");
    let config = config(&fixture.settings);
    let model = config
        .init_with_backbone(Plain::<B>::new(device), device)
        .expect("a model");
    // In the `nn.Sequential` every second layer is a ReLU.
    let torch_name = |name: &str| match name.strip_prefix("backbone.convs.") {
        Some(rest) => {
            let (index, parameter) = rest.split_once('.').expect("a parameter");
            format!(
                "backbone.{}.{parameter}",
                2 * index.parse::<usize>().expect("a number")
            )
        }
        None => name.to_string(),
    };
    run(&fixture, model, device, torch_name, true);
}
