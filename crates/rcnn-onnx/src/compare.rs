//! How far two lists of detections are from each other.
#![cfg_attr(
    not(feature = "ort"),
    expect(unreachable_pub, reason = "public with ONNX Runtime")
)]

use rcnn_types::boxes::box_iou;
use rcnn_types::{Instances, Keypoints, MaskProbabilities};

/// Difference of a coordinate, in pixels, up to which boxes and keypoints are the same.
pub const BOX_TOLERANCE: f32 = 0.05;
/// Difference up to which scores are the same.
pub const SCORE_TOLERANCE: f32 = 1e-3;
/// Largest difference at which two mask probabilities count as equal.
pub const MASK_TOLERANCE: f32 = 1e-3;

/// How far an exported file is from its model.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Detections of the model.
    pub detections: usize,
    /// Detections of one that the other does not have: their boxes do not overlap with any of the same class, or
    /// only one has a mask or keypoints.
    pub unmatched: usize,
    /// Largest difference of a coordinate, in pixels.
    pub boxes: f32,
    /// Largest difference of scores.
    pub scores: f32,
    /// Largest difference of a mask's probabilities, where there are masks.
    pub masks: Option<f32>,
    /// Largest difference of a keypoint's coordinate, in pixels, where there are keypoints.
    pub keypoints: Option<f32>,
}

impl Comparison {
    /// Whether file and model detect the same, within [`BOX_TOLERANCE`], [`SCORE_TOLERANCE`] and [`MASK_TOLERANCE`].
    pub fn is_same(&self) -> bool {
        let within = |gap: Option<f32>, most: f32| gap.is_none_or(|gap| gap <= most);
        self.unmatched == 0
            && self.boxes <= BOX_TOLERANCE
            && self.scores <= SCORE_TOLERANCE
            && within(self.masks, MASK_TOLERANCE)
            && within(self.keypoints, BOX_TOLERANCE)
    }

    pub(crate) fn add(&mut self, ours: &Instances, theirs: &Instances) {
        let scores = |found: &Instances| found.scores.clone().unwrap_or_default();
        let (our_scores, their_scores) = (scores(ours), scores(theirs));
        let mut left: Vec<usize> = (0..theirs.boxes.len()).collect();
        self.detections += ours.boxes.len();
        for (i, bbox) in ours.boxes.iter().enumerate() {
            let alike = left.iter().enumerate();
            let alike = alike.filter(|(_, j)| theirs.labels[**j] == ours.labels[i]);
            let overlaps = alike.map(|(at, &j)| (at, j, box_iou(bbox, &theirs.boxes[j])));
            let best = overlaps.max_by(|a, b| a.2.total_cmp(&b.2));
            let Some((at, j, _)) = best.filter(|best| best.2 > 0.5) else {
                self.unmatched += 1;
                continue;
            };
            left.swap_remove(at);
            self.boxes = self.boxes.max(gap(bbox, &theirs.boxes[j]));
            self.scores = self.scores.max((our_scores[i] - their_scores[j]).abs());
            let mask = |found: &Instances, i: usize| -> Option<MaskProbabilities> {
                found.mask_probabilities.as_ref()?.get(i).cloned()
            };
            match (mask(ours, i), mask(theirs, j)) {
                (Some(a), Some(b)) if a.values.len() == b.values.len() => {
                    larger(&mut self.masks, gap(&a.values, &b.values));
                }
                (None, None) => {}
                _ => self.unmatched += 1,
            }
            let points = |found: &Instances, i: usize| -> Option<Keypoints> {
                found.keypoints.as_ref()?.get(i).cloned()
            };
            match (points(ours, i), points(theirs, j)) {
                (Some(a), Some(b)) if a.0.len() == b.0.len() => {
                    larger(&mut self.keypoints, gap(&a.0.concat(), &b.0.concat()));
                }
                (None, None) => {}
                _ => self.unmatched += 1,
            }
        }
        self.unmatched += left.len();
    }
}

fn gap(a: &[f32], b: &[f32]) -> f32 {
    let gaps = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    gaps.fold(0.0, f32::max)
}

fn larger(largest: &mut Option<f32>, found: f32) {
    *largest = Some(largest.unwrap_or(0.0).max(found));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(x: f32, probability: f32, nose: f32) -> Instances {
        let bbox = [x, 0.0, x + 10.0, 20.0];
        let mut found = Instances::new(vec![bbox], vec![1]);
        found.scores = Some(vec![0.5]);
        found.mask_probabilities = Some(vec![MaskProbabilities {
            bbox,
            side: 1,
            values: vec![probability],
        }]);
        found.keypoints = Some(vec![Keypoints(vec![[nose, 1.0, 1.0]])]);
        found
    }

    fn compared(theirs: &Instances) -> Comparison {
        let mut comparison = Comparison::default();
        comparison.add(&person(0.0, 0.75, 3.0), theirs);
        comparison
    }

    #[test]
    fn masks_and_keypoints_count_as_boxes_do() {
        assert!(compared(&person(0.0, 0.75, 3.0)).is_same());
        let masks = compared(&person(0.0, 0.5, 3.0));
        assert!(masks.masks == Some(0.25) && masks.keypoints == Some(0.0) && !masks.is_same());
        let points = compared(&person(0.0, 0.75, 5.0));
        assert!(points.keypoints == Some(2.0) && !points.is_same());
        assert_eq!(compared(&person(1.0, 0.75, 3.0)).boxes, 1.0);
        assert_eq!(compared(&person(9.0, 0.75, 3.0)).unmatched, 2);
        let mut boxes = person(0.0, 0.75, 3.0);
        (boxes.mask_probabilities, boxes.keypoints) = (None, None);
        assert_eq!(compared(&boxes).unmatched, 2);
    }
}
