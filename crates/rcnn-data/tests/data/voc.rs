//! Reading Pascal VOC: what is right, and what is wrong in every way.

use crate::common::{Folder, boxes_of, told, voc, voc_xml};
use rcnn_data::{DataError, Format, ProblemKind as Kind, ReadOptions};

#[test]
fn voc_with_splits() {
    let folder = voc();
    let reading = folder.read().unwrap();
    assert_eq!(told(&reading), []);
    let dataset = reading.accept(false).unwrap();
    assert_eq!(dataset.format, Format::Voc);
    assert_eq!(dataset.class_names, ["__background__", "RBC", "WBC"]);
    assert_eq!(dataset.category_ids, [0, 1, 2]);
    let expected = [
        (
            "a.png".into(),
            vec![[1.0, 2.0, 33.5, 40.0], [40.0, 4.0, 60.0, 20.0]],
            vec![2, 1],
        ),
        ("b.png".into(), vec![], vec![]),
        ("c.png".into(), vec![[0.0, 0.0, 64.0, 48.0]], vec![1]),
    ];
    assert_eq!(boxes_of(&dataset), expected);
    assert_eq!(dataset.samples[0].source.objects, [1, 2]);
    assert!(
        dataset.samples[0]
            .source
            .file
            .as_ref()
            .unwrap()
            .ends_with("Annotations/a.xml")
    );
    let splits: Vec<(&str, &[usize])> = dataset
        .splits
        .iter()
        .map(|(k, v)| (k.as_str(), &v[..]))
        .collect();
    assert_eq!(
        splits,
        [
            ("train", &[0, 1][..]),
            ("trainval", &[0, 1, 2]),
            ("val", &[2])
        ]
    );

    // A split knows the classes of all.
    let train = folder.read_split("val").unwrap().accept(false).unwrap();
    assert_eq!(train.class_names, dataset.class_names);
    assert_eq!(boxes_of(&train), expected[2..]);
    assert_eq!(boxes_of(&dataset.split("val").unwrap()), expected[2..]);
}

/// Lists that other tools wrote named every image as missing.
#[test]
fn splits_that_list_paths() {
    let folder = voc();
    let expected = folder.read_split("train").unwrap().accept(false).unwrap();
    let list = "JPEGImages/a.png\r\nC:\\set\\JPEGImages\\b.png\n";
    folder.file("ImageSets/Main/train.txt", list);
    let reading = folder.read_split("train").unwrap();
    assert_eq!(told(&reading), []);
    assert_eq!(reading.accept(false).unwrap().samples, expected.samples);
}

#[test]
fn a_split_that_is_not_there() {
    let error = voc().read_split("test").unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with("no split `test`; it has train, trainval, val"),
        "{text}"
    );
}

/// As in BCCD, where one object of two images has neither width nor height.
#[test]
fn boxes_without_area_are_refused_or_dropped() {
    let folder = voc();
    let boxes = [
        ("RBC", ["5", "6", "20", "21"]),
        ("RBC", ["50", "33", "50", "33"]),
    ];
    folder.file("Annotations/b.xml", voc_xml(&boxes));
    let reading = folder.read().unwrap();
    assert_eq!(told(&reading), [(Kind::NoArea, "b.xml".into(), Some(2))]);
    let error = reading.clone().accept(false).unwrap_err().to_string();
    assert!(error.starts_with("boxes without area (1):"), "{error}");
    assert!(error.ends_with("b.xml, box 2: [50, 33, 50, 33]"), "{error}");
    assert_eq!(reading.problems.invalid(), 1);
    assert_eq!(reading.accept(true).unwrap().boxes(), 4);
    // A split without it is fine.
    assert_eq!(told(&folder.read_split("val").unwrap()), []);
}

#[test]
fn every_kind_of_bad_box() {
    let folder = voc();
    let boxes = [
        ("RBC", ["-30", "6", "20", "21"]),
        ("RBC", ["5", "6", "x", "21"]),
        ("RBC", ["5", "6", "", "21"]),
        ("RBC", ["5", "6", "inf", "21"]),
        ("RBC", ["20", "6", "5", "21"]),
        ("RBC", ["70", "6", "90", "21"]),
        ("", ["1", "1", "9", "9"]),
        ("RBC", ["0", "0", "65", "49"]),
        ("RBC", ["0", "0", "64", "48"]),
    ];
    folder.file("Annotations/b.xml", voc_xml(&boxes));
    let kinds = [
        Kind::OutsideImage,
        Kind::BadBox,
        Kind::BadBox,
        Kind::BadBox,
        Kind::NoArea,
        Kind::OutsideImage,
        Kind::UnknownLabel,
    ];
    let mut expected: Vec<_> = kinds
        .into_iter()
        .zip(1..)
        .map(|(k, n)| (k, "b.xml".into(), Some(n)))
        .collect();
    expected.push((Kind::DuplicateBox, "b.xml".into(), Some(9)));
    let reading = folder.read().unwrap();
    assert_eq!(told(&reading), expected);
    assert_eq!(reading.problems.invalid(), 7);

    let clip = ReadOptions {
        clip: true,
        ..ReadOptions::default()
    };
    let reading = rcnn_data::read(folder.path(), &clip).unwrap();
    assert_eq!(told(&reading)[0].0, Kind::Clipped);
    assert_eq!(
        reading.dataset.samples[1].instances.boxes[0],
        [0.0, 6.0, 20.0, 21.0]
    );
}

