//! What describes a detector completely, under torchvision's names.

use burn::config::Config;
use burn::tensor::backend::Backend;
use rcnn_backbone::{
    Backbone, BackboneConfig, BackboneConfigError, BackboneWithFpn, NormKind, ResNetFpnConfig,
};
use rcnn_roi::{BoxHeadConfig, FocalLoss, RoiHeadsConfig};
use rcnn_rpn::RpnConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{FasterRcnn, GeneralizedRcnnTransform};

/// Describes a [`FasterRcnn`]: everything that torchvision's `FasterRCNN` takes, and the backbone.
///
/// In JSON the fields of the parts stand side by side under the names of torchvision's keywords
/// (`min_size`, `rpn_nms_thresh`, `box_score_thresh`); what is missing has torchvision's default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FasterRcnnConfig {
    /// Classes, background included.
    pub num_classes: usize,
    /// Name of each class, background first; empty when unknown.
    pub class_names: Vec<String>,
    /// The network that makes feature maps.
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

impl Default for FasterRcnnConfig {
    /// [`fasterrcnn_resnet50_fpn`](Self::fasterrcnn_resnet50_fpn) with COCO's 91 classes.
    fn default() -> Self {
        Self::fasterrcnn_resnet50_fpn(91)
    }
}

/// A configuration that describes no detector.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The backbone's part.
    #[error("backbone: {0}")]
    Backbone(#[from] BackboneConfigError),
    /// The backbone is a type of the user's own and can't be made from the configuration.
    #[error(
        "the model has a custom backbone: make it yourself and pass it to `init_with_backbone`"
    )]
    CustomBackbone,
    /// Too few classes.
    #[error("num_classes = {0}: expected at least 2, the background and one class")]
    NumClasses(usize),
    /// Names and classes differ in number.
    #[error("{names} class names for {num_classes} classes (the background counts)")]
    ClassNames {
        /// Names given.
        names: usize,
        /// Classes of the model.
        num_classes: usize,
    },
    /// A parameter that there is not.
    #[error("unknown parameter {name}; known are {}", known.join(", "))]
    UnknownParameter {
        /// What was given.
        name: String,
        /// All there are.
        known: Vec<String>,
    },
    /// A parameter of the wrong type.
    #[error("no configuration of a detector: {0}")]
    Type(String),
    /// Weights and classes differ in number.
    #[error(
        "{weights} class weights (box_class_weights) for {num_classes} classes (the background counts)"
    )]
    ClassWeights {
        /// Weights given.
        weights: usize,
        /// Classes of the model.
        num_classes: usize,
    },
    /// Anchors that do not fit the feature maps.
    #[error("anchors: {0}")]
    Anchors(String),
    /// A field with a value that makes no sense.
    #[error("{field} = {value}: expected {expected}")]
    Value {
        /// Field, under torchvision's name.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        expected: &'static str,
    },
}

impl FasterRcnnConfig {
    /// `torchvision.models.detection.fasterrcnn_resnet50_fpn` as it is with pretrained weights:
    /// frozen batch norm.
    pub fn fasterrcnn_resnet50_fpn(num_classes: usize) -> Self {
        Self::resnet_fpn(ResNetFpnConfig::default(), num_classes)
    }

    /// `torchvision.models.detection.fasterrcnn_resnet50_fpn_v2`.
    pub fn fasterrcnn_resnet50_fpn_v2(num_classes: usize) -> Self {
        let mut config = Self::resnet_fpn(
            ResNetFpnConfig {
                norm: NormKind::BatchNorm2d,
                fpn_norm: Some(NormKind::BatchNorm2d),
                ..Default::default()
            },
            num_classes,
        );
        config.rpn.conv_depth = 2;
        config.roi_heads.box_head = BoxHeadConfig::v2();
        config
    }

    /// torchvision's `FasterRCNN` over `resnet_fpn_backbone`.
    pub fn resnet_fpn(backbone: ResNetFpnConfig, num_classes: usize) -> Self {
        let mut config = Self::custom(num_classes);
        config.backbone = BackboneConfig::ResnetFpn(backbone);
        config
    }

