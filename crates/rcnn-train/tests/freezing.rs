//! Freezing, its schedule and the factors of the learning rate in whole runs on two small pictures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use image::{Rgb, RgbImage};
use rcnn_core::backbone::{ResNetArch, ResNetFpnConfig};
use rcnn_core::freeze::parse;
use rcnn_core::roi::BoxHeadConfig;
use rcnn_core::weights::{Precision, Weights};
use rcnn_core::{FasterRcnnConfig, Flex};
use rcnn_data::Augmentation;
use rcnn_train::{Decay, OptimizerConfig, Progress, Run, ScheduleConfig, TrainConfig, TrainError};
use tempfile::TempDir;

/// Random weights come from one generator of the process: who draws them while another run has just
/// seeded it changes that run.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder with a small detector and a data set of its classes.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let backbone = ResNetFpnConfig {
        arch: ResNetArch::ResNet18,
        returned_layers: vec![1],
        out_channels: 8,
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::new(backbone, 2);
    config.rpn.anchor_generator.sizes = vec![vec![16.0], vec![32.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![1.0]; 2];
    config.roi_heads.box_head = BoxHeadConfig::TwoMlp {
        representation_size: 16,
    };
    config.transform.min_size = vec![48];
    config.class_names = ["__background__", "cell"].map(String::from).into();
    let weights = {
        let _alone = alone();
        Weights::from_model(&config.init::<Flex>(&Default::default()).expect("a model"))
    };
    let file = folder.path().join("start.bpk");
    weights
        .write_burnpack(file, Precision::F32)
        .expect("written");
    for split in ["train", "val"] {
        let images = [1, 2].map(|id| format!("{split}{id}.png"));
        for (seed, name) in (1u32..).zip(&images) {
            let pixel = |x: u32, y: u32| Rgb([(x * seed * 3) as u8, (y * 4) as u8, (x * y) as u8]);
            let picture = RgbImage::from_fn(64, 48, pixel);
            picture.save(folder.path().join(name)).expect("a picture");
        }
        let image = |id: usize| {
            let name = &images[id - 1];
            serde_json::json!({"id": id, "file_name": name, "width": 64, "height": 48})
        };
        let cell = |id: usize| {
            serde_json::json!({
                "id": id, "image_id": id, "category_id": 1, "bbox": [10, 8, 30, 30],
                "area": 900, "iscrowd": 0
            })
        };
        let labels = serde_json::json!({
            "images": [image(1), image(2)],
            "annotations": [cell(1), cell(2)],
            "categories": [{"id": 1, "name": "cell"}],
        });
        let file = folder.path().join(format!("{split}.json"));
        fs::write(file, labels.to_string()).expect("a file");
    }
    folder
}

fn config(folder: &Path, epochs: usize, freeze: &[&str], factors: &[&str]) -> TrainConfig {
    TrainConfig {
        data: folder.into(),
        weights: Some(folder.join("start.bpk")),
        epochs,
        batch_size: 2,
        loader_threads: 1,
        clip_norm: None,
        freeze: parse(freeze).expect("rules"),
        learning_rate_factors: factors.iter().map(|f| f.parse().expect(f)).collect(),
        schedule: ScheduleConfig {
            warmup_steps: 0,
            decay: Decay::Constant,
            ..Default::default()
        },
        augmentation: Augmentation::none(),
        ..Default::default()
    }
}

/// Trains in a new folder and returns the tensors after the last epoch.
fn train(out: &Path, config: TrainConfig) -> Result<BTreeMap<String, Vec<f32>>, TrainError> {
    let run = Run::create(out, config)?;
    let _alone = alone();
    run.train::<Flex>(&[Default::default()], Progress::Lines)?;
    Ok(tensors(&out.join("last.bpk")))
}

fn tensors(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let weights = Weights::open(file).expect("weights");
    let values = |tensor: &rcnn_core::weights::StateTensor| -> Vec<f32> {
        tensor.to_data().expect("data").into_vec().expect("f32")
    };
    let tensors = weights.tensors.iter();
    tensors.map(|(name, t)| (name.clone(), values(t))).collect()
}

