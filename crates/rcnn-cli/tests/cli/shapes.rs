//! Masks and keypoints from the labels to what is printed: training, evaluation, detection, surgery.

use std::fs;
use std::sync::LazyLock;

use image::{Rgb, RgbImage};
use rcnn_types::{Mask, Size};
use serde_json::{Value, json};

use super::{assert_fails, json, path, rcnn, stdout};

/// Four pictures of a square in COCO's form, with its outline and two of its corners, and a model of both heads
/// that was trained on them for an epoch.
static RUN: LazyLock<&str> = LazyLock::new(|| {
    let root = path("shapes");
    fs::create_dir_all(&root).expect("a folder");
    let (mut images, mut objects) = (Vec::new(), Vec::new());
    for id in 1..=4 {
        let (left, top) = (8 * id, 20);
        let inside = |v: u32, from: u32| (from..from + 24).contains(&v);
        let picture = RgbImage::from_fn(64, 64, |x, y| {
            let light = inside(x, left) && inside(y, top);
            Rgb([if light { 240 } else { 40 }; 3])
        });
        let name = format!("{id}.png");
        picture.save(root.join(&name)).expect("a picture");
        images.push(json!({"id": id, "file_name": name, "width": 64, "height": 64}));
        let (right, bottom) = (left + 24, top + 24);
        objects.push(json!({
            "id": id, "image_id": id, "category_id": 3, "iscrowd": 0, "area": 576,
            "bbox": [left, top, 24, 24],
            "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
            "keypoints": [left + 1, top + 1, 2, right - 1, bottom - 1, 1], "num_keypoints": 2,
        }));
    }
    let category = json!({
        "id": 3, "name": "square", "keypoints": ["left_corner", "right_corner"], "skeleton": [[1, 2]],
    });
    let labels = json!({"images": images, "annotations": objects, "categories": [category]});
    fs::write(root.join("train.json"), labels.to_string()).expect("a file");
    let run = r#"
        data = "shapes"
        train_split = "train"
        valid_split = "train"
        epochs = 1
        batch_size = 2
        [model]
        min_size = [64]
        max_size = 64
        backbone = { arch = "resnet18", returned_layers = [1], out_channels = 8, max_pool_level = false }
        box_head = { representation_size = 8 }
        box_score_thresh = 0.0
        box_detections_per_img = 5
        rpn_post_nms_top_n_train = 50
        rpn_post_nms_top_n_test = 50
        box_batch_size_per_image = 16
    "#;
    fs::write(path("shapes.toml"), run).expect("a file");
    let heads = ["--mask-head", "conv:4x2", "--keypoint-head", "conv:4"];
    let train = ["train", "--config", "shapes.toml", "--out", "shaped"];
    let said = rcnn(&[&train[..], &heads].concat());
    stdout(&said);
    let log = fs::read_to_string(path("shaped/metrics.jsonl")).expect("a file");
    for loss in ["\"mask\":", "\"keypoint\":"] {
        assert!(log.contains(loss), "{log}");
    }
    "shaped/last.bpk"
});

fn detect(weights: &str, arguments: &[&str]) -> Value {
    let detect = ["detect", "--weights", weights, "shapes/1.png"];
    json(&rcnn(&[&detect, arguments].concat()))
}

#[test]
fn masks_and_keypoints_are_printed_in_every_form() {
    let found = detect(*RUN, &["--format", "json"]);
    let detections = found[0]["detections"].as_array().expect("an array");
    assert!(!detections.is_empty());
    for found in detections {
        assert_eq!(found["segmentation"]["size"], json!([64, 64]));
        assert!(found["segmentation"]["counts"].is_string());
        assert_eq!(found["keypoints"].as_array().map(Vec::len), Some(6));
        assert_eq!(found["keypoint_scores"].as_array().map(Vec::len), Some(2));
    }
    let none = detect(*RUN, &["--format", "json", "--masks", "none"]);
    assert!(none[0]["detections"][0].get("segmentation").is_none());
    assert_eq!(
        none[0]["detections"][0]["keypoints"],
        detections[0]["keypoints"]
    );

    let results = |masks: &str| {
        let results = detect(*RUN, &["--format", "coco", "--masks", masks]);
        results.as_array().expect("an array").clone()
    };
    let (rle, polygons) = (results("rle"), results("polygon"));
    assert_eq!(
        (rle.len(), polygons.len()),
        (detections.len(), detections.len())
    );
    for ((rle, polygon), found) in rle.iter().zip(&polygons).zip(detections) {
        assert_eq!(rle["segmentation"], found["segmentation"]);
        assert_eq!(rle["keypoints"].as_array().map(Vec::len), Some(6));
        let polygon = &polygon["segmentation"];
        let corners: Vec<Vec<f64>> = serde_json::from_value(polygon.clone()).expect("polygons");
        // pycocotools fails on none, and takes four numbers for a box.
        assert!(!corners.is_empty(), "{polygon}");
        assert!(
            corners.iter().all(|c| c.len() >= 6 && c.len() % 2 == 0),
            "{polygon}"
        );
        let mask: Mask = serde_json::from_value(rle["segmentation"].clone()).expect("a mask");
        assert_eq!(Mask::from_polygons(&corners, Size::new(64, 64)), mask);
    }
}

