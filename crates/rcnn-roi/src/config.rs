//! Parameters of the second stage, under torchvision's names.

use burn::config::Config;
use burn::tensor::backend::Backend;
use derive_setters::Setters;
use rcnn_backbone::LevelSpec;
use rcnn_ops::BoxRules;
use rcnn_types::validate::{
    InvalidField, is_positive, is_weight, require, require_iou_thresholds, require_positive,
    require_some, require_within,
};
use serde::{Deserialize, Serialize};

use crate::{
    BoxHeadConfig, FastRcnnPredictor, KeypointConfig, MaskConfig, MultiScaleRoiAlign, NmsMethod,
    RoiHeads,
};

/// Largest number of classes.
const MAX_CLASSES: usize = 65_536;

/// Parameters of the second stage. In files the fields carry the names of the keywords of
/// torchvision's `FasterRCNN`: `box_score_thresh` for [`score_thresh`](Self::score_thresh).
///
/// ```
/// # mod rcnn_burn { pub use rcnn_roi as roi; }
/// use rcnn_burn::roi::{NmsMethod, RoiHeadsConfig};
///
/// let config = RoiHeadsConfig::default()
///     .with_score_thresh(0.3)
///     .with_nms_method(NmsMethod::SoftGaussian { sigma: 0.5 })
///     .with_detections_per_img(300);
/// config.validate(91)?; // classes, background included
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default)]
#[setters(prefix = "with_")]
pub struct RoiHeadsConfig {
    /// Pooling of proposals from the feature maps.
    pub box_roi_pool: MultiScaleRoiAlign,
    /// Layers between pooled features and predictor.
    pub box_head: BoxHeadConfig,
    /// Share of the outputs of the box head's linear layers that training sets to zero by chance (dropout).
    /// torchvision: none.
    pub box_dropout: f64,
    /// Score, 0 to 1, that a detection must exceed.
    #[serde(rename = "box_score_thresh")]
    pub score_thresh: f32,
    /// IoU above which the lower-scored of two detections of a class goes.
    #[serde(rename = "box_nms_thresh")]
    pub nms_thresh: f64,
    /// Most detections of an image.
    #[serde(rename = "box_detections_per_img")]
    pub detections_per_img: usize,
    /// IoU with an object from which a proposal counts as one, in training.
    #[serde(rename = "box_fg_iou_thresh")]
    pub fg_iou_thresh: f64,
    /// IoU with all objects below which a proposal counts as background, in training.
    #[serde(rename = "box_bg_iou_thresh")]
    pub bg_iou_thresh: f64,
    /// Proposals of an image that the loss samples.
    #[serde(rename = "box_batch_size_per_image")]
    pub batch_size_per_image: usize,
    /// Share of objects among them.
    #[serde(rename = "box_positive_fraction")]
    pub positive_fraction: f64,
    /// Weights of the box deltas `dx, dy, dw, dh`.
    pub bbox_reg_weights: [f32; 4],
    /// Whether detections of different classes suppress each other too. torchvision: no.
    #[serde(rename = "box_nms_class_agnostic")]
    pub nms_class_agnostic: bool,
    /// Whether overlapped detections are dropped (torchvision) or their scores lowered.
    #[serde(rename = "box_nms_method")]
    pub nms_method: NmsMethod,
    /// Weight of each class in the classifier's loss, one a class, the background first, as `weight` of
    /// `torch.nn.functional.cross_entropy`. torchvision: all alike.
    #[serde(rename = "box_class_weights")]
    pub class_weights: Option<Vec<f32>>,
    /// Focal loss instead of cross-entropy for the classifier. torchvision: cross-entropy.
    #[serde(rename = "box_focal_loss")]
    pub focal_loss: Option<FocalLoss>,
    /// Rules by which deltas become detections.
    #[serde(rename = "box_rules")]
    pub box_rules: BoxRules,
    /// Most detections of a class in an image, where there is a limit. torchvision: none.
    #[serde(rename = "box_detections_per_class")]
    pub detections_per_class: Option<usize>,
    /// Whether training adds the true boxes to the proposals. torchvision: yes.
    #[serde(rename = "box_add_true_boxes")]
    pub add_true_boxes: bool,
    /// Weights of the losses of classes and of box deltas. torchvision: 1.
    #[serde(rename = "box_loss_weights")]
    pub loss_weights: [f64; 2],
    /// Error of a box delta from which its loss grows linearly. torchvision: 1/9.
    #[serde(rename = "box_smooth_l1_beta")]
    pub smooth_l1_beta: f64,
    /// Whether the predictor refines the boxes. Without, proposals are the boxes of every class, and
    /// there is nothing to learn of them. torchvision: yes.
    pub box_regression: bool,
    /// The mask branch of Mask R-CNN; none by default.
    pub mask: Option<MaskConfig>,
    /// The keypoint branch of Keypoint R-CNN; none by default.
    pub keypoint: Option<KeypointConfig>,
}

