//! The stages and blocks of a ResNet that are built, and the channels and strides that follow.

use super::{ResNetConfig, ResNetError};
use crate::channels::FreeLayer;
use crate::stage::{Block, BlockState};
use crate::{BackboneConfigError, Stage};

/// Channels that the stem puts out.
const STEM_CHANNELS: usize = 64;
/// Pixels of the image that a location of the stem's output stands for, along each axis.
const STEM_STRIDE: usize = 4;

/// A stage of a ResNet that is built: its input and output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResNetStage {
    /// Number, 1 to 4: the stage is `layer<number>`.
    pub(super) number: usize,
    /// Channels of its input: the output of the stage before that is built, or of the stem.
    pub(super) in_channels: usize,
    /// Channels of its output.
    pub(super) out_channels: usize,
    /// Stride of its first block.
    pub(super) stride: usize,
    /// Whether input and output have different channels in torchvision's network, and so a shortcut between them a
    /// convolution.
    pub(super) changes_channels: bool,
    /// Pixels of the image that a location of its output stands for, along each axis.
    pub(super) total_stride: usize,
    /// Positions of the residual blocks that are built, ascending.
    pub(super) blocks: Vec<usize>,
}

impl ResNetStage {
    /// Whether the first block's shortcut has a convolution of its own, because the block changes
    /// resolution or channels.
    pub(super) fn has_downsample(&self) -> bool {
        self.stride != 1 || self.changes_channels
    }
}

/// Channels within a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InnerChannels {
    /// Output channels of the first convolution and, in a bottleneck, of the second.
    pub(super) convolutions: [usize; 2],
    /// Groups of the second convolution of a bottleneck.
    pub(super) groups: usize,
}

/// Path of the stem's convolution.
const STEM: &str = "conv1";

/// Path of a convolution of a block.
fn convolution(stage: usize, block: usize, conv: usize) -> String {
    format!("layer{stage}.{block}.conv{conv}")
}

/// Path of the convolution in a stage's shortcut.
fn downsample(stage: usize) -> String {
    format!("layer{stage}.0.downsample.0")
}

impl ResNetConfig {
    /// The stages that are built, first to last.
    pub(super) fn built_stages(&self) -> Vec<ResNetStage> {
        let (mut usual, mut in_channels) = (STEM_CHANNELS, self.stem_channels());
        let mut total_stride = STEM_STRIDE;
        let built = (1..=self.stages.min(4)).filter(|number| !self.dropped_stages.contains(number));
        built
            .map(|number| {
                let stride = if number > 1 { 2 } else { 1 };
                total_stride *= stride;
                let usual_output = self.arch.stage_channels(number);
                let changes_channels = std::mem::replace(&mut usual, usual_output) != usual_output;
                // Without a convolution in a shortcut, a stage adds to its input.
                let out_channels = match stride != 1 || changes_channels {
                    true => self.channels.get(&downsample(number), usual_output),
                    false => in_channels,
                };
                let blocks = 0..self.arch.blocks()[number - 1];
                ResNetStage {
                    number,
                    in_channels: std::mem::replace(&mut in_channels, out_channels),
                    out_channels,
                    stride,
                    changes_channels,
                    total_stride,
                    blocks: blocks
                        .filter(|&block| !self.dropped_blocks.contains(&(number, block)))
                        .collect(),
                }
            })
            .collect()
    }

    /// Channels of the output of the stem.
    pub(super) fn stem_channels(&self) -> usize {
        self.channels.get(STEM, STEM_CHANNELS)
    }

    /// Channels within a block.
    pub(super) fn inner_channels(&self, stage: usize, block: usize) -> InnerChannels {
        let (arch, get) = (self.arch, |conv: usize, usual: usize| {
            self.channels.get(&convolution(stage, block, conv), usual)
        });
        if !arch.bottleneck() {
            return InnerChannels {
                convolutions: [get(1, arch.stage_channels(stage)); 2],
                groups: 1,
            };
        }
        let width = arch.stage_width(stage);
        let second = get(2, width);
        match arch.groups() {
            1 => InnerChannels {
                convolutions: [get(1, width), second],
                groups: 1,
            },
            groups => InnerChannels {
                convolutions: [second; 2],
                groups: second / (width / groups),
            },
        }
    }

    /// Layers whose output channels are free: the stem, a stage's shortcut, which says those of the whole stage, and
    /// all but the last of a block. The first of a bottleneck has the groups of the second.
    pub(super) fn free_layers(&self) -> Vec<FreeLayer> {
        let arch = self.arch;
        let mut free = vec![FreeLayer::new(STEM, STEM_CHANNELS)];
        for stage in 1..=4 {
            let (out, width) = (arch.stage_channels(stage), arch.stage_width(stage));
            if stage > 1 || out != STEM_CHANNELS {
                free.push(FreeLayer::new(downsample(stage), out));
            }
            for block in 0..arch.blocks()[stage - 1] {
                let layer = |conv| FreeLayer::new(convolution(stage, block, conv), width);
                match (arch.bottleneck(), arch.groups()) {
                    (false, _) => free.push(FreeLayer {
                        usual: out,
                        ..layer(1)
                    }),
                    (true, 1) => free.extend([layer(1), layer(2)]),
                    (true, groups) => free.push(FreeLayer {
                        unit: width / groups,
                        ..layer(2)
                    }),
                }
            }
        }
        free
    }

