//! `rcnn analyze`, with labels and without.

use std::fs;

use super::{assert_fails, json, path, rcnn, stdout};

/// Two pictures in COCO form, in a folder of this test's own.
fn labelled() -> &'static str {
    const FOLDER: &str = "analyzed";
    fs::create_dir_all(path(FOLDER)).expect("a folder");
    for (from, to) in [("pictures/a.png", "a.png"), ("pictures/b.jpg", "b.jpg")] {
        fs::copy(path(from), path(FOLDER).join(to)).expect("a copy");
    }
    let coco = r#"{
        "images": [
            {"id": 1, "file_name": "a.png", "width": 80, "height": 60},
            {"id": 2, "file_name": "b.jpg", "width": 50, "height": 70}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 2, "bbox": [5, 5, 20, 40], "area": 800, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "RBC"}, {"id": 2, "name": "WBC"}, {"id": 3, "name": "Platelets"}]}"#;
    fs::write(path(FOLDER).join("annotations.json"), coco).expect("a file");
    FOLDER
}

#[test]
fn layers_are_ranked_and_drawn() {
    let data = ["analyze", "model.bpk", "--data", labelled()];
    let drawn = [
        "--output",
        "analysis/1",
        "--feature-maps",
        "backbone.fpn.layer_*",
    ];
    let table = stdout(&rcnn(&[&data[..], &drawn[..]].concat()));
    for says in [
        "removed by",
        "--drop-block layer1.1",
        "roi_heads.box_head.fc6",
        "2 pictures:",
        "AP ",
    ] {
        assert!(table.contains(says), "`{says}` is not in: {table}");
    }
    let file = |name: &str| fs::read(path("analysis/1").join(name)).expect("a file");
    assert!(file("analysis.png").starts_with(b"\x89PNG"));
    assert!(file("backbone.fpn.layer_blocks.0.png").starts_with(b"\x89PNG"));
    let written: serde_json::Value = serde_json::from_slice(&file("analysis.json")).expect("JSON");
    assert_eq!(written["pictures"], 2);

    let one = ["--count", "1", "--format", "json"];
    let report = json(&rcnn(&[&data[..], &one[..]].concat()));
    assert_eq!(report["pictures"], 1);
    assert!(report["quality"]["loss"].as_f64().expect("a loss") > 0.0);
    let layers = report["layers"].as_array().expect("layers");
    let removable = layers.iter().filter(|l| !l["removed_by"].is_null());
    assert_eq!(removable.count(), 5, "blocks, RPN, box head, regression");
}

#[test]
fn pictures_alone_are_enough() {
    let report = [
        "analyze",
        "model.bpk",
        "--format",
        "json",
        "--data",
        "pictures",
    ];
    let output = rcnn(&report);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no labels"));
    let report = json(&output);
    assert!(report["quality"].is_null());
    assert!(report["layers"][0]["seconds"].as_f64().expect("a time") > 0.0);
}

#[test]
fn what_cannot_be_analyzed_is_refused() {
    let analyze = |data: &str, rest: &[&str]| {
        let arguments = ["analyze", "model.bpk", "--data", data];
        rcnn(&[&arguments[..], rest].concat())
    };
    assert_fails(&analyze("absent", &[]), 1, "absent: no such folder");
    assert_fails(&analyze("nothing", &[]), 1, "no pictures in this folder");
    assert_fails(&analyze("pictures", &["--split", "test"]), 1, "no labels");
    let maps = ["--feature-maps", "layer9"];
    assert_fails(&analyze("pictures", &maps), 2, "--output");
    let maps = ["--feature-maps", "layer9", "--output", "analysis/2"];
    assert_fails(&analyze("pictures", &maps), 1, "known are");
    assert_fails(&analyze("pictures", &["--count", "0"]), 2, "from 1");
    assert_fails(
        &rcnn(&["analyze", "cut.bpk", "--data", "pictures"]),
        1,
        "cut.bpk",
    );
}
