//! Processes that are killed, disks that are full and folders that can't be written to: what is there is whole, and
//! what failed says so.
//!
//! `RCNN_KILLS=300` kills each command that many times.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::train::blobs;
use super::{FOLDER, assert_fails, path, rcnn, stdout};

/// How often a command is killed.
fn kills() -> u64 {
    let kills = std::env::var("RCNN_KILLS").ok();
    kills.and_then(|kills| kills.parse().ok()).unwrap_or(3)
}

fn start(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_rcnn"))
        .args(arguments)
        .current_dir(FOLDER.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts")
}

/// Starts a command and kills it after a part of the time that it takes.
fn kill(arguments: &[&str], time: Duration, part: u64) {
    let mut child = start(arguments);
    // Spread over the time, in no order: the digits of the golden ratio.
    let part = (part as f64 * 0.618_033_988_749_895).fract();
    sleep(time.mul_f64(part));
    child.kill().expect("it is ours");
    child.wait().expect("it ended");
}

fn timed(arguments: &[&str]) -> Duration {
    let start = Instant::now();
    stdout(&rcnn(arguments));
    start.elapsed()
}

/// The files below a folder with their contents.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below").to_path_buf();
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

fn is_temporary(path: &Path) -> bool {
    path.components()
        .any(|part| part.as_os_str().to_string_lossy().starts_with(".rcnn-"))
}

fn has_leftovers(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        is_temporary(path.strip_prefix(folder).expect("below"))
            || path.is_dir() && has_leftovers(&path)
    })
}

#[test]
fn training_killed_at_any_moment_ends_as_if_nothing_had_happened() {
    blobs();
    let begin = ["train", "--config", "run.toml", "--out", "kills/run"];
    let whole = [&begin[..4], &["kills/whole"]].concat();
    let time = timed(&whole);
    for part in 0..kills() {
        let resume = ["train", "--resume", "--out", "kills/run"];
        let next = match path("kills/run/run.toml").exists() {
            true => &resume[..],
            false => &begin,
        };
        kill(next, time, part);
        if part % 3 == 2 || part + 1 == kills() {
            let resume = match path("kills/run/run.toml").exists() {
                true => &resume[..],
                false => &begin,
            };
            stdout(&rcnn(resume));
            assert!(!has_leftovers(&path("kills/run")));
            for file in ["last.bpk", "best.bpk", "best.json", "metrics.jsonl"] {
                let read = |run: &str| fs::read(path(run).join(file)).expect("a file");
                assert!(read("kills/whole") == read("kills/run"), "{file} differs");
            }
            fs::remove_dir_all(path("kills/run")).expect("a folder");
        }
    }
}

#[test]
fn converting_killed_at_any_moment_leaves_all_or_nothing() {
    blobs();
    fs::create_dir_all(path("converted")).expect("a folder");
    let convert = [
        "data",
        "convert",
        "blobs",
        "--to",
        "coco",
        "-o",
        "converted/set",
    ];
    let tile = [
        "data",
        "tile",
        "blobs",
        "--tile",
        "48",
        "-o",
        "converted/tiles",
    ];
    let weights = ["convert", "model.bpk", "-o", "converted/model.safetensors"];
    let time = [&convert[..], &tile, &weights].map(timed);
    let whole = files(&path("converted"));
    const FOLDERS: [&str; 2] = ["converted/set", "converted/tiles"];
    let counts = FOLDERS.map(|folder| files(&path(folder)).len());
    // The order of texts in the header was left to chance.
    for _ in 0..8 {
        stdout(&rcnn(&weights));
        assert!(files(&path("converted")) == whole);
    }
    for part in 0..kills() {
        for folder in FOLDERS {
            let _ = fs::remove_dir_all(path(folder));
        }
        let _ = fs::remove_file(path("converted/model.safetensors"));
        kill(&convert, time[0], part);
        kill(&tile, time[1], part);
        kill(&weights, time[2], part);
        for (name, content) in files(&path("converted")) {
            if !is_temporary(&name) {
                assert!(whole[&name] == content, "{} is not whole", name.display());
            }
        }
        for (folder, files_of_all) in FOLDERS.into_iter().zip(&counts) {
            let found = files(&path(folder)).len();
            assert!(
                found == 0 || found == *files_of_all,
                "{found} files of {folder}"
            );
        }
    }
    for folder in FOLDERS {
        let _ = fs::remove_dir_all(path(folder));
    }
    stdout(&rcnn(&convert));
    stdout(&rcnn(&tile));
    stdout(&rcnn(&weights));
    assert!(files(&path("converted")) == whole);
}

