//! Errors of rules.

/// Error for a rule that cannot be read or does not fit the model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError {
    /// The text is not a rule.
    #[error(
        "`{rule}`: expected `trainable_backbone_layers=N`, `freeze PATTERN`, `thaw PATTERN` or \
         `PATTERN`, optionally followed by `from epoch N` (epochs count from 1)"
    )]
    Rule {
        /// The text.
        rule: String,
    },
    /// `trainable_backbone_layers` is more than the backbone has stages.
    #[error(
        "trainable_backbone_layers = {found}: expected 0 to {}, the backbone's stages ({})",
        stages.len(), stages.join(", ")
    )]
    TrainableLayers {
        /// What was asked for.
        found: usize,
        /// Names of the stages, in the order of the forward pass.
        stages: Vec<String>,
    },
    /// The pattern is an invalid glob, regular expression or `first:N`.
    #[error("`{pattern}`: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The pattern names nothing in the model.
    #[error("`{pattern}` matches no parameter; the nearest are {}", nearest.join(", "))]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// Modules and parameters of similar name.
        nearest: Vec<String>,
    },
    /// The pattern names nothing that could be trained.
    #[error("`{pattern}` matches buffers only (such as {example}), which are never trained")]
    Buffers {
        /// The pattern.
        pattern: String,
        /// One of them.
        example: String,
    },
    /// `trainable_backbone_layers` of a backbone that lists no stages.
    #[error(
        "trainable_backbone_layers counts the stages of the backbone, but this backbone lists none; \
         freeze its parameters by name"
    )]
    NoStages,
    /// All is frozen.
    #[error("from epoch {epoch} on all parameters are frozen: nothing is left to train")]
    NothingTrainable {
        /// The epoch, from 1.
        epoch: usize,
    },
}
