//! The second stage: what each proposal shows and where exactly.
//!
//! As in `torchvision.models.detection.roi_heads`, in branches: each pools features of boxes, has a head
//! and a predictor, and says its losses and its inference. The [`BoxBranch`] turns proposals into
//! detections. K: boxes of all images of the batch together; C: classes, of which 0 is the background.

mod box_branch;
mod box_head;
mod config;
mod loss;
mod pooler;
mod postprocess;
mod predictor;
mod samples;

pub use box_branch::BoxBranch;
pub use box_head::{
    BoxHead, BoxHeadConfig, BoxHeadLayer, BoxHeadTextError, FastRcnnConvFcHead, TwoMlpHead,
};
pub use config::{FocalLoss, RoiHeadsConfig};
pub use pooler::{LevelMapper, MultiScaleRoiAlign};
pub use postprocess::{ClassScores, NmsMethod};
pub use predictor::{BoxPredictions, FastRcnnPredictor};
pub use samples::{Positive, RoiSamples};

use burn::module::Module;
use burn::tensor::backend::Backend;
use rcnn_backbone::FeatureMaps;
use rcnn_ops::{BBox, DetectionBackend, Forward, Losses};
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
    /// Detections of every image, in pixels of the resized image.
    ///
    /// # Shapes
    /// - proposals: one list an image, xyxy in pixels of the resized image
    pub fn forward(
        &self,
        features: &FeatureMaps<B>,
        proposals: &[&[BBox]],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> Vec<Instances> {
        let cx = &mut cx.scope("roi_heads");
        let branch = self.box_branch();
        branch.infer(features, proposals, image_sizes, cx)
    }

    /// Losses of every branch for sampled proposals, named [`loss_names`](Self::loss_names).
    pub fn losses(
        &self,
        features: &FeatureMaps<B>,
        samples: &RoiSamples,
        targets: &[Instances],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> Losses<B> {
        let cx = &mut cx.scope("roi_heads");
        let branch = self.box_branch();
        branch.losses(features, samples, targets, image_sizes, cx)
    }

    /// Names of the [losses](Self::losses), in their order.
    pub fn loss_names(&self) -> Vec<&'static str> {
        BoxBranch::<B>::LOSSES.to_vec()
    }
}