impl Config for RoiHeadsConfig {}

/// Focal loss (Lin et al. 2017, <https://arxiv.org/abs/1708.02002>) of the softmax over all classes.
///
/// The loss of a proposal is `-alpha (1 - p)^gamma log p`, where `p` is the probability of its true
/// class, and that of the batch their mean: weighted where there are
/// [`class_weights`](RoiHeadsConfig::class_weights), so that `gamma` 0 and `alpha` 1 are
/// cross-entropy with and without them. See [`rcnn_ops::focal_loss`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FocalLoss {
    /// Factor of the whole loss. In the paper it differs between object and background; that is
    /// what class weights do here.
    pub alpha: f64,
    /// Exponent by which a proposal counts less as its class becomes certain; 0 for not at all.
    pub gamma: f64,
}

impl FocalLoss {
    fn validate(&self) -> Result<(), InvalidField> {
        require_positive("box_focal_loss.alpha", self.alpha)?;
        require_within("box_focal_loss.gamma", self.gamma, 0.0..=100.0)
    }
}

impl Default for FocalLoss {
    /// The paper's and torchvision's `sigmoid_focal_loss`'s.
    fn default() -> Self {
        Self {
            alpha: 0.25,
            gamma: 2.0,
        }
    }
}

impl Default for RoiHeadsConfig {
    fn default() -> Self {
        Self {
            box_roi_pool: MultiScaleRoiAlign::default(),
            box_head: BoxHeadConfig::default(),
            box_dropout: 0.0,
            score_thresh: 0.05,
            nms_thresh: 0.5,
            detections_per_img: 100,
            fg_iou_thresh: 0.5,
            bg_iou_thresh: 0.5,
            batch_size_per_image: 512,
            positive_fraction: 0.25,
            bbox_reg_weights: [10.0, 10.0, 5.0, 5.0],
            nms_class_agnostic: false,
            nms_method: NmsMethod::Hard,
            class_weights: None,
            focal_loss: None,
            box_rules: BoxRules::Torchvision,
            detections_per_class: None,
            add_true_boxes: true,
            loss_weights: [1.0; 2],
            smooth_l1_beta: 1.0 / 9.0,
            box_regression: true,
            mask: None,
            keypoint: None,
        }
    }
}

