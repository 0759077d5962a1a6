//! Training: torchvision's losses of a batch, and the same without training.

use burn::tensor::{Tensor, backend::Backend};
use rand::Rng;
use rcnn_backbone::{Backbone, FeatureMaps, Forward, Phase};
use rcnn_ops::{BBox, DetectionBackend, Losses, Subsample};
use rcnn_roi::RoiSamples;
use rcnn_rpn::{Proposals, RegionProposalNetwork, RpnOutput};
use rcnn_types::validate::{InvalidField, require};
use rcnn_types::{Instances, Size};

use crate::faster_rcnn::boxes;
use crate::{DetectError, FasterRcnn, ImageList};

/// A forward pass of training: its losses, and what they were computed from.
#[derive(Debug, Clone)]
pub struct TrainingPass<B: Backend> {
    /// The losses.
    pub losses: Losses<B>,
    /// The batch as the backbone saw it.
    pub images: ImageList<B>,
    /// Feature maps of the batch.
    pub features: FeatureMaps<B>,
    /// Objectness and box deltas of every anchor.
    pub rpn: RpnOutput<B>,
    /// Proposals that were sampled for the losses of the second stage.
    pub samples: RoiSamples,
    /// Class logits of the samples, `[K, C]`.
    pub class_logits: Tensor<B, 2>,
}

impl<B: DetectionBackend, N: Backbone<B>> FasterRcnn<B, N> {
    /// Losses of a batch in training: trainable batch norms take the batch's statistics, and
    /// proposals are as many as in training. Gradients flow on an autodiff backend.
    ///
    /// Of several `min_size`, each image is resized to one that `subsample` chooses;
    /// [`losses_at`](Self::losses_at) takes them from the caller.
    ///
    /// # Shapes
    /// - images: each `[3, H, W]`, RGB from 0 to 1
    /// - targets: one an image, in its pixels; without boxes it is background, and crowds do not count
    ///
    /// ```
    /// # mod rcnn_burn { pub use rand; pub use burn; pub use burn::tensor::Tensor; pub use rcnn_detector::*; pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; pub use rcnn_types::*; }
    /// use rcnn_burn::burn::backend::Autodiff;
    /// use rcnn_burn::ops::Subsample;
    /// use rcnn_burn::rand::{SeedableRng, rngs::StdRng};
    /// use rcnn_burn::{FasterRcnnConfig, Flex, Instances, Tensor};
    ///
    /// let device = Default::default();
    /// let mut config = FasterRcnnConfig::named("resnet18_fpn", 2)?;
    /// config.transform.min_size = vec![64];
    /// # let config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
    /// let model = config.init::<Autodiff<Flex>>(&device)?;
    /// let image = Tensor::zeros([3, 64, 64], &device);
    /// let target = Instances::new(vec![[8.0, 8.0, 40.0, 40.0]], vec![1]);
    /// let mut rng = StdRng::seed_from_u64(0);
    /// let losses = model.losses(&[image], &[target], &mut Subsample::Random(&mut rng))?;
    /// let gradients = losses.total().backward();
    /// # let _ = gradients;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`detect`](Self::detect), and when there are no images, fewer or more targets, an empty box,
    /// or a label that is not one of the model's classes.
    pub fn losses<R: Rng>(
        &self,
        images: &[Tensor<B, 3>],
        targets: &[Instances],
        subsample: &mut Subsample<'_, R>,
    ) -> Result<Losses<B>, DetectError> {
        self.losses_at(images, targets, &vec![None; images.len()], subsample)
    }

    /// [`losses`](Self::losses) with each image at a `min_size` of its own, as a data loader that
    /// must repeat its choice draws them: see
    /// [`forward_training`](crate::GeneralizedRcnnTransform::forward_training).
    ///
    /// # Errors
    /// As [`losses`](Self::losses), and when images and sizes differ in number.
    pub fn losses_at<R: Rng>(
        &self,
        images: &[Tensor<B, 3>],
        targets: &[Instances],
        min_sizes: &[Option<usize>],
        subsample: &mut Subsample<'_, R>,
    ) -> Result<Losses<B>, DetectError> {
        let pass = self.training_pass(images, targets, min_sizes, subsample)?;
        Ok(pass.losses)
    }

