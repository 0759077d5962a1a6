//! Masks and keypoints: read, doubted, and kept by conversion.

use rcnn_data::convert::{Pictures, convert};
use rcnn_data::{Dataset, Fields, Format, ProblemKind as Kind, ReadOptions, read};
use serde_json::json;

use crate::common::{Folder, told};

/// A picture of 64x48 with these annotations of class `fish`, which has two keypoints.
fn coco(annotations: serde_json::Value) -> Folder {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    let category = json!({
        "id": 1, "name": "fish", "keypoints": ["left_fin", "right_fin"], "skeleton": [[1, 2]]
    });
    let file = json!({
        "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": annotations,
        "categories": [category],
    });
    folder.file("annotations/instances_train.json", file.to_string());
    folder
}

fn object(id: u64, bbox: [f64; 4], more: serde_json::Value) -> serde_json::Value {
    let mut object = json!({"id": id, "image_id": 7, "category_id": 1, "bbox": bbox});
    let fields = more.as_object().unwrap().clone();
    object.as_object_mut().unwrap().extend(fields);
    object
}

#[test]
fn masks_and_keypoints_are_doubted() {
    let bbox = [10.0, 10.0, 20.0, 20.0];
    let square = json!([[10, 10, 30, 10, 30, 30, 10, 30]]);
    let polygon = |corners: serde_json::Value| json!({ "segmentation": [corners] });
    let folder = coco(json!([
        object(
            1,
            bbox,
            json!({"segmentation": square, "keypoints": [12, 12, 2, 31, 31, 1]})
        ),
        object(
            2,
            [40.0, 10.0, 20.0, 20.0],
            polygon(json!([40, 10, 45, 10, 45, 15, 40, 15]))
        ),
        object(
            3,
            [1.0, 1.0, 9.0, 9.0],
            polygon(json!([1, 1, 1.2, 1, 1.2, 1.1]))
        ),
        object(
            4,
            [50.0, 40.0, 14.0, 8.0],
            polygon(json!([50, 40, 90, 40, 90, 60, 50, 60]))
        ),
        object(
            5,
            [1.0, 20.0, 8.0, 9.0],
            json!({"keypoints": [2, 22, 2, 30, 22, 2]})
        ),
        object(
            6,
            [1.0, 30.0, 8.0, 9.0],
            json!({"keypoints": [2, 32, 2, -9, 32, 1]})
        ),
        object(
            7,
            [1.0, 40.0, 8.0, 8.0],
            json!({"keypoints": [2, 42, 2, 0, 0, 0]})
        ),
        object(
            8,
            [20.0, 40.0, 8.0, 8.0],
            json!({"keypoints": [22, 42, 2, 0, 0, 0, 23, 43, 2]})
        ),
    ]));
    let reading = folder.read().unwrap();
    let name = || "instances_train.json".to_string();
    let expected = [
        (Kind::MaskMismatch, name(), Some(2)),
        (Kind::EmptyMask, name(), Some(3)),
        (Kind::MaskOutside, name(), Some(4)),
        (Kind::KeypointOutside, name(), Some(5)),
        (Kind::KeypointOutside, name(), Some(6)),
        (Kind::KeypointCount, name(), Some(8)),
    ];
    assert_eq!(told(&reading), expected);
    let text = reading.problems.to_string();
    for part in [
        "it is within [40.0, 10.0, 45.0, 15.0], the box [40.0, 10.0, 60.0, 30.0]",
        "a corner at 90, 40 of 64x48",
        "keypoint 2 at 30, 22, outside of the box",
        "keypoint 2 at -9, 32, outside of 64x48",
        "3 keypoints, the first object 2",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    // They are notes: nothing is left out, and areas that are not annotated are those of the masks.
    let dataset = reading.accept(false).unwrap();
    let areas = dataset.samples[0].instances.areas.as_ref().unwrap();
    assert_eq!(areas[..3], [400.0, 25.0, 81.0]);
}

/// The objects of a data set, read again after a conversion to a format.
fn converted(folder: &Folder, format: Format, fields: Fields) -> Dataset {
    let options = ReadOptions {
        fields,
        ..ReadOptions::default()
    };
    let dataset = read(folder.path(), &options)
        .unwrap()
        .accept(false)
        .unwrap();
    let out = folder.path().join(format!("to-{format}"));
    let written = convert(&dataset, &out, format, Pictures::Copy).unwrap();
    assert!(!written.dropped.contains_key("keypoints"), "{written:?}");
    read(&out, &ReadOptions::default())
        .unwrap()
        .accept(false)
        .unwrap()
}

#[test]
fn poses_go_to_yolo_and_back() {
    let bbox = [10.0, 10.0, 20.0, 20.0];
    let folder = coco(json!([
        object(
            1,
            bbox,
            json!({"keypoints": [12, 12, 2, 28.5, 29, 1], "num_keypoints": 2})
        ),
        object(2, [40.0, 10.0, 20.0, 20.0], json!({})),
    ]));
    // Read as text, and as values.
    let as_text = Fields {
        extras: true,
        ..Fields::NONE
    };
    let as_values = Fields {
        extras: false,
        ..Fields::default()
    };
    for (place, fields) in [as_text, as_values].into_iter().enumerate() {
        let yolo = converted(&folder, Format::Yolo, fields);
        let keypoints = yolo.samples[0].instances.keypoints.as_ref().unwrap();
        assert_eq!(keypoints[0].0, [[12.0, 12.0, 2.0], [28.5, 29.0, 1.0]]);
        assert_eq!(keypoints[1].labelled(), 0);
        assert_eq!(yolo.skeletons[1].names, ["left_fin", "right_fin"]);
        assert_eq!(yolo.skeletons[1].mirrored(), [1, 0]);
        let out = folder.path().join(format!("back-{place}"));
        convert(&yolo, &out, Format::Coco, Pictures::Copy).unwrap();
        let back = read(&out, &ReadOptions::default())
            .unwrap()
            .accept(false)
            .unwrap();
        assert_eq!(
            back.samples[0].instances.keypoints.as_ref(),
            Some(keypoints)
        );
        assert_eq!(back.skeletons[1].mirrored(), [1, 0]);
        let extras = &back.samples[0].object_extras[0];
        assert_eq!(extras.get("num_keypoints"), Some("2"));
        std::fs::remove_dir_all(folder.path().join("to-yolo")).unwrap();
    }
}

#[test]
fn masks_go_to_yolo_in_one_polygon() {
    let two = json!([
        [10, 10, 20, 10, 20, 30, 10, 30],
        [24, 12, 30, 12, 30, 28, 24, 28]
    ]);
    let rle = json!({"size": [48, 64], "counts": [2410, 10, 38, 10, 604]});
    let folder = coco(json!([
        object(1, [10.0, 10.0, 20.0, 20.0], json!({ "segmentation": two })),
        object(2, [50.0, 10.0, 2.0, 10.0], json!({ "segmentation": rle })),
    ]));
    let masks = |dataset: &Dataset| dataset.samples[0].instances.masks.clone().unwrap();
    let original = folder.read().unwrap().accept(false).unwrap();
    let yolo = converted(&folder, Format::Yolo, Fields::default());
    assert_eq!(masks(&yolo), masks(&original));
}

#[test]
fn yolo_says_which_keypoint_is_which_in_a_mirror() {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.file(
        "labels/a.txt",
        "1 0.5 0.5 0.1 0.1 0.5 0.5 0.4 0.4 0.3 0.3\n",
    );
    let yaml = |more: &str| format!("train: images\nnames: [x, y]\nkpt_shape: [3, 2]\n{more}\n");
    folder.file("data.yaml", yaml("flip_idx: [0, 2, 1]"));
    let skeletons = folder.read().unwrap().dataset.skeletons;
    assert_eq!(skeletons[2].mirrored(), [0, 2, 1]);
    assert_eq!(
        skeletons[2].names,
        ["keypoint_1", "keypoint_2", "keypoint_3"]
    );
    folder.file(
        "data.yaml",
        yaml("kpt_names: {0: [a, b, c], 1: [nose, left_ear, right_ear]}"),
    );
    let skeletons = folder.read().unwrap().dataset.skeletons;
    assert_eq!(skeletons[1].names, ["a", "b", "c"]);
    assert_eq!(skeletons[2].mirrored(), [0, 2, 1]);
    for wrong in [
        "flip_idx: [0, 1]",
        "flip_idx: [0, 1, 1]",
        // Twice mirrored, it would be another pose.
        "flip_idx: [1, 2, 0]",
        "flip_idx: x",
    ] {
        folder.file("data.yaml", yaml(wrong));
        let error = folder.read().unwrap_err().to_string();
        assert!(
            error.contains("`flip_idx` is not the numbers from 0 to 2"),
            "{error}"
        );
    }
}

/// Keypoints of COCO's people are in files of their own.
#[test]
fn files_of_keypoints_are_read_where_they_are_asked_for() {
    let folder = coco(json!([object(1, [10.0, 10.0, 20.0, 20.0], json!({}))]));
    let instances = folder.path().join("annotations/instances_train.json");
    let text = std::fs::read_to_string(instances).unwrap();
    folder.file(
        "annotations/person_keypoints_train.json",
        text.replace("fish", "person"),
    );
    for (keypoint_files, class) in [(false, "fish"), (true, "person")] {
        let options = ReadOptions {
            keypoint_files,
            ..ReadOptions::default()
        };
        let dataset = read(folder.path(), &options)
            .unwrap()
            .accept(false)
            .unwrap();
        assert_eq!(dataset.class_names[1], class);
    }
}
