//! What ONNX Runtime computes with exported files is what the model computes.
//!
//! `tests/reference/make_onnx.py` ran the files of `files/` and wrote what came out. The files have to be what is
//! exported today: `RCNN_ONNX_FILES=write cargo test -p rcnn-onnx` writes them anew, and the script has to run after it.

mod tiny;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use rcnn_detector::FasterRcnnConfig;
use rcnn_onnx::{FixedShape, OnnxInput, OnnxOptions, Pooling, onnx_as_recorded};
use rcnn_ops::backend_types::Flex;
use rcnn_ops::record::Recorder;
use rcnn_types::{BoxRules, Instances, Size};
use serde::Deserialize;
use tiny::{Kind, Model, config, models, roi_pool, tensorflow};

/// Pictures of `make_onnx.py`: height and width.
const SIZES: [(usize, usize); 5] = [(60, 96), (50, 50), (33, 17), (48, 80), (7, 90)];

/// A score that few detections have.
const FEW: f32 = 0.5945;

/// What ONNX Runtime found in a picture, in its pixels.
#[derive(Deserialize)]
struct Found {
    boxes: Vec<[f32; 4]>,
    labels: Vec<usize>,
    scores: Vec<f32>,
    #[serde(default)]
    masks: Vec<Vec<f32>>,
    #[serde(default)]
    keypoints: Vec<Vec<[f32; 3]>>,
    #[serde(default)]
    keypoint_scores: Vec<Vec<f32>>,
    /// The largest number of each output of fixed shapes after the last detection.
    #[serde(default)]
    after: BTreeMap<String, f32>,
}

/// A file: its name, the detector and how it is exported.
struct File {
    name: &'static str,
    config: FasterRcnnConfig,
    kind: Kind,
    options: OnnxOptions,
}

impl File {
    fn models(&self) -> (Model<Flex>, Model<Recorder>) {
        models(&self.config, self.kind)
    }
}

/// A detector of keypoints whose boxes are several times as large as their heat maps.
fn keypoints() -> FasterRcnnConfig {
    let mut config = config();
    (config.transform.min_size, config.transform.max_size) = (vec![160], 288);
    config.rpn.anchor_generator.sizes = vec![vec![40.0], vec![150.0]];
    let roi = &mut config.roi_heads;
    (roi.mask, roi.detections_per_img) = (None, 6);
    let branch = roi.keypoint.as_mut().expect("a branch");
    branch.roi_pool.output_size = [7, 7];
    // With fewer channels no unit is active in some places, where the heat map is flat.
    branch.layers = vec![24];
    branch.num_keypoints = 8;
    config
}

fn files() -> Vec<File> {
    let options = OnnxOptions::default;
    let fixed = |batch, height, width| OnnxOptions {
        fixed: Some(FixedShape {
            batch,
            size: Size::new(height, width),
        }),
        ..options()
    };
    let file = |name, config, kind, options| File {
        name,
        config,
        kind,
        options,
    };
    let image = OnnxOptions {
        input: OnnxInput::Image,
        ..options()
    };
    let gather = OnnxOptions {
        pooling: Pooling::Gather,
        ..fixed(1, 48, 80)
    };
    let mut few = config();
    few.roi_heads.score_thresh = FEW;
    vec![
        file("dynamic", config(), Kind::Plain, options()),
        file("image", config(), Kind::Plain, image.clone()),
        file("fixed", few, Kind::Plain, fixed(2, 48, 80)),
        file("gather", config(), Kind::Plain, gather),
        file("roi_pool", roi_pool(), Kind::Plain, options()),
        file("keypoints", keypoints(), Kind::Plain, options()),
        file(
            "tensorflow2018",
            tensorflow(BoxRules::Tensorflow2018),
            Kind::Same,
            image,
        ),
        file(
            "tensorflow2019",
            tensorflow(BoxRules::Tensorflow2019),
            Kind::Same,
            fixed(2, 48, 77),
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
    let write = std::env::var_os("RCNN_ONNX_FILES").is_some();
    for file in files() {
        let (model, recorded) = file.models();
        let made = tempfile::tempdir().unwrap();
        let made = made.path().join("model.onnx");
        onnx_as_recorded(&model, &recorded, &file.options, &made).unwrap();
        let made = fs::read(made).unwrap();
        let path = folder().join(format!("{}.onnx", file.name));
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
    let masks = ours.mask_probabilities.iter().flatten();
    let masks: Vec<f32> = masks.flat_map(|mask| mask.values.clone()).collect();
    let points = ours.keypoints.iter().flatten();
    let points: Vec<f32> = points.flat_map(|points| points.0.concat()).collect();
    let point_scores = ours.keypoint_scores.iter().flatten();
    let point_scores: Vec<f32> = point_scores.flatten().copied().collect();
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

fn theirs(name: &str) -> Vec<Found> {
    let path = folder().join(format!("{name}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Compares one file's results on these batches; gives the number of detections of each picture.
fn check(name: &str, batches: &[&[usize]]) -> Vec<usize> {
    let file = files().into_iter().find(|file| file.name == name).unwrap();
    let (model, _) = file.models();
    let theirs = theirs(name);
    let mut theirs = theirs.iter();
    let mut counts = Vec::new();
    for batch in batches {
        let images: Vec<_> = batch.iter().map(|&i| picture(SIZES[i])).collect();
        for (i, ours) in model.detect(&images).unwrap().iter().enumerate() {
            let what = format!("{name}: {:?}", SIZES[batch[i]]);
            compare(ours, theirs.next().expect("a result"), &what);
            counts.push(ours.boxes.len());
        }
    }
    assert!(counts.iter().any(|count| *count > 0) && theirs.next().is_none());
    counts
}

#[test]
fn onnx_runtime_finds_what_the_model_finds() {
    check("dynamic", &[&[0], &[1, 2, 3], &[4]]);
    check("image", &[&[0], &[1], &[2], &[3]]);
    check("gather", &[&[3]]);
}

#[test]
fn onnx_runtime_finds_the_same_by_tensorflows_rules() {
    check("tensorflow2018", &[&[0], &[1], &[2], &[3]]);
    check("tensorflow2019", &[&[0, 1]]);
}

/// Only the sixteen cells of a heat map with the largest outermost pixels were searched, so that points were found in
/// others, up to 44 pixels away.
#[test]
fn keypoints_are_where_the_enlarged_heat_map_is_largest_within_any_cell() {
    check("keypoints", &[&[0, 1], &[2, 3], &[4]]);
}

/// The most detections of a class and the weights of the first stage's deltas were once left out.
#[test]
fn onnx_runtime_finds_the_same_with_roi_pool_and_settings_that_torchvision_has_not() {
    check("roi_pool", &[&[0], &[1, 2, 3]]);
}

#[test]
fn slots_of_fixed_files_are_zero_after_the_last_detection() {
    let counts = check("fixed", &[&[0, 1]]);
    assert!(counts.iter().all(|count| *count < 12), "{counts:?}");
    let outputs = [
        "boxes",
        "keypoint_scores",
        "keypoints",
        "labels",
        "masks",
        "scores",
    ];
    for found in theirs("fixed") {
        assert!(found.after.keys().eq(outputs), "{:?}", found.after);
        assert!(found.after.values().all(|largest| *largest == 0.0));
    }
}