    /// The stem and all four stages, whether built or not.
    pub fn stages(&self) -> Vec<Stage> {
        let stem = Stage {
            modules: vec!["conv1".to_string(), "bn1".to_string()],
            is_returnable: false,
            ..Stage::new("stem", self.stem_channels(), STEM_STRIDE)
        };
        let (built, mut stages) = (self.built_stages(), vec![stem]);
        for number in 1..=4 {
            let before = &stages[number - 1];
            let (channels, stride) = (before.channels, before.stride);
            let name = format!("layer{number}");
            stages.push(match built.iter().find(|stage| stage.number == number) {
                Some(stage) => Stage {
                    blocks: self.blocks(stage),
                    ..Stage::new(name, stage.out_channels, stage.total_stride)
                },
                None => Stage {
                    is_built: false,
                    ..Stage::new(name, channels, stride)
                },
            });
        }
        stages
    }

    fn blocks(&self, stage: &ResNetStage) -> Vec<Block> {
        let block = |position: usize| {
            let name = format!("layer{}.{position}", stage.number);
            Block {
                modules: vec![name.clone()],
                name,
                state: match position {
                    position if !stage.blocks.contains(&position) => BlockState::Dropped,
                    0 if stage.has_downsample() => BlockState::ShapeChanging,
                    _ => BlockState::Droppable,
                },
            }
        };
        (0..self.arch.blocks()[stage.number - 1])
            .map(block)
            .collect()
    }

    /// Whether what is dropped can be.
    ///
    /// # Errors
    /// Says what cannot, why, and what to do instead.
    pub(crate) fn validate_dropped(&self) -> Result<(), BackboneConfigError> {
        let dropped = &self.dropped_stages;
        let known = |stage: &usize| (1..=4).contains(stage);
        if !dropped.iter().all(known) || !dropped.is_sorted_by(|a, b| a < b) {
            return Err(ResNetError::DroppedStages(dropped.clone()).into());
        }
        for &(stage, block) in &self.dropped_blocks {
            let blocks = match known(&stage) {
                true => self.arch.blocks()[stage - 1],
                false => 0,
            };
            if block >= blocks {
                return Err(ResNetError::UnknownBlock {
                    stage,
                    block,
                    blocks,
                }
                .into());
            }
        }
        for stage in self.built_stages() {
            let number = stage.number;
            if stage.blocks.is_empty() {
                return Err(ResNetError::EmptyStage(number).into());
            }
            if stage.has_downsample() && stage.blocks[0] != 0 {
                return Err(ResNetError::ShapeChangingBlock {
                    stage: number,
                    input: stage.in_channels,
                    output: stage.out_channels,
                    stride: stage.stride,
                }
                .into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::Architecture;
    use crate::resnet::{ResNetArch, ResNetError, ResNetFpnConfig};

    fn dropped(
        arch: ResNetArch,
        returned_layers: &[usize],
        stages: &[usize],
        blocks: &[(usize, usize)],
    ) -> ResNetFpnConfig {
        ResNetFpnConfig {
            arch,
            returned_layers: returned_layers.to_vec(),
            dropped_stages: stages.to_vec(),
            dropped_blocks: blocks.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn what_follows_a_dropped_stage_has_its_channels_and_stride() {
        let config = dropped(ResNetArch::ResNet50, &[1, 3, 4], &[2], &[(3, 5)]);
        config.validate().expect("a network");
        let stages = config.body().built_stages();
        let shapes: Vec<_> = stages
            .iter()
            .map(|s| (s.number, s.in_channels, s.out_channels, s.total_stride))
            .collect();
        assert_eq!(
            shapes,
            [(1, 64, 256, 4), (3, 256, 1024, 8), (4, 1024, 2048, 16)]
        );
        assert_eq!(stages[1].blocks, [0, 1, 2, 3, 4]);
        let strides: Vec<_> = config.levels().iter().map(|level| level.stride).collect();
        assert_eq!(strides, [4, 8, 16, 32]);

        let first = dropped(ResNetArch::ResNet18, &[4], &[1, 2, 3], &[]);
        let stages = first.body().built_stages();
        assert_eq!((stages[0].in_channels, stages[0].total_stride), (64, 8));
    }

    #[test]
    fn what_cannot_be_dropped_is_refused() {
        let (r18, r50) = (ResNetArch::ResNet18, ResNetArch::ResNet50);
        let all = [1, 2, 3, 4];
        let error = |config: ResNetFpnConfig| config.validate().unwrap_err();
        let says = |config, what: &str| {
            let text = error(config).to_string();
            assert!(text.contains(what), "`{what}` is not in: {text}");
        };
        assert_eq!(
            error(dropped(r18, &all, &[5], &[])),
            ResNetError::DroppedStages(vec![5]).into()
        );
        says(dropped(r18, &all, &[2], &[]), "return layer1");
        says(dropped(r18, &[1], &[1], &[]), "returned_layers");
        says(dropped(r18, &all, &[], &[(1, 2)]), "layer1.0 to layer1.1");
        says(dropped(r18, &all, &[], &[(7, 0)]), "no stage layer7");
        says(dropped(r18, &all, &[], &[(2, 0)]), "from 64 to 128");
        says(dropped(r50, &all, &[], &[(1, 0)]), "from 64 to 256");
        says(dropped(r18, &all, &[], &[(1, 0), (1, 1)]), "dropped_stages");
        // Without a change of shape the first block is as good as another.
        assert_eq!(dropped(r18, &all, &[], &[(1, 0)]).validate(), Ok(()));
        assert_eq!(dropped(r18, &[2, 3], &[1], &[]).validate(), Ok(()));
    }
}
