//! The predictor: class logits and box deltas of every proposal.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Tensor, backend::Backend};

/// Two linear layers side by side
/// (`torchvision.models.detection.faster_rcnn.FastRCNNPredictor`).
#[derive(Module, Debug)]
pub struct FastRcnnPredictor<B: Backend> {
    /// Logits of every class, background first.
    pub cls_score: Linear<B>,
    /// Box deltas of every class.
    pub bbox_pred: Linear<B>,
}

/// What the predictor says of each proposal, raw.
#[derive(Debug, Clone)]
pub struct BoxPredictions<B: Backend> {
    /// Class logits `[K, C]`.
    pub class_logits: Tensor<B, 2>,
    /// Box deltas `[K, 4 * C]`, class by class.
    pub box_regression: Tensor<B, 2>,
}

impl<B: Backend> FastRcnnPredictor<B> {
    pub(crate) fn new(in_features: usize, num_classes: usize, device: &B::Device) -> Self {
        Self {
            cls_score: LinearConfig::new(in_features, num_classes).init(device),
            bbox_pred: LinearConfig::new(in_features, num_classes * 4).init(device),
        }
    }

    /// # Shapes
    /// - features: `[K, in_features]`
    pub fn forward(&self, features: Tensor<B, 2>) -> BoxPredictions<B> {
        BoxPredictions {
            class_logits: self.cls_score.forward(features.clone()),
            box_regression: self.bbox_pred.forward(features),
        }
    }
}
