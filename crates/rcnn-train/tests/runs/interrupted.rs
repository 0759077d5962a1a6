//! Runs that are killed, fail, or find something else than they left.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::Autodiff;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rcnn_core::backbone::{Backbone, FeatureMaps, Forward, LevelSpec};
use rcnn_core::rpn::AnchorGenerator;
use rcnn_core::{FasterRcnnConfig, Flex};
use rcnn_train::{Decay, Progress, Run, TrainError};

use super::{copy, lines, tiny, train};

#[test]
fn an_interrupted_run_ends_as_an_uninterrupted_one() {
    let (folder, mut config) = tiny(3);
    config.optimizer.learning_rate = 0.01;
    let [whole, cut] = ["whole", "cut"].map(|name| folder.path().join(name));
    let report = train(&Run::create(&whole, config).unwrap()).unwrap();
    assert_eq!(report.epochs, 3);
    for file in [
        "run.toml",
        "model.json",
        "best.bpk",
        "best.json",
        "curves.png",
    ] {
        assert!(whole.join(file).is_file(), "{file}");
    }
    let steps = lines(&whole);
    assert_eq!(steps.len(), 3 * (4 + 1));
    assert_eq!(steps[4]["split"], "valid");
    assert!(steps[4]["AP"].as_f64().is_some());
    for line in &steps {
        let loss = |name| line[name].as_f64().expect(name);
        let each = ["classifier", "box_reg", "objectness", "rpn_box_reg"].map(loss);
        let sum: f64 = each.iter().sum();
        assert!((loss("loss") - sum).abs() < 1e-6, "{line}");
    }

    // As a kill in the third epoch leaves it: one part of a checkpoint, a file being written, and a
    // line that was cut off.
    copy(&whole, &cut);
    let checkpoints = cut.join("checkpoint");
    fs::remove_file(checkpoints.join("optim-3.mpk")).unwrap();
    fs::write(checkpoints.join(".tmpx"), "half").unwrap();
    fs::remove_file(cut.join("last.bpk")).unwrap();
    let metrics = fs::read_to_string(cut.join("metrics.jsonl")).unwrap();
    fs::write(cut.join("metrics.jsonl"), &metrics[..metrics.len() - 20]).unwrap();
    train(&Run::resume(&cut).unwrap()).unwrap();
    let read = |folder: &PathBuf, file| fs::read(folder.join(file)).unwrap();
    assert!(
        read(&whole, "last.bpk") == read(&cut, "last.bpk"),
        "other weights"
    );
    assert_eq!(lines(&whole), lines(&cut));

    // A finished run has nothing to do.
    let again = train(&Run::resume(&cut).unwrap()).unwrap();
    assert_eq!(again.epochs, 3);

    // A damaged checkpoint is named.
    let model = checkpoints.join("model-3.mpk");
    let bytes = fs::read(&model).unwrap();
    let damaged = |bytes: &[u8]| {
        fs::write(&model, bytes).unwrap();
        let error = train(&Run::resume(&cut).unwrap()).unwrap_err().to_string();
        assert!(error.contains("model-3.mpk: damaged: "), "{error}");
        error
    };
    assert!(damaged(&bytes[..100]).ends_with("cut off after 100 bytes"));
    assert!(damaged(&bytes[..bytes.len() - 41]).contains("cut off"));
    assert!(damaged(&[]).ends_with("cut off after 0 bytes"));
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    assert!(damaged(&flipped).contains("checksum"));
    let optimizer = fs::read(checkpoints.join("optim-3.mpk")).unwrap();
    assert!(damaged(&optimizer).contains("another model"));
    // Checkpoints of earlier versions have no checksum.
    fs::write(&model, &bytes[..bytes.len() - 40]).unwrap();
    train(&Run::resume(&cut).unwrap()).unwrap();
}

/// It was asked for again, and with it the names of its classes.
#[test]
fn the_weights_that_a_run_began_with_may_be_gone() {
    let (folder, mut config) = tiny(1);
    config.schedule.decay = Decay::Constant;
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    train(&Run::create(&first, config.clone()).unwrap()).unwrap();
    let weights = folder.path().join("moved.bpk");
    fs::rename(first.join("best.bpk"), &weights).unwrap();
    config.weights = Some(weights.clone());
    train(&Run::create(&second, config).unwrap()).unwrap();
    fs::remove_file(weights).unwrap();
    let mut run = Run::resume(&second).unwrap();
    run.set_epochs(2).unwrap();
    assert_eq!(train(&run).unwrap().epochs, 2);
}

