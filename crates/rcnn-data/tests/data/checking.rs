//! The doctor on a small data set.

use crate::common::{voc, voc_xml};
use rcnn_data::check::{AnchorSpec, ClassCount, Shared, check};
use rcnn_data::{ProblemKind, ReadOptions, Reading, read};
use rcnn_types::Instances;

#[test]
fn a_report() {
    let folder = voc();
    let boxes = [
        ("RBC", ["5", "6", "20", "21"]),
        ("RBC", ["50", "33", "50", "33"]),
    ];
    folder.file("Annotations/b.xml", voc_xml(&boxes));
    folder.file("ImageSets/Main/test.txt", "b\nc\n");
    let reading = folder.read().unwrap();
    let report = check(&reading, &AnchorSpec::default(), 0);
    assert_eq!(
        (report.images, report.boxes, report.background_images),
        (3, 4, 0)
    );
    let count = |name: &str, boxes, images| ClassCount {
        name: name.into(),
        boxes,
        images,
    };
    assert_eq!(report.classes, [count("RBC", 3, 3), count("WBC", 1, 1)]);
    assert_eq!(report.image_sizes, [([64, 48], 3)]);
    assert_eq!(report.box_areas, [2, 2, 0]);
    assert_eq!((report.box_widths.min, report.box_widths.max), (15.0, 64.0));
    assert_eq!(report.problem_counts[&ProblemKind::NoArea], 1);
    let shared = |a: &str, b: &str, images| Shared {
        splits: [a.into(), b.into()],
        images,
    };
    let expected = [
        shared("test", "train", 1),
        shared("test", "trainval", 2),
        shared("test", "val", 1),
    ];
    assert_eq!(report.shared_by_splits, expected);

    let text = report.to_string();
    for part in [
        "3 images (0 without boxes), 4 boxes",
        "RBC           3   75.0%         3",
        "boxes without area (1):",
        "b.xml, box 2: [50, 33, 50, 33]",
        "IoU >= 0.7",
        "2 images are both in test and in trainval",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["classes"][0]["boxes"], 3);
    assert_eq!(json["problems"][0]["kind"], "no_area");
}

/// Boxes of 3x16 pixels are far from all default anchors.
#[test]
fn better_anchors_are_found() {
    let folder = voc();
    let mut reading: Reading = folder.read().unwrap();
    let sample = &mut reading.dataset.samples[0];
    let places = (0..40).map(|i| (i % 10 * 6, i / 10 * 8));
    let boxes = places.map(|(x, y)| [x as f32, y as f32, x as f32 + 3.0, y as f32 + 16.0]);
    sample.instances = Instances::new(boxes.collect(), vec![1; 40]);
    reading.dataset.samples.truncate(1);
    let report = check(&reading, &AnchorSpec::default(), 0);
    assert_eq!(report.anchors.all.at_70, 0.0);
    let better = report.suggestion.as_ref().unwrap();
    assert_eq!(better.all.at_70, 1.0, "{better}");
    assert_eq!(better.anchors.aspect_ratios, [5.34]);
    assert_eq!(check(&reading, &AnchorSpec::default(), 0), report);
}

#[test]
fn nothing_but_background() {
    let folder = voc();
    let mut reading = folder.read().unwrap();
    for sample in &mut reading.dataset.samples {
        sample.instances = Instances::default();
    }
    let report = check(&reading, &AnchorSpec::default(), 0);
    assert_eq!((report.boxes, report.background_images), (0, 3));
    assert_eq!(report.suggestion, None);
    assert!(!report.to_string().contains("NaN"));
}

/// Headers alone are read: such a picture passed every check, and ended training when its batch came.
#[test]
fn a_picture_that_breaks_behind_its_header_is_found_when_all_are_decoded() {
    let folder = voc();
    let whole = folder.read().unwrap();
    let picture = whole.dataset.samples[0].image.clone();
    let bytes = std::fs::read(&picture).unwrap();
    std::fs::write(&picture, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(folder.read().unwrap().problems.invalid(), 0);

    let options = ReadOptions {
        decode: true,
        ..Default::default()
    };
    let reading = read(folder.path(), &options).unwrap();
    let problems: Vec<_> = reading.problems.iter().collect();
    let [problem] = problems.as_slice() else {
        panic!("{problems:?}");
    };
    assert_eq!(
        (problem.kind, &problem.file),
        (ProblemKind::BrokenImage, &picture)
    );
    assert!(problem.message.contains("cut short"), "{problem}");
    let left = reading.accept(true).unwrap();
    assert_eq!(left.samples.len() + 1, whole.dataset.samples.len());
}

/// Pictures without labels, and those that can't be read, were not told from background.
#[test]
fn the_count_of_pictures_says_what_they_are() {
    let folder = voc();
    for name in ["d", "e"] {
        folder.picture(&format!("JPEGImages/{name}.png"), 64, 48);
    }
    folder.file("JPEGImages/e.png", "no picture");
    folder.file("ImageSets/Main/train.txt", "a\nb\ngone\n");
    let count = || {
        let report = check(&folder.read().unwrap(), &AnchorSpec::default(), 0).to_string();
        report.lines().next().unwrap().to_string()
    };
    let expected = "4 images (2 without boxes, 1 of them without a label file), 3 boxes, \
                    2 more images can't be used";
    assert_eq!(count(), expected);
}
