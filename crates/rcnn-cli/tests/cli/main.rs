//! The `rcnn` command from outside: what it prints, and that nothing makes it panic.

mod analyze;
mod config;
mod datasets;
mod devices;
mod eval;
mod export;
mod faults;
mod overwrite;
mod prune;
#[cfg(feature = "serve")]
mod serve;
mod shapes;
mod simd;
mod tiles;
mod train;
mod video;
mod weights;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::LazyLock;

use image::{Rgb, RgbImage};
use rcnn_burn::backbone::{ResNetArch, ResNetFpnConfig};
use rcnn_burn::image::open_rgb;
use rcnn_burn::roi::BoxHeadConfig;
use rcnn_burn::weights::{Precision, Weights};
use rcnn_burn::{FasterRcnnConfig, Flex};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a small model of random weights and a few pictures, made once.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let backbone = ResNetFpnConfig {
        arch: ResNetArch::ResNet18,
        returned_layers: vec![1],
        out_channels: 8,
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::new(backbone, 4);
    config.rpn.anchor_generator.sizes = vec![vec![32.0], vec![64.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![0.5, 1.0, 2.0]; 2];
    config.rpn.post_nms_top_n_test = 50;
    config.roi_heads.box_head = BoxHeadConfig::TwoMlp {
        representation_size: 16,
    };
    config.roi_heads.detections_per_img = 10;
    config.transform.min_size = vec![64];
    config.transform.max_size = 128;
    config.class_names = ["__background__", "RBC", "WBC", "Platelets"]
        .map(String::from)
        .into();
    let model = config.init::<Flex>(&Default::default()).expect("a model");
    let weights = Weights::from_model(&model);
    weights
        .write_burnpack(folder.path().join("model.bpk"), Precision::F32)
        .expect("written");

    let picture = |width, height| {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 7) as u8, (y * 5) as u8, (x * y) as u8])
        })
    };
    fs::create_dir(folder.path().join("pictures")).expect("a folder");
    picture(80, 60)
        .save(folder.path().join("pictures/a.png"))
        .expect("a picture");
    fs::write(folder.path().join("pictures/b.jpg"), jpeg(&picture(50, 70))).expect("a picture");
    picture(1, 1)
        .save(folder.path().join("dot.png"))
        .expect("a picture");
    picture(3000, 2)
        .save(folder.path().join("line.png"))
        .expect("a picture");
    let jpeg = jpeg(&picture(80, 60));
    fs::write(folder.path().join("cut.jpg"), &jpeg[..jpeg.len() / 2]).expect("a file");
    fs::write(folder.path().join("empty.jpg"), "").expect("a file");
    fs::write(folder.path().join("text.jpg"), "this is no picture").expect("a file");
    fs::create_dir(folder.path().join("nothing")).expect("a folder");
    let model = fs::read(folder.path().join("model.bpk")).expect("a model");
    fs::write(folder.path().join("cut.bpk"), &model[..model.len() / 2]).expect("a file");
    folder
});

/// A JPEG that `rcnn` did not write.
fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let rgb = libjpeg_turbo_rs::PixelFormat::Rgb;
    libjpeg_turbo_rs::Encoder::new(picture, width, height, rgb)
        .encode()
        .expect("a picture")
}

fn path(name: &str) -> PathBuf {
    FOLDER.path().join(name)
}

/// Runs the command in the folder.
fn rcnn(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_rcnn"))
        .args(arguments)
        .current_dir(FOLDER.path())
        .output()
        .expect("the command starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
    output
}

fn detect(arguments: &[&str]) -> Output {
    rcnn(&[&["detect", "--weights", "model.bpk"], arguments].concat())
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "failed: {errors}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).expect("JSON")
}

/// Asserts that the command failed with this status and said this.
fn assert_fails(output: &Output, code: i32, says: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(says), "`{says}` is not in: {errors}");
}

