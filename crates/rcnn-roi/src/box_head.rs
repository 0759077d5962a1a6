//! Box heads: from the pooled features of a proposal to one vector.

mod text;

pub use text::BoxHeadTextError;

use burn::module::Module;
use burn::nn::{DropoutConfig, LinearConfig};
use burn::tensor::{Tensor, activation::relu, backend::Backend};
use rcnn_backbone::{
    ConvNorm, ConvNormConfig, MAX_CHANNELS, NormKind, StageHead, StageHeadConfig, conv_norm_relu,
};
use rcnn_ops::{DetectionBackend, Forward, Linear, Phase};
use rcnn_types::validate::{InvalidField, require_within};
use serde::{Deserialize, Serialize};

use crate::MAX_LAYERS;

/// Widest linear layer.
const MAX_WIDTH: usize = 16_384;

/// Describes a [`BoxHead`].
///
/// ```
/// # mod rcnn_burn { pub use rcnn_roi as roi; }
/// use rcnn_burn::roi::BoxHeadConfig;
///
/// let head: BoxHeadConfig = "conv:256x4,fc:1024".parse()?;
/// assert_eq!(head.out_features([256, 7, 7]), 1024);
/// # Ok::<(), rcnn_roi::BoxHeadTextError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BoxHeadConfig {
    /// Two linear layers.
    TwoMlp {
        /// Width of both.
        representation_size: usize,
    },
    /// Two linear layers of different widths, under the names that those of [`TwoMlp`](Self::TwoMlp) have: what pruning
    /// leaves of them.
    Mlp {
        /// Width of the first.
        fc6: usize,
        /// Width of the second.
        fc7: usize,
    },
    /// 3x3 convolutions, then linear layers; either may be none.
    ConvFc {
        /// Channels of each convolution.
        conv_layers: Vec<usize>,
        /// Width of each linear layer. Without any, the features go to the predictor as they are.
        fc_layers: Vec<usize>,
        /// Norm of the convolutions, with its epsilon.
        norm: Option<(NormKind, f64)>,
    },
    /// The last stage of the network whose first stages are the backbone, and the mean over the map (detectron2's
    /// `Res5ROIHeads`, TensorFlow's second-stage feature extractor).
    #[serde(rename = "inception_v2")]
    Stage(StageHeadConfig),
}

impl Default for BoxHeadConfig {
    fn default() -> Self {
        Self::TwoMlp {
            representation_size: 1024,
        }
    }
}

impl BoxHeadConfig {
    /// The head of `fasterrcnn_resnet50_fpn_v2`: four convolutions with norm, one linear layer.
    pub fn v2() -> Self {
        Self::ConvFc {
            conv_layers: vec![256; 4],
            fc_layers: vec![1024],
            norm: Some((NormKind::BatchNorm2d, 1e-5)),
        }
    }

    /// Width of the vector that the head makes of pooled features of shape
    /// `[channels, height, width]`.
    pub fn out_features(&self, [channels, height, width]: [usize; 3]) -> usize {
        match self {
            Self::TwoMlp {
                representation_size: width,
            }
            | Self::Mlp { fc7: width, .. } => *width,
            Self::ConvFc {
                conv_layers,
                fc_layers,
                ..
            } => {
                let channels = conv_layers.last().copied().unwrap_or(channels);
                let flat = channels * height * width;
                fc_layers.last().copied().unwrap_or(flat)
            }
            Self::Stage(head) => head.out_features(channels),
        }
    }

