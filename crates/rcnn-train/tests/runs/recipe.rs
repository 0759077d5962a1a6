//! Averages, rare classes, more epochs and a few images learned by heart.

use std::fs;
use std::path::Path;

use rcnn_core::weights::Checkpoint;
use rcnn_data::augment::{FixedSizeCrop, ScaleJitter};
use rcnn_train::{Decay, OptimizerConfig, OptimizerKind, Run, TrainConfig};
use rcnn_types::Size;

use super::{copy, lines, tiny, train};

fn same_files(a: &Path, b: &Path, files: &[&str]) {
    for file in files {
        let [a, b] = [a, b].map(|folder| fs::read(folder.join(file)).unwrap());
        assert!(a == b, "{file} differs");
    }
}

/// As a kill in the last epoch leaves it.
fn killed(whole: &Path, cut: &Path, epochs: usize) {
    copy(whole, cut);
    fs::remove_file(cut.join(format!("checkpoint/optim-{epochs}.mpk"))).unwrap();
    fs::remove_file(cut.join("last.bpk")).unwrap();
}

fn values(file: &Path, name: &str) -> Vec<f32> {
    let checkpoint = Checkpoint::open(file).unwrap();
    let data = checkpoint.get(name).expect(name).data().unwrap();
    data.iter::<f32>().collect()
}

/// With an average, what is saved follows the weights; the run itself is the same.
#[test]
fn a_run_with_an_average_saves_it_and_is_resumed_bit_for_bit() {
    let (folder, mut config) = tiny(3);
    config.optimizer.learning_rate = 0.01;
    config.repeat_threshold = Some(0.9);
    let [plain, whole, cut] = ["plain", "whole", "cut"].map(|name| folder.path().join(name));
    train(&Run::create(&plain, config.clone()).unwrap()).unwrap();
    config.ema = Some(0.9);
    train(&Run::create(&whole, config).unwrap()).unwrap();
    let losses = |folder: &Path| -> Vec<_> {
        let lines = lines(folder).into_iter();
        lines.filter(|line| line["split"] == "train").collect()
    };
    assert_eq!(losses(&plain), losses(&whole));
    for name in [
        "roi_heads.box_predictor.cls_score.weight",
        "backbone.body.bn1.running_var",
    ] {
        let [plain, averaged] = [&plain, &whole].map(|run| values(&run.join("last.bpk"), name));
        assert_ne!(plain, averaged, "{name}");
    }
    killed(&whole, &cut, 3);
    train(&Run::resume(&cut).unwrap()).unwrap();
    same_files(&whole, &cut, &["last.bpk", "best.bpk", "metrics.jsonl"]);
}

#[test]
fn images_of_rare_classes_lengthen_the_epoch() {
    let (folder, mut config) = tiny(1);
    // Six images show the first class, two the second.
    for i in [1, 3] {
        let label = config.data.join(format!("labels/train/{i}.txt"));
        let text = fs::read_to_string(&label).unwrap();
        fs::write(label, text.replacen('1', "0", 1)).unwrap();
    }
    config.repeat_threshold = Some(1.0);
    let run = Run::create(folder.path().join("run"), config).unwrap();
    train(&run).unwrap();
    let lines = lines(run.folder());
    let steps = lines.iter().filter(|line| line["split"] == "train").count();
    // sqrt(1 / 0.75) for six and sqrt(1 / 0.25) for two images: 10.9 of them, in batches of two.
    assert_eq!(steps, 5);
}

#[test]
fn a_run_without_a_cosine_goes_on_for_longer_as_if_it_had_been_meant_to() {
    let (folder, mut config) = tiny(4);
    config.schedule.decay = Decay::Step;
    config.schedule.milestones = vec![3];
    let [whole, longer, cosine] = ["whole", "longer", "cosine"].map(|n| folder.path().join(n));
    train(&Run::create(&whole, config.clone()).unwrap()).unwrap();
    config.epochs = 2;
    train(&Run::create(&longer, config.clone()).unwrap()).unwrap();
    let mut run = Run::resume(&longer).unwrap();
    let fewer = run.set_epochs(1).unwrap_err().to_string();
    assert!(fewer.contains("2 are trained already"), "{fewer}");
    run.set_epochs(4).unwrap();
    assert_eq!(train(&run).unwrap().epochs, 4);
    same_files(
        &whole,
        &longer,
        &["last.bpk", "best.bpk", "metrics.jsonl", "run.toml"],
    );

    config.schedule.decay = Decay::Cosine;
    let mut run = Run::create(&cosine, config).unwrap();
    let refused = run.set_epochs(4).unwrap_err().to_string();
    assert!(refused.contains("cosine over 2 epochs"), "{refused}");
    assert_eq!(run.config().epochs, 2);
}

/// A check that works: one picture is learned, so that its loss falls and its object is found.
#[test]
fn one_picture_is_learned_by_heart() {
    let (folder, mut config) = tiny(4);
    config.overfit = Some(1);
    config.optimizer = OptimizerConfig {
        kind: OptimizerKind::AdamW,
        learning_rate: 0.003,
        ..Default::default()
    };
    let run = Run::create(folder.path().join("run"), config).unwrap();
    let report = train(&run).unwrap();
    let lines = lines(run.folder());
    let losses: Vec<f64> = lines
        .iter()
        .filter(|line| line["split"] == "train")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    assert_eq!(losses.len(), 4 * 50);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[190..]));
    assert!(last < 0.25 * first, "{first} {last}");
    // 0.9 as the mean of ten precisions.
    assert!(report.best_ap > 0.9 - 1e-9, "{report:?}");
}

