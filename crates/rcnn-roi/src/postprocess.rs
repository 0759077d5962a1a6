//! Post-processing of class logits and box deltas to detections.

use burn::tensor::{DType, Int, Tensor, TensorData, activation::softmax};
use rcnn_ops::{
    BBox, BoxCoder, BoxRules, DetectionBackend, SoftNms, batched_nms, box_area, clip_box,
    grouped_nms, soft_nms,
};
use rcnn_types::{Instances, Size};
use serde::{Deserialize, Serialize};

use crate::{BoxBranch, BoxPredictions};

/// Scores and boxes of every class for every proposal of one image, before any selection.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScores {
    /// Classes, background included.
    pub num_classes: usize,
    /// Probabilities `[K, C]`, proposal by proposal.
    pub scores: Vec<f32>,
    /// Boxes `[K, C]`, xyxy, clipped to the resized image unless the rules clip later.
    pub boxes: Vec<BBox>,
}

/// Treatment of a detection that a better one overlaps.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NmsMethod {
    /// It is dropped.
    #[default]
    Hard,
    /// Its score is lowered by the overlap, above the threshold.
    SoftLinear,
    /// Its score is lowered by a Gaussian of the overlap.
    SoftGaussian {
        /// Spread of the Gaussian; 0.5 in the paper.
        sigma: f32,
    },
}

/// Sides below which torchvision drops a detection, in pixels.
pub const MIN_SIZE: f32 = 1e-2;

