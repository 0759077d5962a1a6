//! Values that mean something else than they seem to, each test named after what went wrong.

use rcnn_data::{DataError, Dataset, ProblemKind as Kind, Reading};
use serde_json::{Value, json};

use crate::common::{Folder, told, voc_xml};

/// Image 7, `a.png` of 64x48, with an ordinary object of category 1 and others.
fn coco(others: &[Value]) -> Value {
    let mut annotations =
        vec![json!({"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 10, 20]})];
    annotations.extend_from_slice(others);
    json!({
        "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "RBC"}],
    })
}

fn read_text(json: &str) -> Result<Reading, DataError> {
    let folder = Folder::new();
    folder.picture("a.png", 64, 48);
    folder.picture("b.png", 64, 48);
    folder.file("train.json", json);
    folder.read()
}

fn read(json: &Value) -> Reading {
    read_text(&json.to_string()).unwrap()
}

/// Reads what has nothing wrong.
fn clean(json: &Value) -> Dataset {
    let reading = read(json);
    assert_eq!(told(&reading), []);
    reading.accept(false).unwrap()
}

/// As the usual converter of VOC writes them for BCCD.
#[test]
fn image_ids_that_are_text() {
    let mut data = coco(&[]);
    data["images"][0]["id"] = "BloodImage_00007".into();
    data["annotations"][0]["image_id"] = "BloodImage_00007".into();
    let dataset = clean(&data);
    assert_eq!((dataset.boxes(), dataset.samples[0].image_id), (1, 1));
    // One id that is no number does not leave the others with numbers that it may take.
    data["images"]
        .as_array_mut()
        .unwrap()
        .push(json!({"id": 1, "file_name": "b.png"}));
    let ids: Vec<u64> = clean(&data).samples.iter().map(|s| s.image_id).collect();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn ids_of_several_types_are_the_same() {
    for (image, annotation) in [
        (json!(7.0), json!(7)),
        (json!(7), json!("7")),
        (json!("7"), json!(7.0)),
        (json!(-7), json!("-7")),
    ] {
        let mut data = coco(&[]);
        data["images"][0]["id"] = image.clone();
        data["annotations"][0]["image_id"] = annotation;
        data["categories"][0]["id"] = "1".into();
        let dataset = clean(&data);
        assert_eq!(dataset.boxes(), 1, "{image}");
        let id = if image == json!(-7) { 1 } else { 7 };
        assert_eq!(
            (dataset.samples[0].image_id, &dataset.category_ids[..]),
            (id, &[0, 1][..])
        );
    }
    let mut data = coco(&[]);
    data["categories"][0]["id"] = "cell".into();
    data["annotations"][0]["category_id"] = "cell".into();
    assert_eq!(clean(&data).category_ids, [0, 1]);
}

#[test]
fn sizes_and_boxes_in_quotes() {
    let mut data = coco(&[]);
    data["images"][0]["width"] = "64".into();
    data["images"][0]["height"] = "40".into();
    data["annotations"][0]["bbox"] = json!(["1", "2.5", 10, "20"]);
    let reading = read(&data);
    assert_eq!(
        told(&reading),
        [(Kind::SizeMismatch, "train.json".into(), None)]
    );
    assert_eq!(boxes(&reading.dataset), [[1.0, 2.5, 11.0, 22.5]]);
}

fn boxes(dataset: &Dataset) -> Vec<[f32; 4]> {
    dataset
        .samples
        .iter()
        .flat_map(|s| s.instances.boxes.clone())
        .collect()
}

/// A box over the whole picture was trained on, and missed.
#[test]
fn crowds_by_every_name_for_true() {
    for crowd in [
        json!(true),
        json!(1),
        json!(1.0),
        json!("1"),
        json!("True"),
        json!(-1),
    ] {
        let other = json!({"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 64, 48], "iscrowd": crowd});
        let dataset = clean(&coco(&[other]));
        assert_eq!(
            (
                dataset.boxes(),
                dataset.samples[0].instances.len() - dataset.boxes()
            ),
            (1, 1),
            "{crowd}"
        );
    }
    for crowd in [
        json!(false),
        json!(0),
        json!("0"),
        json!(0.0),
        json!(null),
        json!(""),
    ] {
        let other = json!({"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 64, 48], "iscrowd": crowd});
        assert_eq!(clean(&coco(&[other])).boxes(), 2, "{crowd}");
    }
}

#[test]
fn entries_that_make_no_sense_are_named_and_the_rest_is_read() {
    let entry = |id: u64, key: &str, value: Value| {
        let mut entry = json!({"id": id, "image_id": 7, "category_id": 1, "bbox": [3, 3, 5, 5]});
        entry[key] = value;
        entry
    };
    let mut data = coco(&[
        entry(12, "category_id", json!(-1)),
        entry(13, "iscrowd", json!("perhaps")),
        entry(14, "image_id", json!(null)),
        entry(15, "image_id", json!([7])),
        json!("no entry"),
        json!([1, 2, 3]),
        entry(18, "bbox", json!([1, null, 2, 2])),
        entry(19, "category_id", json!({})),
        entry(20, "image_id", json!(8)),
    ]);
    data["images"].as_array_mut().unwrap().extend([
        json!({"id": 8}),
        json!({"file_name": "b.png"}),
        json!(null),
    ]);
    data["categories"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "WBC"}));
    let reading = read(&data);
    let file = || "train.json".to_string();
    // Of entries that can't be read, the number is their place.
    let expected = [
        (Kind::BadEntry, file(), None),
        (Kind::BadEntry, file(), None),
        (Kind::BadEntry, file(), None),
        (Kind::BadEntry, file(), Some(3)),
        (Kind::BadEntry, file(), Some(4)),
        (Kind::BadEntry, file(), Some(5)),
        (Kind::BadEntry, file(), Some(6)),
        (Kind::BadEntry, file(), Some(7)),
        (Kind::BadEntry, file(), None),
        (Kind::UnknownLabel, file(), Some(12)),
        (Kind::BadBox, file(), Some(18)),
        (Kind::UnknownLabel, file(), Some(19)),
    ];
    assert_eq!(told(&reading), expected);
    let text = format!("{:#}", reading.problems);
    for part in [
        "train.json: image 3: its id is missing",
        "train.json: image 8: its file_name is missing",
        "train.json: category 2: its id is missing",
        "box 3: its iscrowd is \"perhaps\"",
        "box 5: its image_id is a list",
        "box 12: category_id -1 is not in `categories`",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(reading.clone().accept(false).is_err());
    assert_eq!(reading.accept(true).unwrap().boxes(), 1);
}

/// Python writes them, and reads them.
#[test]
fn numbers_that_json_has_no_words_for() {
    let other =
        json!({"id": 2, "image_id": 7, "category_id": 1, "bbox": [10, 10, 5, 5], "area": "AREA"});
    let text = coco(&[other]).to_string();
    let area = read_text(&text.replace("\"AREA\"", "NaN")).unwrap();
    assert_eq!(told(&area), []);
    assert_eq!(
        area.dataset.samples[0].instances.areas,
        Some(vec![200.0, 25.0])
    );
    for word in ["NaN", "Infinity", "-Infinity"] {
        let text = text.replace("[10,10,5,5]", &format!("[10,10,{word},5]"));
        let reading = read_text(&text.replace("\"AREA\"", word)).unwrap();
        assert_eq!(
            told(&reading),
            [(Kind::BadBox, "train.json".into(), Some(2))],
            "{word}"
        );
        assert_eq!(reading.dataset.boxes(), 1);
    }
    let first = text
        .replacen('{', "{\"info\": NaN,", 1)
        .replace("\"AREA\"", "1");
    assert_eq!(read_text(&first).unwrap().dataset.boxes(), 2);
    let wrong = read_text(&text.replace("\"AREA\"", "nan"));
    assert!(wrong.unwrap_err().to_string().contains("at line 1 column"));
}

#[test]
fn polygons_without_a_box() {
    for bbox in [None, Some(json!([])), Some(json!(null))] {
        let polygons = json!([[10, 10, 30, 10, 30, 40, 10, 40], [5, 12, 8, 12, 8, 14]]);
        let mut other = json!({"id": 2, "image_id": 7, "category_id": 1, "segmentation": polygons});
        if let Some(bbox) = bbox {
            other["bbox"] = bbox;
        }
        let dataset = clean(&coco(&[other.clone()]));
        assert_eq!(boxes(&dataset)[1], [5.0, 10.0, 30.0, 40.0]);
        other["segmentation"] = json!([]);
        assert_eq!(
            told(&read(&coco(&[other]))),
            [(Kind::BadBox, "train.json".into(), Some(2))]
        );
    }
}

#[test]
fn run_lengths_without_a_box() {
    let counts = [48 * 10 + 5, 20, 28, 20, 64 * 48 - 48 * 10 - 5 - 68];
    let rle = json!({"size": [48, 64], "counts": counts});
    let other = json!({"id": 2, "image_id": 7, "category_id": 1, "segmentation": rle});
    assert_eq!(boxes(&clean(&coco(&[other])))[1], [10.0, 5.0, 12.0, 25.0]);
}

/// A JPEG of 64x48 with an orientation in its EXIF: 6 lies on its side.
fn oriented_picture(folder: &Folder, name: &str, orientation: u8) {
    let path = folder.picture(name, 64, 48);
    let mut jpeg = std::fs::read(&path).unwrap();
    let exif = b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0";
    let exif = exif
        .iter()
        .copied()
        .chain([orientation, 0, 0, 0, 0, 0, 0, 0]);
    jpeg.splice(2..2, exif);
    std::fs::write(path, jpeg).unwrap();
}

/// Boxes lay in other places, or outside, as most tools do not heed the orientation.
#[test]
fn labels_of_the_picture_as_it_is_stored_are_turned_with_it() {
    let folder = Folder::new();
    oriented_picture(&folder, "a.jpg", 6);
    let mut data = coco(&[]);
    data["images"][0]["file_name"] = "a.jpg".into();
    let object = &mut data["annotations"][0];
    object["bbox"] = json!([50, 5, 10, 20]);
    object["segmentation"] = json!([[50, 5, 60, 5, 60, 25]]);
    object["keypoints"] = json!([52, 6, 2, 0, 0, 0]);
    let mut second = object.clone();
    second["id"] = 2.into();
    second["category_id"] = 1.into();
    let start = 50 * 48 + 5;
    second["segmentation"] = json!({"size": [48, 64], "counts": [start, 20, 64 * 48 - start - 20]});
    second["bbox"] = json!([50, 5, 1, 20]);
    data["annotations"].as_array_mut().unwrap().push(second);
    folder.file("train.json", data.to_string());
    let reading = folder.read().unwrap();
    assert_eq!(
        told(&reading),
        [(Kind::TurnedLabels, "train.json".into(), None)]
    );
    let sample = &reading.accept(false).unwrap().samples[0];
    assert_eq!((sample.size.width, sample.size.height), (48, 64));
    let objects = &sample.instances;
    assert_eq!(
        objects.boxes,
        [[23.0, 50.0, 43.0, 60.0], [23.0, 50.0, 43.0, 51.0]]
    );
    let masks = objects.masks.as_ref().unwrap();
    assert_eq!(masks[1].bounds(), objects.boxes[1]);
    let bounds = masks[0].bounds();
    assert!(
        bounds[0] >= 23.0 && bounds[2] <= 43.0 && bounds[3] > 58.0,
        "{bounds:?}"
    );
    assert_eq!(
        objects.keypoints.as_ref().unwrap()[0].0,
        [[42.0, 52.0, 2.0], [0.0; 3]]
    );

    // Those of the upright picture stay, and VOC states a size too.
    data["images"][0]["width"] = 48.into();
    data["images"][0]["height"] = 64.into();
    data["annotations"] =
        json!([{"id": 1, "image_id": 7, "category_id": 1, "bbox": [23, 50, 20, 10]}]);
    folder.file("train.json", data.to_string());
    let upright = folder.read().unwrap();
    assert_eq!(told(&upright), []);
    assert_eq!(boxes(&upright.dataset), [[23.0, 50.0, 43.0, 60.0]]);
    let folder = Folder::new();
    oriented_picture(&folder, "a.jpg", 6);
    folder.file("a.xml", voc_xml(&[("RBC", ["50", "5", "60", "25"])]));
    let reading = folder.read().unwrap();
    assert_eq!(told(&reading), [(Kind::TurnedLabels, "a.xml".into(), None)]);
    assert_eq!(boxes(&reading.dataset), [[23.0, 50.0, 43.0, 60.0]]);
}

/// Upside down or mirrored, a picture has one size. Its labels are on the same picture as others of the set, and where
/// nothing shows on which, that is said.
#[test]
fn labels_of_pictures_whose_size_does_not_show_the_turn() {
    let folder = Folder::new();
    oriented_picture(&folder, "a.jpg", 3);
    folder.file("a.xml", voc_xml(&[("RBC", ["50", "5", "60", "25"])]));
    let alone = folder.read().unwrap();
    assert_eq!(
        told(&alone),
        [(Kind::UnclearOrientation, "a.xml".into(), None)]
    );
    assert_eq!(boxes(&alone.dataset), [[50.0, 5.0, 60.0, 25.0]]);

    oriented_picture(&folder, "b.jpg", 6);
    folder.file("b.xml", voc_xml(&[]));
    let stored = folder.read().unwrap();
    let turned = |file: &str| (Kind::TurnedLabels, file.to_string(), None);
    assert_eq!(told(&stored), [turned("a.xml"), turned("b.xml")]);
    assert_eq!(boxes(&stored.dataset), [[4.0, 23.0, 14.0, 43.0]]);

    // Labels that heed the one orientation heed the other.
    oriented_picture(&folder, "c.jpg", 6);
    let size = |width, height| format!("<width>{width}</width><height>{height}</height>");
    folder.file("c.xml", voc_xml(&[]).replace(&size(64, 48), &size(48, 64)));
    let mixed = folder.read().unwrap();
    assert_eq!(
        told(&mixed),
        [
            (Kind::UnclearOrientation, "a.xml".into(), None),
            turned("b.xml")
        ]
    );
}

/// Roboflow's exports begin with a category that groups the others.
#[test]
fn a_category_that_only_groups_others_is_no_class() {
    for root in ["cells", "RBC"] {
        let mut data = coco(&[]);
        data["categories"] = json!([
            {"id": 0, "name": root, "supercategory": "none"},
            {"id": 1, "name": "RBC", "supercategory": root},
        ]);
        let reading = read(&data);
        assert_eq!(
            told(&reading),
            [(Kind::CategoryGroup, "train.json".into(), None)]
        );
        let dataset = reading.accept(false).unwrap();
        assert_eq!(dataset.class_names, ["__background__", "RBC"]);
        assert_eq!(
            (&dataset.category_ids[..], boxes(&dataset).len()),
            (&[0, 1][..], 1)
        );
    }
    // It is one if it has objects, be it in the file of another split.
    let folder = Folder::new();
    folder.picture("train/a.png", 64, 48);
    folder.picture("valid/a.png", 64, 48);
    let mut data = coco(&[]);
    data["categories"] = json!([
        {"id": 0, "name": "animal", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animal"},
    ]);
    folder.file("train/_annotations.coco.json", data.to_string());
    data["annotations"][0]["category_id"] = 0.into();
    folder.file("valid/_annotations.coco.json", data.to_string());
    let train = folder.read_split("train").unwrap();
    assert_eq!(told(&train), []);
    assert_eq!(
        train.dataset.class_names,
        ["__background__", "animal", "cat"]
    );
    assert_eq!(
        folder.read().unwrap().dataset.class_names,
        train.dataset.class_names
    );
}

#[test]
fn a_background_among_the_categories_is_no_class() {
    for name in ["__background__", "_background_", "background"] {
        let mut data = coco(&[]);
        data["categories"] = json!([{"id": 0, "name": name}, {"id": 1, "name": "RBC"}]);
        assert_eq!(
            read(&data).dataset.class_names,
            ["__background__", "RBC"],
            "{name}"
        );
    }
}

#[test]
fn two_categories_of_one_name_are_two_classes() {
    let mut data = coco(&[json!({"id": 2, "image_id": 7, "category_id": 5, "bbox": [3, 3, 5, 5]})]);
    data["categories"] = json!([{"id": 1, "name": "RBC"}, {"id": 5, "name": "RBC"}]);
    let reading = read(&data);
    assert_eq!(
        told(&reading),
        [(Kind::DuplicateCategory, "train.json".into(), None)]
    );
    let dataset = reading.accept(false).unwrap();
    assert_eq!(dataset.class_names, ["__background__", "RBC", "RBC (5)"]);
    assert_eq!(
        (
            &dataset.category_ids[..],
            &dataset.samples[0].instances.labels[..]
        ),
        (&[0, 1, 5][..], &[1, 2][..])
    );
}
