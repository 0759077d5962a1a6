//! YOLO as exports and archives have it, each test named after what was refused or misread.

use rcnn_data::{DataError, Format, ProblemKind as Kind, ReadOptions};

use crate::common::{Folder, told};
use crate::layouts::{LINE, clean, clean_folder, part, parts};

#[test]
fn label_studio_exports_notes_with_yolo() {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.file("labels/a.txt", LINE);
    folder.file(
        "notes.json",
        r#"{"categories": [{"id": "0", "name": "RBC"}], "info": {"year": 2024}}"#,
    );
    assert_eq!(clean_folder(&folder).class_names[1], "RBC");
    folder.file("classes.txt", "WBC\n");
    let dataset = clean_folder(&folder);
    assert_eq!(
        (dataset.format, dataset.class_names[1].as_str()),
        (Format::Yolo, "WBC")
    );
}

/// Windows and macOS find `labels` there, so that nobody notices until the data are on Linux.
#[test]
fn folders_of_images_and_labels_in_capitals() {
    for (images, labels) in [("Images", "Labels"), ("IMAGES/train", "LABELS/train")] {
        let folder = Folder::new();
        folder.picture(&format!("{images}/a.png"), 64, 48);
        folder.picture(&format!("{images}/b.png"), 64, 48);
        folder.file(&format!("{labels}/a.txt"), LINE);
        folder.file(&format!("{labels}/b.txt"), LINE);
        folder.file("data.yaml", format!("train: {images}\nnames: [RBC]\n"));
        assert_eq!(clean_folder(&folder).boxes(), 2, "{images}");
    }
}

#[test]
fn darknet_as_cvat_exports_it() {
    let folder = Folder::new();
    folder.picture("obj_train_data/f.jpg", 64, 48);
    folder.file("obj_train_data/f.txt", LINE);
    folder.picture("obj_valid_data/f.jpg", 64, 48);
    folder.file("obj_valid_data/f.txt", LINE);
    folder.file("obj.names", "car\n");
    let data = "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\ntest = data/test.txt\n\
                names = data/obj.names\nbackup = backup/\n";
    let data = folder.file("obj.data", data);
    folder.file("train.txt", "data/obj_train_data/f.jpg\n");
    folder.file("valid.txt", "data/obj_valid_data/f.jpg\n");
    let expected = [
        part("train", &["obj_train_data/f.jpg"]),
        part("valid", &["obj_valid_data/f.jpg"]),
    ];
    let dataset = clean_folder(&folder);
    assert_eq!(parts(&folder, &dataset), expected);
    assert_eq!(dataset.class_names, ["__background__", "car"]);
    assert_eq!(
        clean(&data, &ReadOptions::default()).samples,
        dataset.samples
    );
    // With a data.yaml by hand, and without either.
    std::fs::remove_file(&data).unwrap();
    folder.file(
        "data.yaml",
        "train: train.txt\nval: valid.txt\nnames: [car]\n",
    );
    assert_eq!(clean_folder(&folder).samples, dataset.samples);
    std::fs::remove_file(folder.path().join("data.yaml")).unwrap();
    assert_eq!(parts(&folder, &clean_folder(&folder)), expected);
    let _ = ["train.txt", "valid.txt"]
        .map(|name| std::fs::remove_file(folder.path().join(name)).unwrap());
    assert_eq!(parts(&folder, &clean_folder(&folder)), expected);
}

#[test]
fn labels_beside_pictures_under_a_path_of_images() {
    let folder = Folder::new();
    folder.picture("images/set/train/a.png", 64, 48);
    folder.file("images/set/train/a.txt", LINE);
    folder.file("images/set/data.yaml", "train: train\nnames: [RBC]\n");
    clean(&folder.path().join("images/set"), &ReadOptions::default());
    // Darknet's, and labels and classes in one folder of pictures, as labelImg leaves them.
    for (picture, label, names) in [
        ("JPEGImages/a.png", "labels/a.txt", "classes.txt"),
        ("a.png", "a.txt", "classes.txt"),
        ("train/a.png", "train/a.txt", "train/_darknet.labels"),
        ("train/a.png", "train/labels/a.txt", "classes.txt"),
        (
            "train/images/a.png",
            "train/labels/a.txt",
            "train/labels/classes.txt",
        ),
    ] {
        let folder = Folder::new();
        folder.picture(picture, 64, 48);
        folder.file(label, LINE);
        folder.file(names, "RBC\n");
        assert_eq!(clean_folder(&folder).format, Format::Yolo, "{picture}");
    }
}

