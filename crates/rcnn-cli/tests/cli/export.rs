//! `rcnn export`: the kinds of file, and what none can be.

use super::{assert_fails, path, rcnn, stdout};

fn export(rest: &[&str]) -> std::process::Output {
    rcnn(&[&["export", "model.bpk"], rest].concat())
}

#[test]
fn a_model_becomes_each_kind_of_file() {
    for (name, flags) in [
        ("any.onnx", &[][..]),
        ("half.onnx", &["--dtype", "f16"]),
        ("fixed.onnx", &["--batch", "2", "--size", "64x96"]),
        ("gather.onnx", &["--size", "64x96", "--pooling", "gather"]),
        ("picture.onnx", &["--input", "image", "--opset", "18"]),
        ("body.onnx", &["--body"]),
    ] {
        stdout(&export(&[&["-o", name], flags].concat()));
        assert!(path(name).is_file(), "{name}");
    }
}

#[test]
fn kinds_of_file_that_there_are_not_are_rejected_before_anything_is_written() {
    let fails = |flags: &[&str], code, says| {
        assert_fails(&export(&[&["-o", "none.onnx"], flags].concat()), code, says);
        assert!(!path("none.onnx").exists());
    };
    fails(&["--opset", "11"], 1, "opset 11: expected 13 to 21");
    fails(&["--batch", "2"], 2, "--size");
    fails(&["--size", "64"], 2, "800x1088");
    fails(&["--body", "--input", "image"], 2, "cannot be used with");
    let two = ["--input", "image", "--batch", "2", "--size", "64x96"];
    fails(&two, 1, "the batch must be 1");
    assert_fails(&export(&["-o", "model.pb"]), 1, ".onnx");
    if !cfg!(feature = "ort") {
        fails(&["--check", "pictures/a.png"], 1, "--features ort");
    }
}
