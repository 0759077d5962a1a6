//! Data sets as people have them, through the commands that read data.

use std::fs;

use super::{assert_fails, json, path, rcnn, stdout};

/// A YOLO set of one picture of 80x60 in a folder, a COCO file beside it, and the pictures elsewhere.
fn mixed() -> &'static str {
    for folder in ["mixed/labels", "mixed_pictures"] {
        fs::create_dir_all(path(folder)).expect("a folder");
    }
    fs::copy(path("pictures/a.png"), path("mixed_pictures/a.png")).expect("a copy");
    let labels = serde_json::json!({
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, 20, 30, 20]}],
        "categories": [{"id": 1, "name": "RBC"}],
    });
    for (name, content) in [
        ("labels/a.txt", "0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n"),
        ("classes.txt", "RBC\n"),
        ("train.json", &labels.to_string()),
    ] {
        fs::write(path("mixed").join(name), content).expect("a file");
    }
    "mixed"
}

#[test]
fn formats_folders_of_pictures_and_cuts_are_options_of_every_command_that_reads_data() {
    let data = mixed();
    let apart = ["--images", "mixed_pictures"];
    let check =
        |rest: &[&str]| rcnn(&[&["data", "check", data, "--json"], &apart[..], rest].concat());
    assert_fails(
        &check(&[]),
        1,
        "several formats (coco, yolo); name one (--data-format)",
    );
    let yolo = json(&check(&["--data-format", "yolo"]));
    assert_eq!(
        (&yolo["boxes"], &yolo["problem_counts"]["duplicate_box"]),
        (&2.into(), &1.into())
    );
    let coco = check(&["--data-format", "coco"]);
    assert_eq!(
        coco.status.code(),
        Some(3),
        "a box reaches beyond the picture"
    );
    let cut = json(&check(&["--data-format", "coco", "--clip"]));
    assert_eq!(cut["problem_counts"]["clipped"], 1);

    let options = [
        &["--data", data, "--data-format", "coco", "--clip"],
        &apart[..],
    ]
    .concat();
    let preview = [
        "data",
        "preview",
        "--horizontal-flip",
        "0",
        "-o",
        "mixed.png",
    ];
    let listed = stdout(&rcnn(&[&preview[..], &options].concat()));
    assert!(listed.contains("a.png  80x60  1 box"), "{listed}");
    let eval = rcnn(&[&["eval", "-w", "model.bpk"], &options[..]].concat());
    let said = String::from_utf8_lossy(&eval.stderr);
    assert!(
        said.contains("mixed: boxes cut to the image: 1; `rcnn data check` has more"),
        "{said}"
    );
    stdout(&eval);
    let small = [
        "--arch",
        "resnet18",
        "--min-size",
        "32",
        "--max-size",
        "32",
        "--epochs",
        "1",
    ];
    let train = [&["train", "--out", "mixed_run"], &small[..], &options].concat();
    stdout(&rcnn(&train));
    let run = fs::read_to_string(path("mixed_run/run.toml")).expect("a file");
    assert!(
        run.contains("data_format = \"coco\"") && run.contains("mixed_pictures"),
        "{run}"
    );
    let convert = ["data", "convert", "-o", "mixed_coco", "--to", "coco"];
    stdout(&rcnn(&[&convert[..], &options[1..]].concat()));
    let converted = json(&rcnn(&["data", "check", "mixed_coco", "--json"]));
    assert_eq!(converted["box_widths"]["max"], 20.0);
    assert_fails(
        &check(&["--data-format", "tfrecord"]),
        2,
        "expected one of coco, voc, yolo",
    );
}

/// The font of pictures has no Chinese letters: boxes of all classes looked the same.
#[test]
fn class_names_that_the_font_lacks_are_numbers_on_pictures() {
    fs::write(path("zh.txt"), "红细胞\n白\n血小板\n").expect("a file");
    let detect = |rest: &[&str]| {
        let args = ["detect", "-w", "model.bpk", "pictures/a.png"];
        rcnn(&[&args, rest].concat())
    };
    let drawn = detect(&["--labels", "zh.txt", "--output", "drawn_zh"]);
    let said = String::from_utf8_lossy(&drawn.stderr);
    assert!(
        said.contains("pictures show their numbers: 1 红细胞, 2 白, 3 血小板"),
        "{said}"
    );
    // A wide letter takes two columns.
    let table = stdout(&drawn);
    let scores = table.lines().skip(1).map(|line| {
        let end = line.find("score").or(line.find("0.")).expect("a score") + 5;
        line[..end]
            .chars()
            .map(|c| if c.is_ascii() { 1 } else { 2 })
            .sum::<usize>()
    });
    let columns: Vec<usize> = scores.collect();
    assert!(
        columns.iter().all(|column| *column == columns[0]),
        "{table}"
    );
    assert!(!table.is_ascii(), "{table}");
    let plain = detect(&["--output", "drawn_latin"]);
    assert!(!String::from_utf8_lossy(&plain.stderr).contains("numbers"));
}

#[test]
fn pictures_that_break_behind_their_headers_are_known_before_they_are_used() {
    fs::create_dir_all(path("breaks")).expect("a folder");
    for (from, to) in [("pictures/a.png", "a.png"), ("cut.jpg", "b.jpg")] {
        fs::copy(path(from), path("breaks").join(to)).expect("a copy");
    }
    let annotation = |id| serde_json::json!({"id": id, "image_id": id, "category_id": 1, "bbox": [10, 10, 30, 20]});
    let labels = serde_json::json!({
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [annotation(1), annotation(2)],
        "categories": [{"id": 1, "name": "RBC"}],
    });
    fs::write(path("breaks/train.json"), labels.to_string()).expect("a file");

    let check = |quick: &[&str]| rcnn(&[&["data", "check", "breaks"], quick].concat());
    let found = check(&[]);
    assert_eq!(found.status.code(), Some(3));
    let report = String::from_utf8_lossy(&found.stdout);
    assert!(
        report.contains("b.jpg: the JPEG data is cut short"),
        "{report}"
    );
    stdout(&check(&["--quick"]));

    let eval = |skip: &[&str]| {
        let args = ["eval", "-w", "model.bpk", "--data", "breaks"];
        rcnn(&[&args, skip].concat())
    };
    assert_fails(&eval(&[]), 1, "b.jpg: the JPEG data is cut short");
    assert_fails(&eval(&[]), 1, "--skip-invalid leaves them out");
    assert_fails(&eval(&["--skip-invalid"]), 3, "left out: ");
}

#[test]
fn boxes_beyond_the_image_come_with_the_option_that_keeps_them() {
    fs::create_dir_all(path("beyond")).expect("a folder");
    fs::copy(path("pictures/a.png"), path("beyond/a.png")).expect("a copy");
    let labels = serde_json::json!({
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, 20, 30, 20]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 20]},
        ],
        "categories": [{"id": 1, "name": "RBC"}],
    });
    fs::write(path("beyond/train.json"), labels.to_string()).expect("a file");
    let said = |args: &[&str]| String::from_utf8_lossy(&rcnn(args).stderr).into_owned();
    let check = said(&["data", "check", "beyond"]);
    assert!(check.contains("--clip keeps boxes"), "{check}");
    assert_eq!(said(&["data", "check", "beyond", "--clip"]), "");
    let eval = said(&[
        "eval",
        "-w",
        "model.bpk",
        "--data",
        "beyond",
        "--skip-invalid",
    ]);
    let expected = "left out 1 invalid boxes or files (--clip keeps";
    assert!(eval.contains(expected), "{eval}");
}
