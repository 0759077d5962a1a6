//! Round trips through all formats.

use std::collections::BTreeMap;
use std::fs;

use crate::common::{Folder, told, voc, voc_xml};
use rcnn_data::convert::{Pictures, convert};
use rcnn_data::{
    Augmentation, DataError, Dataset, Fields, Format, Fractions, Loader, LoaderOptions,
    ProblemKind, ReadOptions, random_split, read,
};
use rcnn_types::{BBox, Instance, Instances, Keypoints, Mask, Size};

type Content = BTreeMap<String, (Size, Vec<(BBox, String)>)>;

/// Images by stem with their boxes and the names of their classes.
fn content(dataset: &Dataset) -> Content {
    let samples = dataset.samples.iter().map(|s| {
        let named = |object: Instance| (object.bbox, dataset.class_names[object.label].clone());
        let boxes = s.instances.iter().map(named);
        let stem = s.image.file_stem().unwrap().to_string_lossy().into_owned();
        (stem, (s.size, boxes.collect()))
    });
    samples.collect()
}

/// The stems of the images in each split.
fn splits(dataset: &Dataset) -> BTreeMap<String, Vec<String>> {
    let stem = |&i: &usize| {
        dataset.samples[i]
            .image
            .file_stem()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    let splits = dataset.splits.iter();
    splits
        .map(|(name, all)| (name.clone(), all.iter().map(stem).collect()))
        .collect()
}

#[test]
fn every_format_to_every_other() {
    let source = voc();
    let odd = [
        ("R&D <b>", ["0.1", "0.2", "12.3456", "7.7"]),
        ("WBC", ["3", "3", "17", "29"]),
    ];
    source.file(
        "Annotations/b.xml",
        voc_xml(&odd).replace("R&D <b>", "R&amp;D &lt;b>"),
    );
    let original = source.read().unwrap().accept(false).unwrap();
    assert_eq!(original.class_names[1], "R&D <b>");
    let out = Folder::new();
    let formats = [Format::Coco, Format::Voc, Format::Yolo];
    for first in formats {
        let folder = out.path().join(first.name());
        let written = convert(&original, &folder, first, Pictures::Link).unwrap();
        assert_eq!((written.images, written.boxes), (3, 5));
        assert!(written.dropped.is_empty(), "{:?}", written.dropped);
        let reading = read(&folder, &ReadOptions::default()).unwrap();
        assert_eq!(told(&reading), [], "{first}");
        let once = reading.dataset;
        assert_eq!(once.format, first);
        for second in formats {
            let folder = out.path().join(format!("{first}-{second}"));
            convert(&once, &folder, second, Pictures::Copy).unwrap();
            let twice = read(&folder, &ReadOptions::default())
                .unwrap()
                .accept(false)
                .unwrap();
            assert_eq!(twice.class_names, original.class_names, "{first} {second}");
            assert_eq!(content(&twice), content(&original), "{first} {second}");
            assert_eq!(splits(&twice), splits(&original), "{first} {second}");
            let picture = fs::read(&twice.samples[0].image).unwrap();
            assert_eq!(picture, fs::read(&original.samples[0].image).unwrap());
        }
    }
}

#[test]
fn coco_keeps_ids_crowds_and_areas() {
    let source = voc();
    let mut dataset = source.read().unwrap().dataset;
    dataset.category_ids = vec![0, 7, 90];
    dataset.samples[0].instances.areas = Some(vec![1.25, 300.0]);
    dataset.samples[1].instances = Instances {
        areas: Some(vec![3.5]),
        crowd: Some(vec![true]),
        ..Instances::new(vec![[1.0, 2.0, 3.0, 4.5]], vec![2])
    };
    let out = Folder::new();
    let folder = out.path().join("new/coco");
    convert(&dataset, &folder, Format::Coco, Pictures::Copy).unwrap();
    let again = read(&folder, &ReadOptions::default()).unwrap().dataset;
    assert_eq!(again.category_ids, dataset.category_ids);
    for (a, b) in again.samples.iter().zip(&dataset.samples) {
        assert_eq!((&a.instances, a.image_id), (&b.instances, b.image_id));
    }
    let written = convert(
        &dataset,
        &out.path().join("voc"),
        Format::Voc,
        Pictures::Leave,
    )
    .unwrap();
    assert_eq!(written.dropped, BTreeMap::from([("crowds".into(), 1)]));
}

/// Converting COCO to COCO wrote `"segmentation": []` for every object, and said nothing.
#[test]
fn masks_and_keypoints_survive_or_are_counted() {
    let mask = "[[1.10, 2,3.333333333333333333, 4, 5, 6]]";
    let rle = r#"{"counts": "a\\b04", "size": [48, 64]}"#;
    let coco = format!(
        r#"{{"info": {{"year": 2017}}, "licenses": [{{"id": 3}}],
        "images": [{{"id": 7, "file_name": "a.png", "width": 64, "height": 48, "license": 3}}],
        "annotations": [
            {{"id": 5, "image_id": 7, "category_id": 4, "bbox": [1, 2, 10, 20], "area": 150.5,
              "iscrowd": 0, "segmentation": {mask}, "keypoints": [5, 6, 2], "num_keypoints": 1,
              "attributes": {{"colour": "red", "difficult": true}}}},
            {{"id": 6, "image_id": 7, "category_id": 4, "bbox": [0, 0, 64, 48], "area": 99,
              "iscrowd": 1, "segmentation": {rle}}},
            {{"id": 9, "image_id": 7, "category_id": 4, "bbox": [3, 3, 4, 4], "segmentation": [ ]}}],
        "categories": [{{"id": 4, "name": "bird", "supercategory": "animal", "keypoints": ["beak"],
                         "skeleton": []}}]}}"#
    );
    let source = Folder::new();
    source.picture("images/a.png", 64, 48);
    source.file("annotations/instances_train.json", &coco);
    let dataset = source.read().unwrap().accept(false).unwrap();
    let out = Folder::new();
    let to = |name: &str, dataset: &Dataset, format| {
        let folder = out.path().join(name);
        let written = convert(dataset, &folder, format, Pictures::Copy).unwrap();
        (folder, written.dropped)
    };
    let (folder, dropped) = to("coco", &dataset, Format::Coco);
    assert!(dropped.is_empty());
    let text = fs::read_to_string(folder.join("annotations/instances_train.json")).unwrap();
    assert!(text.contains(mask) && text.contains(rle), "{text}");
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let (before, after) = (parse(&coco), parse(&text));
    for key in ["info", "licenses", "images", "categories"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    for index in 0..3 {
        let [new, old] = [&after, &before].map(|file| &file["annotations"][index]);
        for key in [
            "bbox",
            "segmentation",
            "keypoints",
            "num_keypoints",
            "attributes",
        ] {
            let number = |value: &serde_json::Value| value.to_string().replace(".0", "");
            assert_eq!(number(&new[key]), number(&old[key]), "{key}");
        }
    }
    let again = read(&folder, &ReadOptions::default()).unwrap().dataset;
    assert_eq!(
        again.samples[0].object_extras,
        dataset.samples[0].object_extras
    );

    let expected = [
        ("attributes", 1),
        ("crowds", 1),
        ("keypoints", 1),
        ("masks", 1),
    ];
    let mut expected: BTreeMap<String, usize> = expected.map(|(k, n)| (k.to_string(), n)).into();
    assert_eq!(to("voc", &dataset, Format::Voc).1, expected);
    // A pose has no place for a mask.
    expected.remove("keypoints");
    assert_eq!(to("yolo", &dataset, Format::Yolo).1, expected);
    let boxes_only = ReadOptions {
        fields: Fields::NONE,
        ..ReadOptions::default()
    };
    let plain = read(source.path(), &boxes_only).unwrap().dataset;
    assert!(plain.samples[0].object_extras.is_empty());
    assert_eq!(plain.samples[0].instances.masks, None);
}

