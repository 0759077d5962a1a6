//! Errors in the stages and blocks of a ResNet.

/// Stages or blocks of a ResNet that do not go together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ResNetError {
    /// `returned_layers` is empty, out of order or out of range.
    #[error("returned_layers = {0:?}: expected one or more of 1, 2, 3, 4, in ascending order")]
    ReturnedLayers(Vec<usize>),
    /// `dropped_stages` is out of order or out of range.
    #[error("dropped_stages = {0:?}: expected some of 1, 2, 3, 4, in ascending order")]
    DroppedStages(Vec<usize>),
    /// A stage that is dropped is returned.
    #[error(
        "returned_layers has stage {stage}, which is dropped, so that its map would repeat the \
         previous one: {}",
        match stage {
            1 => "leave it out of returned_layers".to_string(),
            stage => format!("return layer{} instead, or leave it out", stage - 1),
        }
    )]
    DroppedReturned {
        /// The stage.
        stage: usize,
    },
    /// An unknown block.
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
         also removes its stride and channels"
    )]
    EmptyStage(usize),
    /// A dropped block is the one that changes the shape.
    #[error(
        "layer{stage}.0 can't be dropped by itself: it changes the channels from {input} to {output} \
         with a stride of {stride}, and the blocks after it depend on that; drop one of those, or \
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
}
