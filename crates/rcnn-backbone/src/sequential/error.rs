//! Errors of the stages and blocks of a sequential body.

/// Stages or blocks of a sequential body that do not go together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SequentialError {
    /// `returned_layers` is empty, out of order or out of range.
    #[error("returned_layers = {found:?}: expected one or more of 0 to {last}, in ascending order")]
    ReturnedLayers {
        /// The stages given.
        found: Vec<usize>,
        /// Number of the last stage.
        last: usize,
    },
    /// Several feature maps, or a level `pool`, without a pyramid.
    #[error(
        "the backbone has no feature pyramid and returns one feature map: name one stage, not {0}"
    )]
    OneMap(String),
    /// An unknown stage, or the first one, which cannot be dropped.
    #[error("stage {stage} can't be dropped: expected some of {known}")]
    UnknownStage {
        /// The stage given.
        stage: String,
        /// The stages that can be dropped.
        known: String,
    },
    /// A stage that is dropped is returned.
    #[error(
        "returned_layers has {stage}, which is dropped, so that its map would repeat the previous \
         one: return {before} instead, or omit it"
    )]
    DroppedReturned {
        /// The stage.
        stage: String,
        /// The stage before.
        before: String,
    },
    /// An unknown block.
    #[error("there is no block {block} to drop: known are {known}")]
    UnknownBlock {
        /// The block given.
        block: String,
        /// The blocks of the body.
        known: String,
    },
    /// A dropped block is one that changes the shape.
    #[error(
        "{block} can't be dropped by itself: it changes the channels from {input} to {output} with a \
         stride of {stride}, and the layers after it depend on that; drop another block, or the whole \
         stage (dropped_stages)"
    )]
    ShapeChangingBlock {
        /// The block.
        block: String,
        /// Channels of its input.
        input: usize,
        /// Channels of its output.
        output: usize,
        /// Its stride.
        stride: usize,
    },
}