    /// torchvision's `FasterRCNN` over a backbone of your own, for
    /// [`init_with_backbone`](Self::init_with_backbone).
    pub fn custom(num_classes: usize) -> Self {
        Self {
            num_classes,
            class_names: Vec::new(),
            backbone: BackboneConfig::Custom,
            transform: GeneralizedRcnnTransform::default(),
            rpn: RpnConfig::default(),
            roi_heads: RoiHeadsConfig::default(),
        }
    }

    /// This configuration with some parameters replaced, under their names in JSON. Objects are
    /// merged, so that `{"backbone": {"arch": "resnet18"}}` leaves the rest of the backbone.
    ///
    /// # Errors
    /// Names an unknown parameter and the known ones, or a value of the wrong type. Whether all go
    /// together, [`check`](Self::check) says.
    pub fn overridden(&self, overrides: &Map<String, Value>) -> Result<Self, ConfigError> {
        let wrong = |error: serde_json::Error| ConfigError::Type(error.to_string());
        let mut json = serde_json::to_value(self).map_err(wrong)?;
        merge(&mut json, overrides)?;
        serde_json::from_value(json).map_err(wrong)
    }

    /// Whether the configuration describes a detector.
    ///
    /// # Errors
    /// Names the field at fault and what it may hold.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.num_classes < 2 {
            return Err(ConfigError::NumClasses(self.num_classes));
        }
        let (names, num_classes) = (self.class_names.len(), self.num_classes);
        if names != 0 && names != num_classes {
            return Err(ConfigError::ClassNames { names, num_classes });
        }
        if let BackboneConfig::ResnetFpn(backbone) = &self.backbone {
            backbone.check()?;
            let anchors = &self.rpn.anchor_generator;
            anchors
                .check(backbone.num_levels())
                .map_err(ConfigError::Anchors)?;
            let names = &self.roi_heads.box_roi_pool.featmap_names;
            let exists = |name: &String| {
                name.parse()
                    .is_ok_and(|level: usize| level < backbone.returned_layers.len())
                    || (name == "pool" && backbone.max_pool_level)
            };
            require(
                names.iter().any(exists),
                "featmap_names",
                names,
                "the name of a feature map",
            )?;
        }
        let transform = &self.transform;
        let sizes = &transform.min_size;
        let positive = "a positive number of pixels";
        require(
            !sizes.is_empty() && !sizes.contains(&0),
            "min_size",
            sizes,
            positive,
        )?;
        require(
            transform.max_size > 0,
            "max_size",
            transform.max_size,
            positive,
        )?;
        require(
            transform.size_divisible > 0,
            "size_divisible",
            transform.size_divisible,
            positive,
        )?;
        let fixed = transform.fixed_size;
        require(
            fixed.is_none_or(|(w, h)| w > 0 && h > 0),
            "fixed_size",
            fixed,
            positive,
        )?;
        let std = transform.image_std;
        require(
            std.iter().all(|s| *s != 0.0 && s.is_finite()),
            "image_std",
            std,
            "no zero",
        )?;
        let pool = self.roi_heads.box_roi_pool.output_size;
        require(!pool.contains(&0), "output_size", pool, "at least one bin")?;
        let layers = self.roi_heads.box_head.layer_sizes();
        require(
            !layers.contains(&0),
            "box_head",
            layers,
            "at least one channel or feature a layer",
        )?;
        let weights = self.roi_heads.bbox_reg_weights;
        require(
            weights.iter().all(|w| *w > 0.0),
            "bbox_reg_weights",
            weights,
            "four positive numbers",
        )?;
        if let Some(weights) = &self.roi_heads.class_weights {
            if weights.len() != num_classes {
                let weights = weights.len();
                return Err(ConfigError::ClassWeights {
                    weights,
                    num_classes,
                });
            }
            require(
                weights.iter().all(|w| *w >= 0.0 && w.is_finite())
                    && weights.iter().any(|w| *w > 0.0),
                "box_class_weights",
                weights,
                "numbers from 0, not all of them 0",
            )?;
        }
        if let Some(FocalLoss { alpha, gamma }) = self.roi_heads.focal_loss {
            require(
                alpha > 0.0 && alpha.is_finite(),
                "box_focal_loss.alpha",
                alpha,
                "a positive number",
            )?;
            require(
                gamma >= 0.0 && gamma.is_finite(),
                "box_focal_loss.gamma",
                gamma,
                "a number from 0",
            )?;
        }
        Ok(())
    }

    /// Makes the detector with random weights.
    ///
    /// # Errors
    /// Where [`check`](Self::check) fails, or the backbone is [`BackboneConfig::Custom`].
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<FasterRcnn<B, BackboneWithFpn<B>>, ConfigError> {
        self.check()?;
        match &self.backbone {
            BackboneConfig::ResnetFpn(config) => {
                Ok(self.assemble(config.init(device), config.out_channels, device))
            }
            BackboneConfig::Custom => Err(ConfigError::CustomBackbone),
        }
    }

    /// Makes the detector over a backbone of your own, with random weights elsewhere.
    ///
    /// # Errors
    /// Where [`check`](Self::check) fails.
    pub fn init_with_backbone<B: Backend, N: Backbone<B>>(
        &self,
        backbone: N,
        device: &B::Device,
    ) -> Result<FasterRcnn<B, N>, ConfigError> {
        self.check()?;
        let channels = backbone.out_channels();
        Ok(self.assemble(backbone, channels, device))
    }

    fn assemble<B: Backend, N>(
        &self,
        backbone: N,
        channels: usize,
        device: &B::Device,
    ) -> FasterRcnn<B, N> {
        FasterRcnn {
            rpn: self.rpn.init(channels, device),
            roi_heads: self.roi_heads.init(channels, self.num_classes, device),
            backbone,
            transform: self.transform.clone(),
            class_names: self.class_names.clone(),
        }
    }
}

