//! The second stage: class, refined box, mask and keypoints of each proposal.
//!
//! As in `torchvision.models.detection.roi_heads`, in branches: each pools features of boxes, has a head
//! and a predictor, and says its losses and its inference. The [`BoxBranch`] turns proposals into
//! detections, to which [`MaskBranch`] and [`KeypointBranch`] add. K: boxes of all images of the batch together; C: classes, of which 0 is the background.

mod box_branch;
mod box_head;
mod config;
mod heatmaps;
mod keypoint_branch;
mod keypoint_head;
mod logits;
mod loss;
mod mask_branch;
mod mask_head;
mod pooler;
mod postprocess;
mod predictor;
mod samples;

pub use box_branch::BoxBranch;
pub use box_head::{
    BoxHead, BoxHeadConfig, BoxHeadLayer, BoxHeadTextError, FastRcnnConvFcHead, TwoMlpHead,
};
pub use config::{FocalLoss, RoiHeadsConfig};
pub use keypoint_branch::KeypointBranch;
pub use keypoint_head::{KeypointConfig, KeypointHead, KeypointHeadLayer, KeypointPredictor};
pub use logits::LogitBranch;
pub use mask_branch::MaskBranch;
pub use mask_head::{MaskConfig, MaskHead, MaskPredictor};
pub use pooler::{LevelMapper, MultiScaleRoiAlign, PoolMethod};
pub use postprocess::{ClassScores, MIN_SIZE, NmsMethod};
pub use predictor::{BoxPredictions, FastRcnnPredictor};
pub use samples::{Positive, RoiSamples};

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_backbone::FeatureMaps;
use rcnn_ops::{BBox, DetectionBackend, Forward, Losses};
use rcnn_types::{Instances, Size};

/// Largest number of layers of a kind in a head.
const MAX_LAYERS: usize = 64;

/// Pools, classifies and refines proposals (`torchvision.models.detection.roi_heads.RoIHeads`).
#[derive(Module, Debug)]
pub struct RoiHeads<B: Backend> {
    /// Layers from pooled features to one vector a proposal.
    pub box_head: BoxHead<B>,
    /// Layers from that vector to class logits and box deltas.
    pub box_predictor: FastRcnnPredictor<B>,
    /// Convolutions of the mask branch, if there is one.
    pub mask_head: Option<MaskHead<B>>,
    /// Predictor of mask logits, if there is a mask branch.
    pub mask_predictor: Option<MaskPredictor<B>>,
    /// Convolutions of the keypoint branch, if there is one.
    pub keypoint_head: Option<KeypointHead<B>>,
    /// Predictor of heat maps, if there is a keypoint branch.
    pub keypoint_predictor: Option<KeypointPredictor<B>>,
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
        let mut detections = self
            .box_branch()
            .infer(features, proposals, image_sizes, cx);
        if let Some(branch) = self.mask_branch() {
            logits::infer(&branch, features, &mut detections, image_sizes, cx);
        }
        if let Some(branch) = self.keypoint_branch() {
            logits::infer(&branch, features, &mut detections, image_sizes, cx);
        }
        detections
    }

    /// Losses of every branch for sampled proposals, named [`loss_names`](Self::loss_names), and the class logits
    /// of the samples, `[K, C]`.
    pub fn losses(
        &self,
        features: &FeatureMaps<B>,
        samples: &RoiSamples,
        targets: &[Instances],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> (Losses<B>, Tensor<B, 2>) {
        let cx = &mut cx.scope("roi_heads");
        let (mut losses, class_logits) =
            self.box_branch()
                .losses(features, samples, targets, image_sizes, cx);
        if let Some(branch) = self.mask_branch() {
            let loss = logits::losses(&branch, features, samples, targets, image_sizes, cx);
            losses.extend(loss);
        }
        if let Some(branch) = self.keypoint_branch() {
            let loss = logits::losses(&branch, features, samples, targets, image_sizes, cx);
            losses.extend(loss);
        }
        (losses, class_logits)
    }

    /// Names of the [losses](Self::losses), in their order.
    pub fn loss_names(&self) -> Vec<&'static str> {
        let mut names = BoxBranch::<B>::LOSSES.to_vec();
        if self.mask_branch().is_some() {
            names.push(MaskBranch::<B>::LOSS);
        }
        if self.keypoint_branch().is_some() {
            names.push(KeypointBranch::<B>::LOSS);
        }
        names
    }
}
