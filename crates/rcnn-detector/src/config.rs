//! Configuration of a detector under torchvision's names.

mod json;
mod named;
#[cfg(test)]
mod tests;

pub use named::UnknownModel;

use burn::config::Config;
use burn::tensor::backend::Backend;
use derive_setters::Setters;
use rcnn_backbone::{Backbone, BackboneConfig, BackboneConfigError, LevelSpec, validate_levels};
use rcnn_roi::RoiHeadsConfig;
use rcnn_rpn::{AnchorGenerator, RpnConfig};
use rcnn_types::validate::{InvalidField, require};
use serde::Serialize;

use crate::{ConfigError, FasterRcnn, GeneralizedRcnnTransform, StandardFasterRcnn};

/// Describes a [`FasterRcnn`]: everything that torchvision's `FasterRCNN` takes, and the backbone.
///
/// In JSON the fields of the parts stand side by side under the names of torchvision's keywords
/// (`min_size`, `rpn_nms_thresh`, `box_score_thresh`); what is missing has torchvision's default, and
/// an unknown name is an error.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_backbone as backbone; pub use rcnn_detector::*; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::backbone::BackboneConfig;
/// use rcnn_burn::{FasterRcnnConfig, Flex};
///
/// // One of torchvision's detectors for three classes and the background, or any over a backbone.
/// let published = FasterRcnnConfig::named("fasterrcnn_mobilenet_v3_large_fpn", 4)?;
/// let mut config = FasterRcnnConfig::new(BackboneConfig::named("resnet18")?, 4);
/// config.transform.min_size = vec![240];
/// config.roi_heads.score_thresh = 0.5;
/// # let config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
/// let model = config.init::<Flex>(&Default::default())?;
/// assert_eq!(model.num_classes(), published.num_classes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Setters)]
#[setters(prefix = "with_")]
pub struct FasterRcnnConfig {
    /// Classes, background included.
    pub num_classes: usize,
    /// Name of each class, background first; empty when unknown.
    pub class_names: Vec<String>,
    /// The network that makes feature maps.
    #[setters(skip)]
    pub backbone: BackboneConfig,
    /// Resizing and normalisation.
    #[serde(flatten)]
    pub transform: GeneralizedRcnnTransform,
    /// First stage.
    #[serde(flatten)]
    pub rpn: RpnConfig,
    /// Second stage.
    #[serde(flatten)]
    pub roi_heads: RoiHeadsConfig,
}

impl Config for FasterRcnnConfig {}