    /// [`losses_at`](Self::losses_at) with what they were computed from, for losses of your own.
    ///
    /// # Errors
    /// As [`losses_at`](Self::losses_at).
    pub fn training_pass<R: Rng>(
        &self,
        images: &[Tensor<B, 3>],
        targets: &[Instances],
        min_sizes: &[Option<usize>],
        subsample: &mut Subsample<'_, R>,
    ) -> Result<TrainingPass<B>, DetectError> {
        self.validate_config()?;
        let images = self
            .transform
            .forward_training(images, min_sizes, subsample)?;
        let (pass, _) = self.compare(images, targets, subsample, Phase::Training)?;
        Ok(pass)
    }

    /// Losses of a batch without training, and its detections, from one pass over backbone and
    /// first stage: running statistics, the proposals of inference, no gradient wanted.
    ///
    /// ```
    /// # mod rcnn_burn { pub use rand; pub use burn::tensor::Tensor; pub use rcnn_detector::*; pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; pub use rcnn_types::*; }
    /// use rcnn_burn::ops::Subsample;
    /// use rcnn_burn::rand::{SeedableRng, rngs::StdRng};
    /// use rcnn_burn::{FasterRcnnConfig, Flex, Instances, Tensor};
    ///
    /// let device = Default::default();
    /// let config = FasterRcnnConfig::named("resnet18_fpn", 4)?;
    /// # let mut config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
    /// # config.transform.min_size = vec![64];
    /// let model = config.init::<Flex>(&device)?;
    /// let image = Tensor::zeros([3, 64, 64], &device);
    /// let target = Instances::new(vec![[8.0, 8.0, 40.0, 40.0]], vec![1]);
    /// let mut rng = StdRng::seed_from_u64(0);
    /// let (losses, found) = model.validate(&[image], &[target], &mut Subsample::Random(&mut rng))?;
    /// println!("{:?}, {} objects", losses.values(), found[0].len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`losses`](Self::losses).
    pub fn validate<R: Rng>(
        &self,
        images: &[Tensor<B, 3>],
        targets: &[Instances],
        subsample: &mut Subsample<'_, R>,
    ) -> Result<(Losses<B>, Vec<Instances>), DetectError> {
        self.validate_config()?;
        let images = self.transform.forward(images)?;
        let (pass, proposals) = self.compare(images, targets, subsample, Phase::Inference)?;
        let found = self.roi_heads.forward(
            &pass.features,
            &boxes(&proposals),
            &pass.images.image_sizes,
            &mut Forward::inference(),
        );
        Ok((pass.losses, pass.images.restore(found)))
    }