#[test]
fn json_has_an_object_for_each_image() {
    let found = json(&detect(&["--format", "json", "pictures"]));
    let images = found.as_array().expect("an array");
    assert_eq!(images.len(), 2);
    let first = &images[0];
    assert_eq!(first["image"], "pictures/a.png");
    assert_eq!(
        (first["width"].as_u64(), first["height"].as_u64()),
        (Some(80), Some(60))
    );
    let detections = first["detections"].as_array().expect("an array");
    assert!(!detections.is_empty(), "random weights find something");
    for d in detections {
        let b: Vec<f64> = serde_json::from_value(d["box"].clone()).expect("four numbers");
        assert!(0.0 <= b[0] && b[0] < b[2] && b[2] <= 80.0, "{b:?}");
        assert!(0.0 <= b[1] && b[1] < b[3] && b[3] <= 60.0, "{b:?}");
        let label = d["label"].as_u64().expect("a label") as usize;
        assert_eq!(d["name"], ["RBC", "WBC", "Platelets"][label - 1]);
        assert!(d["score"].as_f64().expect("a score") > 0.05);
    }
    let batched = json(&detect(&[
        "--format",
        "json",
        "--batch-size",
        "2",
        "pictures",
    ]));
    assert_eq!(batched.as_array().expect("an array").len(), 2);
    let again = json(&detect(&["--format", "json", "pictures"]));
    assert_eq!(again, found, "two runs differ");
    // Two small pictures are computed side by side.
    for one in images {
        let name = one["image"].as_str().expect("a name");
        let alone = json(&detect(&["--format", "json", name]));
        assert_eq!(alone[0], *one);
    }
}

#[test]
fn jsonl_coco_and_table() {
    let lines = stdout(&detect(&["--format", "jsonl", "pictures/*"]));
    assert_eq!(lines.lines().count(), 2);
    let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    let coco = json(&detect(&["--format", "coco", "pictures/a.png"]));
    let (b, d) = (&coco[0]["bbox"], &first["detections"][0]);
    let side = |i: usize| d["box"][i + 2].as_f64().unwrap() - d["box"][i].as_f64().unwrap();
    assert!((b[2].as_f64().unwrap() - side(0)).abs() < 1e-4);
    assert!((b[3].as_f64().unwrap() - side(1)).abs() < 1e-4);
    assert_eq!(coco[0]["category_id"], d["label"]);
    // A position must not be the number that another picture is named after.
    fs::create_dir_all(path("numbered")).expect("a folder");
    fs::copy(path("pictures/a.png"), path("numbered/a.png")).expect("a copy");
    fs::copy(path("pictures/a.png"), path("numbered/1.png")).expect("a copy");
    let pictures = ["numbered/a.png", "numbered/1.png"];
    let coco = json(&detect(&[&["--format", "coco"], &pictures[..]].concat()));
    for result in coco.as_array().expect("an array") {
        let id = if result["file_name"] == "numbered/1.png" {
            1
        } else {
            2
        };
        assert_eq!(result["image_id"], id, "{result}");
    }
    let table = stdout(&detect(&["pictures/a.png"]));
    assert!(table.starts_with("pictures/a.png  80x60  "), "{table}");
    let nothing = stdout(&detect(&[
        "--score-thresh",
        "1",
        "--format",
        "json",
        "pictures/a.png",
    ]));
    let nothing: Value = serde_json::from_str(&nothing).expect("JSON");
    assert_eq!(nothing[0]["detections"].as_array().map(Vec::len), Some(0));
    let nothing = stdout(&detect(&[
        "--score-thresh",
        "1",
        "--format",
        "coco",
        "pictures/a.png",
    ]));
    assert_eq!(nothing.trim(), "[]");
}

#[test]
fn classes_labels_and_counts() {
    let args = ["--format", "json", "pictures/a.png"];
    let found = json(&detect(&[&["--classes", "WBC,3"], &args[..]].concat()));
    let labels = found[0]["detections"].as_array().expect("an array").iter();
    assert!(labels.clone().all(|d| d["label"] != 1));
    let one = json(&detect(
        &[&["--detections-per-img", "1"], &args[..]].concat(),
    ));
    assert_eq!(one[0]["detections"].as_array().map(Vec::len), Some(1));
    assert_fails(
        &detect(&["--classes", "cat", "dot.png"]),
        1,
        "the model knows RBC, WBC",
    );
    fs::write(path("labels.txt"), "red\nwhite\nplate\n").expect("a file");
    let named = json(&detect(&[&["--labels", "labels.txt"], &args[..]].concat()));
    let name = named[0]["detections"][0]["name"].as_str().expect("a name");
    assert!(["red", "white", "plate"].contains(&name));
    fs::write(path("two.txt"), "red\nwhite\n").expect("a file");
    assert_fails(
        &detect(&["--labels", "two.txt", "dot.png"]),
        1,
        "2 names, but the model has 3",
    );
}