/// The detector would have resized what comes in the size that it is to be trained at.
#[test]
fn images_of_a_fixed_size_are_trained_at_it() {
    let (folder, config) = tiny(1);
    let first = |name: &str, change: &dyn Fn(&mut TrainConfig)| {
        let mut config = config.clone();
        change(&mut config);
        let run = Run::create(folder.path().join(name), config).unwrap();
        train(&run).unwrap();
        lines(run.folder()).swap_remove(0)
    };
    let unresized = first("unresized", &|config| {
        config.model.insert("_skip_resize".into(), true.into());
    });
    let window = |side| FixedSizeCrop {
        size: Size::new(side, side),
        ..Default::default()
    };
    let cut = first("cut", &|config| {
        config.model.insert("min_size".into(), vec![96].into());
        config.model.insert("max_size".into(), 96.into());
        config.augmentation.fixed_size_crop = Some(window(64));
    });
    assert_eq!(unresized, cut);
    let jittered = first("jittered", &|config| {
        config.augmentation.scale_jitter = Some(ScaleJitter::default());
        config.augmentation.fixed_size_crop = Some(window(96));
    });
    assert_ne!(unresized, jittered);
}

/// A student with half the channels, which needs adapters: they are trained and resumed, and not saved with the model.
#[test]
fn a_student_learns_from_a_teacher_of_other_channels() {
    let (folder, mut config) = tiny(2);
    let [large, whole, cut] = ["large", "whole", "cut"].map(|name| folder.path().join(name));
    train(&Run::create(&large, config.clone()).unwrap()).unwrap();
    config.teacher = Some(large.join("last.bpk"));
    config.distillation.logits = 1.0;
    let backbone = config.model["backbone"].as_object_mut().unwrap();
    backbone.insert("out_channels".into(), 8.into());
    let run = Run::create(&whole, config.clone()).unwrap();
    train(&run).unwrap();
    let losses = [
        "classifier",
        "box_reg",
        "objectness",
        "rpn_box_reg",
        "pkd",
        "logits",
    ];
    for line in lines(&whole) {
        let is_train = line["split"] == "train";
        let each = losses.map(|name| line[name].as_f64());
        assert_eq!(
            each.map(|loss| loss.is_some())[4..],
            [is_train; 2],
            "{line}"
        );
        let sum: f64 = each.into_iter().flatten().sum();
        assert!(
            (line["loss"].as_f64().unwrap() - sum).abs() < 1e-5,
            "{line}"
        );
        // Its share of the time is another one every time.
        assert!(line["teacher"].is_null());
    }
    let steps: Vec<f64> = lines(&whole)
        .iter()
        .filter_map(|line| line["pkd"].as_f64())
        .collect();
    assert!(steps[7] < steps[0] && steps[0] < 6.5, "{steps:?}");
    let checkpoint = Checkpoint::open(whole.join("last.bpk")).unwrap();
    assert!(checkpoint.iter().all(|(name, _)| !name.contains("adapter")));
    let text = fs::read_to_string(whole.join("run.toml")).unwrap();
    assert!(
        text.contains("[distillation]\nfeatures = 6.0\nlogits = 1.0"),
        "{text}"
    );

    drop(run);
    killed(&whole, &cut, 2);
    train(&Run::resume(&cut).unwrap()).unwrap();
    same_files(&whole, &cut, &["last.bpk", "metrics.jsonl"]);

    let fails = |name: &str, change: &dyn Fn(&mut TrainConfig)| {
        let mut config = config.clone();
        change(&mut config);
        let run = Run::create(folder.path().join(name), config).unwrap();
        train(&run).unwrap_err().to_string()
    };
    let error = fails("levels", &|config| {
        let backbone = config.model["backbone"].as_object_mut().unwrap();
        backbone.insert("returned_layers".into(), vec![1, 2].into());
    });
    assert!(
        error.contains("last.bpk: its levels are 0 (16 channels, stride 4)"),
        "{error}"
    );
    let error = fails("anchors", &|config| {
        let anchors = serde_json::json!({"sizes": [[8.0]], "aspect_ratios": [[0.5, 1.0, 2.0]]});
        config.model.insert("rpn_anchor_generator".into(), anchors);
    });
    assert!(error.contains("requires the student's anchors"), "{error}");
    let error = fails("mean", &|config| {
        config
            .model
            .insert("image_mean".into(), vec![0.5; 3].into());
    });
    assert!(error.contains("normalises images with mean"), "{error}");
}

/// TensorBoard's own reader checks these in `tests/reference/tensorboard_scalars.py`.
#[test]
fn tensorboard_gets_the_values_of_every_step() {
    let (folder, mut config) = tiny(2);
    config.tensorboard = true;
    let out = folder.path().join("run");
    train(&Run::create(&out, config).unwrap()).unwrap();
    let files = || {
        let files = fs::read_dir(&out).unwrap().map(|file| file.unwrap().path());
        let is_events = |path: &std::path::PathBuf| path.to_string_lossy().contains("tfevents");
        let mut files: Vec<_> = files.filter(is_events).collect();
        files.sort();
        files
    };
    let records = |file: &Path| {
        let (bytes, mut records, mut at) = (fs::read(file).unwrap(), 0, 0);
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            at += 8 + 4 + length as usize + 4;
            records += 1;
        }
        assert_eq!(at, bytes.len());
        records
    };
    // The version, the start, and two epochs of four steps and a validation.
    assert_eq!(files().len(), 1);
    assert_eq!(records(&files()[0]), 2 + 2 * (4 + 1));
    // A resumed run goes on in another file.
    fs::remove_file(out.join("checkpoint/model-2.mpk")).unwrap();
    train(&Run::resume(&out).unwrap()).unwrap();
    assert_eq!(files().len(), 2);
    assert_eq!(records(&files()[1]), 2 + 4 + 1);
}
