//! What can be wrong with a rule.

/// A rule that can't be read or does not fit the model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError {
    /// The text is no rule.
    #[error(
        "`{rule}`: expected `trainable_backbone_layers=N`, `freeze PATTERN`, `thaw PATTERN` or \
         `PATTERN`, perhaps with `from epoch N` after it (epochs count from 1)"
    )]
    Rule {
        /// The text.
        rule: String,
    },
    /// There are no more stages to count.
    #[error("trainable_backbone_layers = {found}: expected 0 to 5")]
    TrainableLayers {
        /// What was asked for.
        found: String,
    },
    /// The pattern is no glob, no regular expression or no `first:N`.
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
    /// `trainable_backbone_layers` of a model without a ResNet.
    #[error(
        "trainable_backbone_layers counts the stages of a ResNet; the model has no parameter `backbone.body.*`"
    )]
    NoBody,
    /// All is frozen.
    #[error("from epoch {epoch} on all parameters are frozen: nothing is left to train")]
    NothingTrainable {
        /// The epoch, from 1.
        epoch: usize,
    },
}
