//! The ids of the reference implementation on a recorded sequence: objects that cross, hide, come and go, in two classes.
//!
//! `tests/reference/make_tracking.py` makes the file.

use std::{env, fs};

use rcnn_track::{Tracker, TrackerConfig};
use rcnn_types::Instances;
use serde_json::Value;

/// Detections and ids of each frame.
type Frames = Vec<(Instances, Vec<(usize, u64)>)>;

fn recorded() -> Frames {
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/bytetrack.json");
    // Other sequences can be tried: `make_tracking.py --seed 8 --out other.json`.
    let path = env::var("RCNN_TRACKING").unwrap_or_else(|_| usual.to_string());
    let frames: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let numbers =
        |value: &Value| -> Vec<Vec<f32>> { serde_json::from_value(value.clone()).unwrap() };
    let frame = |frame: &Value| {
        let detections = numbers(&frame["detections"]);
        let detections = detections
            .iter()
            .map(|d| ([d[0], d[1], d[2], d[3]], d[4] as usize, d[5]));
        let ids = numbers(&frame["ids"]);
        let ids = ids.iter().map(|pair| (pair[0] as usize, pair[1] as u64));
        (detections.collect(), ids.collect())
    };
    frames.iter().map(frame).collect()
}

#[test]
fn ids_are_those_of_the_reference() {
    let mut tracker = Tracker::new(TrackerConfig::default()).unwrap();
    for (number, (found, expected)) in recorded().iter().enumerate() {
        let tracked = tracker.update(found);
        let ids = tracked.track_ids.as_ref().expect("ids");
        let index = |i: usize| {
            let same = |j: &usize| {
                found.get(*j)
                    == rcnn_types::Instance {
                        track_id: None,
                        ..tracked.get(i)
                    }
            };
            (0..found.len()).find(same).expect("one of the detections")
        };
        let ids: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(i, id)| (index(i), *id))
            .collect();
        assert_eq!(ids, *expected, "frame {number}");
    }
}

/// Two videos one after the other: nobody is in both.
#[test]
fn after_a_reset_ids_are_new() {
    let frames = recorded();
    let mut tracker = Tracker::new(TrackerConfig::default()).unwrap();
    let first = tracker.update(&frames[0].0).track_ids.expect("ids");
    assert!(!first.is_empty());
    tracker.reset();
    let again = tracker.update(&frames[0].0).track_ids.expect("ids");
    assert_eq!(again.len(), first.len());
    assert!(again.iter().all(|id| !first.contains(id)));
}

/// Masks and keypoints go with their boxes, and what is not a number hurts nobody.
#[test]
fn odd_boxes_and_optional_fields_are_ordinary() {
    let mut tracker = Tracker::new(TrackerConfig::default()).unwrap();
    let boxes = [
        [f32::NAN; 4],
        [0.0, 0.0, f32::INFINITY, 9.0],
        [5.0, 5.0, 5.0, 5.0],
        [10.0, 10.0, 40.0, 60.0],
        [-1e30, -1e30, 1e30, 1e30],
    ];
    let mut found: Instances = boxes.map(|b| (b, 1, 0.9)).into_iter().collect();
    found.keypoint_scores = Some((0..5).map(|i| vec![i as f32]).collect());
    for _ in 0..5 {
        let tracked = tracker.update(&found);
        let sound = tracked
            .boxes
            .iter()
            .position(|b| *b == boxes[3])
            .expect("tracked");
        assert_eq!(tracked.keypoint_scores.as_ref().unwrap()[sound], [3.0]);
    }
    let empty = Instances::default();
    assert_eq!(tracker.update(&empty).track_ids, Some(Vec::new()));
    let invalid = TrackerConfig {
        match_thresh: 1.5,
        ..Default::default()
    };
    let error = Tracker::new(invalid).unwrap_err().to_string();
    assert_eq!(error, "match_thresh = 1.5: expected 0 to 1");
}