#[test]
fn layers_thaw_when_their_epoch_begins_also_after_a_resumption() {
    let folder = folder();
    let folder = folder.path();
    let start = tensors(&folder.join("start.bpk"));
    let rules = [
        "roi_heads",
        "thaw box_predictor from epoch 2",
        "rpn from epoch 3",
    ];
    let moved = |after: &BTreeMap<String, Vec<f32>>, part: &str| {
        let (mut moved, mut stayed) = (0, 0);
        for (name, values) in after.iter().filter(|(name, _)| name.starts_with(part)) {
            match *values == start[name] {
                true => stayed += 1,
                false => moved += 1,
            }
        }
        assert!(
            moved == 0 || stayed == 0,
            "{part}: {moved} moved, {stayed} not"
        );
        moved > 0
    };

    let first = train(&folder.join("one"), config(folder, 1, &rules, &[])).expect("a run");
    assert!(moved(&first, "rpn.") && moved(&first, "backbone.fpn."));
    assert!(!moved(&first, "roi_heads."));
    // torchvision's default: of this short body nothing is trained.
    assert!(!moved(&first, "backbone.body."));

    let all = folder.join("all");
    let last = train(&all, config(folder, 4, &rules, &[])).expect("a run");
    assert!(moved(&last, "roi_heads.box_predictor."));
    assert!(!moved(&last, "roi_heads.box_head.") && !moved(&last, "backbone.body."));

    // What an interruption in the fourth epoch leaves.
    for part in ["model", "optim", "scheduler"] {
        let file = all.join(format!("checkpoint/{part}-4.mpk"));
        fs::remove_file(file).expect("a checkpoint");
    }
    let run = Run::resume(&all).expect("a run");
    let resumed = run.train::<Flex>(&[Default::default()], Progress::Lines);
    assert_eq!(resumed.expect("a run").epochs, 4);
    assert_eq!(tensors(&all.join("last.bpk")), last);
}

#[test]
fn what_is_frozen_stays_on_several_devices_and_over_summed_batches() {
    let folder = folder();
    let folder = folder.path();
    let start = tensors(&folder.join("start.bpk"));
    let rules = ["backbone", "roi_heads", "thaw box_predictor from epoch 2"];
    for (name, devices, accumulation) in [("devices", 2, 1), ("summed", 1, 2)] {
        let config = TrainConfig {
            batch_size: 1,
            accumulation,
            ..config(folder, 2, &rules, &[])
        };
        let run = Run::create(folder.join(name), config).expect("a run");
        let devices = vec![Default::default(); devices];
        let trained = run.train::<Flex>(&devices, Progress::Lines);
        trained.expect("a run");
        for (parameter, values) in tensors(&folder.join(name).join("last.bpk")) {
            let trained = parameter.starts_with("rpn.") || parameter.contains("box_predictor");
            assert_eq!(values != start[&parameter], trained, "{name}: {parameter}");
        }
    }
}

#[test]
fn a_factor_scales_the_steps_of_its_part() {
    let folder = folder();
    let folder = folder.path();
    let start = tensors(&folder.join("start.bpk"));
    let steps = |name: &str, factors: &[&str]| {
        let config = TrainConfig {
            optimizer: OptimizerConfig {
                momentum: 0.0,
                weight_decay: 0.0,
                ..Default::default()
            },
            ..config(folder, 1, &[], factors)
        };
        let after = train(&folder.join(name), config).expect("a run");
        move |name: &str, of: &BTreeMap<String, Vec<f32>>| -> f64 {
            let pairs = after[name].iter().zip(&of[name]);
            pairs.map(|(a, b)| f64::from(a - b).abs()).sum()
        }
    };
    let plain = steps("plain", &[]);
    let scaled = steps("scaled", &["roi_heads=3", "box_predictor=0.5"]);
    for (name, factor) in [
        ("rpn.head.cls_logits.bias", 1.0),
        ("roi_heads.box_head.fc7.bias", 3.0),
        ("roi_heads.box_predictor.cls_score.bias", 0.5),
    ] {
        let ratio = scaled(name, &start) / plain(name, &start);
        assert!((ratio - factor).abs() < 1e-3 * factor, "{name}: {ratio}");
    }
}

