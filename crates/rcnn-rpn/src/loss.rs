//! Losses of the first stage: objectness and box deltas.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rand::Rng;
use rcnn_ops::{
    BBox, BalancedSampler, BoxRules, Losses, Match, Matcher, Subsample,
    binary_cross_entropy_with_logits, box_iou, clip_box, smooth_l1_sum,
};
use rcnn_types::Size;

use crate::{RegionProposalNetwork, RpnOutput};

/// Anchors that are sampled for the loss, of all images of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RpnSamples {
    /// Anchors of objects, as positions among the anchors of all images, image after image.
    pub positive: Vec<usize>,
    /// Anchors of the background.
    pub negative: Vec<usize>,
    /// Boxes of the positive anchors, xyxy in pixels of the resized image.
    pub anchors: Vec<BBox>,
    /// Box of the object that each positive anchor was matched to.
    pub objects: Vec<BBox>,
}

impl<B: Backend> RegionProposalNetwork<B> {
    /// Names of the [losses](Self::loss): object or background, of each sampled anchor, and box
    /// deltas of the objects.
    pub const LOSSES: [&str; 2] = ["loss_objectness", "loss_rpn_box_reg"];

    /// Matches the anchors with the objects of each image and samples them (torchvision's
    /// `assign_targets_to_anchors` and its sampler).
    ///
    /// # Shapes
    /// - anchors: of every level, `[height * width * A, 4]`
    /// - objects: boxes of every image, xyxy in pixels of the resized image; none is ordinary
    /// - image_sizes: of every image in the batch, by which TensorFlow's rules leave anchors out
    pub fn select_training_samples<R: Rng>(
        &self,
        anchors: &[Tensor<B, 2>],
        objects: &[&[BBox]],
        image_sizes: &[Size],
        subsample: &mut Subsample<'_, R>,
    ) -> RpnSamples {
        let anchors = Tensor::cat(anchors.to_vec(), 0)
            .into_data()
            .convert::<f32>();
        let anchors: Vec<f32> = anchors.into_vec().expect("converted to f32");
        let (anchors, _) = anchors.as_chunks::<4>();

        let is_torchvision = self.config.box_rules == BoxRules::Torchvision;
        let matcher = Matcher {
            high_threshold: self.config.fg_iou_thresh,
            low_threshold: self.config.bg_iou_thresh,
            allow_low_quality_matches: is_torchvision,
        };
        let sampler = BalancedSampler {
            batch_size_per_image: self.config.batch_size_per_image,
            positive_fraction: self.config.positive_fraction,
        };
        let mut samples = RpnSamples::default();
        for (image, (objects, size)) in objects.iter().zip(image_sizes).enumerate() {
            let mut matches = matcher.matches(objects, anchors);
            if !is_torchvision {
                match_as_tensorflow(&mut matches, objects, anchors, *size);
            }
            let sample = sampler.sample(&matches, subsample);
            let base = image * anchors.len();
            for &i in &sample.positive {
                if let Match::Object(object) = matches[i] {
                    samples.positive.push(base + i);
                    samples.anchors.push(anchors[i]);
                    samples.objects.push(objects[object]);
                }
            }
            let negative = sample.negative.iter().map(|i| base + i);
            samples.negative.extend(negative);
        }
        samples
    }

