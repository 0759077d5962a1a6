//! Data sets as exports and archives have them, each test named after what was refused or misread.

use std::path::Path;

use rcnn_data::{DataError, Dataset, Format, ReadOptions, read};

use crate::common::{Folder, told, voc_xml};

/// The parts of a data set with their pictures, by path below its folder.
pub(crate) fn parts(folder: &Folder, dataset: &Dataset) -> Vec<(String, Vec<String>)> {
    let name = |&index: &usize| {
        let image = &dataset.samples[index].image;
        let inner = image.strip_prefix(folder.path()).unwrap_or(image);
        inner.to_string_lossy().into_owned()
    };
    let splits = dataset.splits.iter();
    splits
        .map(|(split, all)| (split.clone(), all.iter().map(name).collect()))
        .collect()
}

pub(crate) fn part(split: &str, pictures: &[&str]) -> (String, Vec<String>) {
    (
        split.into(),
        pictures.iter().map(|name| name.to_string()).collect(),
    )
}

/// Reads a data set without anything to remark and with a box on each picture.
pub(crate) fn clean(root: &Path, options: &ReadOptions) -> Dataset {
    let reading = read(root, options).unwrap();
    assert_eq!(told(&reading), []);
    let dataset = reading.accept(false).unwrap();
    for sample in &dataset.samples {
        assert!(!sample.instances.is_empty(), "{}", sample.image.display());
    }
    dataset
}

pub(crate) fn clean_folder(folder: &Folder) -> Dataset {
    clean(folder.path(), &ReadOptions::default())
}

fn xml() -> String {
    voc_xml(&[("RBC", ["1", "2", "33", "40"])])
}

/// A COCO file of a box on each of some pictures.
pub(crate) fn coco(pictures: &[&str]) -> String {
    let images = pictures.iter().zip(1..).map(
        |(name, id)| serde_json::json!({"id": id, "file_name": name, "width": 64, "height": 48}),
    );
    let boxes = (1..=pictures.len()).map(|id| {
        serde_json::json!({"id": id, "image_id": id, "category_id": 1, "bbox": [id, 2, 20, 20]})
    });
    serde_json::json!({
        "images": images.collect::<Vec<_>>(),
        "annotations": boxes.collect::<Vec<_>>(),
        "categories": [{"id": 1, "name": "RBC"}],
    })
    .to_string()
}

pub(crate) const LINE: &str = "0 .5 .5 .2 .2\n";

#[test]
fn xml_beside_the_pictures() {
    let folder = Folder::new();
    for name in ["train/a", "train/b", "valid/a"] {
        folder.picture(&format!("{name}.jpg"), 64, 48);
        folder.file(&format!("{name}.xml"), xml());
    }
    folder.file("README.roboflow.txt", "An export\n");
    let dataset = clean_folder(&folder);
    assert_eq!(dataset.format, Format::Voc);
    let expected = [
        part("train", &["train/a.jpg", "train/b.jpg"]),
        part("valid", &["valid/a.jpg"]),
    ];
    assert_eq!(parts(&folder, &dataset), expected);
    let valid = folder.read_split("valid").unwrap().accept(false).unwrap();
    assert_eq!(parts(&folder, &valid), expected[1..]);
    let error = folder.read_split("test").unwrap_err().to_string();
    assert!(
        error.ends_with("no split `test`; it has train, valid"),
        "{error}"
    );
    let train = clean(&folder.path().join("train"), &ReadOptions::default());
    assert_eq!((train.samples.len(), train.splits.len()), (2, 0));
}

#[test]
fn folders_of_voc_by_other_names() {
    for (annotations, images) in [
        ("annotations", "images"),
        ("Annotations", "Images"),
        ("labels", "data"),
        ("xmls", "frames"),
        ("annotations", "."),
        ("Annotations/train", "JPEGImages/train"),
    ] {
        let folder = Folder::new();
        folder.picture(&format!("{images}/a.png"), 64, 48);
        folder.file(&format!("{annotations}/a.xml"), xml());
        let dataset = clean_folder(&folder);
        assert_eq!(dataset.format, Format::Voc, "{annotations}");
        assert_eq!(dataset.samples.len(), 1);
    }
    // Each split with folders of its own.
    let folder = Folder::new();
    for split in ["train", "test"] {
        folder.picture(&format!("{split}/images/a.png"), 64, 48);
        folder.file(&format!("{split}/annotations/a.xml"), xml());
    }
    let expected = [
        part("test", &["test/images/a.png"]),
        part("train", &["train/images/a.png"]),
    ];
    assert_eq!(parts(&folder, &clean_folder(&folder)), expected);
}

