//! Head and predictor of the keypoint branch.

use burn::config::Config;
use burn::module::{Initializer, Module};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2dConfig, ConvTranspose2d};
use burn::tensor::{Tensor, backend::Backend};
use derive_setters::Setters;
use rcnn_ops::{Activation, Conv2d, ConvEpilogue, DetectionBackend, Forward, conv_transpose2d};
use rcnn_types::validate::{InvalidField, require, require_within};
use serde::{Deserialize, Serialize};

use crate::MultiScaleRoiAlign;
use crate::mask_head::{transposed, validate_layers};
use crate::pooler::BranchPool;

/// Most keypoints of an object.
const MAX_KEYPOINTS: usize = 1024;

/// Describes the keypoint branch. Everything missing has the default of torchvision's `KeypointRCNN`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default)]
#[setters(prefix = "with_")]
pub struct KeypointConfig {
    /// Pooling of boxes from the feature maps (`keypoint_roi_pool`).
    #[serde(deserialize_with = "BranchPool::deserialize")]
    pub roi_pool: MultiScaleRoiAlign,
    /// Channels of each 3x3 convolution of the head.
    pub layers: Vec<usize>,
    /// Keypoints of an object.
    pub num_keypoints: usize,
    /// Name of each keypoint; empty when unknown.
    pub names: Vec<String>,
    /// Positions, from 0, of the keypoints that a line connects.
    pub skeleton: Vec<[usize; 2]>,
}

impl Config for KeypointConfig {}

impl Default for KeypointConfig {
    fn default() -> Self {
        Self {
            roi_pool: MultiScaleRoiAlign::branch(),
            layers: vec![512; 8],
            num_keypoints: 17,
            names: Vec::new(),
            skeleton: Vec::new(),
        }
    }
}

impl KeypointConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), InvalidField> {
        self.roi_pool.validate("keypoint.roi_pool")?;
        let [height, width] = self.roi_pool.output_size;
        require(
            height == width,
            "keypoint.roi_pool.output_size",
            [height, width],
            "as many rows as columns",
        )?;
        validate_layers("keypoint.layers", &self.layers)?;
        let count = self.num_keypoints;
        require_within("keypoint.num_keypoints", count, 1..=MAX_KEYPOINTS)?;
        let names = &self.names;
        require(
            names.is_empty() || names.len() == count,
            "keypoint.names",
            names,
            format_args!("{count} names or none"),
        )?;
        require(
            self.skeleton.iter().flatten().all(|&point| point < count),
            "keypoint.skeleton",
            &self.skeleton,
            format_args!("pairs of positions from 0 to {}", count - 1),
        )
    }

    /// Gives the layers the output channels that `channels` says by their paths in the second stage.
    pub(crate) fn set_channels(&mut self, channels: &dyn Fn(&str) -> Option<usize>) {
        for (i, out) in self.layers.iter_mut().enumerate() {
            // After each convolution a ReLU.
            *out = channels(&format!("keypoint_head.{}", 2 * i)).unwrap_or(*out);
        }
    }

    pub(crate) fn init_head<B: Backend>(
        &self,
        channels: usize,
        device: &B::Device,
    ) -> KeypointHead<B> {
        let mut channels = channels;
        let layers = self.layers.iter().flat_map(|&out| {
            let config = Conv2dConfig::new([channels, out], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_initializer(Initializer::KaimingNormal {
                    gain: std::f64::consts::SQRT_2,
                    fan_out_only: true,
                });
            let mut conv = config.init(device);
            conv.bias = Some(Initializer::Zeros.init([out], device));
            channels = out;
            [
                KeypointHeadLayer::Conv(conv.into()),
                KeypointHeadLayer::Relu(burn::nn::Relu),
            ]
        });
        layers.collect()
    }

    pub(crate) fn init_predictor<B: Backend>(
        &self,
        channels: usize,
        device: &B::Device,
    ) -> KeypointPredictor<B> {
        let channels = self.layers.last().copied().unwrap_or(channels);
        KeypointPredictor {
            kps_score_lowres: transposed([channels, self.num_keypoints], 4, 1, device),
        }
    }
}

/// 3x3 convolutions, each with a ReLU (`torchvision.models.detection.keypoint_rcnn.KeypointRCNNHeads`):
/// an `nn.Sequential`, so parameters are named by the position of their layer.
pub type KeypointHead<B> = Vec<KeypointHeadLayer<B>>;

/// A layer of a [`KeypointHead`].
#[derive(Module, Debug)]
pub enum KeypointHeadLayer<B: Backend> {
    /// 3x3 convolution.
    Conv(Conv2d<B>),
    /// ReLU, which is computed with the convolution before it and holds its place in the names.
    Relu(burn::nn::Relu),
}

/// Predictor of a heat map of each keypoint, four times as large as the head's features
/// (`torchvision.models.detection.keypoint_rcnn.KeypointRCNNPredictor`).
#[derive(Module, Debug)]
pub struct KeypointPredictor<B: Backend> {
    /// Doubles height and width.
    pub kps_score_lowres: ConvTranspose2d<B>,
}

/// Applies a [`KeypointHead`].
///
/// # Shapes
/// - pooled: `[K, channels, height, width]`
/// - output: `[K, channels of the last convolution, height, width]`
pub(crate) fn keypoint_head<B: DetectionBackend>(
    head: &KeypointHead<B>,
    pooled: Tensor<B, 4>,
    cx: &mut Forward<'_, B>,
) -> Tensor<B, 4> {
    let mut x = pooled;
    for (i, layer) in head.iter().enumerate() {
        if let KeypointHeadLayer::Conv(conv) = layer {
            let relu = ConvEpilogue {
                activation: Activation::Relu,
                ..Default::default()
            };
            x = conv.forward_fused(x, relu);
            cx.layer(i, &x);
        }
    }
    x
}

impl<B: DetectionBackend> KeypointPredictor<B> {
    /// Predicts heat maps from the head's features.
    ///
    /// # Shapes
    /// - features: `[K, channels, height, width]`
    /// - output: logits `[K, keypoints, 4 * height, 4 * width]`
    pub fn forward(&self, features: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 4> {
        let x = conv_transpose2d(&self.kps_score_lowres, features, Activation::None);
        cx.layer("kps_score_lowres", &x);
        doubled(doubled(x, 3), 2)
    }
}

/// Twice as many values along an axis, interpolated linearly (torch's `interpolate` with
/// `align_corners=False`, which Burn has no gradient of on every backend).
fn doubled<B: Backend>(x: Tensor<B, 4>, axis: usize) -> Tensor<B, 4> {
    let mut shape = x.dims();
    let length = shape[axis];
    let edge = |at: usize| x.clone().narrow(axis, at, 1);
    let [left, right] = match length {
        1 => [x.clone(), x.clone()],
        _ => [
            Tensor::cat(vec![edge(0), x.clone().narrow(axis, 0, length - 1)], axis),
            Tensor::cat(
                vec![x.clone().narrow(axis, 1, length - 1), edge(length - 1)],
                axis,
            ),
        ],
    };
    let x = x.clone() * 0.75;
    let pairs = vec![left * 0.25 + x.clone(), x + right * 0.25];
    shape[axis] = 2 * length;
    Tensor::stack::<5>(pairs, axis + 1).reshape(shape)
}
