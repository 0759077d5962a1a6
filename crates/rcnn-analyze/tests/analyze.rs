//! Analyses of small models, compared with models that really lack the layers.

use std::sync::Mutex;

use image::{Rgb, RgbImage};
use rcnn_analyze::{Analysis, AnalyzeError, Sample, analyze, draw_chart, feature_maps};
use rcnn_core::backbone::{ResNetArch, ResNetFpnConfig};
use rcnn_core::surgery::Operation;
use rcnn_core::types::{ImageInstances, Keypoints, Mask};
use rcnn_core::weights::Weights;
use rcnn_core::{Backend, FasterRcnnConfig, Flex, Instances, Size};

/// A model of random weights with a box head such as `fc:16,fc:16`. Flex has one generator for all threads: the tests
/// take turns.
fn weights(box_head: &str) -> Weights {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _turn = GENERATOR.lock();
    let device = Default::default();
    Flex::seed(&device, 1);
    let backbone = ResNetFpnConfig {
        arch: ResNetArch::ResNet18,
        returned_layers: vec![1, 2],
        out_channels: 8,
        max_pool_level: false,
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::new(backbone, 3);
    config.class_names = ["__background__", "a", "b"].map(String::from).into();
    config.rpn.anchor_generator.sizes = vec![vec![16.0], vec![32.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![1.0]; 2];
    config.rpn.post_nms_top_n_test = 50;
    config.roi_heads.box_head = box_head.parse().expect("a box head");
    config.transform.min_size = vec![64];
    Weights::from_model(&config.init::<Flex>(&device).expect("a model"))
}

/// Two pictures with a bright square, the second one of another shape.
fn samples() -> Vec<Sample> {
    let sample = |(image_id, width): (u64, u32)| Sample {
        image: RgbImage::from_fn(width, 64, |x, y| {
            let inside = (10..40).contains(&x) && (20..50).contains(&y);
            Rgb([if inside { 220 } else { ((x * 3) ^ y) as u8 }; 3])
        }),
        truth: Some(ImageInstances {
            image_id,
            file_name: String::new(),
            instances: Instances {
                crowd: Some(vec![false]),
                areas: Some(vec![900.0]),
                ..Instances::new(vec![[10.0, 20.0, 40.0, 50.0]], vec![1])
            },
        }),
    };
    [(1, 64), (2, 96)].map(sample).into()
}

/// Number of elements of all tensors.
fn elements(weights: &Weights) -> usize {
    let elements = weights.tensors.values();
    elements.map(|t| t.shape.iter().product::<usize>()).sum()
}

fn analyzed(weights: &Weights, samples: &[Sample]) -> Analysis {
    let mut passes = (0, 0);
    let tick = &mut |done, all| passes = (done, all);
    let analysis = analyze::<Flex>(weights, samples, &Default::default(), tick);
    assert_eq!(passes.0, passes.1, "passes are counted");
    analysis.expect("an analysis")
}

#[test]
fn a_layer_left_out_is_as_if_it_were_removed() {
    for (box_head, removable) in [
        (
            "fc:16,fc:16",
            &[
                "--drop-block layer1.0",
                "--drop-block layer1.1",
                "--drop-block layer2.1",
                "--rpn-convs 0",
                "--box-head fc:16",
                "--no-box-regression",
            ][..],
        ),
        (
            "conv_bn:8,fc:12,fc:12,fc:12",
            &[
                "--drop-block layer1.0",
                "--drop-block layer1.1",
                "--drop-block layer2.1",
                "--rpn-convs 0",
                "--box-head conv_bn:8,fc:12x2",
                "--no-box-regression",
            ],
        ),
    ] {
        let weights = weights(box_head);
        let samples = samples();
        let analysis = analyzed(&weights, &samples);
        let mut options: Vec<&str> = Vec::new();
        for layer in &analysis.layers {
            let Some(option) = &layer.removed_by else {
                continue;
            };
            options.push(option);
            let operation: Operation = option[2..].parse().expect("an operation");
            let operated = weights.with_surgery::<Flex>(&[operation], &Default::default());
            let (removed, report) = operated.expect("the layer goes");
            assert!(report.to_string().contains("kept"), "{report}");
            let other = analyzed(&removed, &samples).quality.expect("labels");
            let without = layer.without.expect("left out");
            assert_eq!(without.ap, other.ap, "{option}");
            match option.as_str() {
                "--no-box-regression" => assert_eq!(without.loss, None),
                _ => assert_eq!(without.loss, other.loss, "{option}"),
            }
            assert_ne!(without.loss, analysis.quality.expect("labels").loss);
        }
        options.sort_unstable();
        let mut removable = removable.to_vec();
        removable.sort_unstable();
        assert_eq!(options, removable);
    }
}

#[test]
fn every_layer_is_counted_and_measured() {
    let weights = weights("fc:16,fc:16");
    let samples = samples();
    let analysis = analyzed(&weights, &samples);
    assert_eq!(analysis.parameters, elements(&weights));
    let macs = |size| weights.config.costs(size).expect("costs").total().macs;
    assert_eq!(
        analysis.macs,
        (macs(Size::new(64, 64)) + macs(Size::new(64, 96))) / 2
    );
    for layer in &analysis.layers {
        assert!(layer.seconds > 0.0, "{}", layer.name);
        let steps = ["rpn: proposals", "roi_heads: detections"];
        assert_eq!(layer.output.is_none(), steps.contains(&&layer.name[..]));
        // Frozen norms aside, all that has parameters gets a gradient.
        let trained = layer.gradient_norm.is_some_and(|norm| norm > 0.0);
        assert_eq!(trained, layer.parameters > 0, "{}", layer.name);
    }
    let stem = analysis
        .layers
        .iter()
        .find(|l| l.name == "backbone.body.conv1");
    let zeros = stem.expect("a stem").output.expect("an output").zeros;
    assert!((0.01..0.99).contains(&zeros), "a ReLU: {zeros}");

    let json = serde_json::to_value(&analysis).expect("JSON");
    assert_eq!(json["layers"][0]["name"], analysis.layers[0].name);
    let (table, chart) = (analysis.to_string(), draw_chart(&analysis));
    for (row, layer) in (0..).zip(&analysis.layers) {
        assert!(table.contains(&layer.name));
        // A name in dark pixels, and a bar from the same place on.
        let y = 64 + 22 * row;
        let mut name = (0..300).flat_map(|x| (y..y + 22).map(move |y| (x, y)));
        assert!(name.any(|(x, y)| chart.get_pixel(x, y).0[0] < 100));
        assert_eq!(chart.get_pixel(300, y + 11).0, [0, 98, 178]);
    }
}

#[test]
fn mask_and_keypoint_branches_are_counted_and_measured() {
    let operations = ["mask-head conv:4x2", "keypoint-head conv:4/2"];
    let operations = operations.map(|text| text.parse::<Operation>().expect("an operation"));
    let plain = weights("fc:16,fc:16");
    let (weights, _) = plain
        .with_surgery::<Flex>(&operations, &Default::default())
        .expect("branches");
    let mut samples = samples();
    for sample in &mut samples {
        let size = Size::from_dimensions(sample.image.dimensions());
        let truth = &mut sample.truth.as_mut().expect("labels").instances;
        let square = vec![10.0, 20.0, 40.0, 20.0, 40.0, 50.0, 10.0, 50.0];
        truth.masks = Some(vec![Mask::from_polygons(&[square], size)]);
        truth.keypoints = Some(vec![Keypoints(vec![[12.0, 22.0, 2.0], [38.0, 48.0, 1.0]])]);
    }
    let analysis = analyzed(&weights, &samples);
    assert_eq!(analysis.parameters, elements(&weights));
    for (name, parameters) in [
        ("mask_head.0", 8 * 4 * 9 + 4),
        ("mask_head.1", 4 * 4 * 9 + 4),
        ("mask_predictor.conv5_mask", 4 * 4 * 4 + 4),
        ("mask_predictor.mask_fcn_logits", 4 * 3 + 3),
        ("keypoint_head.0", 8 * 4 * 9 + 4),
        ("keypoint_predictor.kps_score_lowres", 4 * 2 * 16 + 2),
    ] {
        let mut layers = analysis.layers.iter();
        let layer = layers.find(|layer| layer.name == format!("roi_heads.{name}"));
        let layer = layer.unwrap_or_else(|| panic!("no layer {name}"));
        assert_eq!(layer.parameters, parameters, "{name}");
        assert!(layer.macs > 0 && layer.seconds > 0.0, "{name}");
        assert!(layer.output.is_some(), "{name}");
        assert!(layer.gradient_norm.is_some_and(|norm| norm > 0.0), "{name}");
    }
}

/// Crowd flags are not given if there is no crowd; all objects used to vanish then.
#[test]
fn without_crowd_flags_every_object_counts() {
    let (weights, samples) = (weights("fc:16,fc:16"), samples());
    let mut without = samples.clone();
    for sample in &mut without {
        sample.truth.as_mut().expect("labels").instances.crowd = None;
    }
    let [flagged, plain] = [samples, without].map(|samples| analyzed(&weights, &samples));
    assert_eq!(plain.quality, flagged.quality);
    let norms = |analysis: &Analysis| -> Vec<_> {
        let mut norms: Vec<_> = analysis
            .layers
            .iter()
            .map(|layer| (layer.name.clone(), layer.gradient_norm))
            .collect();
        norms.sort_by(|a, b| a.0.cmp(&b.0));
        norms
    };
    assert_eq!(norms(&plain), norms(&flagged));
}

#[test]
fn truth_with_too_few_labels_is_refused() {
    let mut samples = samples();
    let truth = samples[1].truth.as_mut().expect("labels");
    truth.instances.labels.clear();
    let weights = weights("none");
    let error = analyze::<Flex>(&weights, &samples, &Default::default(), &mut |_, _| ());
    let error = error.expect_err("no label for a box").to_string();
    assert!(
        error.contains("image 2: objects: labels = 0 values: expected 1"),
        "{error}"
    );
}

#[test]
fn pictures_without_labels_are_measured_too() {
    let mut samples = samples();
    samples[1].truth = None;
    let analysis = analyzed(&weights("fc:16,fc:16"), &samples);
    assert!(analysis.quality.is_none());
    let measured = |l: &rcnn_analyze::Layer| l.gradient_norm.is_some() || l.without.is_some();
    assert!(!analysis.layers.iter().any(measured));
    assert!(!analysis.to_string().contains("gradient"));
    let none = analyze::<Flex>(&weights("none"), &[], &Default::default(), &mut |_, _| ());
    assert!(matches!(none, Err(AnalyzeError::NoPictures)));
}

#[test]
fn feature_maps_go_by_name() {
    let device = Default::default();
    let model = weights("fc:16,fc:16")
        .load::<Flex>(&device)
        .expect("a model");
    let picture = &samples()[1].image;
    let draw = |pattern: &str| feature_maps(&model, picture, &[pattern.to_string()], &device);
    let maps = draw("*.layer1.*").expect("maps");
    let names: Vec<&str> = maps.iter().map(|map| map.name.as_str()).collect();
    assert_eq!(names, ["backbone.body.layer1.0", "backbone.body.layer1.1"]);
    // 64 channels of 16x24, four times as large.
    let side = |cells: u32, length: u32| cells * (length + 2) + 2;
    assert_eq!(maps[0].picture.dimensions(), (side(8, 96), side(8, 64)));
    let maps = draw("rpn.head.conv.0").expect("maps");
    let names: Vec<&str> = maps.iter().map(|map| map.name.as_str()).collect();
    assert_eq!(names, ["rpn.head.conv.0@0", "rpn.head.conv.0@1"]);
    let error = draw("layer9").unwrap_err().to_string();
    assert!(error.contains("layer9: no feature maps") && error.contains("backbone.body.conv1"));
    assert!(draw("[").is_err());
}
