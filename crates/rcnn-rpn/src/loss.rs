//! The first stage's losses: is there an object, and where.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rand::Rng;
use rcnn_ops::{
    BBox, BalancedSampler, Choice, Match, Matcher, Sample, binary_cross_entropy_with_logits,
    smooth_l1_sum,
};

use crate::proposals::BOX_CODER;
use crate::{RegionProposalNetwork, RpnOutput};

/// Losses of the region proposal network, each `[1]`.
#[derive(Debug, Clone)]
pub struct RpnLosses<B: Backend> {
    /// Object or background.
    pub objectness: Tensor<B, 1>,
    /// Box deltas of the objects.
    pub rpn_box_reg: Tensor<B, 1>,
}

/// Where smooth L1 turns from quadratic to linear.
const BETA: f64 = 1.0 / 9.0;

impl<B: Backend> RegionProposalNetwork<B> {
    /// Losses of a batch (torchvision's `compute_loss` on sampled anchors).
    ///
    /// # Shapes
    /// - anchors: of every level, `[height * width * A, 4]`
    /// - objects: boxes of every image, xyxy in pixels of the resized image; none is ordinary
    pub fn loss<R: Rng>(
        &self,
        output: &RpnOutput<B>,
        anchors: &[Tensor<B, 2>],
        objects: &[&[BBox]],
        choice: &mut Choice<'_, R>,
    ) -> RpnLosses<B> {
        let (objectness, deltas): (Vec<_>, Vec<_>) = output.levels().unzip();
        let (objectness, deltas) = (Tensor::cat(objectness, 1), Tensor::cat(deltas, 1));
        let total = deltas.dims()[0] * deltas.dims()[1];
        let (objectness, deltas) = (objectness.reshape([total]), deltas.reshape([total, 4]));

        let anchors = Tensor::cat(anchors.to_vec(), 0)
            .into_data()
            .convert::<f32>();
        let anchors: Vec<f32> = anchors.into_vec().expect("converted to f32");
        let anchors: Vec<BBox> = anchors
            .chunks_exact(4)
            .map(|b| [b[0], b[1], b[2], b[3]])
            .collect();

        let matcher = Matcher {
            high_threshold: self.config.fg_iou_thresh,
            low_threshold: self.config.bg_iou_thresh,
            allow_low_quality_matches: true,
        };
        let sampler = BalancedSampler {
            batch_size_per_image: self.config.batch_size_per_image,
            positive_fraction: self.config.positive_fraction,
        };
        let (mut positive, mut negative) = (Vec::new(), Vec::new());
        let (mut sources, mut targets) = (Vec::new(), Vec::new());
        for (image, objects) in objects.iter().enumerate() {
            let matches = matcher.matches(objects, &anchors);
            let sample: Sample = sampler.sample(&matches, choice);
            for &i in &sample.positive {
                if let Match::Object(object) = matches[i] {
                    positive.push((image * anchors.len() + i) as i32);
                    sources.extend(anchors[i]);
                    targets.extend(objects[object]);
                }
            }
            let base = image * anchors.len();
            negative.extend(sample.negative.iter().map(|i| (base + i) as i32));
        }

        let device = objectness.device();
        let (positives, sampled) = (positive.len(), positive.len() + negative.len());
        let mut labels = vec![1.0f32; positives];
        labels.resize(sampled, 0.0);
        let index = |at: &[i32]| Tensor::<B, 1, Int>::from_ints(at, &device);
        let all: Vec<i32> = positive.iter().chain(&negative).copied().collect();
        let labels = Tensor::<B, 1>::from_floats(labels.as_slice(), &device);
        let objectness =
            binary_cross_entropy_with_logits(objectness.select(0, index(&all)), labels);
        if positives == 0 {
            // Zero, but with a gradient of zero, as torch has it.
            return RpnLosses {
                objectness,
                rpn_box_reg: deltas.sum() * 0.0,
            };
        }
        let boxes = |b| Tensor::<B, 2>::from_data(TensorData::new(b, [positives, 4]), &device);
        let targets = BOX_CODER.encode(boxes(targets), boxes(sources));
        let deltas = deltas.select(0, index(&positive));
        let rpn_box_reg = smooth_l1_sum(deltas, targets, BETA) / sampled as f64;
        RpnLosses {
            objectness,
            rpn_box_reg,
        }
    }
}
