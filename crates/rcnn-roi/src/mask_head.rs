//! Head and predictor of the mask branch.

use burn::config::Config;
use burn::module::{Initializer, Module};
use burn::nn::conv::{Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::tensor::{Tensor, backend::Backend};
use derive_setters::Setters;
use rcnn_backbone::{ConvNorm, ConvNormConfig, MAX_CHANNELS, NormKind, conv_norm_relu};
use rcnn_ops::{Activation, Conv2d, DetectionBackend, Forward, conv_transpose2d};
use rcnn_types::validate::{InvalidField, require_within};
use serde::{Deserialize, Serialize};

use crate::pooler::BranchPool;
use crate::{MAX_LAYERS, MultiScaleRoiAlign};

/// Describes the mask branch. Everything missing has the default of torchvision's `MaskRCNN`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default)]
#[setters(prefix = "with_")]
pub struct MaskConfig {
    /// Pooling of boxes from the feature maps (`mask_roi_pool`).
    #[serde(deserialize_with = "BranchPool::deserialize")]
    pub roi_pool: MultiScaleRoiAlign,
    /// Channels of each 3x3 convolution of the head.
    pub layers: Vec<usize>,
    /// Norm of the convolutions, with its epsilon.
    pub norm: Option<(NormKind, f64)>,
    /// Output channels of the predictor's transposed convolution.
    pub dim_reduced: usize,
}

impl Config for MaskConfig {}

impl Default for MaskConfig {
    fn default() -> Self {
        Self {
            roi_pool: MultiScaleRoiAlign::branch(),
            layers: vec![256; 4],
            norm: None,
            dim_reduced: 256,
        }
    }
}

impl MaskConfig {
    /// The branch of `maskrcnn_resnet50_fpn_v2`: its convolutions have norms.
    pub fn v2() -> Self {
        Self {
            norm: Some((NormKind::BatchNorm2d, 1e-5)),
            ..Default::default()
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), InvalidField> {
        self.roi_pool.validate("mask.roi_pool")?;
        validate_layers("mask.layers", &self.layers)?;
        let eps = self.norm.map_or(0.0, |(_, eps)| eps);
        require_within("epsilon of mask.norm", eps, 0.0..=1.0)?;
        require_within("mask.dim_reduced", self.dim_reduced, 1..=MAX_CHANNELS)
    }

    /// Gives the layers the output channels that `channels` says by their paths in the second stage.
    pub(crate) fn set_channels(&mut self, channels: &dyn Fn(&str) -> Option<usize>) {
        for (i, out) in self.layers.iter_mut().enumerate() {
            *out = channels(&format!("mask_head.{i}.0")).unwrap_or(*out);
        }
        let reduced = channels("mask_predictor.conv5_mask");
        self.dim_reduced = reduced.unwrap_or(self.dim_reduced);
    }

    pub(crate) fn init_head<B: Backend>(&self, channels: usize, device: &B::Device) -> MaskHead<B> {
        let mut channels = channels;
        let layers = self.layers.iter().map(|&out| {
            let conv = ConvNormConfig {
                norm: self.norm,
                ..ConvNormConfig::new([channels, out], 3)
            };
            channels = out;
            conv.init(device)
        });
        layers.collect()
    }

    pub(crate) fn init_predictor<B: Backend>(
        &self,
        channels: usize,
        num_classes: usize,
        device: &B::Device,
    ) -> MaskPredictor<B> {
        let channels = self.layers.last().copied().unwrap_or(channels);
        MaskPredictor {
            conv5_mask: transposed([channels, self.dim_reduced], 2, 0, device),
            mask_fcn_logits: {
                let config = Conv2dConfig::new([self.dim_reduced, num_classes], [1, 1]);
                let initializer = Initializer::KaimingNormal {
                    gain: std::f64::consts::SQRT_2,
                    fan_out_only: true,
                };
                let mut conv = config.with_initializer(initializer).init(device);
                conv.bias = Some(Initializer::Zeros.init([num_classes], device));
                conv.into()
            },
        }
    }
}

/// Checks the number of convolutions and the channels of each.
pub(crate) fn validate_layers(field: &str, layers: &[usize]) -> Result<(), InvalidField> {
    require_within(&format!("number of {field}"), layers.len(), 0..=MAX_LAYERS)?;
    for (i, channels) in layers.iter().enumerate() {
        require_within(&format!("{field}[{i}]"), *channels, 1..=MAX_CHANNELS)?;
    }
    Ok(())
}

/// A transposed convolution of stride 2 with torchvision's initial weights.
pub(crate) fn transposed<B: Backend>(
    channels: [usize; 2],
    kernel: usize,
    padding: usize,
    device: &B::Device,
) -> ConvTranspose2d<B> {
    // torch counts the outputs of a weight along its first axis, which is the input's here.
    let fan_out = channels[0] * kernel * kernel;
    let mut conv = ConvTranspose2dConfig::new(channels, [kernel; 2])
        .with_stride([2, 2])
        .with_padding([padding; 2])
        .with_initializer(Initializer::Normal {
            mean: 0.0,
            std: (2.0 / fan_out as f64).sqrt(),
        })
        .init(device);
    conv.bias = Some(Initializer::Zeros.init([channels[1]], device));
    conv
}

/// 3x3 convolutions, each with a ReLU (`torchvision.models.detection.mask_rcnn.MaskRCNNHeads`).
pub type MaskHead<B> = Vec<ConvNorm<B>>;

/// Predictor of mask logits of every class, twice as large as the head's features
/// (`torchvision.models.detection.mask_rcnn.MaskRCNNPredictor`).
#[derive(Module, Debug)]
pub struct MaskPredictor<B: Backend> {
    /// Doubles height and width.
    pub conv5_mask: ConvTranspose2d<B>,
    /// Logits of every class, 1x1.
    pub mask_fcn_logits: Conv2d<B>,
}

/// Applies a [`MaskHead`].
///
/// # Shapes
/// - pooled: `[K, channels, height, width]`
/// - output: `[K, channels of the last convolution, height, width]`
pub(crate) fn mask_head<B: DetectionBackend>(
    head: &MaskHead<B>,
    pooled: Tensor<B, 4>,
    cx: &mut Forward<'_, B>,
) -> Tensor<B, 4> {
    let mut x = pooled;
    for (i, conv) in head.iter().enumerate() {
        x = conv_norm_relu(conv, x, cx.phase);
        cx.layer(i, &x);
    }
    x
}

impl<B: DetectionBackend> MaskPredictor<B> {
    /// Predicts mask logits from the head's features.
    ///
    /// # Shapes
    /// - features: `[K, channels, height, width]`
    /// - output: `[K, C, 2 * height, 2 * width]`
    pub fn forward(&self, features: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 4> {
        let x = conv_transpose2d(&self.conv5_mask, features, Activation::Relu);
        cx.layer("conv5_mask", &x);
        let logits = self.mask_fcn_logits.forward(x);
        cx.layer("mask_fcn_logits", &logits);
        logits
    }
}
