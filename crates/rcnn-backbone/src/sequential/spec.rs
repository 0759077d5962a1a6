//! The layers of an `nn.Sequential` as data.

use rcnn_ops::Activation;

/// Layers between two halvings of the resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct StageSpec {
    /// Its name in surgery, rules and tables.
    pub name: String,
    /// Its layers, which follow those of the stage before in the `nn.Sequential`.
    pub layers: Vec<LayerSpec>,
    /// Position of the layer whose output a feature pyramid takes.
    pub map: usize,
    /// Positions and names of the layers that can be dropped where they keep the shape.
    pub blocks: Vec<(usize, String)>,
}

/// A layer, with its channels and strides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LayerSpec {
    /// torchvision's `Conv2dNormActivation`: convolution, norm and activation under one index.
    ConvNormActivation {
        /// Channels of the output.
        out: usize,
        /// Side of the kernel.
        kernel: usize,
        /// Stride along both axes.
        stride: usize,
        /// Activation after the norm.
        activation: Activation,
    },
    /// A MobileNet's block.
    InvertedResidual(InvertedResidualSpec),
    /// A 3x3 convolution with a bias, of stride 1. A [`Norm`](Self::Norm) or none and a ReLU follow.
    Conv {
        /// Channels of the output.
        out: usize,
    },
    /// The norm of the convolution before.
    Norm,
    /// The activation of the convolution before.
    Relu,
    /// The largest of 2x2 pixels, of stride 2.
    MaxPool,
}

/// A MobileNet's block: a 1x1 convolution to more channels, a depthwise one, perhaps squeeze and excitation, and a
/// 1x1 convolution to fewer. Its input is added where it has the shape of the output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InvertedResidualSpec {
    /// Side of the depthwise kernel.
    pub kernel: usize,
    /// Channels of the depthwise convolution.
    pub expanded: usize,
    /// Whether there is a 1x1 convolution before it; without, the input has these channels already.
    pub has_expansion: bool,
    /// Channels of the output.
    pub out: usize,
    /// Channels between the two layers of squeeze and excitation, if there is one.
    pub squeeze: Option<usize>,
    /// Activation of the first two convolutions.
    pub activation: Activation,
    /// Stride of the depthwise convolution.
    pub stride: usize,
    /// torchvision's names of the layers.
    pub names: BlockNames,
}

/// Names of a MobileNet's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockNames {
    /// `block.0`, ...: the last convolution has its norm beside it (MobileNetV3).
    Block,
    /// `conv.0`, ...: the last convolution and its norm are two layers (MobileNetV2).
    Conv,
}

impl BlockNames {
    /// Name of the list of layers, and what follows the place of the last convolution in its own.
    fn list_and_end(self) -> (&'static str, &'static str) {
        match self {
            Self::Block => ("block", ".0"),
            Self::Conv => ("conv", ""),
        }
    }
}

impl LayerSpec {
    /// Channels of the output, for an input of these channels.
    pub(super) fn out(&self, input: usize) -> usize {
        match self {
            Self::ConvNormActivation { out, .. } | Self::Conv { out } => *out,
            Self::InvertedResidual(block) => block.out,
            Self::Norm | Self::Relu | Self::MaxPool => input,
        }
    }

    /// Stride along both axes.
    pub(crate) fn stride(&self) -> usize {
        match self {
            Self::ConvNormActivation { stride, .. } => *stride,
            Self::InvertedResidual(block) => block.stride,
            Self::Conv { .. } | Self::Norm | Self::Relu => 1,
            Self::MaxPool => 2,
        }
    }

    /// Whether the output has the shape of an input of these channels.
    pub(super) fn keeps_shape(&self, input: usize) -> bool {
        self.stride() == 1 && self.out(input) == input
    }

    /// Names of the convolutions whose output channels are free, with those that they have; of a layer that adds its
    /// input, if `keeps_shape`. A layer that is one convolution has no name in itself.
    pub(super) fn free_layers(&self, keeps_shape: bool) -> Vec<(String, usize)> {
        match self {
            Self::ConvNormActivation { out, .. } => vec![("0".into(), *out)],
            Self::InvertedResidual(block) => block.free_layers(keeps_shape),
            Self::Conv { out } => vec![(String::new(), *out)],
            Self::Norm | Self::Relu | Self::MaxPool => Vec::new(),
        }
    }

