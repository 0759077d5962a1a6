//! The keypoint branch: where the keypoints of a detected object are.

use burn::tensor::{DType, Int, Tensor, backend::Backend};
use rayon::prelude::*;
use rcnn_backbone::FeatureMaps;
use rcnn_ops::{DetectionBackend, Forward, Losses, cross_entropy};
use rcnn_types::{Instances, Size};

use crate::heatmaps::{Place, keypoints_of_heatmaps, places};
use crate::keypoint_head::keypoint_head;
use crate::logits::LogitBranch;
use crate::{
    KeypointConfig, KeypointHead, KeypointPredictor, MultiScaleRoiAlign, Positive, RoiHeads,
    RoiSamples,
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
    const POOLED: &'static str = "keypoint_roi_pool";

    fn roi_pool(&self) -> &MultiScaleRoiAlign {
        &self.config.roi_pool
    }

    fn logits(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 4> {
        self.predict(pooled, cx)
    }
}

impl<B: DetectionBackend> KeypointBranch<'_, B> {
    /// Name of the loss.
    pub const LOSSES: [&'static str; 1] = ["loss_keypoint"];

    /// Heat maps, as logits.
    ///
    /// # Shapes
    /// - pooled: `[K, channels, height, width]`
    /// - output: `[K, keypoints, 4 * height, 4 * width]`
    pub fn predict(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 4> {
        let features = keypoint_head(self.head, pooled, &mut cx.scope("keypoint_head"));
        let predictor = &mut cx.scope("keypoint_predictor");
        self.predictor.forward(features, predictor)
    }

    /// Loss of the samples in whose boxes keypoints are visible, named [`LOSSES`](Self::LOSSES).
    pub(crate) fn losses(
        &self,
        features: &FeatureMaps<B>,
        samples: &RoiSamples,
        targets: &[Instances],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> Losses<B> {
        let side = 4 * self.config.roi_pool.output_size[0];
        let visible = |sample: &Positive| !places(sample, targets, side).is_empty();
        let positives: Vec<Positive> = samples.positives().filter(visible).collect();
        let logits = self.sample_logits(features, &positives, image_sizes, cx);
        let loss = match positives.is_empty() {
            true => logits.sum() * 0.0,
            false => self.loss(logits, &positives, targets),
        };
        Losses::new(Self::LOSSES, [loss])
    }

    /// Loss of heat maps `[P, keypoints, side, side]` of samples (torchvision's `keypointrcnn_loss`):
    /// cross-entropy over the places of each heat map whose keypoint is visible and in the sample's box.
    ///
    /// # Panics
    /// When there are none.
    pub fn loss(
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

    /// Adds to the detections of every image, in pixels of the resized image, their keypoints.
    /// Read back from the device at once.
    pub(crate) fn infer(
        &self,
        features: &FeatureMaps<B>,
        detections: &mut [Instances],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) {
        let boxes: Vec<_> = detections.iter().map(|d| d.boxes.as_slice()).collect();
        if boxes.iter().all(|boxes| boxes.is_empty()) {
            for found in detections {
                found.keypoints = Some(Vec::new());
                found.keypoint_scores = Some(Vec::new());
            }
            return;
        }
        let logits = self.box_logits(features, &boxes, image_sizes, cx);
        self.add_keypoints(logits, detections);
        cx.step("roi_heads: keypoints");
    }

    /// Adds to the detections of every image their keypoints, from heat maps `[K, keypoints, side, side]`
    /// of all of them (torchvision's `keypointrcnn_inference`).
    pub fn add_keypoints(&self, logits: Tensor<B, 4>, detections: &mut [Instances]) {
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
}
