//! `rcnn eval` and `rcnn data` on small data sets of the two pictures.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::{assert_fails, detect, json, path, rcnn, stdout};

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
    assert_fails(&cut, 1, "cut short");
    assert_eq!(String::from_utf8_lossy(&cut.stderr).lines().count(), 1);
}
