//! File names that are not UTF-8, as most of Linux's file systems allow them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;

use super::train::blobs;
use super::{assert_fails, json, path, rcnn, stdout};

/// Runs the command with arguments that need not be UTF-8.
fn run(arguments: &[&[u8]]) -> Output {
    let arguments = arguments.iter().map(|bytes| OsStr::from_bytes(bytes));
    rcnn(&arguments.collect::<Vec<_>>())
}

/// They were refused as invalid UTF-8, and `train` panicked.
#[test]
fn names_that_are_not_utf_8_are_taken_like_others() {
    fs::create_dir(path("odd")).expect("a folder");
    for (from, to) in [
        ("model.bpk", &b"odd/m\xff.bpk"[..]),
        ("pictures/a.png", b"odd/p\xff.png"),
        ("pictures/a.png", b"odd/p\xfe.png"),
    ] {
        fs::copy(path(from), path(OsStr::from_bytes(to))).expect("a copy");
    }
    let model = b"odd/m\xff.bpk";
    for (pictures, count) in [
        (&b"odd/p\xff.png"[..], 1),
        (b"odd/p*.png", 2),
        (b"odd/p?.p[m-o]g", 2),
        (b"odd", 2),
    ] {
        let found = json(&run(&[
            b"detect",
            b"-w",
            model,
            b"--format",
            b"json",
            b"-o",
            b"out\xff",
            pictures,
        ]));
        let found = found.as_array().expect("an array");
        assert_eq!(found.len(), count);
        assert_eq!(found[0]["image"], "odd/p\u{fffd}.png");
    }
    for name in ["p\u{fffd}.png", "p\u{fffd}_2.png"] {
        assert!(path(OsStr::from_bytes(b"out\xff")).join(name).is_file());
    }
    json(&run(&[b"inspect", b"--format", b"json", model]));
    stdout(&run(&[b"convert", model, b"-o", b"odd/n\xff.bpk"]));
    stdout(&run(&[
        b"surgery",
        b"odd/n\xff.bpk",
        b"-o",
        b"odd/o.bpk",
        b"--rpn-convs",
        b"0",
    ]));
    let missing = run(&[b"detect", b"-w", b"odd/x\xff.bpk", b"dot.png"]);
    assert_fails(&missing, 1, "odd/x\u{fffd}.bpk: no such file");

    blobs();
    let train = |data: &[u8], out: &[u8]| {
        run(&[
            b"train",
            b"--config",
            b"run.toml",
            b"--data",
            data,
            b"--epochs",
            b"1",
            b"-o",
            out,
        ])
    };
    assert_fails(&train(b"odd", b"odd-run\xff"), 1, "odd: ");
    assert!(path(OsStr::from_bytes(b"odd-run\xff/run.toml")).is_file());
    let says = "cannot hold a path that is not UTF-8";
    assert_fails(&train(b"blobs\xff", b"odd-run"), 1, says);
}
