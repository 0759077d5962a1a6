//! `rcnn detect`: its formats, drawn pictures, and whatever pictures or weights it is given.

use std::fs;

use rcnn_burn::image::open_rgb;
use serde_json::Value;

use super::{assert_fails, detect, json, path, rcnn, stdout};

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
        "its subfolders (2) are searched with rcnn detect --recursive",
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
        let alone = detect(&["--format", "json", bad]);
        assert_fails(&alone, 1, says);
        let errors = String::from_utf8_lossy(&alone.stderr);
        assert_eq!(errors.lines().count(), 1, "said twice: {errors}");
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
    assert_fails(
        &with("RESNET9000"),
        1,
        "no such file, nor published weights of this name",
    );
    assert_fails(&with("."), 1, "a folder without a TensorFlow model");
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
