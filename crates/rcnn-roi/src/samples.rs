//! Proposals sampled for the losses of the second stage, and the object of each.

use burn::tensor::backend::Backend;
use rand::Rng;
use rcnn_ops::{BBox, BalancedSampler, Match, Matcher, Subsample};
use rcnn_types::Instances;

use crate::RoiHeads;

/// Proposals sampled for the losses, image by image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoiSamples {
    /// Boxes of every image, xyxy in pixels of the resized image.
    pub proposals: Vec<Vec<BBox>>,
    /// Class of each, 0 for the background.
    pub labels: Vec<Vec<usize>>,
    /// Index, among the image's targets, of the object that each was matched to; 0 where the label
    /// is 0.
    pub matched: Vec<Vec<usize>>,
}

impl RoiSamples {
    /// Proposals of every image, to be pooled.
    pub fn boxes(&self) -> Vec<&[BBox]> {
        self.proposals.iter().map(Vec::as_slice).collect()
    }

    /// The samples that were matched to an object.
    pub fn positives(&self) -> impl Iterator<Item = Positive> {
        let images = self.proposals.iter().zip(&self.labels).zip(&self.matched);
        let samples = images
            .enumerate()
            .flat_map(|(image, ((boxes, labels), matched))| {
                let samples = boxes.iter().zip(labels).zip(matched);
                samples.map(move |((&proposal, &label), &object)| (image, proposal, label, object))
            });
        let samples = samples
            .enumerate()
            .filter(|(_, (_, _, label, _))| *label > 0);
        samples.map(|(row, (image, proposal, label, object))| Positive {
            row,
            image,
            proposal,
            label,
            object,
        })
    }
}

/// A sampled proposal that was matched to an object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Positive {
    /// Position among the samples of all images.
    pub row: usize,
    /// Position of its image in the batch.
    pub image: usize,
    /// Its box, xyxy in pixels of the resized image.
    pub proposal: BBox,
    /// Class of its object.
    pub label: usize,
    /// Index of its object among the image's targets.
    pub object: usize,
}

impl<B: Backend> RoiHeads<B> {
    /// Adds the true boxes to the proposals, unless the configuration says otherwise, matches and samples them
    /// (torchvision's `select_training_samples`).
    pub fn select_training_samples<R: Rng>(
        &self,
        proposals: &[&[BBox]],
        targets: &[Instances],
        subsample: &mut Subsample<'_, R>,
    ) -> RoiSamples {
        let matcher = Matcher {
            high_threshold: self.config.fg_iou_thresh,
            low_threshold: self.config.bg_iou_thresh,
            allow_low_quality_matches: false,
        };
        let sampler = BalancedSampler {
            batch_size_per_image: self.config.batch_size_per_image,
            positive_fraction: self.config.positive_fraction,
        };
        let mut samples = RoiSamples::default();
        for (proposals, target) in proposals.iter().zip(targets) {
            let added: &[BBox] = if self.config.add_true_boxes {
                &target.boxes
            } else {
                &[]
            };
            let proposals = [*proposals, added].concat();
            let matches = matcher.matches(&target.boxes, &proposals);
            let sample = sampler.sample(&matches, subsample);
            let mut sampled = [sample.positive, sample.negative].concat();
            sampled.sort_unstable();
            let object = |&i: &usize| match matches[i] {
                Match::Object(object) => (target.labels[object], object),
                _ => (0, 0),
            };
            let (labels, matched) = sampled.iter().map(object).unzip();
            let boxes = sampled.iter().map(|&i| proposals[i]);
            samples.proposals.push(boxes.collect());
            samples.labels.push(labels);
            samples.matched.push(matched);
        }
        samples
    }
}