#[test]
fn the_folder_above_a_data_set() {
    let folder = Folder::new();
    let year = "VOCdevkit/VOC2007";
    folder.picture(&format!("{year}/JPEGImages/a.jpg"), 64, 48);
    folder.file(&format!("{year}/Annotations/a.xml"), xml());
    folder.file(&format!("{year}/ImageSets/Main/train.txt"), "a\n");
    folder.file("__MACOSX/VOCdevkit/._VOC2007", "Mac OS X");
    folder.file(".git/config", "");
    let inner = format!("{year}/JPEGImages/a.jpg");
    let expected = [part("train", &[inner.as_str()])];
    for root in [folder.path().to_path_buf(), folder.path().join("VOCdevkit")] {
        let dataset = clean(&root, &ReadOptions::default());
        assert_eq!(parts(&folder, &dataset), expected);
    }
    folder.picture("VOCdevkit/VOC2012/JPEGImages/a.jpg", 64, 48);
    folder.file("VOCdevkit/VOC2012/Annotations/a.xml", xml());
    let error = folder.read().unwrap_err().to_string();
    assert!(
        error.contains("several data sets below it; name one"),
        "{error}"
    );
    assert!(error.contains("VOC2012"), "{error}");
}

#[test]
fn pictures_that_xml_of_another_name_claims() {
    let folder = Folder::new();
    folder.picture("JPEGImages/img_7.png", 64, 48);
    let named = "<filename>C:\\photos\\img_7.png</filename><size>";
    folder.file("Annotations/0001.xml", xml().replace("<size>", named));
    folder.file("ImageSets/Main/train.txt", "0001\n");
    let dataset = clean_folder(&folder);
    assert_eq!(
        parts(&folder, &dataset),
        [part("train", &["JPEGImages/img_7.png"])]
    );
    assert_eq!(dataset.samples.len(), 1);
}

#[test]
fn xml_in_other_encodings() {
    let folder = Folder::new();
    let head =
        "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><annotation><folder>Z\u{fc}rich</folder>";
    let text = xml()
        .replace("<annotation>", head)
        .replace("RBC", "K\u{e4}fer");
    let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
    let wide = |mark: &str, bytes: fn(u16) -> [u8; 2]| {
        let text = text.replace("ISO-8859-1", "UTF-16");
        format!("{mark}{text}")
            .encode_utf16()
            .flat_map(bytes)
            .collect::<Vec<u8>>()
    };
    let utf8 = text.replace("ISO-8859-1", "UTF-8");
    let files = [
        latin,
        wide("\u{feff}", u16::to_le_bytes),
        wide("\u{feff}", u16::to_be_bytes),
        wide("", u16::to_le_bytes),
        format!("\u{feff}{utf8}").into_bytes(),
        utf8.into_bytes(),
    ];
    for (content, number) in files.into_iter().zip(0..) {
        folder.picture(&format!("JPEGImages/{number}.png"), 64, 48);
        folder.file(&format!("Annotations/{number}.xml"), content);
    }
    let dataset = clean_folder(&folder);
    assert_eq!(dataset.class_names, ["__background__", "K\u{e4}fer"]);
    assert_eq!(dataset.samples.len(), 6);
    folder.file("classes.txt", b"K\xe4fer\n");
    let error = folder.read().unwrap_err().to_string();
    assert!(
        error.contains("classes.txt: not UTF-8: byte 0xe4"),
        "{error}"
    );
}