    /// Checks the number and the size of layers.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), InvalidField> {
        match self {
            Self::TwoMlp {
                representation_size: width,
            } => require_within("box_head.representation_size", *width, 1..=MAX_WIDTH),
            Self::Mlp { fc6, fc7 } => {
                require_within("box_head.fc6", *fc6, 1..=MAX_WIDTH)?;
                require_within("box_head.fc7", *fc7, 1..=MAX_WIDTH)
            }
            Self::ConvFc {
                conv_layers,
                fc_layers,
                norm,
            } => {
                for (layers, sizes, most) in [
                    ("conv_layers", conv_layers, MAX_CHANNELS),
                    ("fc_layers", fc_layers, MAX_WIDTH),
                ] {
                    let count = format!("number of box_head.{layers}");
                    require_within(&count, sizes.len(), 0..=MAX_LAYERS)?;
                    for (i, size) in sizes.iter().enumerate() {
                        require_within(&format!("box_head.{layers}[{i}]"), *size, 1..=most)?;
                    }
                }
                let eps = norm.map_or(0.0, |(_, eps)| eps);
                require_within("epsilon of box_head.norm", eps, 0.0..=1.0)
            }
            Self::Stage(head) => head.validate(),
        }
    }

    /// Gives the layers the widths that `channels` says by their paths in the head.
    pub(crate) fn set_channels(&mut self, channels: &dyn Fn(&str) -> Option<usize>) {
        let two = |fc6: usize, fc7: usize| {
            let [fc6, fc7] =
                [("fc6", fc6), ("fc7", fc7)].map(|(layer, width)| channels(layer).unwrap_or(width));
            match fc6 == fc7 {
                true => Self::TwoMlp {
                    representation_size: fc6,
                },
                false => Self::Mlp { fc6, fc7 },
            }
        };
        match self {
            Self::TwoMlp {
                representation_size: size,
            } => *self = two(*size, *size),
            Self::Mlp { fc6, fc7 } => *self = two(*fc6, *fc7),
            Self::ConvFc {
                conv_layers,
                fc_layers,
                ..
            } => {
                for (i, out) in conv_layers.iter_mut().enumerate() {
                    *out = channels(&format!("{i}.0")).unwrap_or(*out);
                }
                // After the convolutions a Flatten, after each linear layer a ReLU.
                for (i, out) in fc_layers.iter_mut().enumerate() {
                    let place = conv_layers.len() + 1 + 2 * i;
                    *out = channels(&place.to_string()).unwrap_or(*out);
                }
            }
            // Its channels follow from its depth.
            Self::Stage(_) => {}
        }
    }

    /// Makes the module for pooled features of shape `[channels, height, width]`.
    pub(crate) fn init<B: Backend>(&self, input: [usize; 3], device: &B::Device) -> BoxHead<B> {
        let two = |fc6: usize, fc7: usize| {
            BoxHead::TwoMlp(TwoMlpHead {
                fc6: LinearConfig::new(input.iter().product(), fc6)
                    .init(device)
                    .into(),
                fc7: LinearConfig::new(fc6, fc7).init(device).into(),
            })
        };
        match self {
            Self::TwoMlp {
                representation_size: size,
            } => two(*size, *size),
            Self::Mlp { fc6, fc7 } => two(*fc6, *fc7),
            Self::ConvFc {
                conv_layers,
                fc_layers,
                norm,
            } => {
                let [mut channels, height, width] = input;
                let mut layers = Vec::new();
                for &out in conv_layers {
                    let conv = ConvNormConfig {
                        norm: *norm,
                        ..ConvNormConfig::new([channels, out], 3)
                    };
                    layers.push(BoxHeadLayer::Conv(conv.init(device)));
                    channels = out;
                }
                layers.push(BoxHeadLayer::Flatten(0));
                let mut features = channels * height * width;
                for &out in fc_layers {
                    let layer = LinearConfig::new(features, out).init(device);
                    layers.push(BoxHeadLayer::Linear(layer.into()));
                    layers.push(BoxHeadLayer::Relu(0));
                    features = out;
                }
                BoxHead::ConvFc(layers)
            }
            Self::Stage(head) => BoxHead::Stage(head.init(input[0], device)),
        }
    }
}

/// Turns pooled features into one vector a proposal.
#[derive(Module, Debug)]
pub enum BoxHead<B: Backend> {
    /// Two linear layers.
    TwoMlp(TwoMlpHead<B>),
    /// Convolutions, then linear layers.
    ConvFc(FastRcnnConvFcHead<B>),
    /// The last stage of a network.
    Stage(StageHead<B>),
}