impl RoiHeadsConfig {
    /// Checks every field, for `num_classes` classes, background included.
    ///
    /// # Errors
    /// Names the field at fault under torchvision's name.
    pub fn validate(&self, num_classes: usize) -> Result<(), InvalidField> {
        require(
            (2..=MAX_CLASSES).contains(&num_classes),
            "num_classes",
            num_classes,
            format_args!("at least 2, the background and one class, at most {MAX_CLASSES}"),
        )?;
        self.box_roi_pool.validate("box_roi_pool")?;
        self.box_head.validate()?;
        let dropout = self.box_dropout;
        require(
            (0.0..1.0).contains(&dropout),
            "box_dropout",
            dropout,
            "0 or more and less than 1",
        )?;
        require_within("box_score_thresh", self.score_thresh, 0.0..=1.0)?;
        require_within("box_nms_thresh", self.nms_thresh, 0.0..=1.0)?;
        require_some("box_detections_per_img", self.detections_per_img)?;
        require_iou_thresholds(
            ("box_fg_iou_thresh", self.fg_iou_thresh),
            ("box_bg_iou_thresh", self.bg_iou_thresh),
        )?;
        require_some("box_batch_size_per_image", self.batch_size_per_image)?;
        require_within("box_positive_fraction", self.positive_fraction, 0.0..=1.0)?;
        let weights = self.bbox_reg_weights;
        require(
            weights.into_iter().all(is_positive),
            "bbox_reg_weights",
            weights,
            "four positive numbers",
        )?;
        if let NmsMethod::SoftGaussian { sigma } = self.nms_method {
            let field = "box_nms_method.soft_gaussian.sigma";
            require_positive(field, sigma)?;
        }
        if let Some(weights) = &self.class_weights {
            require(
                weights.len() == num_classes
                    && weights.iter().all(|&weight| is_weight(weight))
                    && weights.iter().any(|weight| *weight > 0.0),
                "box_class_weights",
                weights,
                format_args!(
                    "{num_classes} numbers from 0, one per class with the background first, not all \
                     of them 0"
                ),
            )?;
        }
        if let Some(most) = self.detections_per_class {
            require_some("box_detections_per_class", most)?;
        }
        let weights = self.loss_weights;
        let valid = weights.into_iter().all(is_weight);
        require(valid, "box_loss_weights", weights, "two numbers from 0")?;
        require_positive("box_smooth_l1_beta", self.smooth_l1_beta)?;
        self.focal_loss.map_or(Ok(()), |loss| loss.validate())?;
        self.mask.as_ref().map_or(Ok(()), MaskConfig::validate)?;
        let keypoint = self.keypoint.as_ref();
        keypoint.map_or(Ok(()), KeypointConfig::validate)
    }

    /// Checks that the pooling of every branch fits these feature maps.
    ///
    /// # Errors
    /// Names the field at fault and the feature maps.
    pub fn validate_levels(&self, levels: &[LevelSpec]) -> Result<(), InvalidField> {
        let mask = self.mask.iter().map(|m| ("mask.roi_pool", &m.roi_pool));
        let keypoint = self.keypoint.iter();
        let keypoint = keypoint.map(|k| ("keypoint.roi_pool", &k.roi_pool));
        let mut pools = [("box_roi_pool", &self.box_roi_pool)]
            .into_iter()
            .chain(mask)
            .chain(keypoint);
        pools.try_for_each(|(name, pool)| pool.validate_levels(name, levels))
    }

    /// Gives layers the output channels that `channels` says by their paths in the second stage.
    pub fn set_channels(&mut self, channels: &dyn Fn(&str) -> Option<usize>) {
        self.box_head
            .set_channels(&|layer| channels(&format!("box_head.{layer}")));
        if let Some(mask) = &mut self.mask {
            mask.set_channels(channels);
        }
        if let Some(keypoint) = &mut self.keypoint {
            keypoint.set_channels(channels);
        }
    }

    /// Makes the module for feature maps of `in_channels` channels.
    ///
    /// # Errors
    /// Where [`validate`](Self::validate) fails.
    pub fn init<B: Backend>(
        &self,
        in_channels: usize,
        num_classes: usize,
        device: &B::Device,
    ) -> Result<RoiHeads<B>, InvalidField> {
        self.validate(num_classes)?;
        let [height, width] = self.box_roi_pool.output_size;
        let pooled = [in_channels, height, width];
        let (mask, keypoint) = (self.mask.as_ref(), self.keypoint.as_ref());
        Ok(RoiHeads {
            mask_head: mask.map(|mask| mask.init_head(in_channels, device)),
            mask_predictor: mask.map(|mask| mask.init_predictor(in_channels, num_classes, device)),
            keypoint_head: keypoint.map(|keypoint| keypoint.init_head(in_channels, device)),
            keypoint_predictor: keypoint
                .map(|keypoint| keypoint.init_predictor(in_channels, device)),
            box_head: self.box_head.init(pooled, device),
            box_predictor: FastRcnnPredictor::new(
                self.box_head.out_features(pooled),
                num_classes,
                self.box_regression,
                device,
            ),
            config: self.clone(),
        })
    }
}
