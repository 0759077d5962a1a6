//! The mask branch: which pixels of a detected box are its object's.

use burn::tensor::{DType, Int, Tensor, TensorData, activation::sigmoid, backend::Backend};
use rcnn_backbone::FeatureMaps;
use rcnn_ops::{DetectionBackend, Forward, Losses, binary_cross_entropy_with_logits};
use rcnn_types::{Instances, MaskProbabilities, Size};

use crate::logits::LogitBranch;
use crate::mask_head::mask_head;
use crate::{
    MaskConfig, MaskHead, MaskPredictor, MultiScaleRoiAlign, Positive, RoiHeads, RoiSamples,
};

/// The branch of the [`RoiHeads`] of Mask R-CNN.
#[derive(Debug, Clone, Copy)]
pub struct MaskBranch<'a, B: Backend> {
    /// Convolutions.
    pub head: &'a MaskHead<B>,
    /// Predictor of mask logits of every class.
    pub predictor: &'a MaskPredictor<B>,
    /// Configuration of the branch.
    pub config: &'a MaskConfig,
}

impl<B: Backend> RoiHeads<B> {
    /// The mask branch, if there is one.
    pub fn mask_branch(&self) -> Option<MaskBranch<'_, B>> {
        Some(MaskBranch {
            head: self.mask_head.as_ref()?,
            predictor: self.mask_predictor.as_ref()?,
            config: self.config.mask.as_ref()?,
        })
    }
}

impl<B: DetectionBackend> LogitBranch<B> for MaskBranch<'_, B> {
    const POOLED: &'static str = "mask_roi_pool";

    fn roi_pool(&self) -> &MultiScaleRoiAlign {
        &self.config.roi_pool
    }

    fn logits(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 4> {
        self.predict(pooled, cx)
    }
}

impl<B: DetectionBackend> MaskBranch<'_, B> {
    /// Name of the loss.
    pub const LOSSES: [&'static str; 1] = ["loss_mask"];

    /// Mask logits of every class.
    ///
    /// # Shapes
    /// - pooled: `[K, channels, height, width]`
    /// - output: `[K, C, 2 * height, 2 * width]`
    pub fn predict(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 4> {
        let features = mask_head(self.head, pooled, &mut cx.scope("mask_head"));
        let predictor = &mut cx.scope("mask_predictor");
        self.predictor.forward(features, predictor)
    }

    /// Loss of the samples whose objects have a mask, named [`LOSSES`](Self::LOSSES).
    pub(crate) fn losses(
        &self,
        features: &FeatureMaps<B>,
        samples: &RoiSamples,
        targets: &[Instances],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) -> Losses<B> {
        let has_mask = |sample: &Positive| {
            let masks = targets[sample.image].masks.as_ref();
            masks.is_some_and(|masks| masks[sample.object].area() > 0)
        };
        let positives: Vec<Positive> = samples.positives().filter(has_mask).collect();
        let logits = self.sample_logits(features, &positives, image_sizes, cx);
        let loss = match positives.is_empty() {
            true => logits.sum() * 0.0,
            false => self.loss(logits, &positives, targets),
        };
        Losses::new(Self::LOSSES, [loss])
    }

    /// Loss of mask logits `[P, C, side, side]` of samples whose objects have masks (torchvision's
    /// `maskrcnn_loss`).
    ///
    /// # Panics
    /// When there are no samples, or the object of one has no mask.
    pub fn loss(
        &self,
        logits: Tensor<B, 4>,
        positives: &[Positive],
        targets: &[Instances],
    ) -> Tensor<B, 1> {
        let ([_, _, side, _], device) = (logits.dims(), logits.device());
        let labels = positives.iter().map(|sample| sample.label);
        let logits = select_class(logits, labels);
        let target = |sample: &Positive| {
            let masks = targets[sample.image].masks.as_ref().expect("masks");
            masks[sample.object].roi_align(&sample.proposal, side)
        };
        let values: Vec<f32> = positives.iter().flat_map(target).collect();
        let shape = [values.len()];
        let values = Tensor::from_data(TensorData::new(values, shape), &device);
        binary_cross_entropy_with_logits(logits.reshape(shape), values)
    }

    /// Adds to the detections of every image, in pixels of the resized image, the probabilities of their
    /// masks. Read back from the device at once.
    pub(crate) fn infer(
        &self,
        features: &FeatureMaps<B>,
        detections: &mut [Instances],
        image_sizes: &[Size],
        cx: &mut Forward<'_, B>,
    ) {
        let boxes: Vec<_> = detections.iter().map(|d| d.boxes.as_slice()).collect();
        if boxes.iter().all(|boxes| boxes.is_empty()) {
            let none = |found: &mut Instances| found.mask_probabilities = Some(Vec::new());
            return detections.iter_mut().for_each(none);
        }
        let logits = self.box_logits(features, &boxes, image_sizes, cx);
        self.add_masks(logits, detections);
        cx.step("roi_heads: masks");
    }

    /// Adds to the detections of every image the probabilities of their masks, from mask logits
    /// `[K, C, side, side]` of all of them (torchvision's `maskrcnn_inference`).
    pub fn add_masks(&self, logits: Tensor<B, 4>, detections: &mut [Instances]) {
        let side = logits.dims()[3];
        let labels = detections.iter().flat_map(|found| found.labels.iter());
        let probabilities = sigmoid(select_class(logits, labels.copied()).cast(DType::F32));
        let probabilities: Vec<f32> = probabilities.into_data().into_vec().expect("f32");
        let mut masks = probabilities.chunks_exact(side * side);
        for found in detections {
            let masks = found.boxes.iter().zip(masks.by_ref());
            let masks = masks.map(|(bbox, values)| MaskProbabilities {
                bbox: *bbox,
                side,
                values: values.to_vec(),
            });
            found.mask_probabilities = Some(masks.collect());
        }
    }
}

/// The logits `[K, C, side, side]` of each one's class: `[K, side * side]`.
fn select_class<B: Backend>(
    logits: Tensor<B, 4>,
    labels: impl Iterator<Item = usize>,
) -> Tensor<B, 2> {
    let [count, classes, height, width] = logits.dims();
    let rows = labels
        .enumerate()
        .map(|(i, label)| (i * classes + label) as i32);
    let rows: Vec<i32> = rows.collect();
    let rows = Tensor::<B, 1, Int>::from_ints(rows.as_slice(), &logits.device());
    let logits = logits.reshape([count * classes, height * width]);
    logits.select(0, rows)
}
