//! Nothing that a command reads is written over, whatever the paths, nor what it did not make.

use std::fs;

use super::{assert_fails, detect, path, rcnn, stdout};

/// Copies of the pictures in a folder of a test's own.
fn originals(folder: &str) -> Vec<(String, Vec<u8>)> {
    fs::create_dir_all(path(folder)).expect("a folder");
    let copy = |name: &str| {
        let original = fs::read(path("pictures").join(name)).expect("a picture");
        fs::write(path(folder).join(name), &original).expect("a copy");
        (format!("{folder}/{name}"), original)
    };
    ["a.png", "b.jpg"].map(copy).into()
}

fn assert_untouched(originals: &[(String, Vec<u8>)]) {
    for (name, original) in originals {
        let bytes = fs::read(path(name)).expect("a picture");
        assert!(bytes == *original, "{name} was replaced");
    }
}

#[test]
fn detections_are_not_drawn_over_the_pictures_read() {
    let pictures = originals("originals");
    let absolute = path("originals");
    let absolute = absolute.to_str().expect("UTF-8");
    let mut folders = vec![
        "originals",
        "./originals/",
        "originals/../originals",
        absolute,
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("originals", path("linked")).expect("a link");
        folders.push("linked");
    }
    for folder in folders {
        for input in ["originals", "originals/*.jpg", absolute] {
            let refused = detect(&["--output", folder, input]);
            assert_fails(&refused, 1, "would replace the input");
        }
    }
    fs::copy(path("originals/a.png"), path("alone.png")).expect("a copy");
    // A path through a folder that is yet to be made.
    for folder in [".", "originals/..", "new/..", "new/er/../.."] {
        let refused = detect(&["--output", folder, "alone.png"]);
        assert_fails(&refused, 1, "alone.png");
    }
    // Before anything else is looked at.
    let weights = [
        "detect",
        "--weights",
        "missing.bpk",
        "--output",
        "originals",
        "originals",
    ];
    assert_fails(&rcnn(&weights), 1, "would replace the input");

    // Another name of the same file.
    fs::create_dir_all(path("names")).expect("a folder");
    fs::hard_link(path("originals/a.png"), path("names/a.png")).expect("a link");
    assert_fails(
        &detect(&["--output", "names", "originals"]),
        1,
        "names/a.png",
    );
    fs::remove_file(path("names/a.png")).expect("a link");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../originals/a.png", path("names/a.png")).expect("a link");
        assert_fails(
            &detect(&["--output", "names", "originals"]),
            1,
            "names/a.png",
        );
    }
    assert_untouched(&pictures);
}

#[test]
fn detections_are_not_drawn_over_other_pictures() {
    let pictures = originals("others");
    let a = image::open(path("others/a.png")).expect("a picture");
    a.save(path("others/b.webp")).expect("a picture");
    a.save(path("others/b.png")).expect("a picture");
    let other = fs::read(path("others/b.png")).expect("a picture");
    // b.webp would become b.png, which is not read.
    let args = ["--output", "others", "others/b.webp"];
    assert_fails(&detect(&args), 1, "rcnn did not write it");
    assert!(fs::read(path("others/b.png")).expect("a picture") == other);
    assert_untouched(&pictures);
    stdout(&detect(&[&["--overwrite"], &args[..]].concat()));
    assert!(fs::read(path("others/b.png")).expect("a picture") != other);
    // What an earlier run wrote makes room for the next one.
    stdout(&detect(&args));
    for _ in 0..2 {
        stdout(&detect(&[
            "--output",
            "twice",
            "others/a.png",
            "others/b.jpg",
        ]));
    }
    assert!(path("twice/b.jpg").is_file());
    // But not where it is read again.
    assert_fails(&detect(&["--output", "twice", "twice"]), 1, "would replace");
    stdout(&detect(&["--output", "twice", "--overwrite", "twice"]));
}

#[test]
fn a_preview_is_not_drawn_over_training_pictures() {
    let pictures = originals("previewed/images/train");
    fs::create_dir_all(path("previewed/labels/train")).expect("a folder");
    fs::write(path("previewed/labels/train/a.txt"), "0 .5 .5 .5 .5\n").expect("a file");
    fs::write(path("previewed/classes.txt"), "cell\n").expect("a file");
    let preview = |output: &str| rcnn(&["data", "preview", "--data", "previewed", "-o", output]);
    for output in [
        "previewed/images/train",
        "previewed/images/train/a.png",
        "previewed/images/../images/train/b.jpg",
    ] {
        assert_fails(&preview(output), 1, "would replace the input");
    }
    fs::copy(path("pictures/b.jpg"), path("holiday.jpg")).expect("a copy");
    assert_fails(&preview("holiday.jpg"), 1, "rcnn did not write it");
    assert_untouched(&pictures);
    for output in ["previewed.png", "previewed.png", "previews", "previews"] {
        stdout(&preview(output));
    }
}

