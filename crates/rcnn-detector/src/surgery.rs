//! Layers removed and replaced, as operations on the configuration.
//!
//! A model is its configuration and its weights: an [`Operation`] says what the network is to be, and
//! everything that depends on it follows ([`FasterRcnnConfig::with_surgery`]). Which weights then still fit is
//! the weights' matter.

mod backbone;
mod text;

use rcnn_roi::{BoxHeadConfig, BoxHeadTextError, KeypointConfig, MaskConfig, MultiScaleRoiAlign};
use rcnn_rpn::AnchorGenerator;
use rcnn_types::BACKGROUND;

use crate::{ConfigError, FasterRcnnConfig};

/// A change of the network. Stages and blocks go by the names that the architecture gives them
/// ([`Architecture::stages`](rcnn_backbone::Architecture::stages)), such as `layer4` and `layer3.1` of a ResNet,
/// `stage4` and `stage4.1` of a MobileNet, `conv5` and `conv5_2` of a VGG, or by the numbers in them alone: `3.1`.
///
/// In text (`"drop-stage layer4".parse()`) it is a name and, for all but `no-box-regression`, a value;
/// the names are those of the options of `rcnn surgery`.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; pub use rcnn_types::*; }
/// use rcnn_burn::FasterRcnnConfig;
///
/// let whole = FasterRcnnConfig::named("resnet50_fpn", 91)?;
/// let small = whole.with_surgery(&["drop-stage layer4".parse()?, "box-head fc:512".parse()?])?;
/// let levels = |config: &FasterRcnnConfig| config.backbone.architecture().map(|a| a.levels().len());
/// assert_eq!((levels(&whole), levels(&small)), (Some(5), Some(4)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// Takes only these feature maps, in any order: `levels 0,2,pool`. `pool` alone cannot be.
    ///
    /// Where feature maps come and go, here and below, the anchors of each stride stay with it, and
    /// proposals are cut from the same stages. A stride that had no anchors gets those of the nearest
    /// one, scaled.
    Levels(Vec<Level>),
    /// Ends the body after a stage: `cut-after layer3`. A level `pool` stays, over the last map.
    CutAfter(String),
    /// Makes a stage the identity: `drop-stage layer2`. Its feature map goes; later stages take the
    /// channels and stride of the stage before.
    DropStage(String),
    /// Makes a residual block the identity: `drop-block layer3.1`. The others keep their names.
    DropBlock(String),
    /// Gives the first stage that many 3x3 convolutions, or none: `rpn-convs 0`.
    RpnConvs(usize),
    /// Gives the first stage other anchors: `anchors 32;64;128@0.5,1,2` has a size on each of three
    /// levels and three ratios.
    Anchors(AnchorGenerator),
    /// Replaces the box head: `box-head fc:512`. See [`BoxHeadConfig::from_str`].
    ///
    /// [`BoxHeadConfig::from_str`]: std::str::FromStr::from_str
    BoxHead(BoxHeadConfig),
    /// Replaces or adds the mask head: `mask-head conv:256x2`, 3x3 convolutions, or `conv_bn:256x4` with
    /// batch norms; the predictor's channels are those of the last. `mask-head none` removes the branch.
    MaskHead(Option<MaskConfig>),
    /// Replaces or adds the keypoint head: `keypoint-head conv:512x8`, for the model's keypoints or, where it
    /// has none, COCO's 17; after a `/` for another number, `conv:64x4/2`. `keypoint-head none` removes the
    /// branch.
    KeypointHead(Option<KeypointHeadLayers>),
    /// Takes proposals as boxes: `no-box-regression`.
    NoBoxRegression,
    /// Tells other classes apart, the background included: `num-classes 3`. Class names and class
    /// weights are forgotten where the number changes.
    NumClasses(usize),
    /// The same with names: `class-names cat,dog`. The background comes first or is left out.
    ClassNames(Vec<String>),
}

/// Layers of a keypoint head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeypointHeadLayers {
    /// Channels of each 3x3 convolution.
    pub layers: Vec<usize>,
    /// Keypoints of an object; `None` for as many as before.
    pub num_keypoints: Option<usize>,
}

/// A feature map to keep or add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// The map that the model has at this position, as torchvision names them: `0`.
    Map(usize),
    /// The map of a stage of the body: `layer2`.
    Stage(String),
    /// The last map, subsampled: `pool`.
    Pool,
}

