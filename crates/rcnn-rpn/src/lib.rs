//! The region proposal network: the first stage, which proposes boxes that might hold objects.
//!
//! Ren et al. 2015 (<https://arxiv.org/abs/1506.01497>), as in `torchvision.models.detection.rpn`.
//! N: images in the batch; A: anchors per location; L: feature levels; K: proposals of an image.

mod anchors;
mod config;
mod head;
mod loss;
mod proposals;

pub use anchors::AnchorGenerator;
pub use config::RpnConfig;
pub use head::{RpnHead, RpnOutput};
pub use loss::RpnSamples;
pub use proposals::{MIN_SIZE, Proposals};

use burn::module::Module;
use burn::tensor::backend::Backend;
use rcnn_backbone::FeatureMaps;
use rcnn_ops::{DetectionBackend, Forward};
use rcnn_types::Size;

/// Scores every anchor and keeps the best boxes
/// (`torchvision.models.detection.rpn.RegionProposalNetwork`).
#[derive(Module, Debug)]
pub struct RegionProposalNetwork<B: Backend> {
    /// The convolutions.
    pub head: RpnHead<B>,
    /// Anchors, thresholds and counts; may be changed at any time but for the anchors.
    #[module(skip)]
    pub config: RpnConfig,
}

impl<B: DetectionBackend> RegionProposalNetwork<B> {
    /// Proposals of every image, ready for the second stage.
    ///
    /// `padded_size` is the size of the batch, `image_sizes` those of each image in it.
    pub fn forward(
        &self,
        features: &FeatureMaps<B>,
        padded_size: Size,
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> Vec<Proposals> {
        let output = self.head.forward(features, &mut cx.scope("rpn.head"));
        let anchors = self.anchors(features, padded_size);
        let proposals = self.select_proposals(&output, &anchors, image_sizes, cx.phase);
        cx.step("rpn: proposals");
        proposals
    }
}