fn merge(base: &mut Value, overrides: &Map<String, Value>) -> Result<(), ConfigError> {
    let Value::Object(fields) = base else {
        *base = Value::Object(overrides.clone());
        return Ok(());
    };
    // An object of another kind has other fields.
    let kind = |kind: Option<&Value>| kind.cloned().unwrap_or_default();
    let given = overrides.get("kind");
    if given.is_some() && kind(given) != kind(fields.get("kind")) {
        *fields = overrides.clone();
        return Ok(());
    }
    for (name, value) in overrides {
        let Some(field) = fields.get_mut(name) else {
            return Err(ConfigError::UnknownParameter {
                name: name.clone(),
                known: fields.keys().cloned().collect(),
            });
        };
        match value {
            Value::Object(inner) => merge(field, inner)?,
            value => *field = value.clone(),
        }
    }
    Ok(())
}

fn require(
    valid: bool,
    field: &'static str,
    value: impl std::fmt::Debug,
    expected: &'static str,
) -> Result<(), ConfigError> {
    if valid {
        return Ok(());
    }
    Err(ConfigError::Value {
        field,
        value: format!("{value:?}"),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_torchvisions_names_and_defaults() {
        let config: FasterRcnnConfig = serde_json::from_str(
            r#"{"num_classes": 4, "min_size": [240], "box_score_thresh": 0.5}"#,
        )
        .unwrap();
        assert_eq!(config.num_classes, 4);
        assert_eq!(config.transform.min_size, [240]);
        assert_eq!(config.roi_heads.score_thresh, 0.5);
        assert_eq!(config.rpn.pre_nms_top_n_test, 1000);
        assert_eq!(config.roi_heads.class_weights, None);
        assert_eq!(config.roi_heads.focal_loss, None);
        let json = serde_json::to_value(&config).unwrap();
        for name in [
            "max_size",
            "rpn_nms_thresh",
            "box_detections_per_img",
            "rpn_anchor_generator",
            "box_class_weights",
            "box_focal_loss",
        ] {
            assert!(json.get(name).is_some(), "{name} is missing");
        }
        assert_eq!(
            serde_json::from_value::<FasterRcnnConfig>(json).unwrap(),
            config
        );
    }

    #[test]
    fn parameters_can_be_overridden() {
        let overridden =
            |json: Value| FasterRcnnConfig::default().overridden(json.as_object().unwrap());
        let json = serde_json::json!({
            "min_size": [240],
            "backbone": {"arch": "resnet18"},
            "box_head": {"kind": "conv_fc", "conv_layers": [8], "fc_layers": [8], "norm": null},
        });
        let config = overridden(json).unwrap();
        assert_eq!(config.transform.min_size, [240]);
        let backbone = ResNetFpnConfig {
            arch: "resnet18".parse().unwrap(),
            ..Default::default()
        };
        assert_eq!(config.backbone, BackboneConfig::ResnetFpn(backbone));
        assert_eq!(config.roi_heads.box_head.out_features([1, 7, 7]), 8);

        let error = |json| overridden(json).unwrap_err().to_string();
        assert!(error(serde_json::json!({"minsize": 1})).contains("min_size"));
        assert!(error(serde_json::json!({"backbone": {"depth": 1}})).contains("arch"));
        assert!(error(serde_json::json!({"min_size": "big"})).contains("big"));
    }

    #[test]
    fn losses_of_the_classifier_are_in_json() {
        let config: FasterRcnnConfig = serde_json::from_str(
            r#"{"num_classes": 3, "box_class_weights": [0.5, 1, 4], "box_focal_loss": {"gamma": 1.5}}"#,
        )
        .unwrap();
        config.check().unwrap();
        let roi_heads = config.roi_heads;
        assert_eq!(roi_heads.class_weights, Some(vec![0.5, 1.0, 4.0]));
        let (alpha, gamma) = (0.25, 1.5);
        assert_eq!(roi_heads.focal_loss, Some(FocalLoss { alpha, gamma }));
        let misspelt = r#"{"box_focal_loss": {"gama": 2}}"#;
        assert!(serde_json::from_str::<FasterRcnnConfig>(misspelt).is_err());
    }

    #[test]
    fn wrong_values_are_named() {
        let check = |change: fn(&mut FasterRcnnConfig)| {
            let mut config = FasterRcnnConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(check(|c| c.num_classes = 1).contains("num_classes = 1"));
        assert!(check(|c| c.class_names = vec!["a".into()]).contains("1 class names for 91"));
        assert!(check(|c| c.transform.min_size.clear()).contains("min_size = []"));
        assert!(check(|c| c.rpn.anchor_generator.sizes.truncate(1)).contains("5 feature maps"));
        let weighted = |weights: &[f32]| {
            let mut config = FasterRcnnConfig::custom(3);
            config.roi_heads.class_weights = Some(weights.to_vec());
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!(weighted(&[0.0, 1.0, 2.5]), Ok(()));
        assert!(weighted(&[1.0; 2]).is_err_and(|e| e.contains("2 class weights")));
        for wrong in [[0.0; 3], [1.0, -1.0, 1.0], [1.0, f32::NAN, 1.0]] {
            assert!(weighted(&wrong).is_err_and(|e| e.contains("box_class_weights = [")));
        }
        let focal = |alpha, gamma| FocalLoss { alpha, gamma };
        for (loss, says) in [
            (focal(0.0, 2.0), "box_focal_loss.alpha = 0.0"),
            (focal(1.0, -0.5), "box_focal_loss.gamma = -0.5"),
            (focal(1.0, f64::INFINITY), "box_focal_loss.gamma = inf"),
        ] {
            let mut config = FasterRcnnConfig::default();
            config.roi_heads.focal_loss = Some(loss);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let backbone = |layers: &[usize]| {
            BackboneConfig::ResnetFpn(ResNetFpnConfig {
                returned_layers: layers.to_vec(),
                ..Default::default()
            })
        };
        let config = FasterRcnnConfig {
            backbone: backbone(&[3, 2]),
            ..Default::default()
        };
        assert!(config.check().unwrap_err().to_string().contains("[3, 2]"));
    }
}
