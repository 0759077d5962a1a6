//! The second stage's losses: which class, and where exactly.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rand::Rng;
use rcnn_ops::{
    BBox, BalancedSampler, BoxCoder, Choice, Match, Matcher, cross_entropy, focal_loss,
    smooth_l1_sum,
};

use rcnn_types::Instances;

use crate::{BoxPredictions, FocalLoss, RoiHeads};

/// Proposals that the loss looks at, image by image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoiSamples {
    /// Boxes of every image, xyxy in pixels.
    pub proposals: Vec<Vec<BBox>>,
    /// Class of each, 0 for the background.
    pub labels: Vec<Vec<usize>>,
    /// The object that each was matched to; means nothing where the label is 0.
    pub objects: Vec<Vec<BBox>>,
}

/// Losses of the second stage, each `[1]`.
#[derive(Debug, Clone)]
pub struct RoiLosses<B: Backend> {
    /// Class of each proposal.
    pub classifier: Tensor<B, 1>,
    /// Box deltas of the objects; a constant zero where boxes are not refined.
    pub box_reg: Tensor<B, 1>,
}

/// Where smooth L1 turns from quadratic to linear.
const BETA: f64 = 1.0 / 9.0;

impl<B: Backend> RoiHeads<B> {
    /// Adds the true boxes to the proposals, matches and samples them
    /// (torchvision's `select_training_samples`).
    pub fn select_training_samples<R: Rng>(
        &self,
        proposals: &[&[BBox]],
        targets: &[Instances],
        choice: &mut Choice<'_, R>,
    ) -> RoiSamples {
        let matcher = Matcher {
            high_threshold: self.config.fg_iou_thresh,
            low_threshold: self.config.bg_iou_thresh,
            allow_low_quality_matches: false,
        };
        let sampler = BalancedSampler {
            batch_size_per_image: self.config.batch_size_per_image,
            positive_fraction: self.config.positive_fraction,
        };
        let mut samples = RoiSamples::default();
        for (proposals, target) in proposals.iter().zip(targets) {
            let proposals = [*proposals, &target.boxes].concat();
            let matches = matcher.matches(&target.boxes, &proposals);
            let sample = sampler.sample(&matches, choice);
            let mut sampled = [sample.positive, sample.negative].concat();
            sampled.sort_unstable();
            let (mut labels, mut objects) = (Vec::new(), Vec::new());
            for &i in &sampled {
                let (label, object) = match matches[i] {
                    Match::Object(object) => (target.labels[object], target.boxes[object]),
                    _ => (0, [0.0; 4]),
                };
                labels.push(label);
                objects.push(object);
            }
            samples
                .proposals
                .push(sampled.iter().map(|&i| proposals[i]).collect());
            samples.labels.push(labels);
            samples.objects.push(objects);
        }
        samples
    }

    /// Losses of the predictions for sampled proposals (torchvision's `fastrcnn_loss`).
    pub fn loss(&self, predictions: BoxPredictions<B>, samples: &RoiSamples) -> RoiLosses<B> {
        let BoxPredictions {
            class_logits,
            box_regression,
        } = predictions;
        let device = class_logits.device();
        let [total, num_classes] = class_logits.dims();
        let labels: Vec<i32> = samples.labels.iter().flatten().map(|&l| l as i32).collect();
        let classifier =
            self.classifier_loss(class_logits, Tensor::from_ints(labels.as_slice(), &device));
        let Some(box_regression) = box_regression else {
            return RoiLosses {
                classifier,
                box_reg: Tensor::zeros([1], &device),
            };
        };

        // The deltas of the right class are a row of [total * classes, 4].
        let mut rows = Vec::new();
        let (mut sources, mut objects) = (Vec::new(), Vec::new());
        let pairs = samples
            .proposals
            .iter()
            .flatten()
            .zip(samples.objects.iter().flatten());
        for ((i, &label), (proposal, object)) in labels.iter().enumerate().zip(pairs) {
            if label > 0 {
                rows.push((i * num_classes) as i32 + label);
                sources.extend(*proposal);
                objects.extend(*object);
            }
        }
        let positives = rows.len();
        if positives == 0 {
            // Zero, but with a gradient of zero, as torch has it.
            return RoiLosses {
                classifier,
                box_reg: box_regression.sum() * 0.0,
            };
        }
        let boxes = |b| Tensor::<B, 2>::from_data(TensorData::new(b, [positives, 4]), &device);
        let coder = BoxCoder {
            weights: self.config.bbox_reg_weights,
        };
        let targets = coder.encode(boxes(objects), boxes(sources));
        let deltas = box_regression.reshape([total * num_classes, 4]);
        let deltas = deltas.select(0, Tensor::from_ints(rows.as_slice(), &device));
        RoiLosses {
            classifier,
            box_reg: smooth_l1_sum(deltas, targets, BETA) / total as f64,
        }
    }

    /// Loss of class logits `[K, C]` against labels `[K]`.
    fn classifier_loss(&self, logits: Tensor<B, 2>, labels: Tensor<B, 1, Int>) -> Tensor<B, 1> {
        let weights = self.config.class_weights.as_deref();
        let weights = weights.map(|weights| Tensor::from_floats(weights, &logits.device()));
        match self.config.focal_loss {
            Some(FocalLoss { alpha, gamma }) => focal_loss(logits, labels, weights, alpha, gamma),
            None => cross_entropy(logits, labels, weights),
        }
    }
}
