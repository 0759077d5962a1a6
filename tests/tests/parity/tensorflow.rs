//! Small models that TensorFlow wrote, opened as its users have them, against what it detects with them and how it
//! trains them.

use std::fs;
use std::path::PathBuf;

use parity::{Fixture, synthetic};
use rcnn_burn::Instances;
use rcnn_burn::ops::{BBox, DetectionBackend};
use rcnn_burn::weights::Weights;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::models::assert_same;
use crate::training::check_step;
use crate::{Extent, Named};

/// Detections by the rules of each year, and a step of training where all of those are taken.
pub(crate) fn checks<B: DetectionBackend>(extent: Extent) -> Vec<Named<B>> {
    let mut checks: Vec<Named<B>> = vec![
        ("rules_of_2018", |device| detects::<B>("2018", device)),
        ("rules_of_2019", |device| detects::<B>("2019", device)),
    ];
    if extent == Extent::All {
        checks.push(("train_inception_v2", trains::<B>));
    }
    checks
}

/// Folder of the model of a year.
fn folder(year: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../weights-import/tests/fixtures/tensorflow")
        .join(year)
}

fn trains<B: DetectionBackend>(device: &B::Device) {
    let fixture = Fixture::open("train_inception_v2");
    let weights = Weights::open(folder("2018")).expect("a model");
    let model = weights.load(device).expect("a detector");
    let copy = weights.load(device).expect("a detector");
    check_step::<B>(&fixture, model, copy, device);
}

fn read<T: DeserializeOwned>(json: &Value, name: &str) -> T {
    T::deserialize(&json[name]).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn detects<B: DetectionBackend>(year: &str, device: &B::Device) {
    let folder = folder(year);
    let json = fs::read_to_string(folder.join("detections.json")).expect("detections");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let weights = Weights::open(&folder).expect("a model");
    assert_eq!(
        weights.config.class_names,
        read::<Vec<String>>(&json, "class_names")
    );
    let model = weights.load::<B>(device).expect("a detector");
    let image = &json["image"];
    let name: String = read(image, "name");
    let picture = synthetic::image(&name, read(image, "height"), read(image, "width"), device);
    let found = &model.detect(&[picture]).expect("an image")[0];
    let expected = Instances {
        scores: Some(read(&json, "scores")),
        ..Instances::new(read::<Vec<BBox>>(&json, "boxes"), read(&json, "labels"))
    };
    assert_same(&format!("detections of {year}"), found, &expected);
}
