//! Non-maximum suppression: the last filter of both stages.

use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Int, Tensor, TensorData};

use crate::channels::{primitive, tensor};
use crate::{BBox, DetectionBackend, box_iou};

/// [`nms`] of several groups at once, on the device: the levels of proposals, the classes of
/// detections, of every image. Scores are positive; a negative one leaves its box out.
///
/// # Shapes
/// - boxes: `[G, K, 4]`, xyxy; scores: `[G, K]`
/// - output: `[G, K]`, 1 where a box is kept, else 0
pub fn grouped_nms<B: DetectionBackend>(
    boxes: Tensor<B, 3>,
    scores: Tensor<B, 2>,
    iou_threshold: f64,
) -> Tensor<B, 2, Int> {
    let (boxes, scores) = (primitive(boxes.detach()), primitive(scores.detach()));
    Tensor::from_primitive(B::nms(boxes, scores, iou_threshold))
}

/// [`DetectionBackend::nms`], group by group on the host.
pub fn reference<B: DetectionBackend>(
    boxes: FloatTensor<B>,
    scores: FloatTensor<B>,
    iou_threshold: f64,
) -> IntTensor<B> {
    let (boxes, scores) = (tensor::<B, 3>(boxes), tensor::<B, 2>(scores));
    let (shape @ [_, k], device) = (scores.dims(), scores.device());
    let floats = |data: TensorData| -> Vec<f32> {
        let data = data.convert::<f32>();
        data.into_vec().expect("converted to f32")
    };
    let (boxes, scores) = (floats(boxes.into_data()), floats(scores.into_data()));
    let mut keep = vec![0i32; scores.len()];
    let (boxes, _) = boxes.as_chunks::<4>();
    let groups = boxes.chunks(k.max(1)).zip(scores.chunks(k.max(1)));
    for ((boxes, scores), keep) in groups.zip(keep.chunks_mut(k.max(1))) {
        mark(boxes, scores, iou_threshold, keep);
    }
    Tensor::<B, 2, Int>::from_data(TensorData::new(keep, shape), &device).into_primitive()
}

/// Sets to 1 what is kept of one group.
pub(crate) fn mark(boxes: &[BBox], scores: &[f32], iou_threshold: f64, keep: &mut [i32]) {
    let candidates = (0..boxes.len()).filter(|&i| scores[i] >= 0.0).collect();
    for kept in suppress(candidates, boxes, scores, iou_threshold, |_, _| true) {
        keep[kept] = 1;
    }
}

/// Greedy non-maximum suppression (`torchvision.ops.nms`).
///
/// Returns the indices of the kept boxes, highest score first; among equal scores the earlier box
/// wins. A box goes when its IoU with a kept one is greater than `iou_threshold`.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::ops::nms;
///
/// let boxes = [[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 11.0, 11.0], [20.0, 0.0, 30.0, 10.0]];
/// assert_eq!(nms(&boxes, &[0.6, 0.9, 0.3], 0.5), [1, 2]);
/// ```
pub fn nms(boxes: &[BBox], scores: &[f32], iou_threshold: f64) -> Vec<usize> {
    let all = (0..boxes.len()).collect();
    suppress(all, boxes, scores, iou_threshold, |_, _| true)
}

/// [`nms`] within each group only: the level of a proposal, the class of a detection
/// (`torchvision.ops.batched_nms`).
///
/// ```
/// # mod rcnn_burn { pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::ops::batched_nms;
///
/// let boxes = [[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 11.0, 11.0]];
/// assert_eq!(batched_nms(&boxes, &[0.6, 0.9], &[1, 1], 0.5), [1]);
/// assert_eq!(batched_nms(&boxes, &[0.6, 0.9], &[1, 2], 0.5), [1, 0]);
/// ```
pub fn batched_nms(
    boxes: &[BBox],
    scores: &[f32],
    groups: &[usize],
    iou_threshold: f64,
) -> Vec<usize> {
    let all = (0..boxes.len()).collect();
    let same = |a: usize, b: usize| groups[a] == groups[b];
    suppress(all, boxes, scores, iou_threshold, same)
}