/// They stood as text beside the boxes and were not read.
#[test]
fn masks_and_keypoints_are_read() {
    let square = "[10, 10, 20, 10, 20, 20, 10, 20]";
    let coco = format!(
        r#"{{"images": [{{"id": 7, "file_name": "a.png", "width": 64, "height": 48}}],
        "annotations": [
            {{"id": 5, "image_id": 7, "category_id": 4, "bbox": [10, 10, 10, 10], "area": 90,
              "segmentation": [{square}], "keypoints": [11, 12, 2, 0, 0, 0], "num_keypoints": 1}},
            {{"id": 6, "image_id": 7, "category_id": 4, "bbox": [0, 0, 64, 48], "iscrowd": 1,
              "segmentation": {{"size": [48, 64], "counts": [0, 48, 3024]}}}},
            {{"id": 8, "image_id": 7, "category_id": 4, "bbox": [1, 1, 4, 4],
              "segmentation": {{"size": [48, 63], "counts": "oops"}}, "keypoints": [1, 2]}},
            {{"id": 9, "image_id": 7, "category_id": 4, "bbox": [3, 3, 4, 4]}}],
        "categories": [{{"id": 4, "name": "bird", "keypoints": ["left_wing", "right_wing"],
                         "skeleton": [[1, 2]]}}]}}"#
    );
    let source = Folder::new();
    source.picture("images/a.png", 64, 48);
    source.file("annotations/instances_train.json", coco);
    let reading = source.read().unwrap();
    let file = || "instances_train.json".to_string();
    let expected = [
        (ProblemKind::BadMask, file(), Some(8)),
        (ProblemKind::BadKeypoints, file(), Some(8)),
    ];
    assert_eq!(told(&reading), expected);
    let dataset = reading.accept(false).unwrap();
    let bird = &dataset.skeletons[1];
    assert_eq!(
        (bird.mirrored(), &bird.edges[..]),
        (vec![1, 0], &[[0, 1]][..])
    );
    let objects = &dataset.samples[0].instances;
    assert!(objects.validate(2).is_ok());
    let masks = objects.masks.as_ref().unwrap();
    assert_eq!(masks[0].bounds(), [10.0, 10.0, 20.0, 20.0]);
    let areas: Vec<u64> = masks.iter().map(Mask::area).collect();
    assert_eq!(areas, [100, 48, 0, 0]);
    let keypoints = objects.keypoints.as_ref().unwrap();
    let first = Keypoints(vec![[11.0, 12.0, 2.0], [0.0; 3]]);
    assert_eq!(
        (&keypoints[0], &keypoints[1]),
        (&first, &Keypoints::default())
    );

    // Masks of one's own making have no text: they are written all the same.
    let mut made = dataset.clone();
    made.samples[0].object_extras.clear();
    let out = Folder::new();
    let folder = out.path().join("coco");
    convert(&made, &folder, Format::Coco, Pictures::Copy).unwrap();
    let again = read(&folder, &ReadOptions::default()).unwrap();
    assert_eq!(told(&again), []);
    assert_eq!(again.dataset.samples[0].instances, *objects);
    let written = convert(
        &made,
        &out.path().join("yolo"),
        Format::Yolo,
        Pictures::Leave,
    )
    .unwrap();
    let dropped = [("crowds", 1), ("masks", 1)];
    let dropped = dropped.map(|(kind, count)| (kind.to_string(), count));
    assert_eq!(written.dropped, dropped.into());

    // They move with their picture.
    let augmentation = Augmentation {
        horizontal_flip: 1.0,
        ..Augmentation::none()
    };
    let loader = Loader::new(dataset.into(), augmentation, LoaderOptions::default()).unwrap();
    let example = loader.epoch(0).next().unwrap().remove(0).unwrap();
    let flipped = example.instances.get(0);
    assert_eq!(example.instances.len(), 3, "without the crowd");
    assert_eq!(flipped.mask.unwrap().bounds(), flipped.bbox);
    let points = Keypoints(vec![[0.0; 3], [53.0, 12.0, 2.0]]);
    assert_eq!(flipped.keypoints, Some(&points));
}

