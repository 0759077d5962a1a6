//! Errors of pruning.

use rcnn_core::freeze::FreezeError;
use rcnn_core::types::validate::InvalidField;
use rcnn_core::weights::WeightsError;
use rcnn_core::{ConfigError, DetectError};

/// Error of a pruning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// The budget cannot be met within the limits.
    #[error(
        "a budget of {asked:.3} of the {what} can't be met: with every group of channels at its limit, {least:.3} are left; \
         lower the limits (a smaller share to keep, fewer channels, finer rounding) or raise the budget"
    )]
    Budget {
        /// Quantity that the budget limits.
        what: &'static str,
        /// The share that was asked for.
        asked: f64,
        /// The least share that can be reached.
        least: f64,
    },
    /// No labelled pictures to estimate importance on.
    #[error("no labelled pictures with objects: the importance by loss needs at least one")]
    NoPictures,
    /// An importance that is not a finite number.
    #[error(
        "the importance of {layer} is {value}: the model's losses or weights are not finite numbers"
    )]
    NotFinite {
        /// The layer.
        layer: String,
        /// The importance.
        value: f64,
    },
    /// A tensor cannot be read.
    #[error("{name}: {reason}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The architecture makes another network of these channels.
    #[error(
        "{backbone} can't be built with the channels that are left: {name} would be {found:?} instead of \
         {expected:?}"
    )]
    Architecture {
        /// The architecture.
        backbone: String,
        /// A parameter.
        name: String,
        /// Its shape in the network that the architecture makes.
        found: Vec<usize>,
        /// Its shape with the channels that are left.
        expected: Vec<usize>,
    },
    /// A pattern of layers matches none.
    #[error(transparent)]
    Pattern(#[from] FreezeError),
    /// A number is out of range.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The network.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A picture.
    #[error(transparent)]
    Detect(#[from] DetectError),
}
