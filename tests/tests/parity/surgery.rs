//! Models with layers removed and replaced, on each backend: the detections of Flex.

use std::path::{Path, PathBuf};

use rcnn_burn::Instances;
use rcnn_burn::image::{open_rgb, to_tensor};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::ops::backend_types::Flex;
use rcnn_burn::weights::Weights;

use crate::Check;
use crate::models::assert_same;

/// Operations, by name. What is left of the weights still finds cells.
const CASES: [(&str, &[&str]); 3] = [
    (
        "dropped_block",
        &["drop-block layer1.1", "drop-block layer2.1"],
    ),
    ("dropped_stage", &["drop-stage layer2"]),
    ("no_box_regression", &["no-box-regression"]),
];

pub(crate) fn checks<B: DetectionBackend>() -> Vec<Check<B>> {
    let check = |(name, operations): (&'static str, &'static [&'static str])| {
        Check::new(name, move |device: &B::Device| {
            // Operated upon once: what is new starts at random.
            let weights = operated(operations);
            let expected = detect::<Flex>(&weights, &Default::default());
            assert!(expected.len() > 5, "{} detections", expected.len());
            assert_same(name, &detect::<B>(&weights, device), &expected);
        })
    };
    CASES.map(check).into()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The bundled detector after surgery.
fn operated(operations: &[&str]) -> Weights {
    let whole = Weights::open(root().join("crates/rcnn-core/assets/blood-cells.bpk"));
    let operations = operations
        .iter()
        .map(|text| text.parse().expect("an operation"));
    let operations: Vec<_> = operations.collect();
    let operated = whole
        .expect("weights")
        .with_surgery::<Flex>(&operations, &Default::default());
    operated.expect("what is left is a detector").0
}

/// Detections in the bundled picture.
fn detect<B: DetectionBackend>(weights: &Weights, device: &B::Device) -> Instances {
    let model = weights.load::<B>(device).expect("a model");
    let picture = open_rgb(root().join("assets/blood-cells.jpg")).expect("a picture");
    let mut found = model
        .detect(&[to_tensor(&picture, device)])
        .expect("a picture of three channels");
    found.pop().expect("one picture")
}
