//! Files of weights as people have them.

use std::fs;

use serde_json::{Map, Value, json};

use super::{assert_fails, json as parsed, path, rcnn, stdout};

/// A safetensors file of the small model's weights, once behind each prefix.
fn behind(file: &str, prefixes: [&str; 2]) {
    stdout(&rcnn(&["convert", "model.bpk", "-o", file, "--overwrite"]));
    let bytes = fs::read(path(file)).expect("a file");
    let (length, rest) = bytes.split_first_chunk().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Map<String, Value> = serde_json::from_slice(header).expect("JSON");
    let mut both = Map::new();
    for (copy, prefix) in prefixes.into_iter().enumerate() {
        for (name, info) in &header {
            if name == "__metadata__" {
                both.insert(name.clone(), info.clone());
                continue;
            }
            let at = |i: usize| info["data_offsets"][i].as_u64().expect("a number");
            let moved = [at(0), at(1)].map(|at| at + (copy * data.len()) as u64);
            let mut info = info.clone();
            info["data_offsets"] = json!(moved);
            both.insert(format!("{prefix}{name}"), info);
        }
    }
    let header = serde_json::to_vec(&both).expect("JSON");
    let length = (header.len() as u64).to_le_bytes();
    let bytes = [&length[..], &header, data, data].concat();
    fs::write(path(file), bytes).expect("a file");
}

#[test]
fn of_several_models_in_a_file_one_is_chosen_wherever_weights_are_opened() {
    behind("two.safetensors", ["student.", "teacher.module."]);
    let detect = |weights: &str, more: &[&str]| {
        let args = ["detect", "-w", weights, "--format", "json", "pictures"];
        rcnn(&[&args, more].concat())
    };
    let several = "several models, `student`, `teacher.module`; choose one with --prefix";
    assert_fails(&detect("two.safetensors", &[]), 1, several);
    let expected = parsed(&detect("model.bpk", &[]));
    for choice in [["--prefix", "student"], ["--key", "teacher"]] {
        assert_eq!(parsed(&detect("two.safetensors", &choice)), expected);
        let args = ["inspect", "two.safetensors", "--format", "json"];
        let inspected = parsed(&rcnn(&[&args[..], &choice].concat()));
        assert_eq!(inspected["num_classes"], 4);
    }
    let args = ["convert", "two.safetensors", "--prefix", "teacher.module"];
    stdout(&rcnn(&[&args[..], &["-o", "teacher.bpk"]].concat()));
    assert_eq!(parsed(&detect("teacher.bpk", &[])), expected);
    let wrong = detect("two.safetensors", &["--prefix", "model"]);
    assert_fails(
        &wrong,
        1,
        "there is a model behind `student`, `teacher.module`",
    );
}

#[test]
fn an_unknown_name_of_weights_is_told_from_a_missing_file() {
    let detect = |weights: &str| rcnn(&["detect", "-w", weights, "dot.png"]);
    let name = "FasterRCNN_MobileNet_V9_Large_FPN_Weights.COCO_V1";
    assert_fails(
        &detect(name),
        1,
        "no such file, nor published weights of this name",
    );
    assert_fails(&detect("model.pth"), 1, "model.pth: no such file");
}

/// The system's message was printed twice.
#[test]
fn a_folder_that_is_not_there_is_said_once() {
    let convert = rcnn(&["convert", "model.bpk", "-o", "no/such/model.bpk"]);
    assert_fails(&convert, 1, "no/such/model.bpk: could not be written: ");
    let told = String::from_utf8_lossy(&convert.stderr);
    assert_eq!(told.matches("os error").count(), 1, "{told}");
}
