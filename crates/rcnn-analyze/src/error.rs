//! Errors of an analysis.

use rcnn_core::weights::WeightsError;
use rcnn_core::{ConfigError, DetectError};
use rcnn_eval::EvalError;

/// Error of an analysis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalyzeError {
    /// Nothing to measure on.
    #[error("no pictures to measure on: at least one is needed")]
    NoPictures,
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The network.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A picture.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// Labels or detections.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A pattern of layers that is none.
    #[error("{pattern}: {reason}")]
    Pattern {
        /// The value that was given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}
