//! Parameters of the region proposal network, under torchvision's names.

use burn::config::Config;
use burn::tensor::backend::Backend;
use derive_setters::Setters;
use rcnn_backbone::MAX_CHANNELS;
use rcnn_ops::{Activation, BoxCoder, BoxRules};
use rcnn_types::validate::{
    InvalidField, is_positive, is_weight, require, require_iou_thresholds, require_positive,
    require_some, require_within,
};
use serde::{Deserialize, Serialize};

use crate::{AnchorGenerator, RegionProposalNetwork, RpnHead};

/// Largest number of 3x3 convolutions in the head.
const MAX_CONV_DEPTH: usize = 64;

/// Parameters of the region proposal network. In files the fields carry the names of the keywords
/// of torchvision's `FasterRCNN`: `rpn_nms_thresh` for [`nms_thresh`](Self::nms_thresh).
///
/// ```
/// # mod rcnn_burn { pub use rcnn_rpn as rpn; }
/// use rcnn_burn::rpn::RpnConfig;
///
/// let config = RpnConfig::default().with_post_nms_top_n_test(300).with_nms_thresh(0.6);
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default)]
#[setters(prefix = "with_")]
pub struct RpnConfig {
    /// Sizes and ratios of the anchors.
    #[serde(rename = "rpn_anchor_generator")]
    pub anchor_generator: AnchorGenerator,
    /// 3x3 convolutions in the head: 1, or 2 in `fasterrcnn_resnet50_fpn_v2`; 0 for none.
    #[serde(rename = "rpn_conv_depth")]
    pub conv_depth: usize,
    /// Output channels of each of them; if empty, those of the feature maps, as in torchvision.
    #[serde(rename = "rpn_conv_channels")]
    pub conv_channels: Vec<usize>,
    /// Whether they end with a ReLU6. torchvision: with a ReLU.
    #[serde(rename = "rpn_conv_relu6")]
    pub conv_relu6: bool,
    /// Rules by which deltas become proposals.
    #[serde(rename = "rpn_box_rules")]
    pub box_rules: BoxRules,
    /// Weights of the box deltas `dx, dy, dw, dh`. torchvision: 1.
    #[serde(rename = "rpn_bbox_reg_weights")]
    pub bbox_reg_weights: [f32; 4],
    /// Proposals kept of each level before suppression, in training.
    #[serde(rename = "rpn_pre_nms_top_n_train")]
    pub pre_nms_top_n_train: usize,
    /// Proposals kept of each level before suppression, in inference.
    #[serde(rename = "rpn_pre_nms_top_n_test")]
    pub pre_nms_top_n_test: usize,
    /// Proposals kept of an image after suppression, in training.
    #[serde(rename = "rpn_post_nms_top_n_train")]
    pub post_nms_top_n_train: usize,
    /// Proposals kept of an image after suppression, in inference.
    #[serde(rename = "rpn_post_nms_top_n_test")]
    pub post_nms_top_n_test: usize,
    /// IoU above which the lower-scored of two proposals of a level is dropped.
    #[serde(rename = "rpn_nms_thresh")]
    pub nms_thresh: f64,
    /// IoU with an object from which an anchor counts as one, in training.
    #[serde(rename = "rpn_fg_iou_thresh")]
    pub fg_iou_thresh: f64,
    /// IoU with all objects below which an anchor counts as background, in training.
    #[serde(rename = "rpn_bg_iou_thresh")]
    pub bg_iou_thresh: f64,
    /// Anchors of an image that the loss samples.
    #[serde(rename = "rpn_batch_size_per_image")]
    pub batch_size_per_image: usize,
    /// Share of objects among them.
    #[serde(rename = "rpn_positive_fraction")]
    pub positive_fraction: f64,
    /// Objectness, 0 to 1, below which a proposal goes.
    #[serde(rename = "rpn_score_thresh")]
    pub score_thresh: f32,
    /// Weights of the losses of objectness and of box deltas. torchvision: 1.
    #[serde(rename = "rpn_loss_weights")]
    pub loss_weights: [f64; 2],
    /// Error of a box delta from which its loss grows linearly. torchvision: 1/9.
    #[serde(rename = "rpn_smooth_l1_beta")]
    pub smooth_l1_beta: f64,
}

impl Config for RpnConfig {}

