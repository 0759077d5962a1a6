//! Training: the four losses of torchvision's Faster R-CNN, and the same without training.

use burn::tensor::{Tensor, backend::Backend};
use rand::Rng;
use rcnn_backbone::{Backbone, FeatureMaps, Phase};
use rcnn_ops::{BBox, Choice, DetectionBackend};
use rcnn_roi::{Detections, Target};
use rcnn_rpn::Proposals;

use crate::faster_rcnn::boxes;
use crate::{DetectError, FasterRcnn, GeneralizedRcnnTransform, ImageList};

/// The losses of a batch, each `[1]`, under torchvision's names without `loss_`.
#[derive(Debug, Clone)]
pub struct Losses<B: Backend> {
    /// Class of each sampled proposal.
    pub classifier: Tensor<B, 1>,
    /// Box deltas of the second stage.
    pub box_reg: Tensor<B, 1>,
    /// Object or background, of each sampled anchor.
    pub objectness: Tensor<B, 1>,
    /// Box deltas of the first stage.
    pub rpn_box_reg: Tensor<B, 1>,
}

impl<B: Backend> Losses<B> {
    /// Their sum, which training descends.
    pub fn total(&self) -> Tensor<B, 1> {
        let second = self.classifier.clone() + self.box_reg.clone();
        second + self.objectness.clone() + self.rpn_box_reg.clone()
    }
}

impl<B: DetectionBackend, N: Backbone<B>> FasterRcnn<B, N> {
    /// Losses of a batch in training: trainable batch norms take the batch's statistics, and
    /// proposals are as many as in training. Gradients flow on an autodiff backend.
    ///
    /// Images are resized as in inference; several `min_size` are the data loader's to choose from.
    ///
    /// # Shapes
    /// - images: each `[3, H, W]`, RGB from 0 to 1
    /// - targets: one an image, in its pixels; without boxes it is background
    ///
    /// # Errors
    /// When an image has another number of channels or no pixels.
    pub fn losses<R: Rng>(
        &self,
        images: &[Tensor<B, 3>],
        targets: &[Target],
        choice: &mut Choice<'_, R>,
    ) -> Result<Losses<B>, DetectError> {
        let images = self.transform.forward(images)?;
        Ok(self.compare(&images, targets, choice, Phase::Training).0)
    }

    /// Losses of a batch without training, and its detections, from one pass over backbone and
    /// first stage: running statistics, the proposals of inference, no gradient wanted.
    ///
    /// # Errors
    /// As [`losses`](Self::losses).
    pub fn validate<R: Rng>(
        &self,
        images: &[Tensor<B, 3>],
        targets: &[Target],
        choice: &mut Choice<'_, R>,
    ) -> Result<(Losses<B>, Vec<Detections>), DetectError> {
        let images = self.transform.forward(images)?;
        let (losses, features, proposals) =
            self.compare(&images, targets, choice, Phase::Inference);
        let found = self
            .roi_heads
            .forward(&features, &boxes(&proposals), &images.image_sizes);
        Ok((losses, images.restore(found)))
    }

    /// Losses, and the feature maps and proposals on the way to them.
    fn compare<R: Rng>(
        &self,
        images: &ImageList<B>,
        targets: &[Target],
        choice: &mut Choice<'_, R>,
        phase: Phase,
    ) -> (Losses<B>, FeatureMaps<B>, Vec<Proposals>) {
        let targets = resize_targets(targets, images);
        let objects: Vec<&[BBox]> = targets.iter().map(|t| t.boxes.as_slice()).collect();
        let features = self.backbone.forward(images.tensors.clone(), phase);
        let output = self.rpn.head.forward(&features);
        let anchors = self.rpn.anchors(&features, images.padded_size());
        let proposals = self
            .rpn
            .select_proposals(&output, &anchors, &images.image_sizes, phase);
        let rpn = self.rpn.loss(&output, &anchors, &objects, choice);

        let samples = self
            .roi_heads
            .select_training_samples(&boxes(&proposals), &targets, choice);
        let sampled: Vec<&[BBox]> = samples.proposals.iter().map(Vec::as_slice).collect();
        let pooled = self
            .roi_heads
            .pool(&features, &sampled, &images.image_sizes);
        let roi = self
            .roi_heads
            .loss(self.roi_heads.predict(pooled, phase), &samples);
        let losses = Losses {
            classifier: roi.classifier,
            box_reg: roi.box_reg,
            objectness: rpn.objectness,
            rpn_box_reg: rpn.rpn_box_reg,
        };
        (losses, features, proposals)
    }
}

/// Targets in the pixels of the resized images.
fn resize_targets<B: Backend>(targets: &[Target], images: &ImageList<B>) -> Vec<Target> {
    let sizes = images.image_sizes.iter().zip(&images.original_sizes);
    targets
        .iter()
        .zip(sizes)
        .map(|(target, (&resized, &original))| {
            let mut target = target.clone();
            GeneralizedRcnnTransform::resize_boxes(&mut target.boxes, original, resized);
            target
        })
        .collect()
}