#[test]
fn pruning_killed_at_any_moment_ends_as_if_nothing_had_happened() {
    blobs();
    let begin = [
        "prune",
        "model.bpk",
        "--macs",
        "0.5",
        "--steps",
        "2",
        "--size",
        "60x80",
        "--out",
    ];
    let [begin, whole] = ["pruned/killed", "pruned/whole"].map(|out| [&begin[..], &[out]].concat());
    let time = timed(&whole);
    let resume = ["prune", "--resume", "--out", "pruned/killed"];
    let next = || match path("pruned/killed/prune.toml").exists() {
        true => &resume[..],
        false => &begin,
    };
    for part in 0..kills() {
        kill(next(), time, part);
        if part % 3 == 2 || part + 1 == kills() {
            stdout(&rcnn(next()));
            assert!(!has_leftovers(&path("pruned/killed")));
            for file in [
                "start.bpk",
                "step-1/pruned.bpk",
                "pruned.bpk",
                "pruning.json",
            ] {
                let read = |run: &str| fs::read(path(run).join(file)).expect("a file");
                assert!(
                    read("pruned/whole") == read("pruned/killed"),
                    "{file} differs"
                );
            }
            fs::remove_dir_all(path("pruned/killed")).expect("a folder");
        }
    }
}

#[test]
fn detecting_killed_at_any_moment_leaves_whole_pictures() {
    let detect = [
        "detect",
        "--weights",
        "model.bpk",
        "--output",
        "killed-drawn",
        "many-to-draw",
    ];
    fs::create_dir_all(path("many-to-draw")).expect("a folder");
    for i in 0..40 {
        let to = path("many-to-draw").join(format!("{i}.png"));
        fs::copy(path("pictures/a.png"), to).expect("a copy");
    }
    let time = timed(&detect);
    let whole = files(&path("killed-drawn"));
    for part in 0..kills() {
        let _ = fs::remove_dir_all(path("killed-drawn"));
        kill(&detect, time, part);
        for (name, content) in files(&path("killed-drawn")) {
            if !is_temporary(&name) {
                assert!(whole[&name] == content, "{} is not whole", name.display());
            }
        }
    }
    fs::create_dir_all(path("killed-drawn")).expect("a folder");
    fs::write(path("killed-drawn/.rcnn-1-abcdef.tmp"), "half").expect("a file");
    stdout(&rcnn(&detect));
    assert!(files(&path("killed-drawn")) == whole);
}

/// Every command that writes, with the option that says where to, and what fails on a full disk.
#[cfg(unix)]
const WRITERS: [&[&str]; 11] = [
    &[
        "detect",
        "--weights",
        "model.bpk",
        "pictures/a.png",
        "--output",
    ],
    &[
        "eval",
        "--weights",
        "model.bpk",
        "--data",
        "faulty",
        "--output",
    ],
    &["analyze", "model.bpk", "--data", "faulty", "--output"],
    &["data", "preview", "--data", "faulty", "--output"],
    &["data", "convert", "faulty", "--to", "voc", "--output"],
    &["data", "tile", "faulty", "--tile", "48", "--output"],
    &[
        "train",
        "--config",
        "run.toml",
        "--progress",
        "lines",
        "--out",
    ],
    &[
        "prune",
        "model.bpk",
        "--macs",
        "0.5",
        "--size",
        "60x80",
        "--out",
    ],
    &["convert", "model.bpk", "--output"],
    &["export", "model.bpk", "--output"],
    &[
        "surgery",
        "model.bpk",
        "--box-head",
        "fc:8",
        "--no-measure",
        "--output",
    ],
];

/// Where a command is to write.
#[cfg(unix)]
fn target(writer: &[&str], folder: &str) -> String {
    match writer[0] {
        "convert" | "surgery" => format!("{folder}/model.bpk"),
        "export" => format!("{folder}/model.onnx"),
        command => format!("{folder}/{command}-{}", writer[1].trim_matches('-')),
    }
}

