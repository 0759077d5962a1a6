//! The head of the region proposal network: objectness and box deltas of every anchor.

use burn::module::{Initializer, Module};
use burn::nn::conv::Conv2dConfig;
use burn::tensor::{Tensor, backend::Backend};
use rcnn_backbone::{ConvNorm, ConvNormConfig, FeatureMaps, conv_norm_activation};
use rcnn_ops::{Activation, Conv2d, DetectionBackend, Forward};

/// 3x3 convolutions shared by two 1x1 heads (`torchvision.models.detection.rpn.RPNHead`).
#[derive(Module, Debug)]
pub struct RpnHead<B: Backend> {
    /// 3x3 convolutions.
    pub conv: Vec<ConvNorm<B>>,
    /// Objectness, A channels.
    pub cls_logits: Conv2d<B>,
    /// Deltas, 4 A channels.
    pub bbox_pred: Conv2d<B>,
    #[module(skip)]
    activation: Activation,
}

/// Raw output of the head for each level.
#[derive(Debug, Clone)]
pub struct RpnOutput<B: Backend> {
    /// Objectness logits, `[N, A, H, W]` a level.
    pub objectness: Vec<Tensor<B, 4>>,
    /// Box deltas, `[N, 4 * A, H, W]` a level.
    pub deltas: Vec<Tensor<B, 4>>,
}

impl<B: Backend> RpnOutput<B> {
    /// Logits `[N, locations * A]` and deltas `[N, locations * A, 4]` of each level, in the order of
    /// the anchors.
    pub(crate) fn levels(&self) -> impl Iterator<Item = (Tensor<B, 2>, Tensor<B, 3>)> {
        self.objectness
            .iter()
            .zip(&self.deltas)
            .map(|(objectness, deltas)| {
                let [n, a, h, w] = objectness.dims();
                let deltas = deltas.clone().permute([0, 2, 3, 1]);
                let objectness = objectness.clone().permute([0, 2, 3, 1]);
                (
                    objectness.reshape([n, h * w * a]),
                    deltas.reshape([n, h * w * a, 4]),
                )
            })
    }
}

impl<B: Backend> RpnHead<B> {
    pub(crate) fn new(
        in_channels: usize,
        channels: &[usize],
        anchors: usize,
        activation: Activation,
        device: &B::Device,
    ) -> Self {
        let initializer = Initializer::Normal {
            mean: 0.0,
            std: 0.01,
        };
        let mut input = in_channels;
        let conv = channels.iter().map(|&out| {
            let conv = ConvNormConfig {
                initializer: initializer.clone(),
                ..ConvNormConfig::new([std::mem::replace(&mut input, out), out], 3)
            };
            conv.init(device)
        });
        let conv = conv.collect();
        let head = |out: usize| {
            let config = Conv2dConfig::new([input, out], [1, 1]);
            let mut head = config.with_initializer(initializer.clone()).init(device);
            head.bias = Some(Initializer::Zeros.init([out], device));
            Conv2d::from(head)
        };
        Self {
            conv,
            cls_logits: head(anchors),
            bbox_pred: head(anchors * 4),
            activation,
        }
    }
}

impl<B: DetectionBackend> RpnHead<B> {
    /// Applies the head to every level.
    pub fn forward(&self, features: &FeatureMaps<B>, cx: &mut Forward<'_, B>) -> RpnOutput<B> {
        let (objectness, deltas) = features
            .iter()
            .map(|(_, map)| {
                let mut x = map.clone();
                for (i, conv) in self.conv.iter().enumerate() {
                    x = conv_norm_activation(conv, x, self.activation, cx.phase);
                    cx.layer(format_args!("conv.{i}"), &x);
                }
                let objectness = self.cls_logits.forward(x.clone());
                cx.layer("cls_logits", &objectness);
                let deltas = self.bbox_pred.forward(x);
                cx.layer("bbox_pred", &deltas);
                (objectness, deltas)
            })
            .unzip();
        RpnOutput { objectness, deltas }
    }
}
