//! The mask branch: which pixels of a detected box are its object's.

use burn::tensor::{DType, Int, Tensor, TensorData, activation::sigmoid, backend::Backend};
use rcnn_ops::{DetectionBackend, Forward, binary_cross_entropy_with_logits};
use rcnn_types::{Instances, MaskProbabilities};

use crate::mask_head::mask_head;
use crate::{
    LogitBranch, MaskConfig, MaskHead, MaskPredictor, MultiScaleRoiAlign, Positive, RoiHeads,
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
    const NAME: &'static str = "mask";
    const LOSS: &'static str = "loss_mask";

    fn roi_pool(&self) -> &MultiScaleRoiAlign {
        &self.config.roi_pool
    }

    /// Mask logits of every class, `[K, C, 2 * height, 2 * width]`.
    fn predict(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 4> {
        let features = mask_head(self.head, pooled, &mut cx.scope("mask_head"));
        let predictor = &mut cx.scope("mask_predictor");
        self.predictor.forward(features, predictor)
    }

    /// Whether the object has a mask.
    fn learns_from(&self, sample: &Positive, targets: &[Instances]) -> bool {
        let masks = targets[sample.image].masks.as_ref();
        masks.is_some_and(|masks| masks[sample.object].area() > 0)
    }

    /// torchvision's `maskrcnn_loss`.
    fn loss(
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

    /// torchvision's `maskrcnn_inference`: the probabilities of the masks.
    fn add(&self, logits: Tensor<B, 4>, detections: &mut [Instances]) {
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

    fn add_none(detections: &mut Instances) {
        detections.mask_probabilities = Some(Vec::new());
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