/// Labels in other subfolders than the pictures' were taken for missing, the pictures for background.
#[test]
fn labels_in_subfolders() {
    for (picture, label) in [
        ("images/a.png", "labels/train/a.txt"),
        ("images/train/a.png", "labels/a.txt"),
        ("images/train/a.png", "labels/train/day1/a.txt"),
        ("images/train/day1/a.png", "labels/train/a.txt"),
    ] {
        let folder = Folder::new();
        folder.picture(picture, 64, 48);
        folder.file(label, LINE);
        folder.file("classes.txt", "RBC\n");
        clean_folder(&folder);
    }
    // Those of another split are not this one's, and one label is not two pictures'.
    let folder = Folder::new();
    for picture in [
        "images/train/a.png",
        "images/val/a.png",
        "images/train/1/b.png",
        "images/train/2/b.png",
    ] {
        folder.picture(picture, 64, 48);
    }
    folder.file("labels/val/a.txt", LINE);
    folder.file("labels/train/b.txt", LINE);
    folder.file("classes.txt", "RBC\n");
    let reading = folder.read().unwrap();
    let background = |name: &str| (Kind::UnlabelledImage, name.to_string(), None);
    let mut found = told(&reading);
    found.retain(|(kind, ..)| *kind == Kind::UnlabelledImage);
    assert_eq!(
        found,
        [
            background("b.png"),
            background("b.png"),
            background("a.png")
        ]
    );
    assert_eq!(reading.dataset.boxes(), 1);
}

#[test]
fn pictures_none_of_which_has_labels() {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.file("label/a.txt", LINE);
    folder.file("data.yaml", "train: images\nnames: [RBC]\n");
    let error = folder.read().unwrap_err();
    assert!(
        matches!(error, DataError::NoLabels { images: 1, .. }),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("the first should have") && text.contains("labels/a.txt"),
        "{text}"
    );
    assert!(text.contains("in label 1 .txt"), "{text}");
    // One is enough for the others to be background.
    folder.picture("images/b.png", 64, 48);
    folder.file("labels/b.txt", LINE);
    assert_eq!(folder.read().unwrap().dataset.samples.len(), 2);
}

#[test]
fn data_yaml_as_ultralytics_takes_it() {
    let folder = Folder::new();
    for split in ["train", "val", "test"] {
        folder.picture(&format!("{split}/images/a.png"), 64, 48);
        folder.file(&format!("{split}/labels/a.txt"), "1 .5 .5 .2 .2\n");
    }
    let splits = "train: train/images\nvalidation: ../val/images\ntest: test/images\n";
    for (names, expected) in [
        ("names: [cat, dog]", ["cat", "dog"]),
        ("names: {'0': cat, \"1\": dog}", ["cat", "dog"]),
        ("\"names\":\n  0: cat\n  1: dog", ["cat", "dog"]),
        ("nc: 2", ["class_0", "class_1"]),
        ("nc: '2'", ["class_0", "class_1"]),
    ] {
        folder.file("data.yaml", format!("{splits}{names}\n"));
        let dataset = clean_folder(&folder);
        assert_eq!(dataset.class_names[1..], expected, "{names}");
        let expected =
            ["test", "train", "val"].map(|split| part(split, &[&format!("{split}/images/a.png")]));
        assert_eq!(parts(&folder, &dataset), expected);
    }
    // Paths of its author's machine.
    let paths = "path: /home/me/set\ntrain: C:\\set\\train\\images\nval: /home/me/set/val/images\n";
    folder.file("data.yaml", format!("{paths}names: [cat, dog]\n"));
    assert_eq!(clean_folder(&folder).splits.len(), 2);
    folder.file("data.yaml", "train: nowhere/images\nnames: [cat, dog]\n");
    let error = folder.read().unwrap_err().to_string();
    assert!(
        error.contains("`train`: nowhere/images is not there"),
        "{error}"
    );
}

#[test]
fn pose_labels_are_boxes_and_points() {
    let folder = Folder::new();
    folder.picture("images/a.png", 640, 480);
    let points = "0.48 0.48 0.52 0.48 0.52 0.52 0.48 0.52";
    folder.file("labels/a.txt", format!("0 0.5 0.5 0.1 0.1 {points}\n"));
    let yaml = |shape: &str| format!("train: images\nnames: [x]\nkpt_shape: {shape}\n");
    folder.file("data.yaml", yaml("[4, 2]"));
    let dataset = clean_folder(&folder);
    assert_eq!(
        dataset.samples[0].instances.boxes,
        [[288.0, 216.0, 352.0, 264.0]]
    );
    folder.file(
        "labels/a.txt",
        "0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.4 0.4 0\n0 1 0 0 1 0 0\n",
    );
    folder.file("data.yaml", yaml("[2, 3]"));
    let reading = folder.read().unwrap();
    assert_eq!(told(&reading), [(Kind::BadBox, "a.txt".into(), Some(3))]);
    assert!(
        reading
            .problems
            .to_string()
            .contains("6 numbers instead of 4 and 6 of keypoints")
    );
    assert_eq!(reading.dataset.boxes(), 2);
    let keypoints = reading.dataset.samples[0]
        .instances
        .keypoints
        .as_ref()
        .unwrap();
    assert!(keypoints[0].0.is_empty());
    assert_eq!(keypoints[1].0, [[320.0, 240.0, 2.0], [0.0; 3]]);
    folder.file("data.yaml", yaml("[17]"));
    let error = folder.read().unwrap_err().to_string();
    assert!(error.contains("`kpt_shape` is not"), "{error}");
}