    /// Names of the [losses](Self::losses), in their order.
    pub fn loss_names(&self) -> Vec<&'static str> {
        let mut names = self.roi_heads.loss_names();
        names.extend(RegionProposalNetwork::<B>::LOSSES);
        names
    }

    /// Compares the predictions for a batch with its targets. Returns the proposals too, those of which were
    /// sampled and the others.
    fn compare<R: Rng>(
        &self,
        images: ImageList<B>,
        targets: &[Instances],
        subsample: &mut Subsample<'_, R>,
        phase: Phase,
    ) -> Result<(TrainingPass<B>, Vec<Proposals>), DetectError> {
        self.validate_targets(targets, &images.original_sizes)?;
        let targets = resize_targets(targets, &images);
        let objects: Vec<&[BBox]> = targets.iter().map(|t| t.boxes.as_slice()).collect();
        let cx = &mut Forward::new(phase);
        let features = self.feature_maps(images.tensors.clone(), cx)?;
        let output = self.rpn.head.forward(&features, cx);
        let anchors = self.rpn.anchors(&features, images.padded_size());
        let proposals = self
            .rpn
            .select_proposals(&output, &anchors, &images.image_sizes, phase);
        let samples =
            self.rpn
                .select_training_samples(&anchors, &objects, &images.image_sizes, subsample);
        let rpn = self.rpn.loss(&output, &samples);

        let samples =
            self.roi_heads
                .select_training_samples(&boxes(&proposals), &targets, subsample);
        let sizes = &images.image_sizes;
        let (mut losses, class_logits) = self
            .roi_heads
            .losses(&features, &samples, &targets, sizes, cx);
        losses.extend(rpn);
        let pass = TrainingPass {
            losses,
            images,
            features,
            rpn: output,
            samples,
            class_logits,
        };
        Ok((pass, proposals))
    }

    /// Checks that each image has a target, whose boxes, as in torchvision, have a positive width and
    /// height, whose masks have the image's size, and whose objects have the model's keypoints or none.
    fn validate_targets(&self, targets: &[Instances], sizes: &[Size]) -> Result<(), DetectError> {
        if targets.len() != sizes.len() {
            return Err(DetectError::Count {
                what: "targets",
                found: targets.len(),
                images: sizes.len(),
            });
        }
        let num_keypoints = self.roi_heads.keypoint_branch();
        let num_keypoints = num_keypoints.map(|branch| branch.config.num_keypoints);
        let validate = |target: &Instances, size: Size| {
            target.validate(self.num_classes())?;
            for (i, b @ [x1, y1, x2, y2]) in target.boxes.iter().enumerate() {
                let expected = "left, top, right and bottom of a box that is not empty";
                require(x1 < x2 && y1 < y2, &format!("boxes[{i}]"), b, expected)?;
            }
            for (i, mask) in target.masks.iter().flatten().enumerate() {
                let found = mask.size();
                let expected = format_args!("{size:?}, the image's");
                require(
                    found == size,
                    &format!("size of masks[{i}]"),
                    found,
                    expected,
                )?;
            }
            let Some(count) = num_keypoints else {
                return Ok(());
            };
            for (i, keypoints) in target.keypoints.iter().flatten().enumerate() {
                let found = keypoints.0.len();
                let field = format!("number of keypoints[{i}]");
                let expected = format_args!("{count}, which the model has, or 0");
                require(found == count || found == 0, &field, found, expected)?;
            }
            Ok(())
        };
        let mut targets = targets.iter().zip(sizes).enumerate();
        targets.try_for_each(|(index, (target, size))| {
            let valid = validate(target, *size);
            valid.map_err(|fault: InvalidField| DetectError::Target { index, fault })
        })
    }
}