/// A run on the same pictures with masks and keypoints, that adds both heads to the detector.
fn with_heads(folder: &Path, freeze: &[&str], factors: &[&str]) -> TrainConfig {
    for split in ["train", "val"] {
        let file = folder.join(format!("{split}.json"));
        let text = fs::read_to_string(&file).expect("a file");
        let mut labels: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for cell in labels["annotations"].as_array_mut().expect("cells") {
            cell["segmentation"] = serde_json::json!([[10, 8, 40, 8, 40, 38, 10, 38]]);
            cell["keypoints"] = serde_json::json!([12, 10, 2, 38, 36, 1]);
        }
        labels["categories"][0]["keypoints"] = serde_json::json!(["left_tip", "right_tip"]);
        labels["categories"][0]["skeleton"] = serde_json::json!([[1, 2]]);
        fs::write(&file, labels.to_string()).expect("a file");
    }
    let model = serde_json::json!({
        "mask": {"layers": [4], "dim_reduced": 4}, "keypoint": {"layers": [4]}
    });
    TrainConfig {
        optimizer: OptimizerConfig {
            momentum: 0.0,
            weight_decay: 0.0,
            ..Default::default()
        },
        model: model.as_object().expect("an object").clone(),
        ..config(folder, 1, freeze, factors)
    }
}

#[test]
fn heads_added_to_a_trained_detector_are_trained_and_the_frozen_rest_stays() {
    let folder = folder();
    let folder = folder.path();
    let start = tensors(&folder.join("start.bpk"));
    let rules = ["*", "thaw /(mask|keypoint)_/"];
    let after = train(&folder.join("heads"), with_heads(folder, &rules, &[])).expect("a run");
    let branch = |name: &str| name.contains("mask_") || name.contains("keypoint_");
    for (name, values) in &after {
        match start.get(name) {
            Some(before) => assert_eq!(before, values, "{name}"),
            None => assert!(branch(name), "{name}"),
        }
    }
    assert_eq!(after.len(), start.len() + 6 + 4);
    // Biases begin at zero; that of the heat maps has no gradient.
    let moved = |name: &str| after[name].iter().any(|v| *v != 0.0);
    assert!(moved("roi_heads.mask_head.0.0.bias"));
    assert!(moved("roi_heads.mask_predictor.mask_fcn_logits.bias"));
    assert!(moved("roi_heads.keypoint_head.0.bias"));
    let config = Weights::open(folder.join("heads/last.bpk")).expect("weights");
    let keypoint = config.config.roi_heads.keypoint.expect("a keypoint branch");
    assert_eq!(keypoint.names, ["left_tip", "right_tip"]);
    assert_eq!(keypoint.skeleton, [[0, 1]]);
}

#[test]
fn factors_scale_the_steps_of_mask_and_keypoint_heads() {
    let folder = folder();
    let folder = folder.path();
    let after = |name: &str, factors: &[&str]| {
        let config = with_heads(folder, &[], factors);
        train(&folder.join(name), config).expect("a run")
    };
    let (plain, scaled) = (
        after("plain", &[]),
        after("scaled", &["mask_predictor=0.5", "keypoint_head=3"]),
    );
    // Biases begin at zero, so that they are their first step.
    let size = |values: &[f32]| values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
    for (name, factor) in [
        ("mask_predictor.mask_fcn_logits.bias", 0.5),
        ("mask_head.0.0.bias", 1.0),
        ("keypoint_head.0.bias", 3.0),
    ] {
        let name = format!("roi_heads.{name}");
        let ratio = size(&scaled[&name]) / size(&plain[&name]);
        assert!((ratio - factor).abs() < 1e-3 * factor, "{name}: {ratio}");
    }
}

#[test]
fn what_does_not_fit_is_refused_before_training() {
    let folder = folder();
    let folder = folder.path();
    let refused = |name: &str, rules: &[&str], factors: &[&str], says: &str| {
        let run = train(&folder.join(name), config(folder, 1, rules, factors));
        let error = run.expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
        assert!(!folder.join(name).join("model.json").exists());
    };
    let late = ["thaw box_head.fc8 from epoch 7"];
    refused("late", &late, &[], "nearest are roi_heads.box_head.fc");
    refused("factor", &[], &["neck=0.1"], "`neck` matches no parameter");
    refused("all", &["*"], &[], "nothing is left to train");
    let text = "freeze = [\"unfreeze rpn\"]";
    let error = TrainConfig::from_toml(text)
        .expect_err("no rule")
        .to_string();
    assert!(error.contains("`unfreeze rpn`: expected"), "{error}");
}