#[cfg(unix)]
fn faulty_data() {
    blobs();
    fs::create_dir_all(path("faulty/images")).expect("a folder");
    fs::create_dir_all(path("faulty/labels")).expect("a folder");
    fs::copy(path("pictures/a.png"), path("faulty/images/a.png")).expect("a copy");
    fs::write(path("faulty/labels/a.txt"), "0 .5 .5 .5 .5\n").expect("a file");
    fs::write(path("faulty/classes.txt"), "RBC\n").expect("a file");
}

/// As on a full disk, files end after 1 KiB.
#[cfg(unix)]
#[test]
fn a_full_disk_is_said_and_leaves_nothing_half_written() {
    faulty_data();
    for writer in WRITERS {
        let to = target(writer, "full");
        fs::create_dir_all(path("full")).expect("a folder");
        let limited = "trap '' XFSZ; ulimit -f 2; exec \"$0\" \"$@\"";
        let output = Command::new("sh")
            .args(["-c", limited, env!("CARGO_BIN_EXE_rcnn")])
            .args(writer)
            .arg(&to)
            .current_dir(FOLDER.path())
            .output()
            .expect("the command starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!told.contains("panicked"), "{writer:?}: {told}");
        assert_fails(&output, 1, "File too large");
        assert!(told.contains("full/"), "{writer:?} names no file: {told}");
        for (name, content) in files(&path("full")) {
            assert!(!is_temporary(&name), "{writer:?} left {}", name.display());
            let is_log = name.extension().is_some_and(|e| e == "jsonl");
            assert!(
                content.len() < 1024 || is_log,
                "{writer:?}: {}",
                name.display()
            );
        }
        fs::remove_dir_all(path("full")).expect("a folder");
    }
}

/// `/proc` can't be written to, not even by the superuser.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_to_is_named() {
    faulty_data();
    for writer in WRITERS {
        let to = target(writer, "/proc/1");
        let output = rcnn(&[writer, &[&to]].concat());
        assert_fails(&output, 1, "/proc/1");
    }
}

/// Whatever a command is about to write, the folder is no longer there.
#[cfg(unix)]
#[test]
fn a_folder_that_keeps_vanishing_ends_no_command_in_a_panic() {
    faulty_data();
    for writer in WRITERS {
        fs::create_dir_all(path("fleeting")).expect("a folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_rcnn"))
            .args(writer)
            .arg(target(writer, "fleeting"))
            .current_dir(FOLDER.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        while child.try_wait().expect("it is ours").is_none() {
            // Files may be made in it meanwhile.
            let _ = fs::remove_dir_all(path("fleeting"));
            sleep(Duration::from_millis(1));
        }
        let output = child.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!told.contains("panicked"), "{writer:?}: {told}");
        if !output.status.success() {
            assert_fails(&output, 1, "fleeting");
        }
        let _ = fs::remove_dir_all(path("fleeting"));
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_vanishes_is_named() {
    faulty_data();
    let wait_for = |name: &str| {
        let start = Instant::now();
        while !path(name).exists() {
            assert!(start.elapsed() < Duration::from_secs(100), "no {name}");
            sleep(Duration::from_millis(1));
        }
    };
    let end = |child: Child, folder: &str, says: &str| {
        let output = child.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!told.contains("panicked"), "{told}");
        assert_fails(&output, 1, says);
        assert!(!path(folder).exists(), "{folder} was made again");
    };
    let start = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rcnn"));
        let command = command.args(arguments).current_dir(FOLDER.path());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the command starts")
    };
    // A picture that arrives once the folder is gone.
    let late = path("late.png");
    let made = Command::new("mkfifo").arg(&late).status();
    assert!(made.expect("mkfifo").success());
    let images = ["pictures/a.png", "late.png", "--output", "vanishing"];
    let child = start(&[&["detect", "--weights", "model.bpk"], &images[..]].concat());
    wait_for("vanishing/a.png");
    fs::remove_dir_all(path("vanishing")).expect("a folder");
    let picture = fs::read(path("pictures/a.png")).expect("a picture");
    fs::write(late, picture).expect("it is read");
    end(child, "vanishing", "vanishing/late.png");

    let args = [
        "train", "--config", "run.toml", "--epochs", "10000", "--out",
    ];
    let child = start(&[&args[..], &["vanishing-run"]].concat());
    wait_for("vanishing-run/checkpoint/scheduler-1.mpk");
    // Files may be made in it meanwhile.
    while path("vanishing-run").exists() {
        let _ = fs::remove_dir_all(path("vanishing-run"));
    }
    end(child, "vanishing-run", "vanishing-run");
}
