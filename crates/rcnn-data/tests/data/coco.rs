//! Reading COCO: what is right, and what is wrong in every way.

use crate::common::{Folder, told};
use rcnn_data::{Format, ProblemKind as Kind, ReadOptions};

const COCO: &str = r#"{
  "info": {}, "licenses": [],
  "images": [
    {"id": 7, "file_name": "a.png", "width": 64, "height": 48},
    {"id": 3, "file_name": "b.png", "width": 64, "height": 48}
  ],
  "annotations": [
    {"id": 10, "image_id": 3, "category_id": 18, "bbox": [1.5, 2, 10, 20], "area": 150.5, "iscrowd": 0,
     "segmentation": [[1.5, 2, 11.5, 2, 11.5, 22]]},
    {"id": 11, "image_id": 3, "category_id": 4, "bbox": [0, 0, 64, 48], "area": 99, "iscrowd": 1,
     "segmentation": {"counts": [1], "size": [1, 1]}},
    {"id": 12, "image_id": 7, "category_id": 4, "bbox": [10, 10, 5, 5]}
  ],
  "categories": [{"id": 18, "name": "dog"}, {"id": 4, "name": "bird", "supercategory": "animal"}]
}"#;

fn coco(json: &str) -> Folder {
    let folder = Folder::new();
    folder.picture("train2017/a.png", 64, 48);
    folder.picture("train2017/b.png", 64, 48);
    folder.file("annotations/instances_train2017.json", json);
    folder
}

#[test]
fn coco_keeps_crowds_apart() {
    let folder = coco(COCO);
    let reading = folder.read_split("train").unwrap();
    assert_eq!(told(&reading), []);
    let dataset = reading.accept(false).unwrap();
    assert_eq!(dataset.format, Format::Coco);
    assert_eq!(dataset.class_names, ["__background__", "bird", "dog"]);
    assert_eq!(dataset.category_ids, [0, 4, 18]);
    let [a, b] = &dataset.samples[..] else {
        panic!()
    };
    assert_eq!((a.image_id, b.image_id), (7, 3));
    assert_eq!(
        (&a.instances.boxes[..], &a.instances.labels[..]),
        (&[[10.0, 10.0, 15.0, 15.0]][..], &[1][..])
    );
    assert_eq!((a.instances.area(0), &a.instances.crowd), (25.0, &None));
    assert_eq!(
        (&b.instances.boxes[..], &b.instances.labels[..]),
        (
            &[[1.5, 2.0, 11.5, 22.0], [0.0, 0.0, 64.0, 48.0]][..],
            &[2, 1][..]
        )
    );
    assert_eq!(b.instances.areas, Some(vec![150.5, 99.0]));
    assert_eq!(b.instances.crowd, Some(vec![false, true]));
    assert_eq!(b.source.objects, [10, 11]);
    assert_eq!(dataset.boxes(), 2);
    // A file outright, and the whole folder.
    let file = folder.path().join("annotations/instances_train2017.json");
    let again = rcnn_data::read(&file, &ReadOptions::default())
        .unwrap()
        .dataset;
    assert_eq!(again.samples, dataset.samples);
    assert_eq!(folder.read().unwrap().dataset.samples, dataset.samples);
}

