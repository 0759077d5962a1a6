//! From class logits and box deltas to detections.

use burn::tensor::{Tensor, TensorData, activation::softmax};
use rcnn_ops::{BBox, BoxCoder, DetectionBackend, SoftNms, batched_nms, clip_box, soft_nms};
use serde::{Deserialize, Serialize};

use crate::{BoxPredictions, RoiHeads};

/// What was found in one image, best first. No object is an ordinary result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Detections {
    /// Boxes `[N, 4]`, xyxy in pixels.
    pub boxes: Vec<BBox>,
    /// Class of each; 0, the background, does not occur.
    pub labels: Vec<usize>,
    /// Score of each, 0 to 1.
    pub scores: Vec<f32>,
}

impl Detections {
    /// Number of detections.
    pub fn len(&self) -> usize {
        self.boxes.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.boxes.is_empty()
    }

    /// Box, label and score of each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (BBox, usize, f32)> + '_ {
        (0..self.len()).map(|i| (self.boxes[i], self.labels[i], self.scores[i]))
    }

    /// Keeps the detections that the condition (on box, label and score) holds for.
    pub fn retain(&mut self, mut condition: impl FnMut(BBox, usize, f32) -> bool) {
        let kept: Vec<_> = self
            .iter()
            .filter(|&(b, label, score)| condition(b, label, score))
            .collect();
        *self = kept.into_iter().collect();
    }
}

impl FromIterator<(BBox, usize, f32)> for Detections {
    fn from_iter<I: IntoIterator<Item = (BBox, usize, f32)>>(detections: I) -> Self {
        let mut all = Self::default();
        for (b, label, score) in detections {
            all.boxes.push(b);
            all.labels.push(label);
            all.scores.push(score);
        }
        all
    }
}

/// Scores and boxes of every class for every proposal of one image, before any selection.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScores {
    /// Classes, background included.
    pub num_classes: usize,
    /// Probabilities `[K, C]`, proposal by proposal.
    pub scores: Vec<f32>,
    /// Boxes `[K, C]`, xyxy, clipped to the resized image.
    pub boxes: Vec<BBox>,
}

/// What happens to a detection that a better one overlaps.
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
const MIN_SIZE: f32 = 1e-2;

impl<B: DetectionBackend> RoiHeads<B> {
    /// Probabilities and boxes of every class for every proposal, image by image. Read back from
    /// the device at once.
    pub fn class_scores(
        &self,
        predictions: BoxPredictions<B>,
        proposals: &[&[BBox]],
        image_sizes: &[(usize, usize)],
    ) -> Vec<ClassScores> {
        let [k, num_classes] = predictions.class_logits.dims();
        let flat: Vec<f32> = proposals
            .iter()
            .copied()
            .flatten()
            .flatten()
            .copied()
            .collect();
        let references = TensorData::new(flat, [k, 4]);
        let references = Tensor::from_data(references, &predictions.class_logits.device());
        let boxes = match predictions.box_regression {
            Some(deltas) => {
                let coder = BoxCoder {
                    weights: self.config.bbox_reg_weights,
                };
                coder.decode(deltas, references)
            }
            None => references.unsqueeze_dim::<3>(1).expand([k, num_classes, 4]),
        };
        let scores = softmax(predictions.class_logits, 1).unsqueeze_dim(2);
        let rows = Tensor::cat(vec![boxes, scores], 2)
            .into_data()
            .convert::<f32>();
        let rows: Vec<f32> = rows.into_vec().expect("converted to f32");

        let mut rows = rows.chunks_exact(5);
        let images = proposals.iter().zip(image_sizes);
        images
            .map(|(proposals, &size)| {
                let count = proposals.len() * num_classes;
                let (boxes, scores) = rows
                    .by_ref()
                    .take(count)
                    .map(|row| (clip_box(&[row[0], row[1], row[2], row[3]], size), row[4]))
                    .unzip();
                ClassScores {
                    num_classes,
                    scores,
                    boxes,
                }
            })
            .collect()
    }

    /// Selects the detections of one image (torchvision's `postprocess_detections`).
    pub fn select_detections(&self, all: &ClassScores) -> Detections {
        let config = &self.config;
        let (mut boxes, mut labels, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (&b, &score)) in all.boxes.iter().zip(&all.scores).enumerate() {
            let label = i % all.num_classes;
            let large = b[2] - b[0] >= MIN_SIZE && b[3] - b[1] >= MIN_SIZE;
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
        let mut keep = match config.nms_method {
            NmsMethod::Hard => batched_nms(&boxes, &scores, &groups, config.nms_thresh)
                .into_iter()
                .map(|i| (i, scores[i]))
                .collect(),
            NmsMethod::SoftLinear => soft(SoftNms::Linear),
            NmsMethod::SoftGaussian { sigma } => soft(SoftNms::Gaussian { sigma }),
        };
        keep.truncate(config.detections_per_img);
        keep.into_iter()
            .map(|(i, score)| (boxes[i], labels[i], score))
            .collect()
    }
}