#[test]
fn pictures_are_drawn() {
    stdout(&detect(&[
        "--output",
        "drawn",
        "--draw-thresh",
        "0",
        "pictures",
        "pictures/a.png",
    ]));
    for (name, size) in [
        ("a.png", (80, 60)),
        ("b.jpg", (50, 70)),
        ("a_2.png", (80, 60)),
    ] {
        let drawn = open_rgb(path("drawn").join(name)).expect("a picture");
        assert_eq!(drawn.dimensions(), size);
    }
    let drawn = image::open(path("drawn/a.png"))
        .expect("a picture")
        .into_rgb8();
    let original = image::open(path("pictures/a.png"))
        .expect("a picture")
        .into_rgb8();
    assert_ne!(drawn, original);

    // Improbable detections are not drawn unless asked for.
    stdout(&detect(&["--output", "likely", "pictures/a.png"]));
    let likely = image::open(path("likely/a.png")).expect("a picture");
    assert_eq!(likely.into_rgb8(), original);
}

#[test]
fn a_folder_of_folders_is_looked_through_when_asked() {
    for name in [
        "tree/day1/a.png",
        "tree/day2/more/a.png",
        "tree/.cache/a.png",
    ] {
        fs::create_dir_all(path(name).parent().expect("a folder")).expect("a folder");
        fs::copy(path("pictures/a.png"), path(name)).expect("a copy");
    }
    let flat = detect(&["tree"]);
    assert_fails(
        &flat,
        1,
        "2 folders in it were not looked in (rcnn detect --recursive)",
    );
    let found = json(&detect(&["--recursive", "--format", "json", "tree"]));
    let images: Vec<_> = found.as_array().expect("an array").iter().collect();
    let names = images
        .iter()
        .map(|image| image["image"].as_str().expect("text"));
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["tree/day1/a.png", "tree/day2/more/a.png"]
    );
}

/// A telephone's pictures were left out without a word.
#[test]
fn pictures_of_formats_that_are_not_read_are_mentioned() {
    fs::create_dir_all(path("phone")).expect("a folder");
    for name in ["IMG_1.HEIC", "IMG_2.heic", "notes.txt"] {
        fs::write(path("phone").join(name), "").expect("a file");
    }
    let none = detect(&["phone"]);
    assert_fails(
        &none,
        1,
        "2 pictures are of formats that are not read, such as phone/IMG_1.HEIC",
    );
    fs::copy(path("pictures/a.png"), path("phone/a.png")).expect("a copy");
    let some = detect(&["phone"]);
    let errors = String::from_utf8_lossy(&some.stderr);
    assert!(
        some.status.success() && errors.contains("note: phone: 2 pictures"),
        "{errors}"
    );
}

#[test]
fn odd_shapes_are_ordinary() {
    let found = json(&detect(&["--format", "json", "dot.png", "line.png"]));
    assert_eq!(found.as_array().map(Vec::len), Some(2));
}

#[test]
fn a_bad_picture_is_reported_and_the_rest_goes_on() {
    for (bad, says) in [
        ("empty.jpg", "is empty"),
        ("text.jpg", "is not a picture but"),
        ("cut.jpg", "cut short"),
        ("missing.jpg", "missing.jpg"),
    ] {
        assert_fails(&detect(&["--format", "json", bad]), 1, says);
        let output = detect(&["--format", "json", bad, "pictures/a.png"]);
        assert_fails(&output, 3, says);
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{bad}");
    }
    assert_fails(&detect(&["nothing"]), 1, "no pictures in this folder");
    assert_fails(&detect(&["nothing/*.png"]), 1, "no file matches");
}