#[test]
fn coco_of_several_files() {
    let folder = coco(COCO);
    folder.picture("val2017/c.png", 64, 48);
    let images = r#""images": [{"id": 7, "file_name": "c.png"}], "annotations": []"#;
    let json = format!(r#"{{{images}, "categories": [{{"id": 4, "name": "bird"}}]}}"#);
    folder.file("annotations/instances_val2017.json", &json);
    folder.file("annotations/captions_val2017.json", "not for boxes");
    let reading = folder.read().unwrap();
    assert_eq!(told(&reading), []);
    assert!(reading.dataset.renumbered);
    let dataset = reading.dataset;
    assert_eq!(dataset.splits["train2017"], [0, 1]);
    assert_eq!(dataset.splits["val2017"], [2]);
    // Both files have an image 7.
    let ids: Vec<u64> = dataset.samples.iter().map(|s| s.image_id).collect();
    assert_eq!(ids, [1, 2, 3]);
    folder.file(
        "annotations/instances_val2017.json",
        json.replace("bird", "cat"),
    );
    let error = folder.read().unwrap_err().to_string();
    assert!(
        error.ends_with("instances_val2017.json: category 4 is both `bird` and `cat`"),
        "{error}"
    );
}

#[test]
fn bad_coco() {
    let images = r#"{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"},
        {"id": 2, "file_name": "a.png"}, {"id": 3, "file_name": "gone.png"}"#;
    let annotations = r#"
        {"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 1, 2, 2]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2]},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": "1 1 2 2"},
        {"id": 4, "image_id": 1, "category_id": 1},
        {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 1, -2, 2]},
        {"id": 6, "image_id": 8, "category_id": 1, "bbox": [1, 1, 2, 2]},
        {"id": 7, "image_id": 1, "bbox": [1, 1, 2, 2]},
        {"id": 8, "image_id": 1, "category_id": 1, "bbox": [1, 1, 200, 2]},
        {"id": 9, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "area": null, "iscrowd": "no"}"#;
    let categories = r#"{"id": 1, "name": "x"}"#;
    let folder = coco(&format!(
        r#"{{"images": [{images}], "annotations": [{annotations}], "categories": [{categories}]}}"#
    ));
    let reading = folder.read().unwrap();
    let file = || "instances_train2017.json".to_string();
    let expected = [
        (Kind::DuplicateImage, file(), None),
        (Kind::DuplicateImage, file(), None),
        (Kind::OrphanLabels, file(), Some(6)),
        (Kind::UnknownLabel, file(), Some(1)),
        (Kind::BadBox, file(), Some(2)),
        (Kind::BadBox, file(), Some(3)),
        (Kind::BadBox, file(), Some(4)),
        (Kind::NoArea, file(), Some(5)),
        (Kind::UnknownLabel, file(), Some(7)),
        (Kind::OutsideImage, file(), Some(8)),
        (Kind::MissingImage, "gone.png".into(), None),
    ];
    assert_eq!(told(&reading), expected);
    assert_eq!(reading.dataset.boxes(), 1);
}

#[test]
fn json_of_another_shape() {
    let at = |json: &str| {
        let folder = coco(json);
        let file = folder.path().join("annotations/instances_train2017.json");
        rcnn_data::read(&file, &ReadOptions::default())
            .unwrap_err()
            .to_string()
    };
    for (json, expected) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("[1]", "invalid type: integer"),
        ("PK\u{3}\u{4}", "line 1 column 1; this is a zip archive"),
        (
            "{\"images\": []}",
            "missing field `categories` at line 1 column 14",
        ),
        (r#"{"images": [], "categories": []}"#, "no images"),
    ] {
        let error = at(json);
        assert!(error.contains(expected), "{json}: {error}");
        assert!(error.contains("instances_train2017.json"), "{error}");
    }
}

#[test]
fn category_ids_are_those_of_the_file_whatever_the_order_of_the_classes() {
    let folder = Folder::new();
    folder.picture("a.png", 64, 48);
    folder.picture("b.png", 64, 48);
    let boxes = (0..5).map(|i| {
        format!(r#"{{"id": {i}, "image_id": 9, "category_id": 3, "bbox": [{i}, 1, 9, 9]}}"#)
    });
    let boxes = boxes.collect::<Vec<_>>().join(",");
    folder.file(
        "train.json",
        format!(
            r#"{{"images": [{{"id": 9, "file_name": "a.png"}}, {{"id": 4, "file_name": "b.png"}}],
                "annotations": [{boxes}],
                "categories": [{{"id": 3, "name": "RBC"}}, {{"id": 0, "name": "WBC"}}]}}"#
        ),
    );
    let names = ["__background__", "Platelets", "WBC", "N/A", "RBC", "N/A"];
    let options = ReadOptions {
        class_names: Some(names.map(String::from).into()),
        ..ReadOptions::default()
    };
    let reading = rcnn_data::read(folder.path(), &options).unwrap();
    assert_eq!(reading.own_classes, ["WBC", "RBC"]);
    let dataset = reading.dataset;
    // The other classes have numbers that the file does not use.
    assert_eq!(dataset.category_ids[1..], [4, 0, 5, 3, 6]);
    let ids: Vec<u64> = dataset.samples.iter().map(|s| s.image_id).collect();
    assert_eq!(ids, [9, 4]);
    assert_eq!(dataset.classes_without_boxes(), ["Platelets", "WBC"]);
    assert_eq!(dataset.crowded_images(5), (0, 0));
    assert_eq!(dataset.crowded_images(4), (1, 5));
}
