//! The body of a backbone, which a feature pyramid is built on.

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::Forward;

use crate::Stage;

/// An image classifier without its classifier: stages that follow one another, each with an output that a
/// pyramid may take.
///
/// ```
/// # mod rcnn_burn { pub use burn; pub use burn::tensor::{Tensor, backend::Backend}; pub use rcnn_backbone as backbone; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::backbone::{Body, Forward, FpnConfig, Stage};
/// use rcnn_burn::burn::{self, module::Module, tensor::activation::relu};
/// use rcnn_burn::burn::nn::conv::{Conv2d, Conv2dConfig};
/// use rcnn_burn::{Backend, Flex, Tensor};
///
/// #[derive(Module, Debug)]
/// struct Tiny<B: Backend> {
///     convs: Vec<Conv2d<B>>,
/// }
///
/// impl<B: Backend> Body<B> for Tiny<B> {
///     fn forward(
///         &self,
///         images: Tensor<B, 4>,
///         returned: &[usize],
///         cx: &mut Forward<'_, B>,
///     ) -> Vec<Tensor<B, 4>> {
///         let (mut x, mut outputs) = (images, Vec::new());
///         for (i, conv) in self.convs.iter().enumerate() {
///             x = relu(conv.forward(x));
///             cx.layer(format_args!("convs.{i}"), &x);
///             if returned.contains(&i) {
///                 outputs.push(x.clone());
///             }
///         }
///         outputs
///     }
///
///     fn stages(&self) -> Vec<Stage> {
///         let stage = |i| Stage::new(format!("convs.{i}"), 8usize << i, 2usize << i);
///         (0..self.convs.len()).map(stage).collect()
///     }
/// }
///
/// let device = Default::default();
/// let conv = |channels| Conv2dConfig::new(channels, [2, 2]).with_stride([2, 2]).init(&device);
/// let body = Tiny::<Flex> { convs: [[3, 8], [8, 16], [16, 32]].map(conv).into() };
/// // A pyramid over the last two stages: maps `0` and `1` of 64 channels each, and `pool`.
/// let fpn = FpnConfig { returned_stages: vec![1, 2], out_channels: 64, ..Default::default() };
/// let backbone = fpn.init(body, &device)?;
/// # use rcnn_backbone::Backbone;
/// # assert_eq!(backbone.levels()[2], rcnn_backbone::LevelSpec::new("pool", 64, 16));
/// # let images = Tensor::zeros([1, 3, 32, 48], &device);
/// # let maps = backbone.forward(images, &mut Forward::inference());
/// # maps.validate(&backbone.levels(), [1, 3, 32, 48])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Body<B: Backend>: Module<B> + ModuleDisplay {
    /// Computes the outputs of some stages, given as ascending positions in [`stages`](Self::stages).
    ///
    /// # Shapes
    /// - images: `[N, 3, H, W]`, normalised
    /// - output: for each of `returned` a `[N, channels, H / stride, W / stride]`
    fn forward(
        &self,
        images: Tensor<B, 4>,
        returned: &[usize],
        cx: &mut Forward<'_, B>,
    ) -> Vec<Tensor<B, 4>>;

    /// The stages in the order of the forward pass, with the paths of their modules in this one.
    fn stages(&self) -> Vec<Stage>;

    /// Makes a block the identity, and says whether it has it and could. Bodies drop none unless they
    /// override this.
    fn drop_block(&mut self, _block: &str) -> bool {
        false
    }
}