#[test]
fn tiles_and_mirrored_views_keep_masks_and_keypoints() {
    for views in [
        &["--tile", "48", "--merge", "nmm", "--match-thresh", "0.2"][..],
        &["--tta", "flip", "--merge", "wbf"],
        &["--tile", "48", "--merge", "nms"],
    ] {
        let found = detect(*RUN, &[views, &["--format", "json"]].concat());
        let detections = found[0]["detections"].as_array().expect("an array");
        assert!(!detections.is_empty());
        for found in detections {
            assert_eq!(found["segmentation"]["size"], json!([64, 64]));
            assert_eq!(found["keypoints"].as_array().map(Vec::len), Some(6));
        }
    }
}

#[test]
fn evaluation_has_masks_and_keypoints_and_shows_the_worst() {
    let args = [
        "--data",
        "shapes",
        "--split",
        "train",
        "--output",
        "shapes-report",
    ];
    let table = stdout(&rcnn(&[&["eval", "--weights", *RUN], &args[..]].concat()));
    assert!(
        table.contains("masks (segm)") && table.contains("keypoints"),
        "{table}"
    );
    let read = |name: &str| -> Value {
        let text = fs::read_to_string(path("shapes-report").join(name)).expect("a file");
        serde_json::from_str(&text).expect("JSON")
    };
    let numbers = read("evaluation.json");
    assert!(numbers["segm"]["AP"].is_number() && numbers["keypoints"]["AP"].is_number());
    let results = read("detections.json");
    assert!(results[0]["segmentation"].is_object() && results[0]["keypoints"].is_array());
    assert!(path("shapes-report/worst.png").is_file());
}

#[test]
fn heads_come_and_go_and_leave_the_boxes_as_they_are() {
    let found = |weights: &str| {
        let found = detect(weights, &["--format", "json"]);
        found[0]["detections"].as_array().expect("an array").clone()
    };
    let boxes = |found: &[Value]| -> Vec<Value> {
        let parts = |d: &Value| json!([d["box"], d["label"], d["score"]]);
        found.iter().map(parts).collect()
    };
    let operate = |from: &str, to: &str, mask: &str, keypoint: &str| {
        let files = ["surgery", from, "-o", to, "--no-measure"];
        let heads = ["--mask-head", mask, "--keypoint-head", keypoint];
        rcnn(&[&files[..], &heads].concat())
    };
    let with = found(*RUN);
    let said = stdout(&operate(*RUN, "shapeless.bpk", "none", "none"));
    assert!(said.contains("roi_heads.mask_head.0.0.weight"), "{said}");
    let without = found("shapeless.bpk");
    assert_eq!(boxes(&with), boxes(&without));
    assert!(without[0].get("segmentation").is_none() && without[0].get("keypoints").is_none());
    assert_fails(
        &operate("shapeless.bpk", "no.bpk", "none", "none"),
        1,
        "has no mask head",
    );

    stdout(&operate("shapeless.bpk", "again.bpk", "conv:8", "conv:8/2"));
    let again = found("again.bpk");
    assert_eq!(boxes(&again), boxes(&with));
    assert!(again[0]["segmentation"].is_object() && again[0]["keypoints"].is_array());
    // A detector without heads gets them in training too.
    let train = [
        "train",
        "--data",
        "shapes",
        "--train-split",
        "train",
        "--valid-split",
        "train",
    ];
    let start = [
        "--weights",
        "shapeless.bpk",
        "--epochs",
        "1",
        "--out",
        "headed",
    ];
    let heads = ["--mask-head", "conv:4", "--freeze", "backbone"];
    stdout(&rcnn(&[&train[..], &start, &heads].concat()));
    assert!(found("headed/last.bpk")[0]["segmentation"].is_object());
}

#[test]
fn a_mask_model_opens_as_one_without_masks_where_parts_are_enough() {
    fs::write(path("plain.json"), r#"{"mask": null, "keypoint": null}"#).expect("a file");
    let convert = |rest: &[&str]| {
        let files = [
            "convert",
            *RUN,
            "-o",
            "partial.bpk",
            "--config",
            "plain.json",
        ];
        rcnn(&[&files[..], rest].concat())
    };
    assert_fails(&convert(&[]), 1, "roi_heads.mask_");
    let said = convert(&["--partial"]);
    stdout(&said);
    let told = String::from_utf8_lossy(&said.stderr);
    assert!(told.contains("roi_heads.mask_predictor"), "{told}");
    let found = detect("partial.bpk", &["--format", "json"]);
    assert!(found[0]["detections"][0].get("segmentation").is_none());
}
