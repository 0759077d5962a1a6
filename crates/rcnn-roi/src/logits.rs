//! Pooling and prediction of the branches that give a map of logits for each box: mask and keypoint.

use burn::tensor::Tensor;
use rcnn_backbone::FeatureMaps;
use rcnn_ops::{BBox, DetectionBackend, Forward};
use rcnn_types::Size;

use crate::{MultiScaleRoiAlign, Positive};

/// A branch whose predictor gives a map of logits for each box.
pub(crate) trait LogitBranch<B: DetectionBackend> {
    /// Name of the pooled features, for hooks.
    const POOLED: &'static str;

    /// Pooling of the branch.
    fn roi_pool(&self) -> &MultiScaleRoiAlign;

    /// Logits of pooled features `[K, channels, height, width]`.
    fn logits(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 4>;

    /// Logits of the boxes of every image, image after image.
    fn box_logits(
        &self,
        features: &FeatureMaps<B>,
        boxes: &[&[BBox]],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> Tensor<B, 4> {
        let pooled = self.roi_pool().forward(features, boxes, image_sizes);
        cx.layer(Self::POOLED, &pooled);
        self.logits(pooled, cx)
    }

    /// Logits of samples. Without any, those of one box in inference: zero times their sum is a loss of zero
    /// with gradients of zero, as torch has them.
    fn sample_logits(
        &self,
        features: &FeatureMaps<B>,
        positives: &[Positive],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> Tensor<B, 4> {
        let mut boxes = vec![Vec::new(); image_sizes.len()];
        for sample in positives {
            boxes[sample.image].push(sample.proposal);
        }
        if positives.is_empty() {
            boxes[0].push([0.0, 0.0, 1.0, 1.0]);
        }
        let boxes: Vec<&[BBox]> = boxes.iter().map(Vec::as_slice).collect();
        match positives.is_empty() {
            true => self.box_logits(features, &boxes, image_sizes, &mut Forward::inference()),
            false => self.box_logits(features, &boxes, image_sizes, cx),
        }
    }
}