fn suppress(
    mut order: Vec<usize>,
    boxes: &[BBox],
    scores: &[f32],
    iou_threshold: f64,
    compete: impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    // torchvision compares in double precision: 0.3f32 is above 0.3. So is every f32 that is above the next one below.
    let mut above = iou_threshold as f32;
    if f64::from(above) > iou_threshold {
        above = above.next_down();
    }
    let mut keep: Vec<usize> = Vec::new();
    let mut kept: Vec<SideBySide> = Vec::new();
    for candidate in order {
        let b = &boxes[candidate];
        let mut all = keep.chunks(SIDE).zip(&kept);
        let is_suppressed = all.any(|(indices, kept)| {
            if above >= 0.0 && kept.are_apart(b) {
                return false;
            }
            let ious = kept.ious(b);
            let mut pairs = indices.iter().zip(&ious);
            pairs.any(|(&index, iou)| *iou > above && compete(index, candidate))
        });
        if !is_suppressed {
            let place = keep.len() % SIDE;
            if place == 0 {
                kept.push(SideBySide::default());
            }
            let last = kept
                .last_mut()
                .expect("just pushed, if there was none with room");
            last.0
                .iter_mut()
                .zip(b)
                .for_each(|(edge, value)| edge[place] = *value);
            keep.push(candidate);
        }
    }
    keep
}

/// Boxes that another is compared with at once.
const SIDE: usize = 16;

/// The edges of some boxes, each edge of all of them side by side.
#[derive(Default)]
struct SideBySide([[f32; SIDE]; 4]);

impl SideBySide {
    /// Whether none even touches another box, as most: sooner known than an IoU.
    fn are_apart(&self, b: &BBox) -> bool {
        let [x1, y1, x2, y2] = &self.0;
        let mut apart = 0;
        for i in 0..SIDE {
            let is_apart = (x1[i] > b[2]) | (b[0] > x2[i]) | (y1[i] > b[3]) | (b[1] > y2[i]);
            apart += u32::from(is_apart);
        }
        apart == SIDE as u32
    }

    /// The IoU of each with another box.
    fn ious(&self, b: &BBox) -> [f32; SIDE] {
        let [x1, y1, x2, y2] = &self.0;
        std::array::from_fn(|i| box_iou(&[x1[i], y1[i], x2[i], y2[i]], b))
    }
}

/// Function by which Soft-NMS lowers the score of a box that overlaps a better one by `iou`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SoftNms {
    /// `score * (1 - iou)` where the IoU is above the threshold.
    Linear,
    /// `score * exp(-iou² / sigma)`, whatever the threshold.
    Gaussian {
        /// Spread of the decay; 0.5 in the paper.
        sigma: f32,
    },
}

/// Soft-NMS (Bodla et al. 2017, <https://arxiv.org/abs/1704.04503>), within each group.
///
/// Returns `(index, lowered score)` of every box whose score stays above `score_threshold`,
/// highest lowered score first.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::ops::{SoftNms, soft_nms};
///
/// let boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0]];
/// // An IoU of 0.8 leaves a fifth of the score.
/// let kept = soft_nms(&boxes, &[0.9, 0.5], &[1, 1], SoftNms::Linear, 0.5, 0.05);
/// assert!(kept[0] == (0, 0.9) && kept[1].0 == 1 && (kept[1].1 - 0.1).abs() < 1e-6);
/// ```
pub fn soft_nms(
    boxes: &[BBox],
    scores: &[f32],
    groups: &[usize],
    method: SoftNms,
    iou_threshold: f64,
    score_threshold: f32,
) -> Vec<(usize, f32)> {
    let mut rest: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    let mut keep = Vec::new();
    while let Some(best) = best(&rest) {
        let (index, score) = rest.remove(best);
        if score <= score_threshold {
            break;
        }
        keep.push((index, score));
        for (other, other_score) in &mut rest {
            if groups[*other] != groups[index] {
                continue;
            }
            let iou = box_iou(&boxes[index], &boxes[*other]);
            match method {
                SoftNms::Gaussian { sigma } if iou > 0.0 => {
                    *other_score *= (-iou * iou / sigma).exp()
                }
                SoftNms::Linear if f64::from(iou) > iou_threshold => *other_score *= 1.0 - iou,
                _ => {}
            }
        }
    }
    keep
}