impl<B: DetectionBackend> BoxHead<B> {
    /// Applies the head to pooled features.
    ///
    /// # Shapes
    /// - pooled: `[K, channels, height, width]`
    /// - output: `[K, out_features]`
    pub fn forward(&self, pooled: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> Tensor<B, 2> {
        self.forward_with_dropout(pooled, 0.0, cx)
    }

    /// As [`forward`](Self::forward), with dropout after each linear layer's ReLU in training.
    pub(crate) fn forward_with_dropout(
        &self,
        pooled: Tensor<B, 4>,
        dropout: f64,
        cx: &mut Forward<'_, B>,
    ) -> Tensor<B, 2> {
        match self {
            Self::TwoMlp(head) => head.forward(pooled, dropout, cx),
            Self::ConvFc(layers) => conv_fc(layers, pooled, dropout, cx),
            Self::Stage(head) => head.forward(pooled, cx),
        }
    }
}

/// ReLU of a linear layer's output, of which training drops a share.
fn relu_dropout<B: Backend>(x: Tensor<B, 2>, dropout: f64, phase: Phase) -> Tensor<B, 2> {
    match phase {
        Phase::Training if dropout > 0.0 => DropoutConfig::new(dropout).init().forward(relu(x)),
        _ => relu(x),
    }
}

/// Two linear layers (`torchvision.models.detection.faster_rcnn.TwoMLPHead`).
#[derive(Module, Debug)]
pub struct TwoMlpHead<B: Backend> {
    /// First layer.
    pub fc6: Linear<B>,
    /// Second layer.
    pub fc7: Linear<B>,
}

impl<B: DetectionBackend> TwoMlpHead<B> {
    fn forward(&self, pooled: Tensor<B, 4>, dropout: f64, cx: &mut Forward<'_, B>) -> Tensor<B, 2> {
        let mut x = pooled.flatten(1, 3);
        for (name, layer) in [("fc6", &self.fc6), ("fc7", &self.fc7)] {
            x = relu_dropout(layer.forward(x), dropout, cx.phase);
            cx.layer(name, &x);
        }
        x
    }
}

/// Convolutions, then linear layers (`torchvision.models.detection.faster_rcnn.FastRCNNConvFCHead`):
/// an `nn.Sequential`, so parameters are named by the position of their layer.
pub type FastRcnnConvFcHead<B> = Vec<BoxHeadLayer<B>>;

/// A layer of a [`FastRcnnConvFcHead`]. Those without parameters hold their place in the names.
#[derive(Module, Debug)]
pub enum BoxHeadLayer<B: Backend> {
    /// 3x3 convolution, norm, ReLU.
    Conv(ConvNorm<B>),
    /// `[K, C, H, W]` to `[K, C * H * W]`; the number means nothing.
    Flatten(usize),
    /// Linear layer.
    Linear(Linear<B>),
    /// ReLU; the number means nothing.
    Relu(usize),
}

fn conv_fc<B: DetectionBackend>(
    layers: &[BoxHeadLayer<B>],
    pooled: Tensor<B, 4>,
    dropout: f64,
    cx: &mut Forward<'_, B>,
) -> Tensor<B, 2> {
    let mut convolved = pooled;
    for (i, layer) in layers.iter().enumerate() {
        if let BoxHeadLayer::Conv(conv) = layer {
            convolved = conv_norm_relu(conv, convolved, cx.phase);
            cx.layer(i, &convolved);
        }
    }
    let mut x = convolved.flatten(1, 3);
    for (i, layer) in layers.iter().enumerate() {
        match layer {
            BoxHeadLayer::Linear(layer) => x = layer.forward(x),
            BoxHeadLayer::Relu(_) => {
                x = relu_dropout(x, dropout, cx.phase);
                // Seen as the linear layer before it.
                cx.layer(i - 1, &x);
            }
            BoxHeadLayer::Conv(_) | BoxHeadLayer::Flatten(_) => {}
        }
    }
    x
}