/// VOC to VOC marked every object as not difficult, and polygons of YOLO became boxes.
#[test]
fn attributes_and_polygons_survive_or_are_counted() {
    let source = Folder::new();
    source.picture("JPEGImages/a.png", 64, 48);
    let object = "<object><name>x</name><pose>Left &amp; up</pose><truncated>0</truncated>\
        <difficult>1</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax>\
        </bndbox></object>";
    source.file(
        "Annotations/a.xml",
        format!("<annotation>{object}</annotation>"),
    );
    let dataset = source.read().unwrap().dataset;
    let out = Folder::new();
    let folder = out.path().join("voc");
    let written = convert(&dataset, &folder, Format::Voc, Pictures::Copy).unwrap();
    assert!(written.dropped.is_empty());
    let again = read(&folder, &ReadOptions::default()).unwrap().dataset;
    let extras = &again.samples[0].object_extras[0];
    assert_eq!(*extras, dataset.samples[0].object_extras[0]);
    assert_eq!(extras.get("difficult"), Some("1"));
    assert_eq!(extras.get("pose"), Some(r#""Left & up""#));
    let folder = out.path().join("yolo");
    let written = convert(&dataset, &folder, Format::Yolo, Pictures::Copy).unwrap();
    let dropped: Vec<_> = written.dropped.into_iter().collect();
    assert_eq!(
        dropped,
        [("difficult".to_string(), 1), ("pose".to_string(), 1)]
    );

    let source = Folder::new();
    source.picture("images/train/a.png", 64, 48);
    source.file("labels/train/a.txt", "0 .25 .5 .5 .5 .5 1\n0 .5 .5 .5 .5\n");
    source.file("classes.txt", "x");
    let dataset = source.read().unwrap().dataset;
    let folder = out.path().join("coco");
    convert(&dataset, &folder, Format::Coco, Pictures::Copy).unwrap();
    let again = read(&folder, &ReadOptions::default()).unwrap().dataset;
    let masks = again.samples[0].object_extras.iter();
    let masks: Vec<_> = masks.map(|extras| extras.get("segmentation")).collect();
    assert_eq!(masks, [Some("[[16, 24, 32, 24, 32, 48]]"), None]);
}

/// Without areas, no annotation was written at all.
#[test]
fn without_areas_those_of_the_boxes_are_written() {
    let mut dataset = voc().read().unwrap().dataset;
    let areas = |dataset: &Dataset| -> Vec<_> {
        let samples = dataset.samples.iter();
        samples.map(|s| s.instances.areas.clone()).collect()
    };
    let expected = areas(&dataset);
    let samples = dataset.samples.iter_mut();
    samples.for_each(|s| s.instances.areas = None);
    let out = Folder::new();
    convert(&dataset, out.path(), Format::Coco, Pictures::Leave).unwrap();
    let source = voc();
    for name in ["a", "b", "c"] {
        let picture = source.path().join(format!("JPEGImages/{name}.png"));
        fs::copy(picture, out.path().join(format!("images/{name}.png"))).unwrap();
    }
    let again = out.read().unwrap().dataset;
    assert_eq!(areas(&again), expected);
}

#[test]
fn pictures_of_one_name_are_kept_apart() {
    let source = Folder::new();
    source.picture("images/train/1.png", 20, 10);
    source.picture("images/val/1.png", 10, 20);
    source.file("labels/train/1.txt", "0 .5 .5 .5 .5");
    source.file("classes.txt", "x");
    let dataset = source.read().unwrap().dataset;
    let out = Folder::new();
    convert(&dataset, out.path(), Format::Voc, Pictures::Copy).unwrap();
    let again = out.read().unwrap().accept(false).unwrap();
    let sizes: Vec<Size> = again.samples.iter().map(|s| s.size).collect();
    assert_eq!(sizes, [Size::new(10, 20), Size::new(20, 10)]);
    assert_eq!(splits(&again)["val"], ["1_2"]);
}

#[test]
fn nothing_is_left_half_written() {
    let source = voc();
    let dataset = source.read().unwrap().dataset;
    let out = Folder::new();
    let kept = out.file("full/kept.txt", "");
    let full = kept.parent().unwrap();
    let error = convert(&dataset, full, Format::Yolo, Pictures::Copy).unwrap_err();
    assert!(matches!(error, DataError::NotEmpty { .. }));
    fs::remove_file(&dataset.samples[2].image).unwrap();
    let error = convert(
        &dataset,
        &out.path().join("new"),
        Format::Yolo,
        Pictures::Copy,
    );
    assert!(error.unwrap_err().to_string().contains("c.png"));
    let left: Vec<_> = fs::read_dir(out.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["full"]);
}

#[test]
fn random_splits_are_seeded() {
    let source = voc();
    let mut dataset = source.read().unwrap().dataset;
    dataset.samples = dataset.samples.iter().cycle().take(100).cloned().collect();
    let fractions = Fractions {
        val: 0.2,
        test: 0.1,
    };
    random_split(&mut dataset, fractions, 5).unwrap();
    let first = dataset.splits.clone();
    let sizes: Vec<(&str, usize)> = first
        .iter()
        .map(|(name, all)| (name.as_str(), all.len()))
        .collect();
    assert_eq!(sizes, [("test", 10), ("train", 70), ("val", 20)]);
    let mut all: Vec<usize> = first.values().flatten().copied().collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..100));
    random_split(&mut dataset, fractions, 5).unwrap();
    assert_eq!(dataset.splits, first);
    random_split(&mut dataset, fractions, 6).unwrap();
    assert_ne!(dataset.splits, first);
    for (val, test) in [(-0.1, 0.0), (0.6, 0.5), (f64::NAN, 0.0)] {
        assert!(random_split(&mut dataset, Fractions { val, test }, 0).is_err());
    }
}
