//! The keypoint branch: where the keypoints of a detected object are.

use burn::tensor::{DType, Int, Tensor, backend::Backend};
use rayon::prelude::*;
use rcnn_ops::{DetectionBackend, Forward, cross_entropy};
use rcnn_types::Instances;

use crate::heatmaps::{Place, keypoints_of_heatmaps, places};
use crate::keypoint_head::keypoint_head;
use crate::{
    KeypointConfig, KeypointHead, KeypointPredictor, LogitBranch, MultiScaleRoiAlign, Positive,
    RoiHeads,
};

/// The branch of the [`RoiHeads`] of Keypoint R-CNN.
#[derive(Debug, Clone, Copy)]
pub struct KeypointBranch<'a, B: Backend> {
    /// Convolutions.
    pub head: &'a KeypointHead<B>,
    /// Predictor of heat maps.
    pub predictor: &'a KeypointPredictor<B>,
    /// Configuration of the branch.
    pub config: &'a KeypointConfig,
}

impl<B: Backend> RoiHeads<B> {
    /// The keypoint branch, if there is one.
    pub fn keypoint_branch(&self) -> Option<KeypointBranch<'_, B>> {
        Some(KeypointBranch {
            head: self.keypoint_head.as_ref()?,
            predictor: self.keypoint_predictor.as_ref()?,
            config: self.config.keypoint.as_ref()?,
        })
    }
}

impl<B: DetectionBackend> LogitBranch<B> for KeypointBranch<'_, B> {
    const NAME: &'static str = "keypoint";
    const LOSS: &'static str = "loss_keypoint";

    fn roi_pool(&self) -> &MultiScaleRoiAlign {
        &self.config.roi_pool
    }

    /// Heat maps, as logits, `[K, keypoints, 4 * height, 4 * width]`.
    fn predict(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 4> {
        let features = keypoint_head(self.head, pooled, &mut cx.scope("keypoint_head"));
        let predictor = &mut cx.scope("keypoint_predictor");
        self.predictor.forward(features, predictor)
    }

    /// Whether keypoints are visible in the sample's box.
    fn learns_from(&self, sample: &Positive, targets: &[Instances]) -> bool {
        let side = 4 * self.config.roi_pool.output_size[0];
        !places(sample, targets, side).is_empty()
    }

    /// torchvision's `keypointrcnn_loss`: cross-entropy over the places of each heat map whose keypoint is visible and
    /// in the sample's box.
    fn loss(
        &self,
        logits: Tensor<B, 4>,
        positives: &[Positive],
        targets: &[Instances],
    ) -> Tensor<B, 1> {
        let ([count, keypoints, side, _], device) = (logits.dims(), logits.device());
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for (i, sample) in positives.iter().enumerate() {
            for Place { keypoint, index } in places(sample, targets, side) {
                rows.push((i * keypoints + keypoint) as i32);
                labels.push(index as i32);
            }
        }
        let index = |at: &[i32]| Tensor::<B, 1, Int>::from_ints(at, &device);
        let logits = logits.reshape([count * keypoints, side * side]);
        cross_entropy(logits.select(0, index(&rows)), index(&labels), None)
    }

    /// torchvision's `keypointrcnn_inference`.
    fn add(&self, logits: Tensor<B, 4>, detections: &mut [Instances]) {
        let [_, keypoints, side, _] = logits.dims();
        let heatmaps = logits.cast(DType::F32).into_data();
        let heatmaps: Vec<f32> = heatmaps.into_vec().expect("f32");
        let size = keypoints * side * side;
        let mut heatmaps = heatmaps.as_slice();
        for found in detections {
            let (own, others) = heatmaps.split_at(found.boxes.len() * size);
            heatmaps = others;
            let pairs = found.boxes.par_iter().zip(own.par_chunks_exact(size));
            let found_at = pairs.map(|(b, maps)| keypoints_of_heatmaps(maps, side, b));
            let (points, scores) = found_at.unzip();
            found.keypoints = Some(points);
            found.keypoint_scores = Some(scores);
        }
    }

    fn add_none(detections: &mut Instances) {
        detections.keypoints = Some(Vec::new());
        detections.keypoint_scores = Some(Vec::new());
    }
}