    /// The layer for an input of these channels, with others in its convolutions: those that `channels` says by name,
    /// given the ones that they have.
    pub(super) fn with_channels(
        self,
        input: usize,
        keeps_shape: bool,
        channels: &dyn Fn(&str, usize) -> usize,
    ) -> Self {
        match self {
            Self::ConvNormActivation {
                out,
                kernel,
                stride,
                activation,
            } => Self::ConvNormActivation {
                out: channels("0", out),
                kernel,
                stride,
                activation,
            },
            Self::InvertedResidual(block) => {
                Self::InvertedResidual(block.with_channels(input, keeps_shape, channels))
            }
            Self::Conv { out } => Self::Conv {
                out: channels("", out),
            },
            Self::Norm | Self::Relu | Self::MaxPool => self,
        }
    }

    /// Names and shapes of the weights of convolutions, for an input of these channels.
    pub(super) fn weights(&self, input: usize) -> Vec<(String, Vec<usize>)> {
        match self {
            Self::ConvNormActivation { out, kernel, .. } => {
                vec![("0.weight".into(), vec![*out, input, *kernel, *kernel])]
            }
            Self::InvertedResidual(block) => block.weights(input),
            Self::Conv { out } => vec![("weight".into(), vec![*out, input, 3, 3])],
            Self::Norm | Self::Relu | Self::MaxPool => Vec::new(),
        }
    }

    /// Suffix that leads from the layer's name to its norm's, if it has one; recognition infers the kind of all
    /// norms from it.
    pub(super) fn norm(&self) -> Option<&'static str> {
        match self {
            Self::ConvNormActivation { .. } => Some(".1"),
            Self::Norm => Some(""),
            _ => None,
        }
    }

    /// Whether the layer belongs to the convolution before, and goes with it.
    pub(super) fn follows_convolution(&self) -> bool {
        matches!(self, Self::Norm | Self::Relu)
    }
}

impl InvertedResidualSpec {
    /// Names of the convolutions: the first, that to fewer channels in squeeze and excitation, the last.
    fn convolutions(&self) -> [String; 3] {
        let depthwise = usize::from(self.has_expansion);
        let last = depthwise + 1 + usize::from(self.squeeze.is_some());
        let (list, end) = self.names.list_and_end();
        [
            format!("{list}.0.0"),
            format!("{list}.{}.fc1", depthwise + 1),
            format!("{list}.{last}{end}"),
        ]
    }

    fn free_layers(&self, keeps_shape: bool) -> Vec<(String, usize)> {
        let [first, squeeze, last] = self.convolutions();
        // The depthwise convolution has the channels of its input, and the last one those of what it is added to.
        let first = self.has_expansion.then_some((first, self.expanded));
        let squeeze = self.squeeze.map(|channels| (squeeze, channels));
        let last = (!keeps_shape).then_some((last, self.out));
        [first, squeeze, last].into_iter().flatten().collect()
    }

    fn with_channels(
        self,
        input: usize,
        keeps_shape: bool,
        channels: &dyn Fn(&str, usize) -> usize,
    ) -> Self {
        let [first, squeeze, last] = self.convolutions();
        Self {
            expanded: match self.has_expansion {
                true => channels(&first, self.expanded),
                false => input,
            },
            squeeze: self.squeeze.map(|usual| channels(&squeeze, usual)),
            out: match keeps_shape {
                true => input,
                false => channels(&last, self.out),
            },
            ..self
        }
    }

    fn weights(&self, input: usize) -> Vec<(String, Vec<usize>)> {
        let (expanded, kernel) = (self.expanded, self.kernel);
        let mut layers = Vec::new();
        if self.has_expansion {
            layers.push(vec![(".0", vec![expanded, input, 1, 1])]);
        }
        layers.push(vec![(".0", vec![expanded, 1, kernel, kernel])]);
        if let Some(squeeze) = self.squeeze {
            layers.push(vec![
                (".fc1", vec![squeeze, expanded, 1, 1]),
                (".fc2", vec![expanded, squeeze, 1, 1]),
            ]);
        }
        let (list, end) = self.names.list_and_end();
        layers.push(vec![(end, vec![self.out, expanded, 1, 1])]);
        let layers = layers.into_iter().enumerate();
        layers
            .flat_map(|(i, weights)| {
                let name = move |(name, shape)| (format!("{list}.{i}{name}.weight"), shape);
                weights.into_iter().map(name)
            })
            .collect()
    }
}
