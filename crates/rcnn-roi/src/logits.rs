//! The branches that predict a map of logits for each box: mask and keypoint.

use burn::tensor::Tensor;
use rcnn_backbone::FeatureMaps;
use rcnn_ops::{BBox, DetectionBackend, Forward, Losses};
use rcnn_types::{Instances, Size};

use crate::{MultiScaleRoiAlign, Positive, RoiSamples};

/// A branch that predicts a map of logits for each box: [`MaskBranch`](crate::MaskBranch) or
/// [`KeypointBranch`](crate::KeypointBranch).
pub trait LogitBranch<B: DetectionBackend> {
    /// Name of the branch, which stands before those of its modules.
    const NAME: &'static str;
    /// Name of its loss.
    const LOSS: &'static str;

    /// Pooling of boxes from the feature maps.
    fn roi_pool(&self) -> &MultiScaleRoiAlign;

    /// Logits of pooled features.
    ///
    /// # Shapes
    /// - pooled: `[K, channels, height, width]`
    /// - output: `[K, maps, side, side]`
    fn predict(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 4>;

    /// Whether a sample's object has the labels that the branch learns from.
    fn learns_from(&self, sample: &Positive, targets: &[Instances]) -> bool;

    /// Loss of the logits `[P, maps, side, side]` of samples that the branch
    /// [learns from](Self::learns_from).
    ///
    /// # Panics
    /// When there are none.
    fn loss(
        &self,
        logits: Tensor<B, 4>,
        positives: &[Positive],
        targets: &[Instances],
    ) -> Tensor<B, 1>;

    /// Adds predictions, decoded from the logits `[K, maps, side, side]` of all images' boxes, to the detections of each
    /// image, in pixels of the resized image.
    fn add(&self, logits: Tensor<B, 4>, detections: &mut [Instances]);

    /// Adds empty predictions to an image without detections.
    fn add_none(detections: &mut Instances);
}

/// Logits of the boxes of every image, image after image.
fn box_logits<B: DetectionBackend, L: LogitBranch<B>>(
    branch: &L,
    features: &FeatureMaps<B>,
    boxes: &[&[BBox]],
    image_sizes: &[Size],
    cx: &mut Forward<'_, B>,
) -> Tensor<B, 4> {
    let pooled = branch.roi_pool().forward(features, boxes, image_sizes);
    cx.layer(format_args!("{}_roi_pool", L::NAME), &pooled);
    branch.predict(pooled, cx)
}

/// Loss of the samples that a branch learns from. Without any it is zero times the sum of the logits of one box in
/// inference, whose gradients are zero, as torch has them.
pub(crate) fn losses<B: DetectionBackend, L: LogitBranch<B>>(
    branch: &L,
    features: &FeatureMaps<B>,
    samples: &RoiSamples,
    targets: &[Instances],
    image_sizes: &[Size],
    cx: &mut Forward<'_, B>,
) -> Losses<B> {
    let positives = samples.positives();
    let positives: Vec<Positive> = positives
        .filter(|sample| branch.learns_from(sample, targets))
        .collect();
    let mut boxes = vec![Vec::new(); image_sizes.len()];
    for sample in &positives {
        boxes[sample.image].push(sample.proposal);
    }
    let is_empty = positives.is_empty();
    if is_empty {
        boxes[0].push([0.0, 0.0, 1.0, 1.0]);
    }
    let boxes: Vec<&[BBox]> = boxes.iter().map(Vec::as_slice).collect();
    let logits = |cx: &mut Forward<'_, B>| box_logits(branch, features, &boxes, image_sizes, cx);
    let loss = match is_empty {
        true => logits(&mut Forward::inference()).sum() * 0.0,
        false => branch.loss(logits(cx), &positives, targets),
    };
    Losses::new([L::LOSS], [loss])
}

/// Adds a branch's predictions to the detections of every image, in pixels of the resized image. They are read back from
/// the device in one transfer.
pub(crate) fn infer<B: DetectionBackend, L: LogitBranch<B>>(
    branch: &L,
    features: &FeatureMaps<B>,
    detections: &mut [Instances],
    image_sizes: &[Size],
    cx: &mut Forward<'_, B>,
) {
    let boxes: Vec<_> = detections.iter().map(|d| d.boxes.as_slice()).collect();
    if boxes.iter().all(|boxes| boxes.is_empty()) {
        return detections.iter_mut().for_each(L::add_none);
    }
    let logits = box_logits(branch, features, &boxes, image_sizes, cx);
    branch.add(logits, detections);
    cx.step(&format!("roi_heads: {}s", L::NAME));
}