#[test]
fn bad_weights_are_told_apart() {
    let with = |weights: &str| rcnn(&["detect", "--weights", weights, "dot.png"]);
    assert_fails(&with("cut.bpk"), 1, "cut off");
    assert_fails(&with("empty.jpg"), 1, "the file is empty");
    assert_fails(&with("text.jpg"), 1, "this is text");
    assert_fails(&with("missing.pth"), 1, "missing.pth: no such file");
    assert_fails(&with("RESNET9000"), 1, "no published weights; known are");
    assert_fails(&with("."), 1, "a folder without a model of TensorFlow");
    assert_fails(
        &rcnn(&["train", "--data", ".", "--weights", "blood-cells"]),
        1,
        "rcnn convert blood-cells",
    );
    assert_fails(
        &detect(&["--model", "vgg", "--num-classes", "4", "dot.png"]),
        1,
        "known are",
    );
    let other = ["--model", "resnet50", "--num-classes", "4", "dot.png"];
    assert_fails(&detect(&other), 1, "missing from the checkpoint");
    assert_fails(
        &detect(&["--num-classes", "9", "dot.png"]),
        1,
        "4 classes, not 9",
    );
    assert_fails(
        &detect(&["--device", "tpu", "dot.png"]),
        2,
        "no such device",
    );
    assert_fails(
        &detect(&["--score-thresh", "2", "dot.png"]),
        2,
        "from 0 to 1",
    );
}

#[test]
fn an_unwritable_folder_is_told_before_the_work() {
    // A file where the folder should be: not even root can write there.
    assert_fails(&detect(&["--output", "dot.png", "pictures"]), 1, "dot.png");
    assert_fails(
        &rcnn(&["convert", "model.bpk", "-o", "dot.png/m.bpk"]),
        1,
        "dot.png/m.bpk",
    );
    assert_fails(
        &rcnn(&["convert", "model.bpk", "-o", "m.onnx"]),
        1,
        ".bpk or .safetensors",
    );
}

#[test]
fn convert_and_back() {
    stdout(&rcnn(&["convert", "model.bpk", "-o", "there.safetensors"]));
    stdout(&rcnn(&["convert", "there.safetensors", "-o", "back.bpk"]));
    assert_eq!(
        fs::read(path("back.bpk")).expect("a file"),
        fs::read(path("model.bpk")).expect("a file")
    );
    let found = |weights: &str| {
        json(&rcnn(&[
            "detect",
            "--weights",
            weights,
            "--format",
            "json",
            "pictures",
        ]))
    };
    assert_eq!(found("there.safetensors"), found("model.bpk"));
    stdout(&rcnn(&[
        "convert",
        "model.bpk",
        "-o",
        "half.bpk",
        "--dtype",
        "f16",
    ]));
    let size = |name: &str| fs::metadata(path(name)).expect("a file").len();
    assert!(size("half.bpk") < size("model.bpk") * 6 / 10);
}

#[test]
fn inspect_tells_architecture_and_parameters() {
    let report = json(&rcnn(&["inspect", "model.bpk", "--format", "json"]));
    assert_eq!(report["format"], "burnpack");
    assert_eq!(report["num_classes"], 4);
    assert_eq!(report["config"]["min_size"][0], 64);
    let tensors = report["tensors"].as_array().expect("an array");
    let conv1 = tensors
        .iter()
        .find(|t| t["name"] == "backbone.body.conv1.weight")
        .expect("conv1");
    assert_eq!(conv1["shape"], serde_json::json!([64, 3, 7, 7]));
    let count: u64 = tensors
        .iter()
        .map(|t| t["count"].as_u64().expect("a count"))
        .sum();
    assert_eq!(report["parameters"], count);
    let table = stdout(&rcnn(&["inspect", "model.bpk", "--depth", "1"]));
    for text in [
        "resnet18-FPN",
        "3 and the background: RBC, WBC, Platelets",
        "configuration stored in the file",
        "norm epsilon  1e-5",
        "roi_heads",
    ] {
        assert!(table.contains(text), "{text} is not in: {table}");
    }
    assert!(!table.contains("cls_score"));
    assert_fails(&rcnn(&["inspect", "cut.bpk"]), 1, "cut off");
}

