//! The [`Backbone`] trait, what it returns, and the configuration of those that come along.

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::Forward;
use rcnn_types::validate::InvalidField;
use serde::{Deserialize, Serialize};

use crate::{LevelSpec, ResNetFpnConfig};

/// Named feature maps, highest resolution first, as torchvision's `OrderedDict` of them.
#[derive(Debug, Clone)]
pub struct FeatureMaps<B: Backend>(Vec<(String, Tensor<B, 4>)>);

impl<B: Backend> FeatureMaps<B> {
    /// Feature maps `[N, C, H, W]` with their names, highest resolution first.
    pub fn new(maps: Vec<(String, Tensor<B, 4>)>) -> Self {
        Self(maps)
    }

    /// A single map, under the name `"0"` that torchvision gives it.
    pub fn single(map: Tensor<B, 4>) -> Self {
        Self(vec![("0".to_string(), map)])
    }

    /// The map of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor<B, 4>> {
        self.iter().find(|(n, _)| *n == name).map(|(_, map)| map)
    }

    /// Names and maps, highest resolution first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor<B, 4>)> {
        self.0.iter().map(|(name, map)| (name.as_str(), map))
    }
}

/// A network that turns images into feature maps: torchvision's "anything with `out_channels`".
///
/// ```
/// use burn::module::Module;
/// use burn::nn::conv::Conv2d;
/// use burn::tensor::{Tensor, activation::relu, backend::Backend};
/// use rcnn_backbone::{Backbone, FeatureMaps, Forward, LevelSpec};
///
/// #[derive(Module, Debug)]
/// struct Tiny<B: Backend> {
///     conv: Conv2d<B>,
/// }
///
/// impl<B: Backend> Backbone<B> for Tiny<B> {
///     fn forward(&self, images: Tensor<B, 4>, _cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
///         FeatureMaps::single(relu(self.conv.forward(images)))
///     }
///
///     fn levels(&self) -> Vec<LevelSpec> {
///         vec![LevelSpec::new("0", self.conv.weight.dims()[0], self.conv.stride[0])]
///     }
/// }
/// ```
pub trait Backbone<B: Backend>: Module<B> + ModuleDisplay {
    /// Computes the feature maps of a batch of images. The context says what the pass is for, which
    /// matters to layers that train differently, and shows layers to a hook
    /// ([`Forward::layer`]); of a backbone that shows none, hooks see the feature maps.
    ///
    /// # Shapes
    /// - images: `[N, 3, H, W]`, normalised
    /// - output: the maps of [`levels`](Self::levels), each `[N, channels, H / stride, W / stride]`
    fn forward(&self, images: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> FeatureMaps<B>;

    /// The feature maps that [`forward`](Self::forward) returns, finest first. Anchors and pooling of
    /// a configuration must fit them.
    fn levels(&self) -> Vec<LevelSpec>;

    /// Number of pixels that the height and width of a batch must be a multiple of. A configuration
    /// must pad to such a multiple (`size_divisible`).
    fn size_divisibility(&self) -> usize {
        32
    }

    /// What rebuilds this backbone when a saved model is opened. A backbone that this project does
    /// not know stays [`BackboneConfig::Custom`] and is passed in again by hand.
    fn config(&self) -> BackboneConfig {
        BackboneConfig::Custom
    }
}

/// Describes a backbone completely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackboneConfig {
    /// A ResNet with a feature pyramid network.
    ResnetFpn(ResNetFpnConfig),
    /// A type of the user's own.
    Custom,
}

/// A backbone configuration that describes no network.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BackboneConfigError {
    /// `returned_layers` is empty, out of order or out of range.
    #[error("returned_layers = {0:?}: expected one or more of 1, 2, 3, 4, in ascending order")]
    ReturnedLayers(Vec<usize>),
    /// `dropped_stages` is out of order or out of range.
    #[error("dropped_stages = {0:?}: expected some of 1, 2, 3, 4, in ascending order")]
    DroppedStages(Vec<usize>),
    /// A stage that is dropped is returned.
    #[error(
        "returned_layers has stage {stage}, which is dropped, so that its map would be the one \
         before again: {}",
        match stage {
            1 => "leave it out of returned_layers".to_string(),
            stage => format!("return layer{} instead, or leave it out", stage - 1),
        }
    )]
    DroppedReturned {
        /// The stage.
        stage: usize,
    },
    /// A block that there is not.
    #[error(
        "there is no block layer{stage}.{block} to drop: {}",
        match blocks {
            0 => format!("there is no stage layer{stage}; known are layer1 to layer4"),
            blocks => format!("the stage has layer{stage}.0 to layer{stage}.{}", blocks - 1),
        }
    )]
    UnknownBlock {
        /// Its stage.
        stage: usize,
        /// Its position in the stage.
        block: usize,
        /// Blocks of the stage; 0 where there is no such stage.
        blocks: usize,
    },
    /// All blocks of a stage are dropped.
    #[error(
        "every block of layer{0} is dropped: drop the whole stage instead (dropped_stages), which \
         also takes its stride and channels out"
    )]
    EmptyStage(usize),
    /// A dropped block is the one that changes the shape.
    #[error(
        "layer{stage}.0 can't be dropped by itself: it takes the channels from {input} to {output} \
         with a stride of {stride}, and the blocks after it build on that; drop one of those, or \
         the whole stage (dropped_stages)"
    )]
    ShapeChangingBlock {
        /// Its stage.
        stage: usize,
        /// Channels of its input.
        input: usize,
        /// Channels of its output.
        output: usize,
        /// Its stride.
        stride: usize,
    },
    /// Another field has an invalid value.
    #[error(transparent)]
    Field(#[from] InvalidField),
}