#[test]
fn two_processes_do_not_train_in_one_folder() {
    let (folder, config) = tiny(1);
    let out = folder.path().join("run");
    let run = Run::create(&out, config.clone()).unwrap();
    let in_use = |result: Result<Run, TrainError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, TrainError::Lock(_)), "{error}");
        let text = error.to_string();
        let process = format!("in use by process {}", std::process::id());
        assert!(text.contains(&process), "{text}");
    };
    in_use(Run::create(&out, config));
    in_use(Run::resume(&out));
    let also = run.clone();
    drop(run);
    in_use(Run::resume(&out));
    drop(also);
    Run::resume(&out).unwrap();
}

/// The checkpoint was whole, but the line of its epoch had not been written: the epoch was missing for ever.
#[test]
fn an_epoch_that_was_not_logged_is_trained_again() {
    let (folder, config) = tiny(3);
    let out = folder.path().join("run");
    train(&Run::create(&out, config).unwrap()).unwrap();
    let metrics = out.join("metrics.jsonl");
    let (whole, model) = (lines(&out), fs::read(out.join("last.bpk")).unwrap());
    let text = fs::read_to_string(&metrics).unwrap();
    let cut: Vec<&str> = text.lines().take(14).collect();
    fs::write(&metrics, cut.join("\n")).unwrap();
    let run = Run::resume(&out).unwrap();
    assert_eq!(run.last_checkpoint().unwrap(), Some(2));
    train(&run).unwrap();
    assert_eq!(lines(&out), whole);
    assert!(fs::read(out.join("last.bpk")).unwrap() == model);

    drop(run);
    fs::remove_file(metrics).unwrap();
    let error = train(&Run::resume(&out).unwrap()).unwrap_err().to_string();
    assert!(error.contains("metrics.jsonl is missing"), "{error}");
}

