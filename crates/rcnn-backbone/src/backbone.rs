//! The [`Backbone`] trait and the feature maps that it returns.

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::Forward;

use crate::{BackboneConfig, LevelSpec, Stage};

/// Named feature maps, highest resolution first, as torchvision's `OrderedDict` of them.
#[derive(Debug, Clone)]
pub struct FeatureMaps<B: Backend>(Vec<(String, Tensor<B, 4>)>);

impl<B: Backend> FeatureMaps<B> {
    /// Feature maps `[N, C, H, W]` with their names, highest resolution first.
    pub fn new(maps: Vec<(String, Tensor<B, 4>)>) -> Self {
        Self(maps)
    }

    /// Wraps a single feature map, under the name `"0"` that torchvision gives it.
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
/// # mod rcnn_burn { pub use burn; pub use burn::tensor::{Tensor, backend::Backend}; pub use rcnn_backbone as backbone; }
/// use rcnn_burn::backbone::{Backbone, FeatureMaps, Forward, LevelSpec};
/// use rcnn_burn::burn::{self, module::Module, nn::conv::Conv2d, tensor::activation::relu};
/// use rcnn_burn::{Backend, Tensor};
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

    /// The stages in the order of the forward pass, with the paths of their modules in this one. Rules of
    /// freezing may name them, and `trainable_backbone_layers` counts them from the last to the first. A
    /// backbone without stages does without both.
    fn stages(&self) -> Vec<Stage> {
        Vec::new()
    }

    /// Number of pixels that the height and width of a batch must be a multiple of. A configuration
    /// must pad to such a multiple (`size_divisible`).
    fn size_divisibility(&self) -> usize {
        32
    }

    /// Configuration that rebuilds this backbone when a saved model is opened. One that this project does
    /// not know stays [`BackboneConfig::Custom`] and is passed in again by hand.
    fn config(&self) -> BackboneConfig {
        BackboneConfig::Custom
    }
}
