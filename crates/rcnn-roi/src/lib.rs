//! The second stage: looks into every proposal and says what it is and where exactly.
//!
//! As in `torchvision.models.detection.roi_heads`. K: proposals of all images of the batch together;
//! C: classes, of which 0 is the background.

mod box_head;
mod box_head_chain;
mod config;
mod loss;
mod pooler;
mod postprocess;
mod predictor;

pub use box_head::{BoxHead, BoxHeadConfig, BoxHeadLayer, FastRcnnConvFcHead, TwoMlpHead};
pub use box_head_chain::BoxHeadTextError;
pub use config::{FocalLoss, RoiHeadsConfig};
pub use loss::{RoiLosses, RoiSamples};
pub use pooler::{LevelMapper, MultiScaleRoiAlign};
pub use postprocess::{ClassScores, NmsMethod};
pub use predictor::{BoxPredictions, FastRcnnPredictor};

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_backbone::FeatureMaps;
use rcnn_ops::{BBox, DetectionBackend, Forward};
use rcnn_types::{Instances, Size};

/// Pools, classifies and refines proposals (`torchvision.models.detection.roi_heads.RoIHeads`).
#[derive(Module, Debug)]
pub struct RoiHeads<B: Backend> {
    /// From pooled features to one vector a proposal.
    pub box_head: BoxHead<B>,
    /// From that vector to class logits and box deltas.
    pub box_predictor: FastRcnnPredictor<B>,
    /// Pooling, thresholds and counts; may be changed at any time but for the output size.
    #[module(skip)]
    pub config: RoiHeadsConfig,
}

impl<B: DetectionBackend> RoiHeads<B> {
    /// Features of every proposal, image after image.
    ///
    /// # Shapes
    /// - proposals: one list a image, xyxy in pixels of the resized image
    /// - output: `[K, channels, pooled height, pooled width]`
    pub fn pool(
        &self,
        features: &FeatureMaps<B>,
        proposals: &[&[BBox]],
        image_sizes: &[Size],
    ) -> Tensor<B, 4> {
        self.config
            .box_roi_pool
            .forward(features, proposals, image_sizes)
    }

    /// Class logits and box deltas of pooled features `[K, channels, pooled height, pooled width]`.
    pub fn predict(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> BoxPredictions<B> {
        let features = self.box_head.forward(pooled, &mut cx.scope("box_head"));
        let predictor = &mut cx.scope("box_predictor");
        self.box_predictor.forward(features, predictor)
    }

    /// Detections of every image, in pixels of the resized image.
    pub fn forward(
        &self,
        features: &FeatureMaps<B>,
        proposals: &[&[BBox]],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> Vec<Instances> {
        if proposals.iter().all(|p| p.is_empty()) {
            return vec![Instances::from_iter([]); proposals.len()];
        }
        let cx = &mut cx.scope("roi_heads");
        let pooled = self.pool(features, proposals, image_sizes);
        cx.layer("box_roi_pool", &pooled);
        let predictions = self.predict(pooled, cx);
        let detections = self.detections(predictions, proposals, image_sizes);
        cx.step("roi_heads: detections");
        detections
    }
}
