//! Checkpoints in several files, and parts of them.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use weights_import::{Checkpoint, CheckpointError, Weights};

use crate::models::{torch_shapes, write_shapes};
use rcnn_detector::FasterRcnnConfig;

const INDEX: &str = "model.safetensors.index.json";
const FILES: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

/// Writes a detector in two files with their index, as `accelerate` does, and returns the number of its tensors.
fn write(folder: &Path, config: &FasterRcnnConfig) -> usize {
    let mut weight_map = Map::new();
    let shapes = torch_shapes(config);
    let parts = shapes.split_at(shapes.len() / 2);
    for (part, file) in [parts.0, parts.1].into_iter().zip(FILES) {
        write_shapes(&folder.join(file), part);
        weight_map.extend(part.iter().map(|(name, _)| (name.clone(), json!(file))));
    }
    let index = json!({"metadata": {"total_size": 7}, "weight_map": weight_map});
    fs::write(folder.join(INDEX), index.to_string()).expect("a file");
    shapes.len()
}

fn message(path: &Path) -> String {
    let error: CheckpointError = Checkpoint::open(path).expect_err("it is refused");
    error.to_string()
}

/// The index was JSON text, a part a detector that lacks most of its layers, the folder one without a model.
#[test]
fn a_checkpoint_of_several_files_is_opened_by_any_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let expected = FasterRcnnConfig::fasterrcnn_resnet50_fpn(4);
    let tensors = write(folder.path(), &expected);
    for name in [INDEX, FILES[0], FILES[1], "."] {
        let weights = Weights::open(folder.path().join(name)).expect("a detector");
        assert_eq!(weights.config, expected, "{name}");
        assert_eq!(weights.tensors.len(), tensors, "{name}");
    }
}

#[test]
fn parts_without_their_index_and_indices_without_their_parts_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    write(folder.path(), &FasterRcnnConfig::fasterrcnn_resnet50_fpn(4));
    let text = fs::read_to_string(place(INDEX)).expect("a file");
    let mut index: Value = serde_json::from_str(&text).expect("JSON");
    for (file, says) in [
        (json!(FILES[0]), "`rpn.head.other` is not in model-00001"),
        (json!("gone.safetensors"), "gone.safetensors: "),
        (
            json!("../model.safetensors"),
            "is not the name of a file beside it",
        ),
        (json!(INDEX), "JSON text"),
    ] {
        index["weight_map"]["rpn.head.other"] = file;
        fs::write(place(INDEX), index.to_string()).expect("a file");
        let message = message(&place(INDEX));
        assert!(message.contains(says), "{message}");
    }
    fs::write(place(INDEX), "{\"weight_map\": {}}").expect("a file");
    assert!(message(&place(INDEX)).contains("lists no tensors"));
    fs::remove_file(place(INDEX)).expect("a file");
    let alone = message(&place(FILES[1]));
    assert!(
        alone.contains("model.safetensors.index.json, is not beside it"),
        "{alone}"
    );

    fs::create_dir(place("dcp")).expect("a folder");
    fs::write(place("dcp/__0_0.distcp"), "PK\x03\x04").expect("a file");
    for name in ["dcp", "dcp/__0_0.distcp"] {
        assert!(message(&place(name)).contains("dcp_to_torch_save"));
    }
}

/// It was said to be empty.
#[cfg(unix)]
#[test]
fn a_pipe_is_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("model.pth");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    // Opening waits for the other end.
    let other = pipe.clone();
    let writer = std::thread::spawn(move || fs::write(other, "PK\x03\x04"));
    assert!(message(&pipe).contains("a pipe or device"));
    writer.join().expect("it does not panic").ok();
    assert!(message(Path::new("/dev/null")).contains("a pipe or device"));
}