#[test]
fn data_that_changed_since_are_noticed() {
    let (folder, mut config) = tiny(2);
    let out = folder.path().join("run");
    let data = config.data.clone();
    config.epochs = 2;
    train(&Run::create(&out, config).unwrap()).unwrap();
    let resumed = || train(&Run::resume(&out).unwrap());
    let changed = |file: &str, to: Option<&[u8]>, expected: &str| {
        let path = data.join(file);
        let before = fs::read(&path).unwrap();
        match to {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = resumed().unwrap_err();
        assert!(matches!(error, TrainError::DataChanged { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        fs::write(path, before).unwrap();
        resumed().unwrap();
    };
    let label = b"1 0.25 0.5 0.375 0.375\n";
    changed(
        "labels/train/1.txt",
        Some(label),
        "1 training images have other labels or pixels (images/train/1.png)",
    );
    // As many bytes as before, so that only what they are shows it.
    let mut picture = fs::read(data.join("images/train/2.png")).unwrap();
    *picture.last_mut().unwrap() ^= 1;
    changed(
        "images/train/2.png",
        Some(&picture),
        "1 training images have other labels or pixels (images/train/2.png)",
    );
    changed("labels/val/0.txt", None, "1 validation images have other");
    changed("images/train/7.png", None, "1 training images are gone");
    let yaml = b"train: images/train\nval: images/val\nnames: [red, blue]\n";
    changed(
        "data.yaml",
        Some(yaml),
        "the classes were red, green and are red, blue",
    );
    fs::copy(
        data.join("images/val/0.png"),
        data.join("images/train/new.png"),
    )
    .unwrap();
    let error = resumed().unwrap_err().to_string();
    assert!(error.contains("are new (images/train/new.png)"), "{error}");
    let mut run = Run::resume(&out).unwrap();
    run.accept_changed_data();
    train(&run).unwrap();
    drop(run);
    resumed().unwrap();
}

#[test]
fn what_a_killed_run_left_half_written_is_removed() {
    let (folder, config) = tiny(1);
    let out = folder.path().join("run");
    drop(Run::create(&out, config).unwrap());
    let left = [
        out.join(".rcnn-1-abcdef.tmp"),
        out.join("checkpoint/.rcnn-1-abcdef.tmp"),
        // Of earlier versions.
        out.join(".tmpAbC123"),
        out.join("checkpoint/.tmpAbC123"),
    ];
    left.iter()
        .for_each(|file| fs::write(file, "half").unwrap());
    Run::resume(&out).unwrap();
    assert!(left.iter().all(|file| !file.exists()));
    assert!(out.join("run.toml").is_file());
}

#[test]
fn a_loss_that_is_no_number_stops_the_run() {
    let (folder, mut config) = tiny(3);
    config.clip_norm = None;
    config.optimizer.learning_rate = 1e20;
    config.schedule.decay = Decay::Constant;
    let out = folder.path().join("run");
    let error = train(&Run::create(&out, config.clone()).unwrap()).unwrap_err();
    assert!(
        matches!(error, TrainError::NotFinite { epoch: 1, .. }),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains(".png") && text.contains("step"), "{text}");
    assert!(text.contains("There is no checkpoint yet"), "{text}");
    assert!(!out.join("best.bpk").exists());
    // The gradients of the step that failed changed nothing, and it has no loss.
    let place = |error: &TrainError| match error {
        TrainError::NotFinite { epoch, step, .. } => (*epoch, *step),
        _ => panic!("{error}"),
    };
    let logged = lines(&out);
    assert_eq!(logged.len() + 1, place(&error).1, "{logged:?}");
    assert!(
        logged.iter().all(|line| line["loss"].as_f64() > Some(0.0)),
        "{logged:?}"
    );

    // It stops at the same step, and says so. (Without clipping, which got lost in run.toml.)
    let again = train(&Run::resume(&out).unwrap()).unwrap_err();
    let text = again.to_string();
    assert!(text.contains("The run has stopped here before"), "{text}");
    let TrainError::Again { error: again, .. } = again else {
        panic!("{again}");
    };
    assert_eq!(place(&again), place(&error));
    let again = Run::create(&out, config).unwrap_err().to_string();
    assert!(again.contains("already holds a run"), "{again}");
}

/// A backbone that panics, as a device without memory does, after some passes.
#[derive(Module, Debug)]
struct Exhausted<B: Backend> {
    conv: Conv2d<B>,
    #[module(skip)]
    passes: Arc<AtomicUsize>,
}

impl<B: Backend> Backbone<B> for Exhausted<B> {
    fn forward(&self, images: Tensor<B, 4>, _: &mut Forward<'_, B>) -> FeatureMaps<B> {
        let left = self.passes.load(Ordering::Relaxed);
        assert!(left > 0, "out of memory");
        self.passes.store(left - 1, Ordering::Relaxed);
        FeatureMaps::single(self.conv.forward(images))
    }

    fn levels(&self) -> Vec<LevelSpec> {
        vec![LevelSpec::new("0", 8, 16)]
    }
}

/// With two devices, the run waited for ever for the thread that had panicked.
#[test]
fn a_panic_stops_a_run_with_an_error() {
    let mut described = FasterRcnnConfig::custom(3);
    described.rpn.anchor_generator = AnchorGenerator {
        sizes: vec![vec![32.0]],
        aspect_ratios: vec![vec![1.0]],
        strides: None,
    };
    described.transform.min_size = vec![64];
    // Of an epoch: four steps (two with two devices), and two batches to validate.
    for (name, devices, passes) in [("train", 1, 6 + 2), ("valid", 1, 5), ("two", 2, 3)] {
        let (folder, config) = tiny(2);
        let run = Run::create(folder.path().join(name), config).unwrap();
        let device = Default::default();
        let conv = Conv2dConfig::new([3, 8], [16, 16]).with_stride([16, 16]);
        let backbone = Exhausted {
            conv: conv.init(&device),
            passes: Arc::new(passes.into()),
        };
        let model = described.init_with_backbone::<Autodiff<Flex>, _>(backbone, &device);
        let devices = vec![device; devices];
        let error = run.train_model::<Flex, _>(model.unwrap(), &devices, Progress::Lines);
        let error = error.unwrap_err();
        assert!(
            matches!(error, TrainError::Panicked { .. }),
            "{name}: {error}"
        );
        let text = error.to_string();
        assert!(text.contains("out of memory"), "{text}");
        let kept = [
            "The checkpoint of epoch 1 is kept",
            "There is no checkpoint yet",
        ];
        assert!(text.contains(kept[usize::from(name != "train")]), "{text}");
        let logged = lines(run.folder());
        let has_loss = |line: &serde_json::Value| line["loss"].as_f64() > Some(0.0);
        assert!(logged.iter().all(has_loss), "{logged:?}");
        let validated = logged
            .iter()
            .filter(|line| line["split"] == "valid")
            .count();
        assert_eq!(validated, usize::from(name == "train"), "{logged:?}");
    }
}