impl FasterRcnnConfig {
    /// torchvision's `FasterRCNN` over a backbone, with the anchors of its detectors over such a one and its defaults
    /// elsewhere.
    ///
    /// ```
    /// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_backbone as backbone; pub use rcnn_roi as roi; }
    /// use rcnn_burn::backbone::ResNetFpnConfig;
    /// use rcnn_burn::roi::RoiHeadsConfig;
    /// use rcnn_burn::{FasterRcnnConfig, GeneralizedRcnnTransform};
    ///
    /// let config = FasterRcnnConfig::new(ResNetFpnConfig::default(), 4)
    ///     .with_transform(GeneralizedRcnnTransform::default().with_min_size(vec![240]).with_max_size(480))
    ///     .with_roi_heads(RoiHeadsConfig::default().with_score_thresh(0.5));
    /// config.validate()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(backbone: impl Into<BackboneConfig>, num_classes: usize) -> Self {
        let backbone = backbone.into();
        let mut rpn = RpnConfig::default();
        if let Some(network) = backbone.architecture() {
            rpn.anchor_generator = AnchorGenerator::with_sizes(network.anchor_sizes());
        }
        Self {
            num_classes,
            class_names: Vec::new(),
            backbone,
            transform: GeneralizedRcnnTransform::default(),
            rpn,
            roi_heads: RoiHeadsConfig::default(),
        }
    }

    /// torchvision's `FasterRCNN` over a custom backbone, for
    /// [`init_with_backbone`](Self::init_with_backbone).
    pub fn custom(num_classes: usize) -> Self {
        Self::new(BackboneConfig::Custom, num_classes)
    }

    /// This detector with other numbers of output channels: `channels` is asked for every layer, by path, whose
    /// number is free. Others, such as the last layer of a residual block or a depthwise convolution, follow.
    /// Layers of a custom backbone stay as they are.
    pub fn with_channels(&self, channels: &dyn Fn(&str) -> Option<usize>) -> Self {
        let of = |backbone: &BackboneConfig| {
            let levels = backbone.architecture().map(|network| network.levels());
            levels.map_or(0, |levels| levels[0].channels)
        };
        let mut config = self.clone();
        let within =
            |module: &'static str| move |layer: &str| channels(&format!("{module}.{layer}"));
        if let Some(network) = config.backbone.architecture_mut() {
            network.set_channels(&within("backbone"));
        }
        let levels = [of(&self.backbone), of(&config.backbone)];
        // Without channels of their own, the convolutions have a custom backbone's, which are not known here.
        if levels != [0, 0] || !config.rpn.conv_channels.is_empty() {
            config.rpn.set_channels(levels, &within("rpn.head"));
        }
        config.roi_heads.set_channels(&within("roi_heads"));
        config
    }

    /// Checks every field, and that anchors and pooling fit the backbone. Whether a
    /// [`BackboneConfig::Custom`] fits is checked by [`validate_for`](Self::validate_for).
    ///
    /// # Errors
    /// Names the field at fault under torchvision's name, its value and what is expected.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_fields()?;
        if let Some(backbone) = self.backbone.architecture() {
            backbone.validate()?;
            self.validate_levels(&backbone.levels())?;
        }
        Ok(())
    }

    /// Checks every field but `backbone`, and that anchors, pooling and padding fit this backbone.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn validate_for<B: Backend>(&self, backbone: &impl Backbone<B>) -> Result<(), ConfigError> {
        self.validate_fields()?;
        let levels = backbone.levels();
        validate_levels(&levels).map_err(BackboneConfigError::from)?;
        let divisible = self.transform.size_divisible;
        let divisor = backbone.size_divisibility();
        require(
            divisor > 0 && divisible.is_multiple_of(divisor),
            "size_divisible",
            divisible,
            format_args!("a multiple of {divisor}, the backbone's size_divisibility"),
        )?;
        Ok(self.validate_levels(&levels)?)
    }

    fn validate_fields(&self) -> Result<(), InvalidField> {
        let num_classes = self.num_classes;
        self.roi_heads.validate(num_classes)?;
        let names = self.class_names.len();
        require(
            names == 0 || names == num_classes,
            "class_names",
            &self.class_names,
            format_args!("{num_classes} names, the background's first, or none; not {names}"),
        )?;
        self.transform.validate()?;
        self.rpn.validate()
    }

    fn validate_levels(&self, levels: &[LevelSpec]) -> Result<(), InvalidField> {
        self.rpn.anchor_generator.validate_levels(levels)?;
        self.roi_heads.validate_levels(levels)
    }

    /// Makes the detector with random weights.
    ///
    /// # Errors
    /// Where [`validate`](Self::validate) fails, or the backbone is [`BackboneConfig::Custom`].
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<StandardFasterRcnn<B>, ConfigError> {
        self.validate()?;
        match (self.backbone.architecture(), self.backbone.init(device)?) {
            (Some(architecture), Some(backbone)) => {
                let channels = architecture.levels()[0].channels;
                self.assemble(backbone, channels, device)
            }
            _ => Err(ConfigError::CustomBackbone),
        }
    }

    /// Makes the detector over a custom backbone, with random weights elsewhere.
    ///
    /// # Errors
    /// Where [`validate_for`](Self::validate_for) fails.
    pub fn init_with_backbone<B: Backend, N: Backbone<B>>(
        &self,
        backbone: N,
        device: &B::Device,
    ) -> Result<FasterRcnn<B, N>, ConfigError> {
        self.validate_for(&backbone)?;
        let channels = backbone.levels()[0].channels;
        self.assemble(backbone, channels, device)
    }

    fn assemble<B: Backend, N>(
        &self,
        backbone: N,
        channels: usize,
        device: &B::Device,
    ) -> Result<FasterRcnn<B, N>, ConfigError> {
        Ok(FasterRcnn {
            rpn: self.rpn.init(channels, device)?,
            roi_heads: self.roi_heads.init(channels, self.num_classes, device)?,
            backbone,
            transform: self.transform.clone(),
            class_names: self.class_names.clone(),
        })
    }
}
