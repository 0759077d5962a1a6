//! The detector, and its stages one by one.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_backbone::{AnyBackbone, Backbone, FeatureMaps, Forward, Phase};
use rcnn_ops::{BBox, DetectionBackend, ForwardHook};
use rcnn_roi::{ClassScores, RoiHeads};
use rcnn_rpn::{Proposals, RegionProposalNetwork};
use rcnn_types::Instances;
use rcnn_types::validate::require;

use crate::{ConfigError, DetectError, FasterRcnnConfig, GeneralizedRcnnTransform, ImageList};

/// Faster R-CNN (Ren et al. 2015, <https://arxiv.org/abs/1506.01497>) over any [`Backbone`], as
/// `torchvision.models.detection.FasterRCNN`. Made by [`FasterRcnnConfig`].
///
/// ```
/// # mod rcnn_burn { pub use burn; pub use burn::tensor::Tensor; pub use rcnn_detector::*; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::burn::tensor::Distribution;
/// use rcnn_burn::{FasterRcnnConfig, Flex, Tensor};
///
/// let device = Default::default();
/// let mut config = FasterRcnnConfig::named("resnet18_fpn", 4)?;
/// config.transform.min_size = vec![64];
/// # let config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
/// let model = config.init::<Flex>(&device)?;
/// let image = Tensor::random([3, 48, 64], Distribution::Uniform(0.0, 1.0), &device);
/// for found in model.detect(&[image])?[0].iter() {
///     println!("class {} at {:?}: {}", found.label, found.bbox, found.score);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Module, Debug)]
pub struct FasterRcnn<B: Backend, N> {
    /// Makes feature maps.
    pub backbone: N,
    /// Makes proposals.
    pub rpn: RegionProposalNetwork<B>,
    /// Makes detections.
    pub roi_heads: RoiHeads<B>,
    /// Resizing and normalisation; may be changed at any time.
    #[module(skip)]
    pub transform: GeneralizedRcnnTransform,
    /// Name of each class, background first; empty when unknown.
    #[module(skip)]
    pub class_names: Vec<String>,
}

/// A detector over any of the bundled architectures.
pub type StandardFasterRcnn<B> = FasterRcnn<B, AnyBackbone<B>>;

impl<B: DetectionBackend, N: Backbone<B>> FasterRcnn<B, N> {
    /// Finds the objects in each image. The same images give the same detections, bit for bit.
    ///
    /// # Shapes
    /// - images: each `[3, H, W]`, RGB from 0 to 1, of any sizes
    /// - output: one [`Instances`] an image, boxes in its pixels
    ///
    /// # Errors
    /// When an image does not have three channels or has no pixels, the batch has more than
    /// [`MAX_BATCH_PIXELS`](crate::MAX_BATCH_PIXELS), the configuration was changed to an invalid one,
    /// or the backbone's feature maps contradict its levels.
    pub fn detect(&self, images: &[Tensor<B, 3>]) -> Result<Vec<Instances>, DetectError> {
        self.detect_in(images, &self.transform, &mut Forward::inference())
    }

    /// [`detect`](Self::detect) on images that are resized to `scale` times their usual size first.
    ///
    /// # Errors
    /// As [`detect`](Self::detect).
    pub fn detect_at_scale(
        &self,
        images: &[Tensor<B, 3>],
        scale: f32,
    ) -> Result<Vec<Instances>, DetectError> {
        let transform = self.transform.scaled(scale);
        self.detect_in(images, &transform, &mut Forward::inference())
    }

    /// [`detect`](Self::detect) with a hook that sees the output of each layer under torchvision's
    /// names, residual blocks as one.
    ///
    /// ```
    /// # mod rcnn_burn { pub use rand; pub use burn::tensor::Tensor; pub use rcnn_detector::*; pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; pub use rcnn_types::*; }
    /// use rcnn_burn::ops::LayerOutput;
    /// use rcnn_burn::{FasterRcnnConfig, Flex, Tensor};
    ///
    /// let device = Default::default();
    /// let config = FasterRcnnConfig::named("resnet18_fpn", 4)?;
    /// # let mut config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
    /// # config.transform.min_size = vec![64];
    /// let model = config.init::<Flex>(&device)?;
    /// let mut hook = |name: &str, output: LayerOutput<Flex>| println!("{name} {:?}", output.dims());
    /// model.detect_with_hook(&[Tensor::zeros([3, 64, 64], &device)], &mut hook)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`detect`](Self::detect).
    pub fn detect_with_hook(
        &self,
        images: &[Tensor<B, 3>],
        hook: &mut dyn ForwardHook<B>,
    ) -> Result<Vec<Instances>, DetectError> {
        let cx = &mut Forward::with_hook(Phase::Inference, hook);
        self.detect_in(images, &self.transform, cx)
    }