#[test]
fn inspect_shows_what_would_be_frozen() {
    let inspect = |rules: &[&str], others: &[&str]| {
        let rules = rules.iter().flat_map(|rule| ["--freeze", rule]);
        let args: Vec<&str> = ["inspect", "model.bpk"].into_iter().chain(rules).collect();
        rcnn(&[&args, others].concat())
    };
    let rules = ["backbone.fpn", "box_head", "thaw box_head.fc7 from epoch 5"];
    let table = stdout(&inspect(&rules, &["--depth", "2"]));
    let line = |text: &str| {
        let line = table.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("{text} is not in: {table}"))
    };
    assert!(line("    fpn").starts_with("frozen"), "{table}");
    assert!(line("  backbone").starts_with("partly"), "{table}");
    assert!(line("  rpn").starts_with("  "), "{table}");
    let frozen = line(" parameters frozen").to_string();
    assert!(frozen.starts_with("8 of 23 parameters frozen"), "{frozen}");
    assert!(line("from epoch 5 on").contains("6 of 23"), "{table}");

    let report = json(&inspect(&rules, &["--format", "json"]));
    assert_eq!(report["freeze"][1]["from_epoch"], 5);
    assert_eq!(report["freeze"][1]["frozen"], 6);
    let tensors = report["tensors"].as_array().expect("an array");
    let frozen = |name: &str| &tensors.iter().find(|t| t["name"] == name).expect(name)["frozen"];
    assert_eq!(frozen("roi_heads.box_head.fc7.bias"), true);
    assert_eq!(frozen("rpn.head.cls_logits.bias"), false);
    assert!(frozen("backbone.body.bn1.weight").is_null(), "a buffer");

    let wrong = inspect(&["rpn", "box_haed"], &[]);
    assert_fails(&wrong, 1, "the nearest are roi_heads.box_head");
    let rule = inspect(&["unfreeze rpn"], &[]);
    assert_fails(&rule, 2, "expected `trainable_backbone_layers=N`");
    let layers = inspect(&["trainable_backbone_layers=6"], &[]);
    assert_fails(&layers, 1, "expected 0 to 5");
}

#[test]
fn a_parameter_file_overrides_and_is_checked() {
    // As Windows' Notepad saves it.
    let text = "\u{feff}{\"box_detections_per_img\": 2}";
    fs::write(path("config.json"), text).expect("a file");
    let found = json(&detect(&[
        "--config",
        "config.json",
        "--format",
        "json",
        "pictures/a.png",
    ]));
    assert_eq!(found[0]["detections"].as_array().map(Vec::len), Some(2));
    fs::write(path("typo.json"), r#"{"box_detection_per_img": 2}"#).expect("a file");
    assert_fails(
        &detect(&["--config", "typo.json", "dot.png"]),
        1,
        "box_detections_per_img",
    );
    fs::write(path("wrong.json"), r#"{"min_size": [0]}"#).expect("a file");
    assert_fails(
        &detect(&["--config", "wrong.json", "dot.png"]),
        1,
        "min_size",
    );
}

/// A Pascal VOC data set of the two pictures, its boxes those that the model finds.
fn voc(found: &Value, spoil: bool) -> PathBuf {
    let root = path(if spoil { "spoilt" } else { "voc" });
    for folder in ["Annotations", "JPEGImages", "ImageSets/Main"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    for image in found.as_array().expect("an array") {
        let file = image["image"]
            .as_str()
            .expect("a name")
            .rsplit('/')
            .next()
            .expect("a name");
        fs::copy(
            path("pictures").join(file),
            root.join("JPEGImages").join(file),
        )
        .expect("a copy");
        let mut objects = String::new();
        for d in image["detections"]
            .as_array()
            .expect("an array")
            .iter()
            .take(2)
        {
            let b: Vec<f64> = serde_json::from_value(d["box"].clone()).expect("four numbers");
            let right = if spoil { b[0] } else { b[2] };
            objects += &format!(
                "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{right}</xmax>\
                 <ymax>{}</ymax></bndbox></object>",
                d["name"].as_str().expect("a name"),
                b[0],
                b[1],
                b[3]
            );
        }
        let (width, height) = (&image["width"], &image["height"]);
        let xml = format!(
            "<annotation><filename>{file}</filename><size><width>{width}</width>\
             <height>{height}</height><depth>3</depth></size>{objects}</annotation>"
        );
        let stem = file.split('.').next().expect("a stem");
        fs::write(root.join(format!("Annotations/{stem}.xml")), xml).expect("a file");
    }
    fs::write(root.join("ImageSets/Main/test.txt"), "a\nb\n").expect("a file");
    root
}

#[test]
fn eval_and_data() {
    let found = json(&detect(&["--format", "json", "pictures"]));
    let root = voc(&found, false);
    let root = root.to_str().expect("UTF-8");
    let weights = ["--weights", "model.bpk", "--data", root];
    let args = ["--split", "test", "--format", "json", "--output", "report"];
    let report = json(&rcnn(&[&["eval"], &weights[..], &args[..]].concat()));
    // Its own best detections are found again; others of the class count against it.
    assert!(
        report["AR100"].as_f64().expect("a number") > 0.99,
        "{report}"
    );
    assert!(report["AP"].as_f64().expect("a number") > 0.1, "{report}");
    for file in [
        "curves.png",
        "confusion.png",
        "evaluation.json",
        "detections.json",
    ] {
        assert!(path("report").join(file).is_file(), "{file}");
    }
    let table = stdout(&rcnn(&[&["eval"], &weights[..]].concat()));
    assert!(table.contains("AP50"), "{table}");
    let unknown = rcnn(&[
        "eval",
        "--weights",
        "model.bpk",
        "--data",
        root,
        "--split",
        "moon",
    ]);
    assert_fails(&unknown, 1, "moon");
    assert_fails(
        &rcnn(&["eval", "--weights", "model.bpk", "--data", "nothing"]),
        1,
        "nothing",
    );

    let check = stdout(&rcnn(&["data", "check", root]));
    assert!(check.contains("2 images"), "{check}");
    stdout(&rcnn(&[
        "data", "convert", root, "-o", "as_coco", "--to", "coco",
    ]));
    let again = rcnn(&["data", "convert", root, "-o", "as_coco", "--to", "coco"]);
    assert_fails(&again, 1, "as_coco");
    let converted = json(&rcnn(&["data", "check", "as_coco", "--json"]));
    assert_eq!(converted["images"], 2);

    let spoilt = voc(&found, true);
    let spoilt = spoilt.to_str().expect("UTF-8");
    assert_eq!(rcnn(&["data", "check", spoilt]).status.code(), Some(3));
    assert_fails(
        &rcnn(&["eval", "--weights", "model.bpk", "--data", spoilt]),
        1,
        "a.xml",
    );
    stdout(&rcnn(&[
        "eval",
        "--weights",
        "model.bpk",
        "--data",
        spoilt,
        "--skip-invalid",
    ]));
}

/// A COCO data set of one picture with one box of a class.
fn coco() -> &'static str {
    let root = path("coco");
    fs::create_dir_all(&root).expect("a folder");
    fs::copy(path("pictures/a.png"), root.join("a.png")).expect("a copy");
    let labels = serde_json::json!({
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 60}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 20, 30, 20],
                         "area": 600, "iscrowd": 0}],
        "categories": [{"id": 7, "name": "RBC"}],
    });
    fs::write(root.join("train.json"), labels.to_string()).expect("a file");
    "coco"
}