impl<B: DetectionBackend> BoxBranch<'_, B> {
    /// Probabilities and boxes of every class for every proposal, image by image. Read back from
    /// the device at once.
    pub fn class_scores(
        &self,
        predictions: BoxPredictions<B>,
        proposals: &[&[BBox]],
        image_sizes: &[Size],
    ) -> Vec<ClassScores> {
        let (boxes, scores) = self.decode(predictions, proposals, image_sizes);
        let [_, num_classes] = scores.dims();
        let rows = Tensor::cat(vec![boxes, scores.unsqueeze_dim(2)], 2);
        let rows = read::<B, 5>(rows);
        let mut rows = rows.iter();
        proposals
            .iter()
            .map(|proposals| {
                let rows = rows.by_ref().take(proposals.len() * num_classes);
                let (boxes, scores) = rows
                    .map(|&[x1, y1, x2, y2, score]| ([x1, y1, x2, y2], score))
                    .unzip();
                ClassScores {
                    num_classes,
                    scores,
                    boxes,
                }
            })
            .collect()
    }

    /// Boxes `[K, C, 4]`, clipped where the rules clip first, and probabilities `[K, C]` of every class.
    fn decode(
        &self,
        predictions: BoxPredictions<B>,
        proposals: &[&[BBox]],
        image_sizes: &[Size],
    ) -> (Tensor<B, 3>, Tensor<B, 2>) {
        // Half precision ends here: it would be pixels off.
        let scores = softmax(predictions.class_logits.detach().cast(DType::F32), 1);
        let ([k, num_classes], device) = (scores.dims(), scores.device());
        let (mut references, mut sizes) = (Vec::new(), Vec::new());
        for (proposals, &size) in proposals.iter().zip(image_sizes) {
            for proposal in *proposals {
                references.extend(clip_box(proposal, size));
                sizes.extend([size.height as f32, size.width as f32]);
            }
        }
        let references = Tensor::<B, 2>::from_data(TensorData::new(references, [k, 4]), &device);
        let boxes = match predictions.box_regression {
            Some(deltas) => {
                let coder = BoxCoder {
                    weights: self.config.bbox_reg_weights,
                };
                let sizes = Tensor::from_data(TensorData::new(sizes, [k, 2]), &device);
                let rules = self.config.box_rules;
                coder.decode_by(rules, deltas.cast(DType::F32), references, sizes)
            }
            None => references.unsqueeze_dim::<3>(1).expand([k, num_classes, 4]),
        };
        (boxes, scores)
    }

    /// Detections of every image, suppressed on the device within each class where the
    /// configuration says so, and read back at once.
    pub(crate) fn detections(
        &self,
        predictions: BoxPredictions<B>,
        proposals: &[&[BBox]],
        image_sizes: &[Size],
    ) -> Vec<Instances> {
        if self.config.nms_class_agnostic || self.config.nms_method != NmsMethod::Hard {
            let all = self.class_scores(predictions, proposals, image_sizes);
            let all = all.iter().zip(image_sizes);
            return all
                .map(|(all, size)| self.select_detections(all, *size))
                .collect();
        }
        let (boxes, scores) = self.decode(predictions, proposals, image_sizes);
        let [_, num_classes] = scores.dims();
        // Without the background.
        let objects = num_classes - 1;
        let (boxes, scores) = (boxes.narrow(1, 1, objects), scores.narrow(1, 1, objects));
        let counts: Vec<usize> = proposals.iter().map(|p| p.len()).collect();
        let keep = self.keep(boxes.clone(), scores.clone(), &counts);
        let rows = Tensor::cat(
            vec![boxes, scores.unsqueeze_dim(2), keep.unsqueeze_dim(2)],
            2,
        );
        let rows = read::<B, 6>(rows);
        let mut rows = rows.iter().enumerate();
        let of_image = |(count, size): (usize, &Size)| {
            let rows = rows.by_ref().take(count * objects);
            let mut kept: Vec<_> = rows.filter(|(_, row)| row[5] > 0.0).collect();
            kept.sort_by(|(_, a), (_, b)| b[4].total_cmp(&a[4]));
            let found =
                |(i, b): (usize, &[f32; 6])| ([b[0], b[1], b[2], b[3]], i % objects + 1, b[4]);
            self.best_detections(kept.into_iter().map(found), num_classes, *size)
        };
        counts.into_iter().zip(image_sizes).map(of_image).collect()
    }

    /// As many of the detections of an image, best first, as there may be of each class and of all.
    fn best_detections(
        &self,
        found: impl Iterator<Item = (BBox, usize, f32)>,
        num_classes: usize,
        image_size: Size,
    ) -> Instances {
        let most = self.config.detections_per_class.unwrap_or(usize::MAX);
        let mut counts = vec![0; num_classes];
        let found = found.filter_map(|(b, label, score)| {
            counts[label] += 1;
            let b = match self.config.box_rules {
                BoxRules::Tensorflow2019 => clip_box(&b, image_size),
                _ => b,
            };
            (counts[label] <= most && box_area(&b) > 0.0).then_some((b, label, score))
        });
        found.take(self.config.detections_per_img).collect()
    }

    /// Sides below which a detection is dropped before suppression, in pixels.
    fn min_side(&self) -> f32 {
        match self.config.box_rules {
            BoxRules::Torchvision => MIN_SIZE,
            BoxRules::Tensorflow2018 => f32::MIN_POSITIVE,
            BoxRules::Tensorflow2019 => f32::NEG_INFINITY,
        }
    }

    /// Which boxes `[K, C, 4]` with scores `[K, C]` are large and good enough and not suppressed by
    /// others of their class and image, of which there are `counts`: `[K, C]`, 1 or 0.
    fn keep(&self, boxes: Tensor<B, 3>, scores: Tensor<B, 2>, counts: &[usize]) -> Tensor<B, 2> {
        let [k, classes] = scores.dims();
        let (images, most) = (counts.len(), counts.iter().copied().max().unwrap_or(0));
        let side = |low: usize| {
            let edge = |i: usize| boxes.clone().narrow(2, i, 1).reshape([k, classes]);
            (edge(low + 2) - edge(low)).greater_equal_elem(self.min_side())
        };
        let good = scores.clone().greater_elem(self.config.score_thresh);
        let eligible = side(0).bool_and(side(1)).bool_and(good);
        let scores = scores.mask_fill(eligible.bool_not(), -1.0);

        // A group for each image and class, as long as the longest: where proposals are fewer, the
        // row after the last, which is out.
        let even = counts.iter().all(|&count| count == most);
        let device = scores.device();
        let index = |at: Vec<i32>| Tensor::<B, 1, Int>::from_ints(at.as_slice(), &device);
        let starts = counts.iter().scan(0, |next, &count| {
            *next += count;
            Some(*next - count)
        });
        let starts: Vec<usize> = starts.collect();
        let (boxes, scores) = match even {
            true => (boxes, scores),
            false => {
                let row = |(&start, &count): (&usize, &usize)| {
                    (0..most).map(move |i| if i < count { start + i } else { k } as i32)
                };
                let rows = index(starts.iter().zip(counts).flat_map(row).collect());
                let out = Tensor::full([1, classes], -1.0, &device);
                let nowhere = Tensor::zeros([1, classes, 4], &device);
                (
                    Tensor::cat(vec![boxes, nowhere], 0).select(0, rows.clone()),
                    Tensor::cat(vec![scores, out], 0).select(0, rows),
                )
            }
        };
        let groups = images * classes;
        let boxes = boxes.reshape([images, most, classes, 4]).swap_dims(1, 2);
        let scores = scores.reshape([images, most, classes]).swap_dims(1, 2);
        let keep = grouped_nms(
            boxes.reshape([groups, most, 4]),
            scores.reshape([groups, most]),
            self.config.nms_thresh,
        );
        let keep = keep
            .float()
            .reshape([images, classes, most])
            .swap_dims(1, 2);
        let keep = keep.reshape([images * most, classes]);
        match even {
            true => keep,
            false => {
                let row = |(image, &count): (usize, &usize)| {
                    (0..count).map(move |i| (image * most + i) as i32)
                };
                keep.select(0, index(counts.iter().enumerate().flat_map(row).collect()))
            }
        }
    }

    /// Selects the detections of one image (torchvision's `postprocess_detections`).
    pub fn select_detections(&self, all: &ClassScores, image_size: Size) -> Instances {
        let config = &self.config;
        let (mut boxes, mut labels, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (&b, &score)) in all.boxes.iter().zip(&all.scores).enumerate() {
            let label = i % all.num_classes;
            let large = (b[2] - b[0]).min(b[3] - b[1]) >= self.min_side();
            if label > 0 && score > config.score_thresh && large {
                boxes.push(b);
                labels.push(label);
                scores.push(score);
            }
        }
        let groups = if config.nms_class_agnostic {
            vec![0; labels.len()]
        } else {
            labels.clone()
        };
        let soft = |method| {
            let (iou, score) = (config.nms_thresh, config.score_thresh);
            soft_nms(&boxes, &scores, &groups, method, iou, score)
        };
        let keep: Vec<(usize, f32)> = match config.nms_method {
            NmsMethod::Hard => batched_nms(&boxes, &scores, &groups, config.nms_thresh)
                .into_iter()
                .map(|i| (i, scores[i]))
                .collect(),
            NmsMethod::SoftLinear => soft(SoftNms::Linear),
            NmsMethod::SoftGaussian { sigma } => soft(SoftNms::Gaussian { sigma }),
        };
        let found = keep
            .into_iter()
            .map(|(i, score)| (boxes[i], labels[i], score));
        self.best_detections(found, all.num_classes, image_size)
    }
}

/// Reads rows of `N` values, the last axis, back from the device.
fn read<B: DetectionBackend, const N: usize>(rows: Tensor<B, 3>) -> Vec<[f32; N]> {
    let values: Vec<f32> = rows.into_data().into_vec().expect("f32");
    values.as_chunks::<N>().0.to_vec()
}