/// Error for an operation that is not possible, with what to do instead.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SurgeryError {
    /// Text that is not an operation.
    #[error("`{text}`: {reason}")]
    Text {
        /// The text that was given.
        text: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// The box head's text.
    #[error(transparent)]
    BoxHead(#[from] BoxHeadTextError),
    /// The backbone is of the user's own.
    #[error(
        "the layers of a custom backbone cannot be changed by surgery: change them where the backbone is \
         built; heads, anchors and classes can be changed"
    )]
    CustomBackbone,
    /// A stage that the model does not build.
    #[error("the model has no stage {stage}: its stages are {}", names(.built))]
    NoSuchStage {
        /// The stage.
        stage: String,
        /// Those that are built.
        built: Vec<String>,
    },
    /// Nothing follows the stage to cut after.
    #[error("nothing follows {0}, where the body already ends; omit the operation")]
    NothingToCut(String),
    /// No level would be left.
    #[error(
        "without {stage}{} no feature map would be left, as only {} has one: first choose a \
         level that stays, `levels {}` for one",
        if *.cut { " and what follows it" } else { "" },
        names(.returned),
        .instead
    )]
    NoLevelLeft {
        /// First stage that goes.
        stage: String,
        /// Whether all after it go too.
        cut: bool,
        /// Stages that have levels.
        returned: Vec<String>,
        /// A stage that could be one.
        instead: String,
    },
    /// An unknown level.
    #[error("there is no level {level}: the model has {known}; stages can be named, too")]
    NoSuchLevel {
        /// What was asked for.
        level: String,
        /// Those there are.
        known: String,
    },
    /// No stage among the levels.
    #[error("no level of a stage: `pool` is computed from the last one, so name at least one more")]
    NoStageLevel,
    /// A block that the model does not have.
    #[error("the model has no block {block}: it has {}", names(.known))]
    NoSuchBlock {
        /// The block.
        block: String,
        /// The first and last block of each stage.
        known: Vec<String>,
    },
    /// The block is dropped already.
    #[error("{0} has already been dropped; omit the operation")]
    DroppedAlready(String),
    /// There is no such branch to remove.
    #[error("the model has no {0} head; omit the operation")]
    NoBranch(&'static str),
    /// The predictor refines no boxes.
    #[error("the model has no box regression; omit the operation")]
    NoBoxRegression,
    /// The network that results describes no detector.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Names with commas between them.
fn names(names: &[String]) -> String {
    match names.is_empty() {
        true => "none".to_string(),
        false => names.join(", "),
    }
}

impl FasterRcnnConfig {
    /// The configuration of the network that results from operations, one after another.
    ///
    /// # Errors
    /// Says which cannot be, why, and what to do instead.
    pub fn with_surgery(&self, operations: &[Operation]) -> Result<Self, SurgeryError> {
        let mut config = self.clone();
        for operation in operations {
            config.apply(operation)?;
            config.validate()?;
        }
        Ok(config)
    }

    fn apply(&mut self, operation: &Operation) -> Result<(), SurgeryError> {
        match operation {
            Operation::Levels(levels) => {
                self.change_backbone(|network| backbone::choose_levels(network, levels))?;
            }
            Operation::CutAfter(stage) => {
                self.change_backbone(|network| backbone::cut_after(network, stage))?;
            }
            Operation::DropStage(stage) => {
                self.change_backbone(|network| backbone::drop_stage(network, stage))?;
            }
            Operation::DropBlock(block) => {
                self.change_backbone(|network| backbone::drop_block(network, block))?;
            }
            Operation::RpnConvs(depth) => {
                self.rpn.conv_depth = *depth;
                let channels = &mut self.rpn.conv_channels;
                if let Some(&last) = channels.last() {
                    channels.resize(*depth, last);
                }
            }
            Operation::Anchors(anchors) => {
                let strides = self.rpn.anchor_generator.strides.take();
                self.rpn.anchor_generator = AnchorGenerator {
                    strides,
                    ..anchors.clone()
                };
            }
            Operation::BoxHead(head) => self.roi_heads.box_head = head.clone(),
            Operation::MaskHead(None) if self.roi_heads.mask.is_none() => {
                return Err(SurgeryError::NoBranch("mask"));
            }
            Operation::MaskHead(mask) => {
                let pool = self.branch_pool();
                let mask = mask.clone();
                self.roi_heads.mask = mask.map(|mask| MaskConfig {
                    roi_pool: pool,
                    ..mask
                });
            }
            Operation::KeypointHead(None) if self.roi_heads.keypoint.is_none() => {
                return Err(SurgeryError::NoBranch("keypoint"));
            }
            Operation::KeypointHead(None) => self.roi_heads.keypoint = None,
            Operation::KeypointHead(Some(head)) => {
                let roi_pool = self.branch_pool();
                let before = self.roi_heads.keypoint.take().unwrap_or_default();
                let count = head.num_keypoints.unwrap_or(before.num_keypoints);
                let known = if count == before.num_keypoints {
                    before
                } else {
                    KeypointConfig::default()
                };
                self.roi_heads.keypoint = Some(KeypointConfig {
                    roi_pool,
                    layers: head.layers.clone(),
                    num_keypoints: count,
                    ..known
                });
            }
            Operation::NoBoxRegression if !self.roi_heads.box_regression => {
                return Err(SurgeryError::NoBoxRegression);
            }
            Operation::NoBoxRegression => self.roi_heads.box_regression = false,
            Operation::NumClasses(classes) => self.replace_classes(*classes),
            Operation::ClassNames(names) => {
                let mut names = names.clone();
                if names.first().is_none_or(|name| name != BACKGROUND) {
                    names.insert(0, BACKGROUND.into());
                }
                self.replace_classes(names.len());
                self.class_names = names;
            }
        }
        Ok(())
    }

    /// How a new branch cuts boxes: larger than the box head's, from the same feature maps.
    fn branch_pool(&self) -> MultiScaleRoiAlign {
        MultiScaleRoiAlign {
            featmap_names: self.roi_heads.box_roi_pool.featmap_names.clone(),
            ..MaskConfig::default().roi_pool
        }
    }

    fn replace_classes(&mut self, num_classes: usize) {
        if num_classes != self.num_classes {
            self.num_classes = num_classes;
            self.class_names.clear();
            self.roi_heads.class_weights = None;
        }
    }
}

#[cfg(test)]
mod tests;
