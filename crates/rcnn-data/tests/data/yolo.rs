//! Reading YOLO: what is right, and what is wrong in every way.

use crate::common::{Folder, boxes_of, told};
use rcnn_data::{DataError, Format, ProblemKind as Kind};

fn yolo() -> Folder {
    let folder = Folder::new();
    folder.picture("images/train/a.png", 64, 48);
    folder.picture("images/train/b.png", 64, 48);
    folder.picture("images/val/c.png", 64, 48);
    folder.file(
        "labels/train/a.txt",
        "1 0.5 0.5 0.25 0.5\n0 0.25 0.25 0.5 0.5\n\n",
    );
    folder.file("labels/val/c.txt", "0 0 0 1 0 1 0.5 0 0.5\n");
    folder.file("data.yaml", "path: .\ntrain: images/train # here\nval: [images/val]\ntest:\nnames: {0: cat, 1: \"big dog\"}\n");
    folder
}

#[test]
fn yolo_with_yaml_and_without() {
    let folder = yolo();
    let reading = folder.read().unwrap();
    assert_eq!(
        told(&reading),
        [(Kind::UnlabelledImage, "b.png".into(), None)]
    );
    let dataset = reading.accept(false).unwrap();
    assert_eq!(dataset.format, Format::Yolo);
    assert_eq!(dataset.class_names, ["__background__", "cat", "big dog"]);
    let expected = [
        (
            "a.png".into(),
            vec![[24.0, 12.0, 40.0, 36.0], [0.0, 0.0, 32.0, 24.0]],
            vec![2, 1],
        ),
        ("b.png".into(), vec![], vec![]),
        ("c.png".into(), vec![[0.0, 0.0, 64.0, 24.0]], vec![1]),
    ];
    assert_eq!(boxes_of(&dataset), expected);
    assert_eq!(
        (&dataset.splits["train"][..], &dataset.splits["val"][..]),
        (&[0, 1][..], &[2][..])
    );
    assert_eq!(folder.read_split("val").unwrap().dataset.samples.len(), 1);

    std::fs::remove_file(folder.path().join("data.yaml")).unwrap();
    assert!(matches!(folder.read(), Err(DataError::NoClassNames { .. })));
    folder.file("classes.txt", "cat\nbig dog\n");
    let again = folder.read().unwrap().dataset;
    assert_eq!(boxes_of(&again), expected);
    assert_eq!(again.splits, dataset.splits);
}

#[test]
fn bad_yolo() {
    let folder = yolo();
    folder.file(
        "labels/train/b.txt",
        "2 .5 .5 .1 .1\n0 .5 .5 .1\n0 .5 x .1 .1\n0 .5 .5 0 .1\n0 .9 .5 .6 .1\n-1 .5 .5 .1 .1\n0 .5 .5 nan .1\n",
    );
    folder.file("labels/val/lost.txt", "0 .5 .5 .1 .1");
    let reading = folder.read().unwrap();
    let kinds = [
        Kind::UnknownLabel,
        Kind::BadBox,
        Kind::BadBox,
        Kind::NoArea,
        Kind::OutsideImage,
        Kind::UnknownLabel,
        Kind::BadBox,
    ];
    let mut expected = vec![(Kind::OrphanLabels, "lost.txt".to_string(), None)];
    expected.extend(
        kinds
            .into_iter()
            .zip(1..)
            .map(|(kind, n)| (kind, "b.txt".into(), Some(n))),
    );
    assert_eq!(told(&reading), expected);
    for yaml in [
        "names: 5",
        "names: {1: a}",
        "names: [[a]]",
        "a: [",
        "- 1",
        "",
        "train: nowhere\nnames: [a]",
        "train: {a: b}\nnames: [a]",
        "names: [a, a]",
        &"[".repeat(100_000),
        &"- ".repeat(100_000),
        &"? ".repeat(100_000),
        &"- &a ".repeat(50_000),
        &"- !t ".repeat(50_000),
        &"a: ".repeat(50_000),
        &format!("a: &a [x, x]\n{}", "b: &a [*a, *a]\n".repeat(40)),
    ] {
        folder.file("data.yaml", yaml);
        let error = folder.read().unwrap_err();
        assert!(
            matches!(error, DataError::Malformed { .. }),
            "{yaml:.20}: {error}"
        );
    }
}

#[test]
fn many_names_on_a_line() {
    let folder = yolo();
    let names: Vec<String> = (0..80).map(|i| format!("{i}: class {i}")).collect();
    let splits = "train: images/train\nval: images/val";
    folder.file(
        "data.yaml",
        format!("{splits}\nnames: {{{}}}\n", names.join(", ")),
    );
    let dataset = folder.read().unwrap().dataset;
    assert_eq!(dataset.class_names.len(), 81);
    assert_eq!(dataset.class_names[80], "class 79");
}

#[test]
fn lists_of_pictures() {
    let folder = yolo();
    folder.file(
        "data.yaml",
        "train: train.txt\nval: ../images/val\nnames:\n- cat\n- dog\n",
    );
    folder.file(
        "train.txt",
        "./images/train/a.png\nimages/train/a.png\nimages/train/gone.png\n",
    );
    let reading = folder.read().unwrap();
    let expected = [
        (Kind::DuplicateImage, "train.txt".into(), None),
        (Kind::MissingImage, "gone.png".into(), None),
    ];
    assert_eq!(told(&reading), expected);
    assert_eq!(reading.dataset.samples.len(), 2);
}

/// A label file that could not be read shifted the numbers of the images after it.
#[test]
fn images_keep_their_numbers_without_one_of_them() {
    let folder = yolo();
    let numbers = |folder: &Folder| -> Vec<(String, u64)> {
        let samples = folder.read().unwrap().dataset.samples;
        let name = |s: &rcnn_data::Sample| s.image.file_name().unwrap().to_string_lossy().into();
        samples.iter().map(|s| (name(s), s.image_id)).collect()
    };
    let mut before = numbers(&folder);
    folder.file("labels/train/a.txt", b"0 0.5 \xff");
    before.remove(0);
    assert_eq!(numbers(&folder), before);

    let folder = crate::common::voc();
    let mut before = numbers(&folder);
    folder.file("Annotations/a.xml", "<annotation>");
    before.remove(0);
    assert_eq!(numbers(&folder), before);
}
