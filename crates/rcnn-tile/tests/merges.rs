//! Merging, against SAHI and ensemble-boxes (`tests/reference/make_merges.py`).

use rcnn_tile::{Merge, MergeMethod, OverlapMetric};
use rcnn_types::{BBox, Instances, Keypoints, MaskProbabilities, Size};
use serde::Deserialize;

const PICTURE: Size = Size::new(480, 640);

#[derive(Deserialize)]
struct Found {
    boxes: Vec<BBox>,
    scores: Vec<f32>,
    labels: Vec<usize>,
}

#[derive(Deserialize)]
struct Merged {
    method: String,
    metric: String,
    threshold: f64,
    agnostic: bool,
    views: Option<usize>,
    #[serde(flatten)]
    expected: Found,
}

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    found: Found,
    merges: Vec<Merged>,
}

fn instances(found: &Found) -> Instances {
    Instances {
        scores: Some(found.scores.clone()),
        ..Instances::new(found.boxes.clone(), found.labels.clone())
    }
}

#[test]
fn merges_are_those_of_sahi_and_ensemble_boxes() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("merges.json")).unwrap();
    for case in &cases {
        for wanted in &case.merges {
            let merge = Merge {
                method: match wanted.method.as_str() {
                    "nms" => MergeMethod::Nms,
                    "nmm" => MergeMethod::Nmm,
                    _ => MergeMethod::Wbf,
                },
                metric: match wanted.metric.as_str() {
                    "iou" => OverlapMetric::Iou,
                    _ => OverlapMetric::Ios,
                },
                threshold: wanted.threshold,
                class_agnostic: wanted.agnostic,
            };
            let expected = &wanted.expected;
            let merged = merge.apply(instances(&case.found), PICTURE, wanted.views.unwrap_or(1));
            assert_eq!(merged.labels, expected.labels, "{merge:?}");
            let scores = merged.scores.unwrap();
            let same = |ours: f32, theirs: f32, most: f32| (ours - theirs).abs() < most;
            let mut scores = scores.iter().zip(&expected.scores);
            assert!(scores.all(|(a, b)| same(*a, *b, 2e-5)), "{merge:?}");
            let edges = merged.boxes.iter().flatten();
            let mut edges = edges.zip(expected.boxes.iter().flatten());
            assert!(edges.all(|(a, b)| same(*a, *b, 2e-3)), "{merge:?}");
        }
    }
}

/// Two halves of a person of 80x60 pixels, cut between two tiles, each with its mask and keypoints.
fn halves() -> Instances {
    let boxes = vec![[100.0, 50.0, 150.0, 110.0], [120.0, 50.0, 180.0, 110.0]];
    let mask = |bbox: &BBox| MaskProbabilities {
        bbox: *bbox,
        side: 2,
        values: vec![1.0; 4],
    };
    Instances {
        scores: Some(vec![0.7, 0.9]),
        mask_probabilities: Some(boxes.iter().map(mask).collect()),
        keypoints: Some(vec![
            Keypoints(vec![[101.0, 51.0, 1.0]]),
            Keypoints(vec![[179.0, 51.0, 1.0]]),
        ]),
        keypoint_scores: Some(vec![vec![1.0], vec![2.0]]),
        ..Instances::new(boxes, vec![1, 1])
    }
}

#[test]
fn an_object_that_a_border_cuts_becomes_one_with_its_mask() {
    let merge = Merge {
        method: MergeMethod::Nmm,
        metric: OverlapMetric::Ios,
        ..Merge::default()
    };
    let person = merge.apply(halves(), PICTURE, 1);
    assert_eq!(person.boxes, [[100.0, 50.0, 180.0, 110.0]]);
    assert_eq!(person.scores, Some(vec![0.9]));
    assert_eq!(person.keypoints.unwrap()[0].0, [[179.0, 51.0, 1.0]]);
    assert_eq!(person.keypoint_scores, Some(vec![vec![2.0]]));
    assert_eq!(person.mask_probabilities, None);
    let bounds = person.masks.unwrap()[0].bounds();
    assert!(bounds[0] < 101.0 && bounds[2] > 179.0, "{bounds:?}");
}

#[test]
fn suppression_leaves_masks_as_they_were_predicted() {
    let merge = Merge {
        threshold: 0.3,
        ..Merge::default()
    };
    let kept = merge.apply(halves(), PICTURE, 1);
    assert_eq!(kept, halves().select(&[1]));
    let soft = Merge {
        method: MergeMethod::SoftNms {
            sigma: 0.5,
            score_threshold: 0.05,
        },
        ..merge
    };
    let scores = soft.apply(halves(), PICTURE, 1).scores.unwrap();
    assert!(scores[0] == 0.9 && scores[1] < 0.7, "{scores:?}");
}

/// Many boxes over a large picture, found by place, are those that comparing all of them finds.
#[test]
fn nothing_near_is_overlooked() {
    let mut state = 1u64;
    let mut random = |most: f32| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 * most
    };
    let mut found: Vec<(BBox, usize, f32)> = Vec::new();
    for i in 0..600 {
        let [x, y] = [random(3000.0), random(2000.0)];
        let side = if i % 50 == 0 { 1500.0 } else { 120.0 };
        let size = [random(side), random(side)];
        found.push(([x, y, x + size[0], y + size[1]], 1 + i % 2, random(1.0)));
    }
    let merge = Merge {
        threshold: 0.4,
        ..Merge::default()
    };
    let merged = merge.apply(
        Instances::from_iter(found.iter().copied()),
        Size::new(4000, 5000),
        1,
    );
    let (boxes, scores): (Vec<_>, Vec<_>) = found.iter().map(|(b, _, score)| (*b, *score)).unzip();
    let labels: Vec<usize> = found.iter().map(|found| found.1).collect();
    let kept = rcnn_ops::batched_nms(&boxes, &scores, &labels, 0.4);
    let expected: Vec<BBox> = kept.iter().map(|&i| boxes[i]).collect();
    assert!(expected.len() < 600);
    assert_eq!(merged.boxes, expected);
}

#[test]
fn a_merge_that_cannot_be_is_an_error() {
    for threshold in [0.0, -0.5, 1.5, f64::NAN] {
        let merge = Merge {
            threshold,
            ..Merge::default()
        };
        let fault = merge.validate().unwrap_err().to_string();
        assert!(fault.starts_with("match_thresh = "), "{fault}");
    }
    let nothing = Merge::default().apply(Instances::default(), PICTURE, 1);
    assert_eq!(nothing.len(), 0);
}
