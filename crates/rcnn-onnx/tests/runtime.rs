//! What ONNX Runtime computes with exported files is what the model computes.
//!
//! `tests/reference/make_onnx.py` ran the files of `files/` and wrote what came out. The files have to be what is
//! exported today: `RCNN_ONNX_FILES=write cargo test -p rcnn-onnx` writes them anew, and the script has to run after it.

mod tiny;

use std::fs;
use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use rcnn_onnx::{FixedShape, OnnxInput, OnnxOptions, Pooling, onnx_as_recorded};
use rcnn_ops::backend_types::Flex;
use rcnn_types::{Instances, Size};
use serde::Deserialize;
use tiny::{Model, config, models};

/// Pictures of `make_onnx.py`: height and width.
const SIZES: [(usize, usize); 4] = [(60, 96), (50, 50), (33, 17), (48, 80)];

/// What ONNX Runtime found in a picture, in its pixels.
#[derive(Deserialize)]
struct Found {
    boxes: Vec<[f32; 4]>,
    labels: Vec<usize>,
    scores: Vec<f32>,
    masks: Vec<Vec<f32>>,
    keypoints: Vec<Vec<[f32; 3]>>,
    keypoint_scores: Vec<Vec<f32>>,
}

fn kinds() -> Vec<(&'static str, OnnxOptions)> {
    let default = OnnxOptions::default;
    let fixed = |batch, height, width| {
        let size = Size::new(height, width);
        Some(FixedShape { batch, size })
    };
    vec![
        ("dynamic", default()),
        (
            "image",
            OnnxOptions {
                input: OnnxInput::Image,
                ..default()
            },
        ),
        (
            "fixed",
            OnnxOptions {
                fixed: fixed(2, 48, 80),
                ..default()
            },
        ),
        (
            "gather",
            OnnxOptions {
                fixed: fixed(1, 48, 80),
                pooling: Pooling::Gather,
                ..default()
            },
        ),
    ]
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files"))
}

/// The graph of a file, without versions and the configuration, which gains fields.
fn graph(mut file: &[u8]) -> &[u8] {
    fn number(file: &mut &[u8]) -> usize {
        let end = file.iter().position(|byte| *byte < 0x80).expect("an end");
        let (number, rest) = file.split_at(end + 1);
        *file = rest;
        let digits = number.iter().rev();
        digits.fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f))
    }
    loop {
        let tag = number(&mut file);
        let value = number(&mut file);
        match (tag >> 3, tag & 7) {
            (7, _) => return &file[..value],
            (_, 2) => file = &file[value..],
            _ => {}
        }
    }
}

#[test]
fn files_are_those_that_onnx_runtime_ran() {
    let (model, recorded) = models(&config(), false);
    let write = std::env::var_os("RCNN_ONNX_FILES").is_some();
    for (kind, options) in kinds() {
        let made = tempfile::tempdir().unwrap();
        let made = made.path().join("model.onnx");
        onnx_as_recorded(&model, &recorded, &options, &made).unwrap();
        let made = fs::read(made).unwrap();
        let path = folder().join(format!("{kind}.onnx"));
        if write {
            fs::write(&path, &made).unwrap();
        }
        let committed = fs::read(&path).unwrap();
        assert!(
            graph(&made) == graph(&committed),
            "{}: not what is exported today; see the beginning of this test",
            path.display()
        );
    }
}

fn picture(size: (usize, usize)) -> Tensor<Flex, 3> {
    let (height, width) = size;
    let pixel = |i: usize| {
        let (channel, y, x) = (i / (height * width), i / width % height, i % width);
        ((y * 7 + x * 13 + channel * 29 + y * x / 3) % 256) as f32 / 255.0
    };
    let pixels: Vec<f32> = (0..3 * height * width).map(pixel).collect();
    Tensor::from_data(
        TensorData::new(pixels, [3, height, width]),
        &Default::default(),
    )
}

/// The largest difference of two lists of the same length.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let gaps = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    gaps.fold(0.0, f32::max)
}

fn compare(ours: &Instances, theirs: &Found, what: &str) {
    assert_eq!(ours.labels, theirs.labels, "{what}");
    let masks = ours.mask_probabilities.as_ref().unwrap();
    let masks: Vec<f32> = masks.iter().flat_map(|mask| mask.values.clone()).collect();
    let points = ours.keypoints.as_ref().unwrap();
    let points: Vec<f32> = points.iter().flat_map(|points| points.0.concat()).collect();
    let point_scores = ours.keypoint_scores.as_ref().unwrap().concat();
    let scores = ours.scores.as_ref().unwrap();
    let found = [
        difference(scores, &theirs.scores),
        difference(&ours.boxes.concat(), &theirs.boxes.concat()),
        difference(&masks, &theirs.masks.concat()),
        difference(&points, &theirs.keypoints.concat().concat()),
        difference(&point_scores, &theirs.keypoint_scores.concat()),
    ];
    println!("{what}: {found:?}");
    let tolerances = [1e-5, 1e-3, 1e-4, 1e-3, 1e-4];
    let close = found
        .iter()
        .zip(tolerances)
        .all(|(found, most)| *found <= most);
    assert!(
        close,
        "{what}: scores, boxes, masks, keypoints and their scores are off by {found:?}"
    );
}

fn theirs(kind: &str) -> Vec<Found> {
    let path = folder().join(format!("{kind}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn check(model: &Model<Flex>, kind: &str, batches: &[&[usize]]) {
    let theirs = theirs(kind);
    let mut theirs = theirs.iter();
    let mut detections = 0;
    for batch in batches {
        let images: Vec<_> = batch.iter().map(|&i| picture(SIZES[i])).collect();
        for (i, ours) in model.detect(&images).unwrap().iter().enumerate() {
            let what = format!("{kind}: {:?}", SIZES[batch[i]]);
            compare(ours, theirs.next().expect("a result"), &what);
            detections += ours.boxes.len();
        }
    }
    assert!(detections > 0 && theirs.next().is_none());
}

#[test]
fn onnx_runtime_finds_what_the_model_finds() {
    let (model, _) = models(&config(), false);
    check(&model, "dynamic", &[&[0], &[1, 2, 3]]);
    check(&model, "image", &[&[0], &[1], &[2], &[3]]);
    check(&model, "fixed", &[&[0, 1]]);
    check(&model, "gather", &[&[3]]);
}