    /// Losses of the head's output for sampled anchors (torchvision's `compute_loss`).
    pub fn loss(&self, output: &RpnOutput<B>, samples: &RpnSamples) -> Losses<B> {
        let (objectness, deltas): (Vec<_>, Vec<_>) = output.levels().unzip();
        let (objectness, deltas) = (Tensor::cat(objectness, 1), Tensor::cat(deltas, 1));
        let total = deltas.dims()[0] * deltas.dims()[1];
        let (objectness, deltas) = (objectness.reshape([total]), deltas.reshape([total, 4]));

        let device = objectness.device();
        let positives = samples.positive.len();
        let sampled = positives + samples.negative.len();
        let mut labels = vec![1.0f32; positives];
        labels.resize(sampled, 0.0);
        let index = |at: &mut dyn Iterator<Item = &usize>| {
            let at: Vec<i32> = at.map(|&at| at as i32).collect();
            Tensor::<B, 1, Int>::from_ints(at.as_slice(), &device)
        };
        let all = index(&mut samples.positive.iter().chain(&samples.negative));
        let labels = Tensor::<B, 1>::from_floats(labels.as_slice(), &device);
        let objectness = binary_cross_entropy_with_logits(objectness.select(0, all), labels);
        let box_reg = if positives == 0 {
            // Zero, but with a gradient of zero, as torch has it.
            deltas.sum() * 0.0
        } else {
            let boxes = |boxes: &[BBox]| {
                let boxes = TensorData::new(boxes.concat(), [positives, 4]);
                Tensor::<B, 2>::from_data(boxes, &device)
            };
            let targets = self
                .config
                .box_coder()
                .encode(boxes(&samples.objects), boxes(&samples.anchors));
            let deltas = deltas.select(0, index(&mut samples.positive.iter()));
            smooth_l1_sum(deltas, targets, self.config.smooth_l1_beta) / sampled as f64
        };
        let [of_objectness, of_boxes] = self.config.loss_weights;
        Losses::new(
            Self::LOSSES,
            [objectness * of_objectness, box_reg * of_boxes],
        )
    }
}

/// TensorFlow's differences: anchors that cross the border of the image are ignored, and of the others every object has
/// the first of those that overlap it most, which goes to the first object where it is the best of several.
fn match_as_tensorflow(matches: &mut [Match], objects: &[BBox], anchors: &[BBox], size: Size) {
    let mut inside = Vec::with_capacity(anchors.len());
    for (i, anchor) in anchors.iter().enumerate() {
        match clip_box(anchor, size) == *anchor {
            true => inside.push(i),
            false => matches[i] = Match::Ignored,
        }
    }
    for (i, object) in objects.iter().enumerate().rev() {
        let overlaps = inside
            .iter()
            .map(|&anchor| (box_iou(object, &anchors[anchor]), anchor));
        let best = overlaps.reduce(|best, other| if other.0 > best.0 { other } else { best });
        if let Some((_, best)) = best {
            matches[best] = Match::Object(i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `ArgMaxMatcher` with `force_match_for_each_row` and `prune_outside_window` make of them.
    #[test]
    fn tensorflow_gives_an_object_one_of_its_best_anchors() {
        use Match::{Background, Ignored, Object};
        let anchors = [
            [-4.0, 0.0, 12.0, 16.0],
            [0.0, 0.0, 16.0, 16.0],
            [4.0, 0.0, 20.0, 16.0],
            [32.0, 0.0, 48.0, 16.0],
            [34.0, 0.0, 50.0, 16.0],
        ];
        // Inside two anchors, as far as they count; best with an anchor that another object overlaps more; of none.
        let objects = [
            [6.0, 4.0, 10.0, 8.0],
            [32.0, 0.0, 40.0, 16.0],
            [33.0, 0.0, 48.0, 16.0],
            [60.0, 20.0, 64.0, 24.0],
        ];
        let matcher = Matcher {
            high_threshold: 0.7,
            low_threshold: 0.3,
            allow_low_quality_matches: false,
        };
        let found = |objects: &[BBox]| {
            let mut matches = matcher.matches(objects, &anchors);
            match_as_tensorflow(&mut matches, objects, &anchors, Size::new(64, 64));
            matches
        };
        assert_eq!(
            found(&objects[..3]),
            [Ignored, Object(0), Background, Object(1), Object(2)]
        );
        assert_eq!(
            found(&objects[3..]),
            [Ignored, Object(0), Background, Background, Background]
        );
        assert_eq!(
            found(&[]),
            [Ignored, Background, Background, Background, Background]
        );
    }
}