impl Default for RpnConfig {
    fn default() -> Self {
        Self {
            anchor_generator: AnchorGenerator::default(),
            conv_depth: 1,
            conv_channels: Vec::new(),
            conv_relu6: false,
            box_rules: BoxRules::Torchvision,
            bbox_reg_weights: [1.0; 4],
            pre_nms_top_n_train: 2000,
            pre_nms_top_n_test: 1000,
            post_nms_top_n_train: 2000,
            post_nms_top_n_test: 1000,
            nms_thresh: 0.7,
            fg_iou_thresh: 0.7,
            bg_iou_thresh: 0.3,
            batch_size_per_image: 256,
            positive_fraction: 0.5,
            score_thresh: 0.0,
            loss_weights: [1.0; 2],
            smooth_l1_beta: 1.0 / 9.0,
        }
    }
}

impl RpnConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the field at fault under torchvision's name.
    pub fn validate(&self) -> Result<(), InvalidField> {
        self.anchor_generator.validate()?;
        require_within("rpn_conv_depth", self.conv_depth, 0..=MAX_CONV_DEPTH)?;
        let (depth, channels) = (self.conv_depth, &self.conv_channels);
        require(
            channels.is_empty() || channels.len() == depth,
            "rpn_conv_channels",
            channels,
            format_args!("none, or those of each of the {depth} convolutions (rpn_conv_depth)"),
        )?;
        for &channels in channels {
            require_within("rpn_conv_channels", channels, 1..=MAX_CHANNELS)?;
        }
        let weights = self.bbox_reg_weights;
        require(
            weights.into_iter().all(is_positive),
            "rpn_bbox_reg_weights",
            weights,
            "four positive numbers",
        )?;
        require_some("rpn_pre_nms_top_n_train", self.pre_nms_top_n_train)?;
        require_some("rpn_pre_nms_top_n_test", self.pre_nms_top_n_test)?;
        require_some("rpn_post_nms_top_n_train", self.post_nms_top_n_train)?;
        require_some("rpn_post_nms_top_n_test", self.post_nms_top_n_test)?;
        require_within("rpn_nms_thresh", self.nms_thresh, 0.0..=1.0)?;
        require_iou_thresholds(
            ("rpn_fg_iou_thresh", self.fg_iou_thresh),
            ("rpn_bg_iou_thresh", self.bg_iou_thresh),
        )?;
        require_some("rpn_batch_size_per_image", self.batch_size_per_image)?;
        require_within("rpn_positive_fraction", self.positive_fraction, 0.0..=1.0)?;
        require_within("rpn_score_thresh", self.score_thresh, 0.0..=1.0)?;
        let weights = self.loss_weights;
        let valid = weights.into_iter().all(is_weight);
        require(valid, "rpn_loss_weights", weights, "two numbers from 0")?;
        require_positive("rpn_smooth_l1_beta", self.smooth_l1_beta)
    }

    /// Parametrisation of the deltas.
    pub(crate) fn box_coder(&self) -> BoxCoder {
        BoxCoder {
            weights: self.bbox_reg_weights,
        }
    }

    /// Output channels of each convolution, for feature maps of `in_channels` channels.
    fn channels(&self, in_channels: usize) -> Vec<usize> {
        match self.conv_channels.is_empty() {
            true => vec![in_channels; self.conv_depth],
            false => self.conv_channels.clone(),
        }
    }

    /// Gives the convolutions the output channels that `channels` says by their paths in the head, for feature maps
    /// that had some number of channels `before` and have another `now`.
    pub fn set_channels(
        &mut self,
        [before, now]: [usize; 2],
        channels: &dyn Fn(&str) -> Option<usize>,
    ) {
        let layers = self.channels(before).into_iter().enumerate();
        let layers: Vec<usize> = layers
            .map(|(i, out)| channels(&format!("conv.{i}.0")).unwrap_or(out))
            .collect();
        self.conv_channels = match layers.iter().all(|&out| out == now) {
            true => Vec::new(),
            false => layers,
        };
    }

    /// Makes the module for feature maps of `in_channels` channels.
    ///
    /// # Errors
    /// Where [`validate`](Self::validate) fails.
    pub fn init<B: Backend>(
        &self,
        in_channels: usize,
        device: &B::Device,
    ) -> Result<RegionProposalNetwork<B>, InvalidField> {
        self.validate()?;
        let num_anchors = self.anchor_generator.num_anchors_per_location();
        Ok(RegionProposalNetwork {
            head: RpnHead::new(
                in_channels,
                &self.channels(in_channels),
                num_anchors,
                match self.conv_relu6 {
                    true => Activation::Relu6,
                    false => Activation::Relu,
                },
                device,
            ),
            config: self.clone(),
        })
    }
}