#[test]
fn preview_draws_what_is_trained_on() {
    let root = coco();
    let preview = |arguments: &[&str]| {
        let args = ["data", "preview", "--data", root, "--split", "train"];
        rcnn(&[&args, arguments].concat())
    };
    let opened = |name: &str| image::open(path(name)).expect("a picture").into_rgb8();
    let blue = [0, 110, 220];
    // The box's left edge stays where it is, or becomes its right edge.
    for (flip, x) in [("0", 10), ("1", 69)] {
        let args = ["--horizontal-flip", flip, "--min-sizes", "48", "-o"];
        let folder = format!("preview{flip}");
        let listed = stdout(&preview(&[&args[..], &[&folder]].concat()));
        assert!(
            listed.ends_with("a.png  80x60  1 box  to be resized to 48\n"),
            "{listed}"
        );
        let drawn = opened(&format!("{folder}/a.png"));
        assert_eq!(drawn.dimensions(), (80, 60));
        assert_eq!(drawn.get_pixel(x, 30).0, blue, "flip {flip}");
    }
    let sheet = |seed: &str, name: &str| {
        let chances = ["--mosaic", "1", "--crop", "1", "--photometric", "1"];
        stdout(&preview(
            &[&chances[..], &["--seed", seed, "-o", name]].concat(),
        ));
        opened(name)
    };
    let first = sheet("1", "sheet.png");
    assert_eq!(first.dimensions(), (408, 308), "one cell in its frame");
    assert_eq!(sheet("1", "again.png"), first);
    assert_ne!(sheet("2", "other.png"), first);

    assert_fails(&preview(&["--crop", "2", "-o", "x"]), 2, "from 0 to 1");
    assert_fails(
        &preview(&["--min-sizes", "64,0", "-o", "x"]),
        2,
        "--min-sizes",
    );
    assert_fails(&preview(&["--count", "0", "-o", "x"]), 2, "from 1");
    assert_fails(&preview(&["-o", "dot.png/x"]), 1, "dot.png");
    let args = ["data", "preview", "--data", "nothing", "-o", "x.png"];
    assert_fails(&rcnn(&args), 1, "nothing");
    fs::copy(path("cut.jpg"), path("coco/a.png")).expect("a copy");
    let cut = preview(&["-o", "cut.png"]);
    assert_fails(&cut, 1, "none of the pictures could be read");
    assert_fails(&cut, 1, "cut short");
}