    fn detect_in(
        &self,
        images: &[Tensor<B, 3>],
        transform: &GeneralizedRcnnTransform,
        cx: &mut Forward<'_, B>,
    ) -> Result<Vec<Instances>, DetectError> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        self.validate_config()?;
        let images = transform.forward(images)?;
        cx.layer("transform", &images.tensors);
        let features = self.features_in(&images, cx)?;
        let sizes = &images.image_sizes;
        let proposals = self.rpn.forward(&features, images.padded_size(), sizes, cx);
        let detections = self
            .roi_heads
            .forward(&features, &boxes(&proposals), sizes, cx);
        Ok(images.restore(detections))
    }

    /// First stage by itself: the feature maps of a batch.
    ///
    /// ```
    /// # mod rcnn_burn { pub use rand; pub use burn::tensor::Tensor; pub use rcnn_detector::*; pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; pub use rcnn_types::*; }
    /// use rcnn_burn::{FasterRcnnConfig, Flex, Tensor};
    ///
    /// let device = Default::default();
    /// let config = FasterRcnnConfig::named("resnet18_fpn", 4)?;
    /// # let mut config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
    /// # config.transform.min_size = vec![64];
    /// let model = config.init::<Flex>(&device)?;
    /// let images = model.transform.forward(&[Tensor::zeros([3, 48, 64], &device)])?;
    /// let features = model.features(&images)?;
    /// for (name, map) in features.iter() {
    ///     println!("{name} {:?}", map.dims());
    /// }
    /// let proposals = model.proposals(&images, &features);
    /// let pooled = model.pooled_features(&images, &features, &proposals);
    /// let scores = model.class_scores(&images, pooled, &proposals);
    /// assert_eq!(scores[0].scores.len(), 4 * proposals[0].boxes.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the backbone's feature maps contradict its levels.
    pub fn features(&self, images: &ImageList<B>) -> Result<FeatureMaps<B>, DetectError> {
        self.features_in(images, &mut Forward::inference())
    }

    fn features_in(
        &self,
        images: &ImageList<B>,
        cx: &mut Forward<'_, B>,
    ) -> Result<FeatureMaps<B>, DetectError> {
        let tensors = images.tensors.clone().cast(self.dtype());
        self.feature_maps(tensors, cx)
    }

    /// Runs the backbone on images `[N, 3, H, W]` and checks its feature maps against its levels.
    pub(crate) fn feature_maps(
        &self,
        images: Tensor<B, 4>,
        cx: &mut Forward<'_, B>,
    ) -> Result<FeatureMaps<B>, DetectError> {
        let shape = images.dims();
        let cx = &mut cx.scope("backbone");
        let shown = cx.layers();
        let maps = self.backbone.forward(images, cx);
        if cx.layers() == shown {
            for (name, map) in maps.iter() {
                cx.layer(name, map);
            }
        }
        maps.validate(&self.backbone.levels(), shape)?;
        Ok(maps)
    }

    /// Checks the configuration as it is now, with the backbone and the head that were built.
    pub(crate) fn validate_config(&self) -> Result<(), ConfigError> {
        self.config().validate_for(&self.backbone)?;
        let anchors = self.rpn.config.anchor_generator.num_anchors_per_location();
        let [made, ..] = self.rpn.head.cls_logits.weight.dims();
        Ok(require(
            anchors == made,
            "anchors at a location",
            anchors,
            format_args!("{made}, which the region proposal network was made for"),
        )?)
    }

    /// Second stage by itself: the proposals of every image.
    pub fn proposals(&self, images: &ImageList<B>, features: &FeatureMaps<B>) -> Vec<Proposals> {
        let sizes = &images.image_sizes;
        self.rpn.forward(
            features,
            images.padded_size(),
            sizes,
            &mut Forward::inference(),
        )
    }

    /// Third stage by itself: the features of every proposal, image after image.
    ///
    /// # Shapes
    /// - output: `[K, channels, pooled height, pooled width]`
    pub fn pooled_features(
        &self,
        images: &ImageList<B>,
        features: &FeatureMaps<B>,
        proposals: &[Proposals],
    ) -> Tensor<B, 4> {
        let branch = self.roi_heads.box_branch();
        branch.pool(features, &boxes(proposals), &images.image_sizes)
    }

    /// Fourth stage by itself: probability and box of every class for every proposal, before
    /// thresholds and suppression, in pixels of the resized images.
    pub fn class_scores(
        &self,
        images: &ImageList<B>,
        pooled: Tensor<B, 4>,
        proposals: &[Proposals],
    ) -> Vec<ClassScores> {
        let branch = self.roi_heads.box_branch();
        let predictions = branch.predict(pooled, &mut Forward::inference());
        branch.class_scores(predictions, &boxes(proposals), &images.image_sizes)
    }

    /// Configuration of this detector as it is now, changed thresholds included.
    pub fn config(&self) -> FasterRcnnConfig {
        FasterRcnnConfig {
            num_classes: self.num_classes(),
            class_names: self.class_names.clone(),
            backbone: self.backbone.config(),
            transform: self.transform.clone(),
            rpn: self.rpn.config.clone(),
            roi_heads: self.roi_heads.config.clone(),
        }
    }

    /// Number of classes, background included.
    pub fn num_classes(&self) -> usize {
        self.roi_heads.box_predictor.cls_score.weight.dims()[1]
    }
}

pub(crate) fn boxes(proposals: &[Proposals]) -> Vec<&[BBox]> {
    proposals.iter().map(|p| p.boxes.as_slice()).collect()
}

#[cfg(test)]
mod tests;