#[test]
fn bad_files_of_voc() {
    let folder = voc();
    folder.file("Annotations/a.xml", "<annotation><object></annotation>");
    folder.file("Annotations/b.xml", "<annotation><object/></annotation>");
    folder.file("Annotations/c.xml", b"\xff\xfe\x00");
    folder.file("Annotations/d.xml", voc_xml(&[]));
    folder.file("Annotations/e.xml", "<html>".repeat(100_000));
    folder.picture("JPEGImages/f.png", 9, 9);
    folder.file("JPEGImages/g.jpg", "no picture");
    folder.picture("JPEGImages/h.png", 48, 64);
    folder.file("Annotations/h.xml", voc_xml(&[]));
    folder.file("ImageSets/Main/val.txt", "c\nmissing\nc\n");
    folder.file("ImageSets/Main/test.txt", " \n");
    let reading = folder.read().unwrap();
    let expected = [
        (Kind::EmptySplit, "test.txt", None),
        (Kind::DuplicateImage, "val.txt", None),
        (Kind::BrokenLabels, "a.xml", None),
        (Kind::BrokenLabels, "c.xml", None),
        (Kind::OrphanLabels, "d.xml", None),
        (Kind::BrokenLabels, "e.xml", None),
        (Kind::BadBox, "b.xml", Some(1)),
        (Kind::UnlabelledImage, "f.png", None),
        (Kind::BrokenImage, "g.jpg", None),
        (Kind::SizeMismatch, "h.xml", None),
        (Kind::MissingImage, "missing.jpg", None),
    ];
    let expected = expected.map(|(kind, file, object)| (kind, file.to_string(), object));
    assert_eq!(told(&reading), expected);
    let broken = reading
        .problems
        .iter()
        .find(|p| p.file.ends_with("a.xml"))
        .unwrap();
    assert!(
        broken.message.contains("1:"),
        "no position: {}",
        broken.message
    );
    let missing = reading.problems.iter().last().unwrap();
    assert!(
        missing.message.contains("val.txt names it"),
        "{}",
        missing.message
    );
    let dataset = reading.accept(true).unwrap();
    assert_eq!(dataset.splits["val"], [] as [usize; 0]);
    assert_eq!(dataset.samples.len(), 3);
    assert_eq!(dataset.samples[2].size, rcnn_types::Size::new(64, 48));

    let error = folder.read_split("test").unwrap_err();
    assert!(matches!(error, DataError::NoImages { split: Some(split), .. } if split == "test"));
}

#[test]
fn classes_may_be_given() {
    let folder = voc();
    let class_names = Some(vec![
        "__background__".into(),
        "WBC".into(),
        "platelet".into(),
    ]);
    let options = ReadOptions {
        class_names,
        ..ReadOptions::default()
    };
    let reading = rcnn_data::read(folder.path(), &options).unwrap();
    let expected = [
        (Kind::UnknownLabel, "a.xml".into(), Some(2)),
        (Kind::UnknownLabel, "c.xml".into(), Some(1)),
    ];
    assert_eq!(told(&reading), expected);
    let dataset = reading.accept(true).unwrap();
    assert_eq!(dataset.class_names, ["__background__", "WBC", "platelet"]);
    assert_eq!(dataset.samples[0].instances.labels, [1]);
    assert!(dataset.samples[2].instances.is_empty());
}

#[test]
fn nothing_to_read() {
    let folder = Folder::new();
    let error = folder.read().unwrap_err();
    assert!(
        error.to_string().contains("no labels of a known format"),
        "{error}"
    );
    let error = rcnn_data::read(&folder.path().join("gone"), &ReadOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }));
    folder.file("Annotations/a.xml", voc_xml(&[]));
    assert!(matches!(
        folder.read().unwrap().accept(true),
        Err(DataError::Invalid { .. })
    ));
    folder.file("annotations/instances_x.json", "{\"images\": []}");
    assert!(
        folder
            .read()
            .unwrap_err()
            .to_string()
            .contains("several formats (voc, coco)")
    );
    let text = folder.file("data.txt", "");
    assert!(matches!(
        rcnn_data::detect_format(&text),
        Err(DataError::UnknownFormat { .. })
    ));
}