#[test]
fn a_byte_order_mark_before_every_kind_of_file() {
    let mark = |text: &str| format!("\u{feff}{text}");
    let folder = Folder::new();
    folder.picture("a.png", 64, 48);
    let json = folder.file("train.json", mark(&coco(&["a.png"])));
    clean_folder(&folder);
    let wide = mark(&coco(&["a.png"]))
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect::<Vec<_>>();
    std::fs::write(json, wide).unwrap();
    clean_folder(&folder);

    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.file("labels/a.txt", mark(LINE));
    folder.file("train.txt", mark("images/a.png\n"));
    for (name, content) in [
        ("data.yaml", "names: [RBC]\ntrain: train.txt\n"),
        ("obj.names", "RBC\n"),
        (
            "obj.data",
            "names = data/obj.names\ntrain = data/train.txt\n",
        ),
    ] {
        folder.file(name, mark(content));
        if name != "obj.names" {
            let dataset = clean_folder(&folder);
            assert_eq!(dataset.class_names[1], "RBC");
            assert_eq!(parts(&folder, &dataset), [part("train", &["images/a.png"])]);
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
}

#[test]
fn a_coco_file_in_the_folder_of_each_split() {
    for file in [
        "annotations.json",
        "coco_instances.json",
        "_annotations.coco.json",
        "annotations/labels.json",
    ] {
        let folder = Folder::new();
        for split in ["train", "val"] {
            folder.picture(&format!("{split}/a.png"), 64, 48);
            folder.file(&format!("{split}/{file}"), coco(&["a.png"]));
        }
        let dataset = clean_folder(&folder);
        let expected = [part("train", &["train/a.png"]), part("val", &["val/a.png"])];
        assert_eq!(parts(&folder, &dataset), expected, "{file}");
        assert_eq!(folder.read_split("val").unwrap().dataset.samples.len(), 1);
    }
}

#[test]
fn json_that_is_no_data_set() {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.file("annotations/instances_train.json", coco(&["a.png"]));
    let result = r#"[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.9}]"#;
    folder.file("detections.json", result);
    folder.file("dataset-metadata.json", "{}");
    folder.file("annotations/broken.json", "{\"licenses\": [");
    folder.file("annotations/person_keypoints_train.json", coco(&["b.png"]));
    let dataset = clean_folder(&folder);
    assert_eq!(parts(&folder, &dataset), [part("train", &["images/a.png"])]);
    // Without others, those of keypoints are boxes of people.
    std::fs::remove_file(folder.path().join("annotations/instances_train.json")).unwrap();
    folder.file("annotations/person_keypoints_train.json", coco(&["a.png"]));
    assert_eq!(
        parts(&folder, &clean_folder(&folder)),
        [part("train", &["images/a.png"])]
    );
}

#[test]
fn a_coco_file_whose_beginning_does_not_tell_all() {
    let folder = Folder::new();
    folder.picture("a.png", 64, 48);
    let long = format!(
        "{{\"annotations\": [{}1], \"images\": []",
        "1, ".repeat(1 << 19)
    );
    folder.file("train.json", long);
    assert!(matches!(folder.read(), Err(DataError::Malformed { .. })));
    folder.file(
        "train.json",
        coco(&["a.png"]).replacen('{', "{\"x\": NaN, ", 1),
    );
    clean_folder(&folder);
}

#[test]
fn the_folders_of_fiftyone() {
    let folder = Folder::new();
    folder.picture("data/a.jpg", 64, 48);
    folder.file("labels.json", coco(&["a.jpg"]));
    assert_eq!(
        parts(&folder, &clean_folder(&folder)),
        [part("labels", &["data/a.jpg"])]
    );
    // VOC, and darknet with one list.
    let folder = Folder::new();
    folder.picture("data/a.jpg", 64, 48);
    folder.file("labels/a.xml", xml());
    assert_eq!(clean_folder(&folder).format, Format::Voc);
    let folder = Folder::new();
    folder.picture("data/a.jpg", 64, 48);
    folder.file("data/a.txt", LINE);
    folder.file("images.txt", "data/a.jpg\n");
    folder.file("obj.names", "RBC\n");
    assert_eq!(clean_folder(&folder).format, Format::Yolo);
}

/// `Train` was a split that training did not look for.
#[test]
fn folders_of_splits_in_capitals() {
    let files: [(&str, String); 4] = [
        ("Train/annotations.json", coco(&["a.png"])),
        ("Train/a.xml", xml()),
        ("Train/a.txt", LINE.into()),
        ("Train/images/a.txt", LINE.into()),
    ];
    for (file, content) in files {
        let folder = Folder::new();
        let inner = Path::new(file).parent().unwrap().join("a.png");
        folder.picture(inner.to_str().unwrap(), 64, 48);
        folder.file(file, content);
        folder.file("classes.txt", "RBC\n");
        let dataset = clean_folder(&folder);
        let splits: Vec<&String> = dataset.splits.keys().collect();
        assert_eq!(splits, ["train"], "{file}");
    }
}

#[test]
fn pictures_apart_from_the_labels() {
    let pictures = Folder::new();
    pictures.picture("train/a.png", 64, 48);
    let options = ReadOptions {
        images: Some(pictures.path().into()),
        ..ReadOptions::default()
    };
    let labels = Folder::new();
    let json = labels.file("train.json", coco(&["a.png"]));
    clean(&json, &options);
    let labels = Folder::new();
    labels.file("Annotations/a.xml", xml());
    clean(labels.path(), &options);
    for inner in ["labels", "labels/train"] {
        let labels = Folder::new();
        labels.file(&format!("{inner}/a.txt"), LINE);
        labels.file("classes.txt", "RBC\n");
        assert!(labels.read().is_err());
        clean(labels.path(), &options);
        labels.file("data.yaml", "train: /home/me/images/train\nnames: [RBC]\n");
        assert!(labels.read().is_err());
        clean(labels.path(), &options);
    }
}

#[test]
fn labels_of_several_formats() {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.file("labels/a.txt", LINE);
    folder.file("classes.txt", "RBC\n");
    folder.file("annotations/instances_train.json", coco(&["a.png"]));
    folder.file("Annotations/a.xml", xml());
    let error = folder.read().unwrap_err().to_string();
    assert!(
        error.contains("several formats (voc, coco, yolo); name one (--data-format)"),
        "{error}"
    );
    for format in [Format::Voc, Format::Coco, Format::Yolo] {
        let options = ReadOptions {
            format: Some(format),
            ..ReadOptions::default()
        };
        assert_eq!(clean(folder.path(), &options).format, format);
    }
}

#[test]
fn what_systems_leave_among_the_pictures() {
    let folder = Folder::new();
    let mac = b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ";
    folder.picture("images/a.png", 64, 48);
    folder.file("images/._a.png", mac);
    folder.file("labels/a.txt", LINE);
    folder.file("labels/._a.txt", mac);
    folder.file("data.yaml", "train: images\nnames: [RBC]\n");
    folder.file("._data.yaml", mac);
    folder.picture("images/.ipynb_checkpoints/a-checkpoint.png", 64, 48);
    assert_eq!(clean_folder(&folder).samples.len(), 1);
}

#[test]
fn a_folder_of_nothing_known_says_what_is_in_it() {
    let folder = Folder::new();
    folder.picture("shots/a.png", 64, 48);
    folder.file("labels.csv", "a.png,1,2,3,4");
    folder.file("annotations.json", b"PK\x03\x04\x14\0");
    folder.file("results.json", "[]");
    folder.file("meta.json", "{}");
    let error = folder.read().unwrap_err().to_string();
    for part in [
        "no labels of a known format; found: 3 .json, 1 .csv; in shots 1 .png",
        "annotations.json is a zip archive, meta.json has no `images`, results.json is a list",
        "COCO (a .json with `images`",
        "beside the pictures",
    ] {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
    let folder = Folder::new();
    folder.picture("a.png", 64, 48);
    folder.file("annotations/instances_train.json", b"PK\x03\x04\x14\0");
    let error = folder.read().unwrap_err().to_string();
    let part = "annotations/instances_train.json is a zip archive";
    assert!(error.contains(part), "no `{part}` in {error}");
    let options = ReadOptions {
        format: Some(Format::Voc),
        ..ReadOptions::default()
    };
    let error = read(folder.path(), &options).unwrap_err().to_string();
    assert!(error.contains("no voc labels"), "{error}");
}
