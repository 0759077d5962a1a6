//! Matching of anchors and proposals to objects, in training.

use crate::{BBox, box_iou};

/// Match of a candidate (an anchor, a proposal).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The object of this index.
    Object(usize),
    /// No object comes near: background.
    Background,
    /// Between the thresholds: neither an object nor clearly background, so the losses ignore it.
    Ignored,
}

/// Assigns objects to candidates by IoU (`torchvision.models.detection._utils.Matcher`).
///
/// ```
/// # mod rcnn_burn { pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::ops::{Match, Matcher};
///
/// let matcher = Matcher { high_threshold: 0.7, low_threshold: 0.3, allow_low_quality_matches: false };
/// let objects = [[0.0, 0.0, 10.0, 10.0]];
/// let anchors = [[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 5.0], [50.0, 50.0, 60.0, 60.0]];
/// let matches = matcher.matches(&objects, &anchors);
/// assert_eq!(matches, [Match::Object(0), Match::Ignored, Match::Background]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matcher {
    /// IoU from which a candidate is an object.
    pub high_threshold: f64,
    /// IoU below which it is background.
    pub low_threshold: f64,
    /// Whether every object also keeps the candidates that overlap it most, however little.
    pub allow_low_quality_matches: bool,
}

impl Matcher {
    /// Matches each candidate with an object. Without objects all are background.
    ///
    /// As in torchvision, an object that no candidate overlaps has its best overlap, zero, with all
    /// of those, and with `allow_low_quality_matches` they go to the object they overlap most.
    pub fn matches(&self, objects: &[BBox], candidates: &[BBox]) -> Vec<Match> {
        let iou =
            |object: usize, candidate: usize| box_iou(&objects[object], &candidates[candidate]);
        self.matches_by(objects.len(), candidates.len(), iou)
    }

    /// [`matches`](Self::matches) by another quality of a pair of object and candidate than their IoU.
    pub fn matches_by(
        &self,
        objects: usize,
        candidates: usize,
        quality: impl Fn(usize, usize) -> f32,
    ) -> Vec<Match> {
        if objects == 0 {
            return vec![Match::Background; candidates];
        }
        // torchvision compares f32 with thresholds rounded to f32.
        let (low, high) = (self.low_threshold as f32, self.high_threshold as f32);
        let mut best_of_object = vec![f32::NEG_INFINITY; objects];
        let best: Vec<(usize, f32)> = (0..candidates)
            .map(|candidate| {
                let mut best = (0, f32::NEG_INFINITY);
                for (object, most) in best_of_object.iter_mut().enumerate() {
                    let quality = quality(object, candidate);
                    *most = most.max(quality);
                    if quality > best.1 {
                        best = (object, quality);
                    }
                }
                best
            })
            .collect();
        let is_best_of_any = |candidate: usize| {
            let mut objects = best_of_object.iter().enumerate();
            objects.any(|(object, &most)| quality(object, candidate) == most)
        };
        best.into_iter()
            .enumerate()
            .map(|(candidate, (object, quality))| match quality {
                _ if self.allow_low_quality_matches && is_best_of_any(candidate) => {
                    Match::Object(object)
                }
                quality if quality < low => Match::Background,
                quality if quality < high => Match::Ignored,
                _ => Match::Object(object),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: [BBox; 2] = [[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]];
    const CANDIDATES: [BBox; 4] = [
        [0.0, 0.0, 10.0, 8.0],
        [0.0, 0.0, 10.0, 5.0],
        [26.0, 0.0, 36.0, 10.0],
        [50.0, 0.0, 60.0, 10.0],
    ];

    #[test]
    fn thresholds_and_low_quality_matches() {
        let mut matcher = Matcher {
            high_threshold: 0.7,
            low_threshold: 0.3,
            allow_low_quality_matches: false,
        };
        use Match::{Background, Ignored, Object};
        let found = matcher.matches(&OBJECTS, &CANDIDATES);
        assert_eq!(found, [Object(0), Ignored, Background, Background]);
        matcher.allow_low_quality_matches = true;
        let found = matcher.matches(&OBJECTS, &CANDIDATES);
        assert_eq!(found, [Object(0), Ignored, Object(1), Background]);
        assert_eq!(matcher.matches(&[], &CANDIDATES), [Background; 4]);
    }
}