/// Targets in the pixels of the resized images, without crowds.
fn resize_targets<B: Backend>(targets: &[Instances], images: &ImageList<B>) -> Vec<Instances> {
    let sizes = images.image_sizes.iter().zip(&images.original_sizes);
    let resize = |(target, (&resized, &original)): (&Instances, _)| {
        let mut target = target.without_crowds();
        target.resize(original, resized);
        target
    };
    targets.iter().zip(sizes).map(resize).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::backend::Autodiff;
    use burn::tensor::Distribution;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use rcnn_backbone::{ResNetArch, ResNetFpnConfig};
    use rcnn_ops::backend_types::Flex;
    use rcnn_roi::{BoxHeadConfig, KeypointConfig, MaskConfig};
    use rcnn_types::{Keypoints, Mask};

    use super::*;
    use crate::{FasterRcnnConfig, GeneralizedRcnnTransform, StandardFasterRcnn};

    type Model = StandardFasterRcnn<Flex>;
    type Sampling<'a> = Subsample<'a, StdRng>;

    /// A small model of random weights that trains on `min_sizes`.
    fn model(min_sizes: &[usize]) -> Model {
        let backbone = ResNetFpnConfig {
            arch: ResNetArch::ResNet18,
            returned_layers: vec![1],
            out_channels: 8,
            ..Default::default()
        };
        let mut config = FasterRcnnConfig::new(backbone, 3);
        config.rpn.anchor_generator.sizes = vec![vec![32.0], vec![64.0]];
        config.rpn.anchor_generator.aspect_ratios = vec![vec![1.0]; 2];
        config.roi_heads.box_head = BoxHeadConfig::TwoMlp {
            representation_size: 16,
        };
        config.transform.min_size = min_sizes.to_vec();
        config.init(&Default::default()).expect("a model")
    }

    /// Two images of height 48 and width 60, and the other way round.
    fn images() -> [Tensor<Flex, 3>; 2] {
        let random = Distribution::Uniform(0.0, 1.0);
        [[3, 48, 60], [3, 60, 48]].map(|shape| Tensor::random(shape, random, &Default::default()))
    }

    fn targets() -> [Instances; 2] {
        let boxes = vec![[4.0, 6.0, 30.0, 40.0], [20.0, 3.0, 45.0, 22.0]];
        let labels = vec![1, 2];
        [Instances::new(boxes, labels), Instances::default()]
    }

    #[test]
    fn crowds_are_not_trained_on() {
        let model = model(&[64]);
        let (images, plain) = (images(), targets());
        let mut crowded = plain.clone();
        crowded[0].append(Instances {
            crowd: Some(vec![true]),
            ..Instances::new(vec![[30.0, 10.0, 58.0, 40.0]], vec![2])
        });
        let [with, without] = [crowded, plain].map(|targets| {
            let losses = model.losses(&images, &targets, &mut Sampling::First);
            losses.expect("images").values()
        });
        assert_eq!(with, without);
    }

    #[test]
    fn dropout_is_for_training_alone() {
        let device = Default::default();
        for head in ["fc:16,fc:16", "fc:32"] {
            let mut config = model(&[64]).config();
            config.roi_heads.box_head = head.parse().expect("a box head");
            let mut model = config.init::<Autodiff<Flex>>(&device).expect("a model");
            let logits = |model: &StandardFasterRcnn<Autodiff<Flex>>, phase| {
                let pooled = Tensor::ones([3, 8, 7, 7], &device);
                let branch = model.roi_heads.box_branch();
                let found = branch.predict(pooled, &mut Forward::new(phase));
                found.class_logits.into_data()
            };
            let whole = logits(&model, Phase::Training);
            model.roi_heads.config.box_dropout = 0.5;
            assert_eq!(logits(&model, Phase::Inference), whole, "{head}");
            assert_ne!(logits(&model, Phase::Training), whole, "{head}");
        }
    }

    #[test]
    fn images_train_at_their_own_min_size() {
        let mut model = model(&[64, 96]);
        let (images, targets) = (images(), targets());
        let at = |model: &Model, sizes| {
            let losses = model.losses_at(&images, &targets, sizes, &mut Sampling::First);
            losses.expect("images").values()
        };
        let small = at(&model, &[Some(64), Some(64)]);
        let large = at(&model, &[Some(96), Some(96)]);
        let mixed = at(&model, &[Some(96), None]);
        assert!(small != large && large != mixed);
        let alone = |model: &Model| {
            let losses = model.losses(&images, &targets, &mut Sampling::First);
            losses.expect("images").values()
        };
        assert_eq!(alone(&model), small, "the first of several");
        model.transform.min_size = vec![64];
        assert_eq!(alone(&model), small);
        model.transform.min_size = vec![96];
        assert_eq!(alone(&model), large);
    }

    #[test]
    fn losses_have_torchvisions_names_in_its_order() {
        let model = model(&[64]);
        let losses = model.losses(&images(), &targets(), &mut Sampling::First);
        let losses = losses.expect("images");
        let names: Vec<_> = losses.iter().map(|(name, _)| name).collect();
        assert_eq!(names, model.loss_names());
        let expected = [
            "loss_classifier",
            "loss_box_reg",
            "loss_objectness",
            "loss_rpn_box_reg",
        ];
        assert_eq!(names, expected);
    }

    /// A model with both branches, and the values of its losses for the first target.
    fn branches(target: Instances) -> Result<BTreeMap<&'static str, f64>, DetectError> {
        let plain = model(&[64]);
        let mask = MaskConfig {
            layers: vec![4],
            dim_reduced: 4,
            ..Default::default()
        };
        let keypoint = KeypointConfig {
            layers: vec![4],
            num_keypoints: 2,
            ..Default::default()
        };
        let mut config = plain.config().with_mask(mask).with_keypoint(keypoint);
        config.transform.min_size = vec![64];
        type B = Autodiff<Flex>;
        let model = config.init::<B>(&Default::default()).expect("a model");
        let images = images().map(Tensor::<B, 3>::from_inner);
        let targets = [target, Instances::default()];
        let losses = model.losses(&images, &targets, &mut Sampling::First)?;
        let names: Vec<_> = losses.iter().map(|(name, _)| name).collect();
        assert_eq!(names, model.loss_names());
        assert_eq!(names[2..4], ["loss_mask", "loss_keypoint"]);
        let gradients = losses.total().backward();
        let heads = &model.roi_heads;
        let mask = heads.mask_predictor.as_ref().expect("a mask branch");
        let keypoint = heads
            .keypoint_predictor
            .as_ref()
            .expect("a keypoint branch");
        for weight in [&mask.conv5_mask.weight, &keypoint.kps_score_lowres.weight] {
            // As torch has it: zeros where there is nothing to learn, and not no gradient.
            assert!(weight.grad(&gradients).is_some());
        }
        Ok(losses.values().into_iter().collect())
    }

    #[test]
    fn objects_without_masks_or_visible_keypoints_leave_the_branches_as_they_are() {
        let [target, none] = targets();
        let of = |target: Instances| {
            let values = branches(target).expect("targets");
            (values["loss_mask"], values["loss_keypoint"])
        };
        assert_eq!(of(none), (0.0, 0.0));
        assert_eq!(of(target.clone()), (0.0, 0.0));
        let size = Size::new(48, 60);
        let mut labelled = target.clone();
        labelled.masks = Some(vec![Mask::empty(size); 2]);
        labelled.keypoints = Some(vec![
            Keypoints(vec![[8.0, 9.0, 0.0]; 2]),
            Keypoints::default(),
        ]);
        assert_eq!(of(labelled.clone()), (0.0, 0.0));
        let square = Mask::from_polygons(&[vec![5.0, 8.0, 25.0, 8.0, 25.0, 30.0, 5.0, 30.0]], size);
        labelled.masks = Some(vec![square, Mask::empty(size)]);
        labelled.keypoints = Some(vec![
            Keypoints(vec![[8.0, 9.0, 2.0]; 2]),
            Keypoints::default(),
        ]);
        let (mask, keypoint) = of(labelled.clone());
        assert!(mask > 0.0 && keypoint > 0.0, "{mask}, {keypoint}");

        let refused = |target: Instances| branches(target).unwrap_err().to_string();
        let mut other = labelled.clone();
        other.masks = Some(vec![Mask::empty(Size::new(60, 48)); 2]);
        assert!(refused(other).contains("image 0: size of masks[0]"));
        labelled.keypoints = Some(vec![Keypoints(vec![[8.0, 9.0, 2.0]; 3]); 2]);
        assert!(refused(labelled).contains("number of keypoints[0] = 3: expected 2"));
    }

    #[test]
    fn each_image_has_its_size() {
        let mut transform = model(&[64, 96]).transform;
        let images = images();
        let sizes =
            |transform: &GeneralizedRcnnTransform, min_sizes: &[_], subsample: &mut Sampling| {
                let batch = transform.forward_training(&images, min_sizes, subsample);
                batch.expect("images").image_sizes
            };
        let own = sizes(&transform, &[Some(64), Some(96)], &mut Sampling::First);
        assert_eq!(own, [(64, 80), (120, 96)].map(Size::from));

        let mut rng = StdRng::seed_from_u64(1);
        let mut drawn: Vec<Size> = (0..20)
            .flat_map(|_| sizes(&transform, &[None; 2], &mut Subsample::Random(&mut rng)))
            .collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(
            drawn,
            [(64, 80), (80, 64), (96, 120), (120, 96)].map(Size::from)
        );
        let inference = transform.resized(Size::new(48, 60));
        assert_eq!(inference, Size::new(96, 120));

        transform.skip_resize = true;
        let kept = sizes(&transform, &[Some(64), None], &mut Sampling::First);
        assert_eq!(kept, [(48, 60), (60, 48)].map(Size::from));
        let inferred = transform.forward(&images).expect("images").image_sizes;
        assert_eq!(inferred, [(96, 120), (120, 96)].map(Size::from));
    }
}
