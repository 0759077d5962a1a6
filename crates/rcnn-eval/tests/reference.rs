//! All numbers equal those of pycocotools on the data of `make_reference.py`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use rcnn_eval::{EvalError, EvalOptions, Evaluation, evaluate, evaluate_with, results};
use rcnn_types::{ImageInstances, Instances, Keypoints};
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
            if let Some(mask) = object.get("segmentation") {
                let mask = serde_json::from_value(mask.clone()).unwrap();
                objects.masks.get_or_insert_default().push(mask);
                let points: Vec<f32> = serde_json::from_value(object["keypoints"].clone()).unwrap();
                let points = Keypoints(points.as_chunks().0.to_vec());
                objects.keypoints.get_or_insert_default().push(points);
            }
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

const BOX_KEYS: [&str; 12] = [
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
];
const KEYPOINT_KEYS: [&str; 10] = [
    "AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl",
];

/// The largest difference between an evaluation's JSON and pycocotools' numbers.
fn difference_of(ours: &Value, expected: &Value, keys: &[&str]) -> f64 {
    let stats = expected["stats"].as_array().unwrap();
    assert_eq!(stats.len(), keys.len());
    let pairs = keys.iter().zip(stats);
    let mut pairs: Vec<(&Value, &Value)> =
        pairs.map(|(key, number)| (&ours[key], number)).collect();
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

fn difference(evaluation: &Evaluation, expected: &Value) -> f64 {
    let ours = serde_json::to_value(evaluation).unwrap();
    difference_of(&ours, expected, &BOX_KEYS)
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

impl Fixture {
    /// With the sigmas of the fixture.
    fn evaluate_shapes(&self, detections: &[ImageInstances]) -> Value {
        let sigmas = self.json["expected"]["sigmas"].clone();
        let options = EvalOptions {
            keypoint_sigmas: serde_json::from_value(sigmas).unwrap(),
            ..EvalOptions::default()
        };
        let evaluation = evaluate_with(&self.truth, detections, &self.names, &options);
        serde_json::to_value(evaluation.unwrap()).unwrap()
    }
}

#[test]
fn masks_and_keypoints_equal_pycocotools() {
    equals_pycocotools("shapes");
    let fixture = Fixture::load("shapes");
    let expected = &fixture.json["expected"];
    let ours = fixture.evaluate_shapes(&fixture.detections);
    let masks = difference_of(&ours["segm"], &expected["segm"], &BOX_KEYS);
    assert!(masks <= TOLERANCE, "masks: {masks:e}");
    let keypoints = difference_of(&ours["keypoints"], &expected["keypoints"], &KEYPOINT_KEYS);
    assert!(keypoints <= TOLERANCE, "keypoints: {keypoints:e}");
}

/// Areas of detections are then those of the masks, or around the keypoints.
#[test]
fn results_without_boxes_equal_pycocotools() {
    let fixture = Fixture::load("shapes");
    let without = |keys: &[&str]| {
        let mut results = fixture.json["detections"].clone();
        for result in results.as_array_mut().unwrap() {
            let result = result.as_object_mut().unwrap();
            keys.iter().for_each(|key| drop(result.remove(*key)));
        }
        fixture.evaluate_shapes(&results::read(&results.to_string()).unwrap())
    };
    let expected = &fixture.json["expected"];
    let ours = &without(&["bbox"])["segm"];
    let masks = difference_of(ours, &expected["segm without boxes"], &BOX_KEYS);
    assert!(masks <= TOLERANCE, "masks: {masks:e}");
    let ours = without(&["bbox", "segmentation"]);
    assert!(ours.get("segm").is_none(), "nothing to compare masks with");
    let expected = &expected["keypoints without boxes"];
    let keypoints = difference_of(&ours["keypoints"], expected, &KEYPOINT_KEYS);
    assert!(keypoints <= TOLERANCE, "keypoints: {keypoints:e}");
}

#[test]
fn data_say_which_shapes_are_evaluated() {
    let mut fixture = Fixture::load("shapes");
    let table = fixture.evaluate().to_string();
    for heading in [
        "boxes (bbox)",
        "masks (segm)",
        "  keypoints\n",
        "segm AP  keypoint AP\n",
    ] {
        assert!(table.contains(heading), "{heading}: {table}");
    }
    for image in &mut fixture.truth {
        (image.instances.masks, image.instances.keypoints) = (None, None);
    }
    let evaluation = fixture.evaluate();
    assert!(evaluation.segm.is_none() && evaluation.keypoints.is_none());
    assert!(!evaluation.to_string().contains("segm"));
}

#[test]
fn sigmas_and_keypoints_must_be_as_many() {
    let mut fixture = Fixture::load("shapes");
    for wrong in [vec![0.1; 2], vec![0.0], vec![f64::NAN; 3]] {
        let options = EvalOptions {
            keypoint_sigmas: wrong,
            ..EvalOptions::default()
        };
        let error = evaluate_with(
            &fixture.truth,
            &fixture.detections,
            &fixture.names,
            &options,
        );
        assert!(matches!(error, Err(EvalError::Sigmas { expected: 3, .. })));
    }
    for image in &mut fixture.detections {
        let keypoints = image.instances.keypoints.iter_mut().flatten();
        keypoints.for_each(|points| points.0.truncate(2));
    }
    let error = evaluate(&fixture.truth, &fixture.detections, &fixture.names).unwrap_err();
    let error = error.to_string();
    assert!(
        error.ends_with("number of keypoints = 2: expected 3"),
        "{error}"
    );
}

/// Nothing says whether what is found there is right.
#[test]
fn an_object_without_a_mask_among_others_is_ignored() {
    let mut fixture = Fixture::load("shapes");
    let masks = |fixture: &Fixture| fixture.evaluate().segm.unwrap().summary.ap.unwrap();
    let before = masks(&fixture);
    let truth = fixture.truth.clone();
    let size = truth[0].instances.masks.as_ref().unwrap()[0].size();
    for (image, was) in fixture.truth.iter_mut().zip(&truth) {
        let objects = &mut image.instances;
        let far = objects.select(&[0]);
        objects.append(far);
        *objects.boxes.last_mut().unwrap() = [0.0, 0.0, 2.0, 2.0];
        *objects.masks.as_mut().unwrap().last_mut().unwrap() = rcnn_types::Mask::empty(size);
        assert_eq!(objects.len(), was.instances.len() + 1);
    }
    assert_eq!(masks(&fixture), before);
}

#[test]
fn written_results_are_what_pycocotools_read() {
    for name in ["usual", "ties", "crowded", "sizes", "shapes"] {
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
    for name in ["usual", "ties", "crowded", "sizes", "shapes"] {
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
