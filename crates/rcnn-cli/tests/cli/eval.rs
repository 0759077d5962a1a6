//! `rcnn eval` on data whose ids, names and pictures are not as simple as could be.

use std::fs;

use serde_json::{Value, json};

use super::{assert_fails, detect, json, path, rcnn, stdout};

/// COCO data in a folder: images by id and file, whose pictures are copied, and a box of each class in each.
fn coco(folder: &str, images: &[(u64, &str)], classes: &[(u64, &str)]) {
    let root = path(folder);
    fs::create_dir_all(&root).expect("a folder");
    let mut boxes = Vec::new();
    for (image, file) in images {
        let name = file.rsplit('/').next().expect("a name");
        fs::copy(path(file), root.join(name)).expect("a copy");
        for (class, _) in classes {
            let id = boxes.len() + 1;
            let place = 5 * id % 20;
            boxes.push(json!({"id": id, "image_id": image, "category_id": class,
                              "bbox": [place, 7, 20, 30], "area": 600, "iscrowd": 0}));
        }
    }
    let images = images.iter().map(|(id, file)| {
        let name = file.rsplit('/').next().expect("a name");
        json!({"id": id, "file_name": name})
    });
    let classes = classes
        .iter()
        .map(|(id, name)| json!({"id": id, "name": name}));
    let labels = json!({
        "images": images.collect::<Vec<_>>(),
        "annotations": boxes,
        "categories": classes.collect::<Vec<_>>(),
    });
    fs::write(root.join("train.json"), labels.to_string()).expect("a file");
}

fn eval(data: &str, rest: &[&str]) -> std::process::Output {
    rcnn(&[&["eval", "--weights", "model.bpk", "--data", data], rest].concat())
}

const CLASSES: [(u64, &str); 3] = [(11, "Platelets"), (3, "RBC"), (0, "WBC")];

/// The model's labels were written: with other ids in the file, pycocotools' AP was 0.
#[test]
fn results_have_the_ids_of_the_annotation_file() {
    coco(
        "ids",
        &[(42, "pictures/a.png"), (7, "pictures/b.jpg")],
        &CLASSES,
    );
    stdout(&eval("ids", &["--output", "ids-report"]));
    let text = fs::read_to_string(path("ids-report/detections.json")).expect("a file");
    let results: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let detected = json(&detect(&["--format", "json", "ids/a.png", "ids/b.jpg"]));
    for (image, id) in [(0, 42), (1, 7)] {
        let expected = detected[image]["detections"].as_array().expect("an array");
        let expected = expected.iter().map(|found| {
            let class = CLASSES.iter().find(|(_, name)| found["name"] == *name);
            class.expect("a class").0
        });
        let found = results.iter().filter(|result| result["image_id"] == id);
        let found = found.map(|result| result["category_id"].as_u64().expect("an id"));
        assert!(found.eq(expected), "{id}");
    }
}

#[test]
fn an_unreadable_picture_is_left_out_and_shifts_no_other() {
    let images = [(1, "pictures/a.png"), (2, "cut.jpg"), (3, "pictures/b.jpg")];
    coco("unreadable", &images, &CLASSES);
    assert_fails(&eval("unreadable", &[]), 1, "cut.jpg");
    let args = [
        "--skip-invalid",
        "--output",
        "unreadable-report",
        "--format",
        "json",
    ];
    let found = eval("unreadable", &args);
    assert_fails(&found, 3, "left out: ");
    let report: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    assert_eq!(
        (&report["images"], &report["objects"]),
        (&json!(2), &json!(6))
    );
    let text = fs::read_to_string(path("unreadable-report/detections.json")).expect("a file");
    let results: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    coco("readable", &[images[0], images[2]], &CLASSES);
    stdout(&eval("readable", &["--output", "readable-report"]));
    let text = fs::read_to_string(path("readable-report/detections.json")).expect("a file");
    assert_eq!(
        serde_json::from_str::<Vec<Value>>(&text).expect("JSON"),
        results
    );
}

#[test]
fn names_that_do_not_fit_are_listed_on_both_sides() {
    let picture = [(1, "pictures/a.png")];
    coco("animals", &picture, &[(1, "cat"), (2, "dog")]);
    for rest in [&[][..], &["--skip-invalid"]] {
        let refused = eval("animals", rest);
        assert_fails(&refused, 1, "the model's classes are RBC, WBC, Platelets");
        assert_fails(&refused, 1, "those of the data are cat, dog");
    }
    coco("mixed-names", &picture, &[(1, "RBC"), (2, "dog")]);
    assert_fails(&eval("mixed-names", &[]), 1, "the model does not know dog");
    let found = eval("mixed-names", &["--skip-invalid"]);
    let told = String::from_utf8_lossy(&found.stderr);
    assert!(told.contains("the model does not know dog"), "{told}");
    assert!(told.contains("no box of WBC, Platelets"), "{told}");
    stdout(&found);

    fs::write(path("four.txt"), "RBC\nWBC\nPlatelets\nEosinophil\n").expect("a file");
    fs::write(path("twice.txt"), "RBC\nWBC\nRBC\n").expect("a file");
    for (labels, says) in [
        (
            "four.txt",
            "4 names, but the model has 3 classes besides the background",
        ),
        ("twice.txt", "lines 1 and 3 are both `RBC`"),
    ] {
        assert_fails(&eval("mixed-names", &["--labels", labels]), 1, says);
        let convert = [
            "convert",
            "model.bpk",
            "-o",
            "renamed.bpk",
            "--labels",
            labels,
        ];
        assert_fails(&rcnn(&convert), 1, says);
    }
}

/// Only the best 100 detections counted, and nothing said so.
#[test]
fn more_objects_than_are_counted_are_said() {
    let root = path("many");
    fs::create_dir_all(root.join("images")).expect("a folder");
    fs::create_dir_all(root.join("labels")).expect("a folder");
    fs::copy(path("pictures/a.png"), root.join("images/a.png")).expect("a copy");
    fs::copy(path("pictures/b.jpg"), root.join("images/b.jpg")).expect("a copy");
    let line = |i: u32| {
        format!(
            "0 {} {} 0.05 0.05\n",
            f64::from(i % 12 + 1) / 14.0,
            f64::from(i / 12 + 1) / 14.0
        )
    };
    fs::write(
        root.join("labels/a.txt"),
        (0..130).map(line).collect::<String>(),
    )
    .expect("a file");
    fs::write(root.join("classes.txt"), "RBC\nWBC\nPlatelets\n").expect("a file");
    let found = eval("many", &[]);
    let told = String::from_utf8_lossy(&found.stderr);
    assert!(
        told.contains("1 images have more than 100 objects of a class, up to 130"),
        "{told}"
    );
    // Of what the set lacks, `data check` alone spoke.
    assert!(
        told.contains("images without labels, taken for background: 1"),
        "{told}"
    );
    assert!(stdout(&found).contains("AR100"));
    let found = eval("many", &["--max-dets", "130"]);
    let told = String::from_utf8_lossy(&found.stderr);
    assert!(!told.contains("objects of a class"), "{told}");
    let table = stdout(&found);
    assert!(table.contains("AR130"), "{table}");
    let counted = |rest: &[&str]| {
        let report = json(&eval("many", &[rest, &["--format", "json"]].concat()));
        report["detections"].as_u64().expect("a number")
    };
    // The model makes ten in an image, unless more count.
    assert!(counted(&["--max-dets", "130"]) > counted(&[]));
}
