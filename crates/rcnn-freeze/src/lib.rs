//! Freezing: the parameters of a detector that are trained, and from which epoch on.
//!
//! A frozen parameter requires no gradient. None is computed for it, nothing before the first
//! trainable layer is kept for the backward pass, and no optimizer moves it, by weight decay or
//! momentum either. A frozen `BatchNorm2d` keeps its running statistics too.
//!
//! What is frozen is said by [`Rule`]s, each a line of text, of which the last one wins:
//!
//! ```
//! # mod rcnn_burn { pub use burn; pub use rcnn_detector::*; pub use rcnn_freeze as freeze; pub use rcnn_ops::backend_types::*; }
//! use rcnn_burn::burn::backend::Autodiff;
//! use rcnn_burn::freeze::{FreezePlan, FreezeState, freeze, parse};
//! use rcnn_burn::{FasterRcnnConfig, Flex};
//!
//! let config = FasterRcnnConfig::named("resnet18_fpn", 4)?;
//! # let config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
//! let model = || config.init::<Autodiff<Flex>>(&Default::default());
//!
//! // All of the box head frozen.
//! let head_frozen = freeze(model()?, &["box_head"])?;
//! // The backbone frozen and the head trained.
//! let backbone_frozen = freeze(model()?, &["backbone"])?;
//! // The head frozen first, then thawed layer by layer.
//! let rules = ["roi_heads", "thaw box_predictor from epoch 2", "thaw box_head from epoch 3"];
//! let plan = FreezePlan::new(FreezeState::from_model(&head_frozen), &parse(&rules)?)?;
//! let second_epoch = plan.at(2).apply(model()?);
//!
//! let state = FreezeState::from_model(&backbone_frozen);
//! println!("{state}");
//! assert!(state.frozen().names.iter().all(|name| name.starts_with("backbone.")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod optimizer;
mod pattern;
mod plan;
mod rule;
mod state;
mod torchvision;

use burn::tensor::backend::Backend;
use rcnn_backbone::Backbone;
use rcnn_detector::FasterRcnn;

pub use error::FreezeError;
pub use optimizer::FreezingOptimizer;
pub use pattern::Pattern;
pub use plan::FreezePlan;
pub use rule::{Change, Rule, parse};
pub use state::{FreezeState, Selection};
pub use torchvision::with_torchvision_default;

/// Freezes parameters of a model by rules such as `"trainable_backbone_layers=3"`, `"freeze rpn"`,
/// `"thaw roi_heads.box_head.fc7.*"`. What no rule names stays as it is; rules from a later epoch
/// are for a [`FreezePlan`].
///
/// ```
/// # mod rcnn_burn { pub use burn; pub use rcnn_detector::*; pub use rcnn_freeze as freeze; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::burn::backend::Autodiff;
/// use rcnn_burn::freeze::{FreezeState, freeze};
/// use rcnn_burn::{FasterRcnnConfig, Flex};
///
/// let config = FasterRcnnConfig::named("resnet18_fpn", 4)?;
/// # let config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
/// let model = config.init::<Autodiff<Flex>>(&Default::default())?;
/// let model = freeze(model, &["backbone", "thaw layer2"])?;
/// assert!(FreezeState::from_model(&model).frozen().names.contains(&"backbone.body.layer1.0.conv1.weight"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When a rule cannot be read, or its pattern matches nothing.
pub fn freeze<B: Backend, N: Backbone<B>>(
    model: FasterRcnn<B, N>,
    rules: &[&str],
) -> Result<FasterRcnn<B, N>, FreezeError> {
    let plan = FreezePlan::new(FreezeState::from_model(&model), &parse(rules)?)?;
    Ok(plan.at(1).apply(model))
}
