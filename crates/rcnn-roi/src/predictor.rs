//! The predictor: class logits and box deltas of every proposal.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::Forward;

/// Two linear layers side by side
/// (`torchvision.models.detection.faster_rcnn.FastRCNNPredictor`).
#[derive(Module, Debug)]
pub struct FastRcnnPredictor<B: Backend> {
    /// Logits of every class, background first.
    pub cls_score: Linear<B>,
    /// Box deltas of every class; `None` where boxes are not refined.
    pub bbox_pred: Option<Linear<B>>,
}

/// Raw output of the predictor for each proposal.
#[derive(Debug, Clone)]
pub struct BoxPredictions<B: Backend> {
    /// Class logits `[K, C]`.
    pub class_logits: Tensor<B, 2>,
    /// Box deltas `[K, 4 * C]`, class by class; `None` where proposals are the boxes.
    pub box_regression: Option<Tensor<B, 2>>,
}

impl<B: Backend> FastRcnnPredictor<B> {
    pub(crate) fn new(
        in_features: usize,
        num_classes: usize,
        box_regression: bool,
        device: &B::Device,
    ) -> Self {
        let linear = |width| LinearConfig::new(in_features, width).init(device);
        Self {
            cls_score: linear(num_classes),
            bbox_pred: box_regression.then(|| linear(num_classes * 4)),
        }
    }

    /// Predicts class logits and box deltas from the head's features.
    ///
    /// # Shapes
    /// - features: `[K, in_features]`
    pub fn forward(&self, features: Tensor<B, 2>, cx: &mut Forward<'_, B>) -> BoxPredictions<B> {
        let class_logits = self.cls_score.forward(features.clone());
        cx.layer("cls_score", &class_logits);
        let box_regression = self.bbox_pred.as_ref().map(|linear| {
            let deltas = linear.forward(features);
            cx.layer("bbox_pred", &deltas);
            deltas
        });
        BoxPredictions {
            class_logits,
            box_regression,
        }
    }
}
