//! `rcnn train`, killed and resumed; and the bundled detector.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};

use rcnn_burn::weights::{Precision, Weights};

use super::{FOLDER, assert_fails, json, path, rcnn, stdout};

const RUN: &str = r#"
data = "blobs"
train_split = "train"
valid_split = "train"
epochs = 6
batch_size = 2
seed = 7

[model]
min_size = [64]
max_size = 64
backbone = { arch = "resnet18", returned_layers = [1], out_channels = 8, max_pool_level = false }
box_head = { representation_size = 8 }
rpn_post_nms_top_n_train = 50
box_batch_size_per_image = 16

[schedule]
warmup_steps = 2
"#;

/// Six pictures of a square, in YOLO's form, and the description of a run on them.
pub(super) fn blobs() {
    // Once: another test may be reading them.
    static MADE: Once = Once::new();
    MADE.call_once(make_blobs);
}

fn make_blobs() {
    let root = path("blobs");
    for folder in ["images/train", "labels/train"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    for i in 0..6u32 {
        let inside = |v: u32, from: u32| (from..from + 24).contains(&v);
        let picture = RgbImage::from_fn(64, 64, |x, y| {
            Rgb([if inside(x, 6 * i) && inside(y, 20) {
                240
            } else {
                40
            }; 3])
        });
        picture
            .save(root.join(format!("images/train/{i}.png")))
            .expect("a picture");
        let label = format!("0 {} 0.5 0.375 0.375\n", f64::from(6 * i + 12) / 64.0);
        fs::write(root.join(format!("labels/train/{i}.txt")), label).expect("a file");
    }
    fs::write(
        root.join("data.yaml"),
        "train: images/train\nnames: [blob]\n",
    )
    .expect("a file");
    fs::write(path("run.toml"), RUN).expect("a file");
}

#[test]
fn a_killed_run_goes_on_as_if_nothing_had_happened() {
    blobs();
    let train = |out| rcnn(&["train", "--config", "run.toml", "--out", out]);
    let whole = train("whole");
    let said = stdout(&whole);
    assert!(said.contains("6 epochs"), "{said}");
    let told = String::from_utf8_lossy(&whole.stderr);
    for line in ["6 images to train on", "epoch 6/6  validated on"] {
        assert!(told.contains(line), "`{line}` is not in: {told}");
    }
    for file in [
        "run.toml",
        "given.toml",
        "command.txt",
        "curves.png",
        "best.bpk",
    ] {
        assert!(path("whole").join(file).is_file(), "{file}");
    }

    let mut child = Command::new(env!("CARGO_BIN_EXE_rcnn"))
        .args(["train", "--config", "run.toml", "--out", "killed"])
        .current_dir(FOLDER.path())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let start = Instant::now();
    while !path("killed/checkpoint/scheduler-2.mpk").exists() {
        assert!(
            start.elapsed() < Duration::from_secs(300),
            "no checkpoint in five minutes"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    // The folder is the running one's.
    let holder = format!("in use by process {}", child.id());
    assert_fails(&rcnn(&["train", "--resume", "--out", "killed"]), 1, &holder);
    child.kill().expect("it runs");
    child.wait().expect("it ended");
    assert_fails(&train("killed"), 1, "already holds a run");
    let other = rcnn(&["train", "--resume", "--out", "killed", "--epochs", "9"]);
    assert_fails(&other, 1, "falls along a cosine over 6 epochs");
    assert_fails(&other, 1, "continues with the options that it started with");
    assert_fails(&other, 1, "from its weights with --weights ");
    let other = rcnn(&["train", "--resume", "--out", "killed", "--batch-size", "3"]);
    assert_fails(&other, 1, "continues with the options that it started with");
    stdout(&rcnn(&["train", "--resume", "--out", "killed"]));
    for file in ["last.bpk", "best.bpk", "metrics.jsonl"] {
        let read = |run| fs::read(path(run).join(file)).expect("a file");
        assert!(read("whole") == read("killed"), "{file} differs");
    }
}

#[test]
fn wrong_runs_are_refused() {
    blobs();
    let train = |rest: &[&str]| rcnn(&[&["train", "--data", "blobs"], rest].concat());
    assert_fails(&rcnn(&["train"]), 2, "--data");
    assert_fails(
        &rcnn(&["train", "--resume", "--out", "no"]),
        1,
        "holds no run",
    );
    assert_fails(&train(&["--out", "a", "--arch", "resnet9"]), 1, "resnet9");
    assert_fails(
        &train(&["--out", "b", "--learning-rate=-1"]),
        1,
        "learning_rate = -1",
    );
    assert_fails(&train(&["--out", "dot.png/c"]), 1, "dot.png");
    assert_fails(
        &train(&["--out", "d", "--weights", "text.jpg"]),
        1,
        "this is text",
    );
    fs::write(path("wrong.toml"), "data = \"blobs\"\n[optimiser]\n").expect("a file");
    let wrong = rcnn(&["train", "--config", "wrong.toml", "--out", "e"]);
    assert_fails(&wrong, 1, "optimizer");
}

/// The file's weights were looked for although an argument gave others.
#[test]
fn weights_of_the_file_that_an_argument_replaces_are_not_looked_for() {
    blobs();
    let missing =
        "weights = \"gone.pth\"\nbackbone_weights = \"gone.pth\"\nteacher = \"gone.pth\"\n";
    fs::write(path("gone.toml"), format!("{missing}{RUN}")).expect("a file");
    let run = |options: &[&str]| {
        let train = ["train", "--config", "gone.toml", "--out", "replaced"];
        rcnn(&[&train[..], options].concat())
    };
    let [weights, backbone, teacher] = ["--weights", "--backbone-weights", "--teacher"];
    assert_fails(&run(&[]), 1, "gone.pth: no such file");
    let some = [weights, "cut.bpk", teacher, "cut.bpk"];
    assert_fails(&run(&some), 1, "gone.pth: no such file");
    let all = [&some[..], &[backbone, "cut.bpk"]].concat();
    assert_fails(&run(&all), 1, "cut.bpk");
    let prune = [
        "prune",
        "model.bpk",
        "--macs",
        "0.5",
        "--recipe",
        "gone.toml",
        "--data",
        "nowhere",
        "--out",
        "replaced",
    ];
    assert_fails(&rcnn(&prune), 1, "gone.pth: no such file");
    fs::write(path("gone.toml"), format!("weights = \"gone.pth\"\n{RUN}")).expect("a file");
    assert_fails(&rcnn(&prune), 1, "nowhere: No such file");
}

#[test]
fn the_detector_that_comes_along_finds_cells() {
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/blood-cells.jpg");
    let found = json(&rcnn(&[
        "detect",
        "--format",
        "json",
        "--score-thresh",
        "0.5",
        picture,
    ]));
    let count = |name: &str| {
        let detections = found[0]["detections"].as_array().expect("an array");
        detections.iter().filter(|d| d["name"] == name).count()
    };
    assert!(count("RBC") >= 8 && count("WBC") >= 1, "{found}");
    let inspected = stdout(&rcnn(&["inspect", "blood-cells"]));
    assert!(inspected.contains("Platelets"), "{inspected}");
}

#[test]
fn what_the_data_lack_is_said_in_training() {
    blobs();
    let root = path("lacking");
    for folder in ["images", "labels"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    for i in 0..3 {
        let picture = format!("blobs/images/train/{i}.png");
        fs::copy(path(&picture), root.join(format!("images/{i}.png"))).expect("a copy");
    }
    fs::write(root.join("labels/0.txt"), "0 0.2 0.5 0.5 0.375\n").expect("a file");
    fs::write(root.join("labels/1.txt"), "0 0.5 0.5 0.375 0.375\n").expect("a file");
    fs::write(root.join("classes.txt"), "blob\nblot\n").expect("a file");
    let args = [
        "train",
        "--data",
        "lacking",
        "--arch",
        "resnet18",
        "--min-size",
        "32",
    ];
    let rest = [
        "--max-size",
        "32",
        "--epochs",
        "1",
        "--progress",
        "lines",
        "--out",
    ];
    let train = |more: &[&str]| rcnn(&[&args[..], &rest, more].concat());
    let refused = train(&["lacking-run"]);
    assert_fails(&refused, 1, "--clip cuts boxes to their image");
    let trained = train(&["lacking-run", "--clip"]);
    stdout(&trained);
    let told = String::from_utf8_lossy(&trained.stderr);
    for says in [
        "boxes cut to the image: 1",
        "images without labels, taken for background: 1",
        "3 images, too few to set some apart: all are trained and validated on",
        "batch_size = 4: with 3 training images, steps are of 3",
        "all: no box of blot",
    ] {
        assert!(told.contains(says), "`{says}` is not in: {told}");
    }
}

#[test]
fn classes_of_weights_without_names_are_said() {
    blobs();
    let file = path("nameless.bpk");
    let mut weights = Weights::open(path("model.bpk")).expect("a model");
    weights.config.class_names = Vec::new();
    weights
        .write_burnpack(&file, Precision::F32)
        .expect("written");
    fs::write(
        path("blobs/three.yaml"),
        "train: images/train\nnames: [blob, blot, blub]\n",
    )
    .expect("a file");
    let args = [
        "train",
        "--data",
        "blobs/three.yaml",
        "--train-split",
        "train",
        "--valid-split",
        "train",
    ];
    let rest = [
        "--epochs",
        "1",
        "--batch-size",
        "6",
        "--out",
        "nameless",
        "--weights",
        "nameless.bpk",
    ];
    let trained = rcnn(&[&args[..], &rest].concat());
    stdout(&trained);
    let told = String::from_utf8_lossy(&trained.stderr);
    let says = "the weights carry no class names; their classes are taken for the data's, in this order: blob, blot, blub";
    assert!(told.contains(says), "{told}");
}