#[test]
fn reports_do_not_replace_files_of_others() {
    fs::create_dir_all(path("reported")).expect("a folder");
    fs::copy(path("pictures/a.png"), path("reported/a.png")).expect("a copy");
    let labels = serde_json::json!({
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 60}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 20],
                         "area": 600, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "RBC"}],
    });
    fs::write(path("reported/train.json"), labels.to_string()).expect("a file");
    let eval = ["eval", "--weights", "model.bpk", "--data", "reported"];
    let analyze = ["analyze", "model.bpk", "--data", "reported"];
    for (command, text) in [(&eval[..], "detections.json"), (&analyze, "analysis.json")] {
        let out = format!("reports-{text}");
        let run = || rcnn(&[command, &["--output", &out]].concat());
        fs::create_dir_all(path(&out)).expect("a folder");
        fs::write(path(&out).join(text), "mine").expect("a file");
        assert_fails(&run(), 1, text);
        assert_eq!(fs::read(path(&out).join(text)).expect("a file"), b"mine");
        fs::remove_file(path(&out).join(text)).expect("a file");
        stdout(&run());
        stdout(&run());
    }
    for folder in ["reported", "reported/../reported"] {
        let onto = ["data", "convert", "reported", "--to", "coco", "-o", folder];
        assert_fails(&rcnn(&onto), 1, "not empty");
    }
    // The labels, under the name of an output.
    fs::rename(
        path("reported/train.json"),
        path("reported/evaluation.json"),
    )
    .expect("a file");
    let onto = rcnn(&[&eval[..], &["--output", "reported"]].concat());
    assert_fails(&onto, 1, "would replace the input");
}

#[test]
fn a_model_is_not_written_over_the_one_it_is_made_from() {
    fs::copy(path("model.bpk"), path("source.bpk")).expect("a copy");
    let model = fs::read(path("source.bpk")).expect("a model");
    for arguments in [
        &["convert", "source.bpk", "--dtype", "f16"][..],
        &[
            "surgery",
            "source.bpk",
            "--box-head",
            "fc:8",
            "--no-measure",
        ],
    ] {
        for output in ["source.bpk", "./pictures/../source.bpk"] {
            let refused = rcnn(&[arguments, &["-o", output]].concat());
            assert_fails(&refused, 1, "would replace the input");
            assert!(fs::read(path("source.bpk")).expect("a model") == model);
        }
        for _ in 0..2 {
            stdout(&rcnn(&[arguments, &["-o", "made.bpk"]].concat()));
        }
    }
    let args = [
        "convert",
        "source.bpk",
        "--dtype",
        "f16",
        "-o",
        "source.bpk",
    ];
    stdout(&rcnn(&[&args[..], &["--overwrite"]].concat()));
    assert!(fs::read(path("source.bpk")).expect("a model").len() < model.len());
}

/// `given.toml` was copied onto itself, which left it empty, and `run.toml` written anew.
#[test]
fn a_run_does_not_replace_files_of_others() {
    const TEXT: &str = "data = \"nowhere\" # a comment\n";
    fs::create_dir_all(path("described")).expect("a folder");
    let file = |name: &str| path("described").join(name);
    let train = |config: &str| {
        fs::write(path(config), TEXT).expect("a file");
        rcnn(&["train", "--config", config, "--out", "./described"])
    };
    let refused = train("described/run.toml");
    assert_fails(&refused, 1, "already holds a run (run.toml)");
    assert_eq!(fs::read_to_string(file("run.toml")).expect("a file"), TEXT);
    fs::remove_file(file("run.toml")).expect("a file");
    fs::write(file("command.txt"), "mine").expect("a file");
    assert_fails(
        &train("described/given.toml"),
        1,
        "command.txt: this file is in the way",
    );
    fs::remove_file(file("command.txt")).expect("a file");
    // Twice, as a run that was refused before it began may be begun again.
    for _ in 0..2 {
        assert_fails(&train("described/given.toml"), 1, "nowhere");
        assert_eq!(
            fs::read_to_string(file("given.toml")).expect("a file"),
            TEXT
        );
    }
    fs::write(file("best.bpk"), "mine").expect("a file");
    let refused = train("described/given.toml");
    assert_fails(&refused, 1, "already holds a run (best.bpk)");
}