#[test]
fn surgery_writes_a_model_that_opens_by_itself() {
    let small = ["--size", "60x80"];
    let operate =
        |arguments: &[&str]| rcnn(&[&["surgery", "model.bpk"], arguments, &small].concat());
    let picture = ["--format", "json", "pictures/a.png"];
    let detect = |model: &str| json(&rcnn(&[&["detect", "-w", model], &picture[..]].concat()));
    let text = stdout(&operate(&[
        "-o",
        "cut.1.bpk",
        "--drop-block",
        "layer1.1",
        "--box-head",
        "fc:8",
        "--no-box-regression",
        "--rpn-convs",
        "0",
    ]));
    for says in [
        "dropped (",
        "backbone.body.layer1.1.conv1.weight",
        "newly initialised (",
        "roi_heads.box_head.1.weight [8, 392], was [16, 392]",
        "MACs (M)",
        "detection",
        "Image of 60x80, 64x96 as the network sees it",
    ] {
        assert!(text.contains(says), "`{says}` is not in: {text}");
    }
    assert!(detect("cut.1.bpk")[0]["detections"].is_array());
    // The same seed starts the same weights; a converted model finds the same.
    let again = ["-o", "cut.2.bpk", "--box-head", "fc:8", "--no-measure"];
    let first = stdout(&operate(&again));
    assert!(!first.contains("detection"), "{first}");
    let found = detect("cut.2.bpk");
    stdout(&operate(&again));
    assert_eq!(detect("cut.2.bpk"), found);
    stdout(&rcnn(&["convert", "cut.2.bpk", "-o", "cut.safetensors"]));
    assert_eq!(detect("cut.safetensors"), found);
    let report = json(&rcnn(&[
        "inspect",
        "--format",
        "json",
        "--size",
        "60x80",
        "cut.1.bpk",
    ]));
    assert_eq!(report["config"]["box_regression"], false);
    assert_eq!(report["macs"]["parts"]["box head"], 50 * 8 * 392);
    assert!(stdout(&rcnn(&["inspect", "cut.1.bpk"])).contains("without layer1.1"));

    fs::write(
        path("anchors.json"),
        r#"{"rpn_anchor_generator": {"sizes": [[16], [32]], "aspect_ratios": [[1], [1]]}}"#,
    )
    .expect("a file");
    let text = stdout(&operate(&[
        "-o",
        "cut.3.bpk",
        "--anchors",
        "anchors.json",
        "--no-measure",
    ]));
    assert!(
        text.contains("rpn.head.cls_logits.weight [1, 8, 1, 1], was [3, 8, 1, 1]"),
        "{text}"
    );

    for (arguments, code, says) in [
        (
            ["--drop-stage", "layer1"],
            1,
            "first choose a level that stays",
        ),
        (["--drop-stage", "layer9"], 1, "it is built of layer1"),
        (["--drop-block", "layer1.7"], 1, "layer1.0 to layer1.1"),
        (["--levels", "0,1"], 1, "there is no level 1"),
        (["--anchors", "8"], 1, "2 feature maps"),
        (["--box-head", "fc:8,conv:8"], 1, "put convolutions first"),
        (["--size", "60"], 2, "as 800x1088"),
    ] {
        let output = operate(&[&["-o", "refused.bpk"], &arguments[..]].concat());
        assert_fails(&output, code, says);
    }
    assert_fails(&operate(&["-o", "refused.bpk"]), 2, "required");
    assert_fails(
        &operate(&["-o", "refused.txt", "--num-classes", "3"]),
        1,
        ".bpk or",
    );
    assert!(!path("refused.bpk").exists());
}
