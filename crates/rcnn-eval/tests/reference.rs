//! All numbers equal those of pycocotools on the data of `make_reference.py`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use rcnn_eval::{Evaluation, evaluate, results};
use rcnn_types::{ImageInstances, Instances};
use serde_json::Value;

const TOLERANCE: f64 = 1e-6;

struct Fixture {
    truth: Vec<ImageInstances>,
    detections: Vec<ImageInstances>,
    names: Vec<String>,
    json: Value,
}

impl Fixture {
    fn load(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let text = fs::read_to_string(folder.join(name).with_extension("json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let list = |key: &str| json[key].as_array().unwrap().iter();

        let mut images: Vec<ImageInstances> = list("images")
            .map(|image| ImageInstances {
                image_id: image["id"].as_u64().unwrap(),
                file_name: image["file_name"].as_str().unwrap().into(),
                instances: Instances {
                    crowd: Some(Vec::new()),
                    areas: Some(Vec::new()),
                    ..Instances::default()
                },
            })
            .collect();
        let positions = images
            .iter()
            .zip(0..)
            .map(|(image, at)| (image.image_id, at));
        let positions: HashMap<u64, usize> = positions.collect();
        for object in list("annotations") {
            let objects = &mut images[positions[&object["image_id"].as_u64().unwrap()]].instances;
            let number = |value: &Value| value.as_f64().unwrap();
            let [x, y, width, height] = [0, 1, 2, 3].map(|i| number(&object["bbox"][i]));
            let bbox = [x, y, x + width, y + height].map(|v| v as f32);
            objects.boxes.push(bbox);
            objects
                .labels
                .push(object["category_id"].as_u64().unwrap() as usize);
            let crowd = object["iscrowd"] == 1;
            objects.crowd.as_mut().unwrap().push(crowd);
            let area = number(&object["area"]) as f32;
            objects.areas.as_mut().unwrap().push(area);
        }
        let names = list("categories").map(|class| class["name"].as_str().unwrap().into());
        let names = ["background".into()].into_iter().chain(names).collect();
        let detections = results::read(&json["detections"].to_string()).unwrap();
        Self {
            truth: images,
            detections,
            names,
            json,
        }
    }

    fn evaluate(&self) -> Evaluation {
        evaluate(&self.truth, &self.detections, &self.names).unwrap()
    }
}

/// The largest difference between an evaluation as JSON and pycocotools' numbers.
fn difference(evaluation: &Evaluation, expected: &Value) -> f64 {
    let keys = [
        "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
    ];
    let ours = serde_json::to_value(evaluation).unwrap();
    let mut pairs: Vec<(&Value, &Value)> = keys
        .iter()
        .zip(expected["stats"].as_array().unwrap())
        .map(|(key, number)| (&ours[key], number))
        .collect();
    let classes = ours["per_class"].as_array().unwrap();
    let expected = expected["per_class"].as_array().unwrap();
    assert_eq!(classes.len(), expected.len());
    for (class, expected) in classes.iter().zip(expected) {
        pairs.extend(["AP", "AP50", "AR"].map(|key| (&class[key], &expected[key])));
    }
    let difference = |(ours, theirs): (&Value, &Value)| match theirs.as_f64().unwrap() {
        -1.0 => {
            assert!(ours.is_null(), "{ours} is a number without objects");
            0.0
        }
        theirs => (ours.as_f64().unwrap() - theirs).abs(),
    };
    pairs.into_iter().map(difference).fold(0.0, f64::max)
}

fn equals_pycocotools(name: &str) {
    let fixture = Fixture::load(name);
    let difference = difference(&fixture.evaluate(), &fixture.json["expected"]);
    println!("{name}: the largest difference is {difference:e}");
    assert!(difference <= TOLERANCE, "{name}: {difference:e}");
}

#[test]
fn usual_data_equals_pycocotools() {
    equals_pycocotools("usual");
}

#[test]
fn ties_equal_pycocotools() {
    equals_pycocotools("ties");
}

#[test]
fn crowds_and_many_detections_equal_pycocotools() {
    equals_pycocotools("crowded");
}

#[test]
fn limits_of_sizes_equal_pycocotools() {
    equals_pycocotools("sizes");
}

#[test]
fn written_results_are_what_pycocotools_read() {
    for name in ["usual", "ties", "crowded", "sizes"] {
        let fixture = Fixture::load(name);
        let written: Value =
            serde_json::from_str(&results::write(&fixture.detections, &[])).unwrap();
        // Reading groups them by image.
        let group = |results: &Value| {
            let mut results = results.as_array().unwrap().clone();
            results.sort_by_key(|result| result["image_id"].as_u64());
            results
        };
        assert_eq!(
            group(&written),
            group(&fixture.json["detections"]),
            "{name}"
        );
    }
}

#[test]
fn the_order_of_images_does_not_matter() {
    let mut fixture = Fixture::load("ties");
    fixture.truth.reverse();
    fixture.detections.rotate_left(3);
    assert!(difference(&fixture.evaluate(), &fixture.json["expected"]) <= TOLERANCE);
}

#[test]
fn counts_agree_with_each_other() {
    for name in ["usual", "ties", "crowded", "sizes"] {
        let fixture = Fixture::load(name);
        let evaluation = fixture.evaluate();
        let counts = &evaluation.confusion.counts;
        let threshold = |label: usize| evaluation.confusion.score_thresholds[label - 1];
        for class in &evaluation.per_class {
            let label = class.label;
            let row: u64 = counts[label].iter().sum();
            assert_eq!(
                row, class.objects as u64,
                "{name}: every object is in its row"
            );
            if let Some(best) = class.best_f1 {
                assert_eq!(best.score, threshold(label));
                let found = counts[label][label] as f64;
                assert!((found / row as f64 - best.recall).abs() < 1e-12);
                let detected: u64 = counts.iter().map(|row| row[label]).sum();
                assert!((found / detected as f64 - best.precision).abs() < 1e-12);
            }
        }
        let missed: usize = evaluation
            .errors
            .iter()
            .map(|image| image.missed.len())
            .sum();
        let found: u64 = (0..counts.len()).map(|label| counts[label][label]).sum();
        assert_eq!(missed + found as usize, evaluation.objects);
        let worst: Vec<_> = evaluation
            .worst(5)
            .iter()
            .map(|image| image.count())
            .collect();
        assert!(worst.is_sorted_by(|a, b| a >= b) && !worst.contains(&0));
    }
}
