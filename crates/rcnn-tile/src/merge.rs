//! One list of objects of what several views of a picture found.

use std::cmp::Ordering;

use rcnn_ops::{SoftNms, soft_nms};
use rcnn_types::validate::{InvalidField, require, require_positive};
use rcnn_types::{BBox, Instances, MASK_THRESHOLD, Size};

use crate::{fusion, greedy};

/// How detections of the same object in several views become one.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_tile as tile; pub use rcnn_types::*; }
/// use rcnn_burn::tile::{Merge, MergeMethod, OverlapMetric};
/// use rcnn_burn::{Instances, Size};
///
/// // A car that the border between two tiles cuts.
/// let halves = [([40.0, 10.0, 64.0, 30.0], 3, 0.9), ([51.0, 10.0, 80.0, 31.0], 3, 0.8)];
/// let merge = Merge {
///     method: MergeMethod::Nmm,
///     metric: OverlapMetric::Ios,
///     ..Merge::default()
/// };
/// let car = merge.apply(Instances::from_iter(halves), Size::new(64, 128), 1);
/// assert_eq!((car.boxes, car.scores), (vec![[40.0, 10.0, 80.0, 31.0]], Some(vec![0.9])));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Merge {
    /// How matching detections become one.
    pub method: MergeMethod,
    /// Measure of how much two boxes overlap.
    pub metric: OverlapMetric,
    /// Overlap from which on two boxes match, above 0; in weighted boxes fusion, above which.
    pub threshold: f64,
    /// Whether detections of different classes match too.
    pub class_agnostic: bool,
}

/// How matching detections become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MergeMethod {
    /// The best stays, the others go.
    Nms,
    /// The best takes in the others: box and mask become the union (SAHI's greedy non-maximum merging).
    Nmm,
    /// Boxes become their mean, weighted by score; so do scores, lowered where fewer views found the object than looked
    /// for it (weighted boxes fusion, <https://arxiv.org/abs/1910.13302>, as in ensemble-boxes). Masks become the union.
    Wbf,
    /// The others lose score by their IoU with the best, whatever the metric and threshold, and go where it falls to
    /// `score_threshold` (Gaussian Soft-NMS).
    SoftNms {
        /// Spread of the Gaussian; 0.5 in the paper.
        sigma: f32,
        /// Score that must be exceeded.
        score_threshold: f32,
    },
}

/// Measure of how much two boxes overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlapMetric {
    /// Intersection over union.
    Iou,
    /// Intersection over the smaller of both: 1 where one holds the other.
    Ios,
}

impl OverlapMetric {
    /// The overlap, 0 to 1; 0 where it is over nothing.
    pub(crate) fn of(self, a: &BBox, b: &BBox) -> f64 {
        let side = |low: usize| {
            let (start, end) = (a[low].max(b[low]), a[low + 2].min(b[low + 2]));
            (f64::from(end) - f64::from(start)).max(0.0)
        };
        let area = |b: &BBox| {
            let [x1, y1, x2, y2] = b.map(f64::from);
            (x2 - x1) * (y2 - y1)
        };
        let shared = side(0) * side(1);
        let whole = match self {
            Self::Iou => area(a) + area(b) - shared,
            Self::Ios => area(a).min(area(b)),
        };
        if whole > 0.0 { shared / whole } else { 0.0 }
    }
}

/// Non-maximum suppression by an IoU of 0.5 within each class.
impl Default for Merge {
    fn default() -> Self {
        Self {
            method: MergeMethod::Nms,
            metric: OverlapMetric::Iou,
            threshold: 0.5,
            class_agnostic: false,
        }
    }
}

/// Detections that become one object.
pub(crate) struct Group {
    /// Their indices, best first.
    pub(crate) members: Vec<usize>,
    pub(crate) bbox: BBox,
    pub(crate) score: f32,
}

/// Detections to merge.
pub(crate) struct Candidates<'a> {
    pub(crate) boxes: &'a [BBox],
    pub(crate) scores: &'a [f32],
    /// Class of each, or the same for all.
    pub(crate) classes: &'a [usize],
}

impl Candidates<'_> {
    /// One detection by itself.
    pub(crate) fn single(&self, index: usize) -> Group {
        Group {
            members: vec![index],
            bbox: self.boxes[index],
            score: self.scores[index],
        }
    }

    /// All indices, best first; of the same scores by the edges of the boxes, as in SAHI.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.boxes.len()).collect();
        order.sort_by(|&a, &b| {
            let edges = self.boxes[a].iter().zip(&self.boxes[b]);
            let by_edges = edges.map(|(a, b)| a.total_cmp(b));
            let by_score = self.scores[b].total_cmp(&self.scores[a]);
            by_edges.fold(by_score, Ordering::then)
        });
        order
    }
}

impl Merge {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let valid = self.threshold > 0.0 && self.threshold <= 1.0;
        require(
            valid,
            "match_thresh",
            self.threshold,
            "a number above 0, at most 1",
        )?;
        match self.method {
            MergeMethod::SoftNms { sigma, .. } => require_positive("sigma", sigma),
            _ => Ok(()),
        }
    }

    /// Merges the detections of an image of that size, which `views` views show whole. Objects come best first.
    ///
    /// Keypoints, and what else is not merged, are those of the best detection. Where masks are united, they are pasted
    /// ([`Instances::paste_masks`]) with torchvision's threshold.
    pub fn apply(&self, mut found: Instances, image: Size, views: usize) -> Instances {
        let ones = || vec![1.0; found.len()];
        let scores = found.scores.clone().unwrap_or_else(ones);
        let classes = match self.class_agnostic {
            true => vec![0; found.len()],
            false => found.labels.clone(),
        };
        let candidates = Candidates {
            boxes: &found.boxes,
            scores: &scores,
            classes: &classes,
        };
        let mut groups = match self.method {
            MergeMethod::Nms => greedy::suppress(&candidates, self),
            MergeMethod::Nmm => greedy::unite(&candidates, self),
            MergeMethod::Wbf => fusion::fuse(&candidates, self, views),
            MergeMethod::SoftNms {
                sigma,
                score_threshold,
            } => {
                let (boxes, method) = (&found.boxes, SoftNms::Gaussian { sigma });
                let kept = soft_nms(
                    boxes,
                    &scores,
                    &classes,
                    method,
                    self.threshold,
                    score_threshold,
                );
                let lowered = |(index, score): (usize, f32)| Group {
                    score,
                    ..candidates.single(index)
                };
                kept.into_iter().map(lowered).collect()
            }
        };
        groups.sort_by(|a, b| b.score.total_cmp(&a.score));

        if groups.iter().any(|group| group.members.len() > 1) {
            found.paste_masks(image, MASK_THRESHOLD);
            found.mask_probabilities = None;
        }
        let best: Vec<usize> = groups.iter().map(|group| group.members[0]).collect();
        let mut merged = found.select(&best);
        if let (Some(masks), Some(all)) = (&mut merged.masks, &found.masks) {
            for (mask, group) in masks.iter_mut().zip(&groups) {
                let others = group.members[1..].iter();
                *mask = others.fold(mask.clone(), |union, &other| union.union(&all[other]));
            }
        }
        merged.boxes = groups.iter().map(|group| group.bbox).collect();
        merged.scores = Some(groups.iter().map(|group| group.score).collect());
        merged
    }
}
