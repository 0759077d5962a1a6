//! The box branch: from proposals to class and box, in inference and for the losses.

use burn::tensor::{Tensor, backend::Backend};
use rcnn_backbone::FeatureMaps;
use rcnn_ops::{BBox, DetectionBackend, Forward, Losses};
use rcnn_types::{Instances, Size};

use crate::{BoxHead, BoxPredictions, FastRcnnPredictor, RoiHeads, RoiHeadsConfig, RoiSamples};

/// The branch of the [`RoiHeads`] that every detector has: it classifies and refines proposals.
#[derive(Debug, Clone, Copy)]
pub struct BoxBranch<'a, B: Backend> {
    /// Layers from pooled features to one vector a proposal.
    pub head: &'a BoxHead<B>,
    /// Layers from that vector to class logits and box deltas.
    pub predictor: &'a FastRcnnPredictor<B>,
    /// Pooling, thresholds and counts.
    pub config: &'a RoiHeadsConfig,
}

impl<B: Backend> RoiHeads<B> {
    /// The box branch.
    pub fn box_branch(&self) -> BoxBranch<'_, B> {
        BoxBranch {
            head: &self.box_head,
            predictor: &self.box_predictor,
            config: &self.config,
        }
    }
}

impl<B: DetectionBackend> BoxBranch<'_, B> {
    /// Features of every proposal, image after image.
    ///
    /// # Shapes
    /// - proposals: one list an image, xyxy in pixels of the resized image
    /// - output: `[K, channels, pooled height, pooled width]`
    pub fn pool(
        &self,
        features: &FeatureMaps<B>,
        proposals: &[&[BBox]],
        image_sizes: &[Size],
    ) -> Tensor<B, 4> {
        let pool = &self.config.box_roi_pool;
        pool.forward(features, proposals, image_sizes)
    }

    /// Class logits and box deltas of pooled features `[K, channels, pooled height, pooled width]`.
    pub fn predict(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> BoxPredictions<B> {
        let (head, dropout) = (self.head, self.config.box_dropout);
        let features = head.forward_with_dropout(pooled, dropout, &mut cx.scope("box_head"));
        let predictor = &mut cx.scope("box_predictor");
        self.predictor.forward(features, predictor)
    }

    /// Losses of the sampled proposals, named [`LOSSES`](Self::LOSSES), and their class logits `[K, C]`.
    pub(crate) fn losses(
        &self,
        features: &FeatureMaps<B>,
        samples: &RoiSamples,
        targets: &[Instances],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> (Losses<B>, Tensor<B, 2>) {
        let pooled = self.pool(features, &samples.boxes(), image_sizes);
        cx.layer("box_roi_pool", &pooled);
        let predictions = self.predict(pooled, cx);
        let class_logits = predictions.class_logits.clone();
        (self.loss(predictions, samples, targets), class_logits)
    }

    /// Detections of every image, in pixels of the resized image.
    pub(crate) fn infer(
        &self,
        features: &FeatureMaps<B>,
        proposals: &[&[BBox]],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> Vec<Instances> {
        if proposals.iter().all(|p| p.is_empty()) {
            return vec![Instances::from_iter([]); proposals.len()];
        }
        let pooled = self.pool(features, proposals, image_sizes);
        cx.layer("box_roi_pool", &pooled);
        let predictions = self.predict(pooled, cx);
        let detections = self.detections(predictions, proposals, image_sizes);
        cx.step("roi_heads: detections");
        detections
    }
}
