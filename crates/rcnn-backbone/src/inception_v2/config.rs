//! The configuration of Inception v2, as backbone and as box head, and what it answers about itself.

use std::fmt;

use rcnn_types::validate::{InvalidField, is_positive, require, require_within};
use serde::{Deserialize, Serialize};

use super::table::{BlockSpec, MIXED_3, MIXED_4, MIXED_5, STEM};
use crate::stage::{Block, BlockState};
use crate::{Architecture, BackboneConfigError, LevelSpec, MAX_CHANNELS, NormKind, Stage};

/// How many channels the layers have, as a share of the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InceptionV2Depth {
    /// Factor on the channels of every layer.
    pub depth_multiplier: f64,
    /// Fewest channels of a layer.
    pub min_depth: usize,
}

impl Default for InceptionV2Depth {
    fn default() -> Self {
        Self {
            depth_multiplier: 1.0,
            min_depth: 16,
        }
    }
}

impl InceptionV2Depth {
    /// Channels of a layer that has these in the paper.
    pub(super) fn channels(self, paper: usize) -> usize {
        ((paper as f64 * self.depth_multiplier) as usize).max(self.min_depth)
    }

    fn validate(self, prefix: &str) -> Result<(), InvalidField> {
        let multiplier = self.depth_multiplier;
        let valid = is_positive(multiplier) && multiplier <= 8.0;
        let field = format!("{prefix}depth_multiplier");
        require(valid, &field, multiplier, "a positive number up to 8")?;
        let field = format!("{prefix}min_depth");
        require_within(&field, self.min_depth, 1..=MAX_CHANNELS / 8)
    }
}

/// Settings shared by all convolutions: those of the box head are nothing else.
pub(super) type ConvSettings = InceptionV2HeadConfig;

/// Inception v2 up to `Mixed_4e`, as a backbone of one feature map with a stride of 16.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InceptionV2Config {
    /// Name of the network: there is one.
    pub arch: InceptionV2Arch,
    /// Channels of the layers.
    #[serde(flatten)]
    pub depth: InceptionV2Depth,
    /// The norms.
    pub norm: NormKind,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Blocks that are the identity, by name. TensorFlow: none.
    pub dropped_blocks: Vec<String>,
}

/// The only member of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum InceptionV2Arch {
    /// Inception v2.
    #[default]
    #[serde(rename = "inception_v2")]
    InceptionV2,
}

/// Epsilon of TensorFlow's norms here.
const NORM_EPS: f64 = 1e-3;

impl Default for InceptionV2Config {
    /// The backbone of `faster_rcnn_inception_v2`, whose norms keep their statistics in training.
    fn default() -> Self {
        Self {
            arch: InceptionV2Arch::InceptionV2,
            depth: InceptionV2Depth::default(),
            norm: NormKind::FixedStatistics,
            norm_eps: NORM_EPS,
            dropped_blocks: Vec::new(),
        }
    }
}

impl InceptionV2Config {
    /// Name of the architecture.
    pub const NAME: &'static str = "inception_v2";

    /// The backbone of that name, which has no pyramid.
    pub(crate) fn named(name: &str) -> Option<Self> {
        (name == Self::NAME).then(Self::default)
    }

    pub(super) fn settings(&self) -> ConvSettings {
        ConvSettings {
            depth: self.depth,
            norm: self.norm,
            norm_eps: self.norm_eps,
        }
    }

    /// Channels of the stem's layers.
    pub(super) fn stem(&self) -> [usize; 3] {
        STEM.map(|channels| self.depth.channels(channels))
    }

    /// How many maps the stem's depthwise convolution makes of each colour.
    pub(super) fn colour_multiplier(&self) -> usize {
        (self.stem()[0] / 3).clamp(1, 8)
    }

    /// Every block with the channels of its input, as if none were dropped: those that may be keep them.
    pub(super) fn blocks(&self) -> Vec<(BlockSpec, usize)> {
        let mut channels = self.stem()[2];
        let blocks = MIXED_3.into_iter().chain(MIXED_4);
        let blocks = blocks.map(|block| {
            let input = channels;
            channels = block.channels(input, self.depth);
            (block, input)
        });
        blocks.collect()
    }

    fn stage(&self, name: &str, blocks: &[BlockSpec], stride: usize) -> Stage {
        let all = self.blocks();
        let of_stage = all.iter().filter(|(block, _)| blocks.contains(block));
        let mut channels = 0;
        let blocks = of_stage.map(|(block, input)| {
            channels = block.channels(*input, self.depth);
            let state = match block.halves || channels != *input {
                true => BlockState::ShapeChanging,
                false if self.dropped_blocks.iter().any(|name| name == block.name) => {
                    BlockState::Dropped
                }
                false => BlockState::Droppable,
            };
            Block {
                name: block.name.into(),
                modules: vec![block.name.into()],
                state,
            }
        });
        let blocks: Vec<Block> = blocks.collect();
        Stage {
            modules: blocks
                .iter()
                .flat_map(|block| block.modules.clone())
                .collect(),
            blocks,
            ..Stage::new(name, channels, stride)
        }
    }
}

