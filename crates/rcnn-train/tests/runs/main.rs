//! Whole runs of a tiny detector on pictures of squares.

mod data;
mod interrupted;
mod recipe;

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use image::{Rgb, RgbImage};
use rcnn_core::Flex;
use rcnn_core::weights::Weights;
use rcnn_train::{
    Decay, OptimizerConfig, OptimizerKind, Progress, Report, Run, ScheduleConfig, TrainConfig,
    TrainError,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A YOLO data set: red and green squares on grey, in two splits.
fn squares(folder: &Path) {
    for (split, count) in [("train", 8), ("val", 3)] {
        let (images, labels) = (
            folder.join("images").join(split),
            folder.join("labels").join(split),
        );
        fs::create_dir_all(&images).unwrap();
        fs::create_dir_all(&labels).unwrap();
        for i in 0..count {
            let mut picture = RgbImage::from_pixel(64, 64, Rgb([128; 3]));
            let (class, x, y) = (i % 2, 4 + 5 * i, 30 - 3 * i);
            let colour = [Rgb([220, 30, 30]), Rgb([30, 200, 30])][class as usize];
            for (dx, dy) in (0..24).flat_map(|dx| (0..24).map(move |dy| (dx, dy))) {
                picture.put_pixel(x.min(39) + dx, y + dy, colour);
            }
            picture.save(images.join(format!("{i}.png"))).unwrap();
            let [cx, cy] = [x.min(39) + 12, y + 12].map(|v| f64::from(v) / 64.0);
            let label = format!("{class} {cx} {cy} 0.375 0.375\n");
            fs::write(labels.join(format!("{i}.txt")), label).unwrap();
        }
    }
    let yaml = "train: images/train\nval: images/val\nnames: [red, green]\n";
    fs::write(folder.join("data.yaml"), yaml).unwrap();
}

/// A folder with the data, and the description of a run on them.
fn tiny(epochs: usize) -> (TempDir, TrainConfig) {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    squares(&data);
    let model = json!({
        "backbone": {
            "arch": "resnet18", "returned_layers": [1], "out_channels": 16, "max_pool_level": false,
        },
        "box_head": {"representation_size": 16},
        "min_size": [64], "max_size": 64,
        "rpn_pre_nms_top_n_train": 50, "rpn_post_nms_top_n_train": 50,
        "rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_test": 50,
        "rpn_batch_size_per_image": 32, "box_batch_size_per_image": 16,
    });
    let config = TrainConfig {
        data,
        epochs,
        batch_size: 2,
        model: model.as_object().unwrap().clone(),
        schedule: ScheduleConfig {
            warmup_steps: 2,
            decay: Decay::Cosine,
            ..Default::default()
        },
        ..Default::default()
    };
    (folder, config)
}

fn train(run: &Run) -> Result<Report, TrainError> {
    train_on(1, run)
}

fn train_on(devices: usize, run: &Run) -> Result<Report, TrainError> {
    // Random weights come from the generator of the process: runs at the same time disturb each other.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    run.train::<Flex>(&vec![Default::default(); devices], Progress::Lines)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        match path.is_dir() {
            true => copy(&path, &to.join(target)),
            false => drop(fs::copy(&path, to.join(target)).unwrap()),
        }
    }
}

fn lines(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let parse = |line| serde_json::from_str(line).unwrap();
    text.lines().map(parse).collect()
}

#[test]
fn training_learns_and_starts_from_what_it_learned() {
    let (folder, mut config) = tiny(6);
    config.optimizer = OptimizerConfig {
        kind: OptimizerKind::AdamW,
        learning_rate: 0.003,
        ..Default::default()
    };
    let first = folder.path().join("first");
    train(&Run::create(&first, config.clone()).unwrap()).unwrap();
    let loss = |line: &Value| line["loss"].as_f64().unwrap();
    let steps: Vec<f64> = lines(&first)
        .iter()
        .filter(|line| line["split"] == "train")
        .map(loss)
        .collect();
    let mean = |steps: &[f64]| steps.iter().sum::<f64>() / steps.len() as f64;
    assert!(mean(&steps[20..]) < 0.8 * mean(&steps[..4]), "{steps:?}");

    // The same classes in another order keep the predictor; gradients of two steps are averaged; the
    // run ends when the AP stays.
    let yaml = config.data.join("data.yaml");
    let text = fs::read_to_string(&yaml).unwrap();
    fs::write(&yaml, text.replace("[red, green]", "{0: red, 1: green}")).unwrap();
    config.model = Default::default();
    config.weights = Some(first.join("last.bpk"));
    config.accumulation = 2;
    config.epochs = 30;
    config.patience = Some(1);
    config.optimizer.learning_rate = 1e-6;
    let second = folder.path().join("second");
    let report = train(&Run::create(&second, config).unwrap()).unwrap();
    assert!(report.epochs < 30, "{report:?}");
    let start = loss(&lines(&second)[0]);
    assert!(start < 0.9 * steps[0], "{start} {steps:?}");
    let model = Weights::open(second.join("best.bpk")).unwrap();
    assert_eq!(model.config.class_names[1..], ["red", "green"]);
}

#[test]
fn what_cannot_run_is_refused_before_any_work() {
    let (folder, config) = tiny(1);
    let out = folder.path().join("run");
    let error = |result: Result<Run, TrainError>| result.unwrap_err().to_string();

    let wrong = TrainConfig {
        batch_size: 0,
        ..config.clone()
    };
    assert!(error(Run::create(&out, wrong)).contains("batch_size = 0"));
    assert!(error(Run::resume(&out)).contains("run.toml"));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(error(Run::create(file.join("run"), config.clone())).contains("file"));
    assert!(
        TrainConfig::from_toml("epoch = 3")
            .unwrap_err()
            .to_string()
            .contains("epochs")
    );

    let fails = |change: &dyn Fn(&mut TrainConfig)| {
        let mut config = config.clone();
        change(&mut config);
        // What was refused leaves the folder free.
        train(&Run::create(&out, config).unwrap())
            .unwrap_err()
            .to_string()
    };
    assert!(fails(&|c| c.train_split = Some("tain".into())).contains("tain"));
    assert!(fails(&|c| c.freeze = vec!["layer9".parse().unwrap()]).contains("layer9"));
    assert!(fails(&|c| c.weights = Some("absent.bpk".into())).contains("absent.bpk"));
    assert!(fails(&|c| drop(c.model.insert("minsize".into(), json!(1)))).contains("min_size"));
    fs::write(config.data.join("labels/train/0.txt"), "0 0.5 0.5 0 0.1\n").unwrap();
    assert!(fails(&|_| ()).contains("0.txt"));

    fs::write(out.join("run.toml"), "epochs = ").unwrap();
    assert!(error(Run::resume(&out)).contains("run.toml"));
}

#[test]
fn several_devices_share_the_steps() {
    let (folder, mut config) = tiny(4);
    config.optimizer.learning_rate = 0.02;
    let out = folder.path().join("run");
    let run = Run::create(&out, config).unwrap();
    train_on(2, &run).unwrap();
    let lines = lines(&out);
    let valid: Vec<f64> = lines
        .iter()
        .filter(|line| line["split"] == "valid")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    assert_eq!(valid.len(), 4);
    assert!(valid[3] < valid[0], "{valid:?}");
    // Two batches a step: the rate of the schedule has come to its end all the same.
    let mut rates = lines
        .iter()
        .filter_map(|line| line["Learning Rate"].as_f64());
    assert!(rates.next_back().unwrap() < 0.005);
}
