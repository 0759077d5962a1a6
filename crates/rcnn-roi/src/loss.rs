//! Losses of the box branch: which class, and where exactly.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rcnn_ops::{BoxCoder, Losses, cross_entropy, focal_loss, smooth_l1_sum};
use rcnn_types::Instances;

use crate::{BoxBranch, BoxPredictions, FocalLoss, RoiSamples};

impl<B: Backend> BoxBranch<'_, B> {
    /// Names of the losses: class of each proposal, and box deltas of the objects, a constant zero
    /// where boxes are not refined.
    pub const LOSSES: [&'static str; 2] = ["loss_classifier", "loss_box_reg"];

    /// Losses of the predictions for sampled proposals (torchvision's `fastrcnn_loss`).
    pub fn loss(
        &self,
        predictions: BoxPredictions<B>,
        samples: &RoiSamples,
        targets: &[Instances],
    ) -> Losses<B> {
        let BoxPredictions {
            class_logits,
            box_regression,
        } = predictions;
        let device = class_logits.device();
        let labels: Vec<i32> = samples.labels.iter().flatten().map(|&l| l as i32).collect();
        let labels = Tensor::from_ints(labels.as_slice(), &device);
        let classifier = self.classifier_loss(class_logits, labels);
        let box_reg = match box_regression {
            Some(deltas) => self.box_loss(deltas, samples, targets),
            None => Tensor::zeros([1], &device),
        };
        let [of_class, of_boxes] = self.config.loss_weights;
        Losses::new(Self::LOSSES, [classifier * of_class, box_reg * of_boxes])
    }

    /// Loss of box deltas `[K, 4 * C]`: smooth L1 of those of each object's class.
    fn box_loss(
        &self,
        deltas: Tensor<B, 2>,
        samples: &RoiSamples,
        targets: &[Instances],
    ) -> Tensor<B, 1> {
        let ([total, width], device) = (deltas.dims(), deltas.device());
        let num_classes = width / 4;
        // The deltas of the right class are a row of [total * classes, 4].
        let mut rows = Vec::new();
        let (mut sources, mut objects) = (Vec::new(), Vec::new());
        for sample in samples.positives() {
            rows.push((sample.row * num_classes + sample.label) as i32);
            sources.extend(sample.proposal);
            objects.extend(targets[sample.image].boxes[sample.object]);
        }
        let positives = rows.len();
        if positives == 0 {
            // Zero, but with a gradient of zero, as torch has it.
            return deltas.sum() * 0.0;
        }
        let boxes = |b| Tensor::<B, 2>::from_data(TensorData::new(b, [positives, 4]), &device);
        let coder = BoxCoder {
            weights: self.config.bbox_reg_weights,
        };
        let targets = coder.encode(boxes(objects), boxes(sources));
        let deltas = deltas.reshape([total * num_classes, 4]);
        let deltas = deltas.select(0, Tensor::from_ints(rows.as_slice(), &device));
        smooth_l1_sum(deltas, targets, self.config.smooth_l1_beta) / total as f64
    }

    /// Loss of class logits `[K, C]` against labels `[K]`.
    fn classifier_loss(&self, logits: Tensor<B, 2>, labels: Tensor<B, 1, Int>) -> Tensor<B, 1> {
        let weights = self.config.class_weights.as_deref();
        let weights = weights.map(|weights| Tensor::from_floats(weights, &logits.device()));
        match self.config.focal_loss {
            Some(FocalLoss { alpha, gamma }) => focal_loss(logits, labels, weights, alpha, gamma),
            None => cross_entropy(logits, labels, weights),
        }
    }
}