impl Architecture for InceptionV2Config {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn validate(&self) -> Result<(), BackboneConfigError> {
        self.depth.validate("")?;
        require_within("norm_eps", self.norm_eps, 0.0..=1.0)?;
        let whole = Self {
            dropped_blocks: Vec::new(),
            ..self.clone()
        };
        let stages = whole.stages();
        let blocks = stages.iter().flat_map(|stage| &stage.blocks);
        let known = blocks.filter(|block| block.state == BlockState::Droppable);
        let known: Vec<&str> = known.map(|block| block.name.as_str()).collect();
        for dropped in &self.dropped_blocks {
            require(
                known.contains(&dropped.as_str()),
                "dropped_blocks",
                dropped,
                format_args!(
                    "blocks that keep the shape of their input: {}",
                    known.join(", ")
                ),
            )?;
        }
        Ok(())
    }

    fn levels(&self) -> Vec<LevelSpec> {
        let last = self.stages().pop();
        let level = |stage: Stage| LevelSpec::new("0", stage.channels, stage.stride);
        last.map(level).into_iter().collect()
    }

    fn stages(&self) -> Vec<Stage> {
        let stem = ["conv2d_1a_7x7", "conv2d_2b_1x1", "conv2d_2c_3x3"];
        vec![
            Stage {
                modules: stem.map(String::from).into(),
                ..Stage::new("stem", self.stem()[2], 8)
            },
            self.stage("mixed_3", &MIXED_3, 8),
            self.stage("mixed_4", &MIXED_4, 16),
        ]
    }

    fn level_stages(&self) -> Vec<usize> {
        vec![2]
    }

    /// Sizes in `faster_rcnn_inception_v2_coco`.
    fn anchor_sizes(&self) -> Vec<Vec<f32>> {
        vec![vec![64.0, 128.0, 256.0, 512.0]]
    }

    fn norm_eps(&self) -> f64 {
        self.norm_eps
    }

    fn set_norm_eps(&mut self, eps: f64) {
        self.norm_eps = eps;
    }

    fn set_norm(&mut self, norm: NormKind) {
        self.norm = norm;
    }

    fn set_levels(&mut self, stages: &[usize], pool: bool) -> Result<(), BackboneConfigError> {
        let expected = "mixed_4 alone: the box head goes on from there";
        Ok(require(stages == [2] && !pool, "levels", stages, expected)?)
    }

    /// Blocks that change the shape of their input stay, and then the configuration is invalid.
    fn drop_stage(&mut self, stage: usize) {
        let blocks = self.stages()[stage].blocks.clone();
        self.dropped_blocks
            .extend(blocks.into_iter().map(|block| block.name));
    }

    fn drop_block(&mut self, stage: usize, block: usize) {
        let name = self.stages()[stage].blocks[block].name.clone();
        self.dropped_blocks.push(name);
    }

    /// None: channels follow from the depth.
    fn set_channels(&mut self, _channels: &dyn Fn(&str) -> Option<usize>) {}

    /// TensorFlow's classifier has the detector's names: see [`tensorflow`](super::tensorflow).
    fn classifier_parameter(&self, _name: &str) -> Option<String> {
        None
    }
}

impl fmt::Display for InceptionV2Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}", Self::NAME, self.norm)?;
        if self.depth != InceptionV2Depth::default() {
            let InceptionV2Depth {
                depth_multiplier,
                min_depth,
            } = self.depth;
            write!(
                f,
                ", depth {depth_multiplier} of the paper's, at least {min_depth}"
            )?;
        }
        if !self.dropped_blocks.is_empty() {
            write!(f, ", without {}", self.dropped_blocks.join(", "))?;
        }
        f.write_str(")")
    }
}

/// Inception v2 from `Mixed_5a` on, as a box head that ends with the mean over the map.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InceptionV2HeadConfig {
    /// Channels of the layers.
    #[serde(flatten)]
    pub depth: InceptionV2Depth,
    /// The norms.
    pub norm: NormKind,
    /// Epsilon of the norms.
    pub norm_eps: f64,
}

impl Default for InceptionV2HeadConfig {
    /// The box head of `faster_rcnn_inception_v2`.
    fn default() -> Self {
        let InceptionV2Config {
            depth,
            norm,
            norm_eps,
            ..
        } = InceptionV2Config::default();
        Self {
            depth,
            norm,
            norm_eps,
        }
    }
}

impl InceptionV2HeadConfig {
    /// Name of the network.
    pub const NAME: &'static str = InceptionV2Config::NAME;

    /// Every block with the channels of its input, for features of these channels.
    pub(super) fn blocks(&self, channels: usize) -> [(BlockSpec, usize); 3] {
        let mut channels = channels;
        MIXED_5.map(|block| {
            let input = channels;
            channels = block.channels(input, self.depth);
            (block, input)
        })
    }

    /// Width of the vector that the head makes of features of these channels.
    pub fn out_features(&self, channels: usize) -> usize {
        let [.., (last, input)] = self.blocks(channels);
        last.channels(input, self.depth)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), InvalidField> {
        self.depth.validate("box_head.")?;
        require_within("epsilon of box_head.norm", self.norm_eps, 0.0..=1.0)
    }
}
