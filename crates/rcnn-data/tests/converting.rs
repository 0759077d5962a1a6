//! Round trips through all formats.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Folder, told, voc, voc_xml};
use rcnn_data::convert::{Pictures, convert};
use rcnn_data::{DataError, Dataset, Format, Fractions, ReadOptions, random_split, read};

type Content = BTreeMap<String, (u32, u32, Vec<([f32; 4], String)>)>;

/// Images by stem with their boxes and the names of their classes.
fn content(dataset: &Dataset) -> Content {
    let samples = dataset.samples.iter().map(|s| {
        let name = |&label: &usize| dataset.class_names[label].clone();
        let boxes = s.boxes.iter().copied().zip(s.labels.iter().map(name));
        let stem = s.image.file_stem().unwrap().to_string_lossy().into_owned();
        (stem, (s.width, s.height, boxes.collect()))
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
        assert_eq!(
            (written.images, written.boxes, written.dropped_crowds),
            (3, 5, 0)
        );
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
    dataset.samples[0].areas = vec![1.25, 300.0];
    dataset.samples[1].crowds = vec![rcnn_data::Crowd {
        bounds: [1.0, 2.0, 3.0, 4.5],
        label: 2,
        area: 3.5,
    }];
    let out = Folder::new();
    let folder = out.path().join("new/coco");
    convert(&dataset, &folder, Format::Coco, Pictures::Copy).unwrap();
    let again = read(&folder, &ReadOptions::default()).unwrap().dataset;
    assert_eq!(again.category_ids, dataset.category_ids);
    for (a, b) in again.samples.iter().zip(&dataset.samples) {
        assert_eq!(
            (&a.areas, &a.crowds, a.image_id),
            (&b.areas, &b.crowds, b.image_id)
        );
    }
    let written = convert(
        &dataset,
        &out.path().join("voc"),
        Format::Voc,
        Pictures::Leave,
    )
    .unwrap();
    assert_eq!(written.dropped_crowds, 1);
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
    let sizes: Vec<(u32, u32)> = again.samples.iter().map(|s| (s.width, s.height)).collect();
    assert_eq!(sizes, [(20, 10), (10, 20)]);
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
