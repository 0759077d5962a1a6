//! Large pictures in tiles, and pictures in several views.

use std::fs;

use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use super::{assert_fails, detect, json, path, rcnn, stdout};

/// Boxes of the only picture, with their scores.
fn found(arguments: &[&str]) -> Vec<([f64; 4], f64)> {
    let all = json(&detect(&[&["--format", "json"], arguments].concat()));
    let found = all[0]["detections"].as_array().expect("an array").clone();
    let one = |found: Value| {
        let b: [f64; 4] = serde_json::from_value(found["box"].clone()).expect("a box");
        (b, found["score"].as_f64().expect("a score"))
    };
    found.into_iter().map(one).collect()
}

#[test]
fn pictures_no_larger_than_a_tile_are_detected_in_as_they_are() {
    let plain = stdout(&detect(&["--format", "json", "pictures"]));
    for views in [
        &["--tile", "80"][..],
        &["--tile", "640", "--full-image", "--merge", "wbf"],
    ] {
        let views = [views, &["--format", "json", "pictures"]].concat();
        assert_eq!(stdout(&detect(&views)), plain, "{views:?}");
    }
}

#[test]
fn every_view_and_merge_gives_boxes_in_the_picture_best_first() {
    let plain = found(&["pictures/a.png"]).len();
    let tiles = found(&["--tile", "48", "--batch-size", "2", "pictures/a.png"]);
    assert!(tiles.len() > plain, "{} of {plain}", tiles.len());
    let nothing = ["--score-thresh", "0.99", "--tile", "48", "pictures/a.png"];
    assert_eq!(found(&nothing), []);
    for merge in ["nms", "nmm", "wbf", "soft-nms"] {
        for views in [
            &["--tile", "48", "--full-image"][..],
            &["--tta", "flip,scale:0.8,1.2"],
            &[
                "--tile",
                "64",
                "--overlap",
                "0.5",
                "--tta",
                "flip",
                "--match-thresh",
                "0.3",
            ],
        ] {
            let found = found(&[views, &["--merge", merge, "pictures/a.png"]].concat());
            assert!(!found.is_empty());
            assert!(found.is_sorted_by(|a, b| a.1 >= b.1), "{merge} {views:?}");
            for (b, _) in found {
                assert!(
                    b[0] >= 0.0 && b[1] >= 0.0 && b[2] < 80.01 && b[3] < 60.01,
                    "{b:?}"
                );
            }
        }
    }
    let drawn = detect(&["--tile", "48", "--output", "tiled", "pictures/a.png"]);
    assert!(stdout(&drawn).contains("a.png  80x60  "));
    assert!(path("tiled/a.png").is_file());
}

#[test]
fn views_that_cannot_be_are_refused() {
    let refused = |arguments: &[&str], code, says: &str| {
        assert_fails(
            &detect(&[arguments, &["pictures/a.png"]].concat()),
            code,
            says,
        );
    };
    refused(&["--tile", "0"], 2, "expected a whole number from 1");
    refused(
        &["--tile", "9999999999"],
        1,
        "--tile 9999999999: too many pixels",
    );
    refused(
        &["--tile", "64", "--overlap", "1"],
        1,
        "overlap = 1.0: expected a share of the tile",
    );
    refused(&["--overlap", "0.3"], 2, "--tile <N>");
    refused(&["--full-image"], 2, "--tile <N>");
    refused(&["--merge", "nms"], 2, "--tile <N>|--tta <LIST>");
    refused(
        &["--tta", "flop"],
        2,
        "tta = \"flop\": expected flip, or scale:",
    );
    refused(
        &["--tta", "scale:0"],
        2,
        "tta scale = 0.0: expected 0.1 to 10",
    );
    refused(
        &["--tile", "64", "--match-thresh", "0"],
        1,
        "match_thresh = 0.0: expected a number above 0",
    );
    let soft = ["--tile", "64", "--merge", "soft-nms", "--match", "ios"];
    refused(&soft, 1, "not with --merge soft-nms, which uses the IoU");
}

/// A picture of 160x60 with a box in each half and one across, under the names of the model's classes.
fn wide() -> &'static str {
    fs::create_dir_all(path("wide/images")).expect("a folder");
    let picture = RgbImage::from_fn(160, 60, |x, y| Rgb([(x * 3) as u8, (y * 4) as u8, 9]));
    picture.save(path("wide/images/w.png")).expect("a picture");
    let object = |id: u32, x: u32, width: u32| {
        json!({"id": id, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 20 * width,
               "bbox": [x, 10, width, 20]})
    };
    let labels = json!({
        "images": [{"id": 1, "file_name": "w.png", "width": 160, "height": 60}],
        "annotations": [object(1, 10, 30), object(2, 100, 30), object(3, 70, 40)],
        "categories": [{"id": 1, "name": "RBC"}],
    });
    fs::create_dir_all(path("wide/annotations")).expect("a folder");
    fs::write(
        path("wide/annotations/instances_train.json"),
        labels.to_string(),
    )
    .expect("a file");
    "wide"
}

#[test]
fn a_data_set_is_evaluated_in_tiles_and_cut_into_them() {
    let data = wide();
    let eval = |rest: &[&str]| {
        let eval = [
            "eval",
            "--weights",
            "model.bpk",
            "--data",
            data,
            "--format",
            "json",
        ];
        stdout(&rcnn(&[&eval, rest].concat()))
    };
    assert_eq!(eval(&["--tile", "160"]), eval(&[]));
    assert!(eval(&["--tile", "80", "--full-image"]).contains("\"AP\""));

    let tile = |rest: &[&str]| {
        let tile = ["data", "tile", data, "--tile", "80", "--overlap", "0"];
        rcnn(&[&tile, rest].concat())
    };
    let cut = tile(&["-o", "wide-tiles", "--min-visible", "0.5"]);
    stdout(&cut);
    let said = String::from_utf8_lossy(&cut.stderr);
    assert!(
        said.contains("wide-tiles: 2 tiles of 1 images, 3 boxes of 3 objects"),
        "{said}"
    );
    let dropped = "less than 50% of them: 1; in no tile at all: 0";
    assert!(said.contains(dropped), "{said}");
    let checked = json(&rcnn(&["data", "check", "wide-tiles", "--json"]));
    assert_eq!(
        (&checked["images"], &checked["boxes"]),
        (&json!(2), &json!(3))
    );
    assert_fails(&tile(&["-o", "wide-tiles"]), 1, "not empty");
    assert_fails(
        &tile(&["-o", "no", "--min-visible", "2"]),
        2,
        "expected a number from 0 to 1",
    );
}