/// Position of the highest score; the earlier box wins a tie.
fn best(candidates: &[(usize, f32)]) -> Option<usize> {
    (0..candidates.len()).max_by(|&a, &b| {
        let ((index_a, score_a), (index_b, score_b)) = (candidates[a], candidates[b]);
        score_a.total_cmp(&score_b).then(index_b.cmp(&index_a))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOXES: [BBox; 4] = [
        [0.0, 0.0, 10.0, 10.0],
        [1.0, 0.0, 11.0, 10.0],
        [20.0, 0.0, 30.0, 10.0],
        [0.0, 0.0, 10.0, 10.0],
    ];

    #[test]
    fn keeps_the_best_and_the_earlier_of_equals() {
        assert_eq!(nms(&BOXES, &[0.5, 0.9, 0.1, 0.5], 0.5), [1, 2]);
        assert_eq!(nms(&BOXES, &[0.5, 0.5, 0.5, 0.5], 0.9), [0, 1, 2]);
        assert!(nms(&[], &[], 0.5).is_empty());
    }

    /// Random boxes, some of them empty, reversed or not numbers, compared one by one.
    #[test]
    fn many_boxes_are_suppressed_as_one_by_one() {
        let random = |i: usize, by: f32| (i as f32 * by).fract();
        let boxes = (0..500).map(|i| {
            let [x, y] = [0.754_877_7, 0.569_840_3].map(|by| random(i, by) * 90.0);
            let [width, height] = [0.618_034, 0.414_213_6].map(|by| random(i, by) * 40.0);
            match i % 50 {
                7 => [x, y, x, y],
                8 => [x + width, y, x, y + height],
                9 => [f32::NAN, y, x, y + height],
                _ => [x, y, x + width, y + height],
            }
        });
        let boxes: Vec<BBox> = boxes.collect();
        let scores: Vec<f32> = (0..500).map(|i| random(i, 0.324_718)).collect();
        for threshold in [-1.0, 0.0, 0.3, 0.7] {
            let mut order: Vec<usize> = (0..500).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let mut expected: Vec<usize> = Vec::new();
            for i in order {
                let overlaps =
                    |&kept: &usize| f64::from(box_iou(&boxes[kept], &boxes[i])) > threshold;
                if !expected.iter().any(overlaps) {
                    expected.push(i);
                }
            }
            assert_eq!(nms(&boxes, &scores, threshold), expected, "{threshold}");
        }
    }

    #[test]
    fn an_iou_is_compared_in_double_precision() {
        // An IoU of 0.3f32, which is above 0.3.
        let boxes = [[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 3.0, 1.0]];
        assert_eq!(nms(&boxes, &[0.9, 0.8], 0.3), [0]);
        assert_eq!(nms(&boxes, &[0.9, 0.8], f64::from(0.3f32)), [0, 1]);
    }

    #[test]
    fn groups_do_not_compete() {
        let keep = batched_nms(&BOXES, &[0.5, 0.9, 0.1, 0.4], &[0, 1, 0, 0], 0.5);
        assert_eq!(keep, [1, 0, 2]);
    }

    #[test]
    fn soft_nms_lowers_instead_of_dropping() {
        let scores = [0.8, 0.9, 0.1, 0.5];
        let gaussian = SoftNms::Gaussian { sigma: 0.5 };
        let kept = soft_nms(&BOXES, &scores, &[0; 4], gaussian, 0.5, 0.01);
        assert_eq!(kept[0], (1, 0.9));
        let iou = box_iou(&BOXES[0], &BOXES[1]);
        let expected = 0.8 * (-iou * iou / 0.5f32).exp();
        assert_eq!(kept[1], (0, expected));
        let linear = soft_nms(&BOXES, &scores, &[0; 4], SoftNms::Linear, 0.5, 0.0);
        // The copy of box 0 falls to zero once box 0 is kept, so it is not listed.
        let kept: Vec<usize> = linear.iter().map(|k| k.0).collect();
        assert_eq!(kept, [1, 0, 2]);
    }
}
