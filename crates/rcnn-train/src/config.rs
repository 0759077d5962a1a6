//! Configuration of a training run: the contents of its TOML file.

use burn::config::Config;
use derive_setters::Setters;
use std::io;
use std::path::{Path, PathBuf};

use rcnn_core::backbone::NormKind;
use rcnn_core::freeze::Rule;
use rcnn_core::weights::Weights;
use rcnn_core::{ConfigError, FasterRcnnConfig};
use rcnn_data::{Augmentation, Dataset, Fields, Format};
use rcnn_types::validate::{is_weight, require, require_positive, require_some, require_within};
use serde::{Deserialize, Serialize};

use crate::data::Splits;
use crate::{DistillationConfig, LearningRateFactor, ScheduleConfig, TrainError};

/// Describes a training run. As a TOML file:
///
/// ```
/// # let text = r#"
/// data = "bccd"
/// train_split = "trainval"
/// valid_split = "test"
/// epochs = 10
/// batch_size = 4
/// freeze = ["trainable_backbone_layers=2", "thaw layer2 from epoch 5"]
/// learning_rate_factors = ["backbone=0.1"]
///
/// [model]                 # under torchvision's names
/// min_size = [240]
/// max_size = 480
/// backbone.arch = "resnet18"
///
/// [optimizer]
/// learning_rate = 0.02
///
/// [schedule]
/// warmup_steps = 100
/// decay = "cosine"
///
/// [augmentation]
/// horizontal_flip = 0.5
/// # "#;
/// # rcnn_train::TrainConfig::from_toml(text)?.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(prefix = "with_")]
pub struct TrainConfig {
    /// Folder of the data (COCO, Pascal VOC or YOLO), or its COCO `.json`, YOLO `.yaml` or darknet `.data`
    /// file.
    #[setters(into)]
    pub data: PathBuf,
    /// Format of the labels, where there are several; inferred from the files if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_format: Option<Format>,
    /// Folder of the pictures, where they are not with the labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// Part of the data to train on; if not given, `train` or `trainval`. `all` is everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_split: Option<String>,
    /// Part of the data to validate on; if not given, `val`, `valid` or `test`. `all` is everything. Data
    /// without splits are split by chance, a tenth for validation; of less than five images all are trained
    /// and validated on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_split: Option<String>,
    /// Whether boxes that reach beyond their image are cut to it instead of being invalid.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub clip: bool,
    /// Whether invalid boxes and files are left out instead of refused. All pictures are decoded once to find them.
    pub skip_invalid: bool,
    /// A detector to start from. What fits the data's classes is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// File with the names of the classes of `weights`, one a line, where they carry none. Without names,
    /// as many classes as the data have are taken for those of the data, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// An image classifier or a detector whose body is to start from, with frozen batch norms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone_weights: Option<PathBuf>,
    /// A trained detector to learn from besides the labels: its feature levels need the strides of the trained one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<PathBuf>,
    /// Prefix of the names of either's tensors, in a file that holds the weights of several models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights_prefix: Option<String>,
    /// Sigmas of the object keypoint similarity in validation, one per keypoint or one for all; if empty, COCO's for
    /// its 17 keypoints of a person and 0.1 for others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keypoint_sigmas: Vec<f64>,
    /// Passes over the training data.
    pub epochs: usize,
    /// Images of a step; all, if there are fewer.
    pub batch_size: usize,
    /// Steps whose gradients are averaged before the parameters move.
    pub accumulation: usize,
    /// Seed of initial weights, order, augmentation and sampling.
    pub seed: u64,
    /// Threads that decode and augment.
    pub loader_threads: usize,
    /// Most that the norm of all gradients together may be; in TOML `inf` for `None`.
    #[serde(with = "none_is_infinite")]
    pub clip_norm: Option<f64>,
    /// Decay of the exponential moving average of weights and norm statistics, such as 0.999; the average is validated
    /// and saved in place of the weights themselves. At update `t` of the parameters, the decay is at most
    /// `(1 + t) / (10 + t)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Share of the images from which on a class is frequent: those of rarer ones come more than once an epoch, as
    /// [`rcnn_data::repeat_factors`] says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_threshold: Option<f64>,
    /// Trains and validates on this number of the training images alone, without augmentation and some times over in
    /// an epoch: a check that the detector learns them by heart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overfit: Option<usize>,
    /// Whether the run's folder gets event files for TensorBoard, besides `metrics.jsonl`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tensorboard: bool,
    /// Epochs without a better AP after which the run ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// Rules of freezing, and from which epoch on. Where these do not say `trainable_backbone_layers`,
    /// torchvision's default comes before them: 3 with `weights` or `backbone_weights`, else nothing is
    /// frozen and that rule is ignored, with a warning.
    pub freeze: Vec<Rule>,
    /// Factors on the learning rate; of those whose patterns match a parameter the last counts.
    pub learning_rate_factors: Vec<LearningRateFactor>,
    /// The detector's parameters under torchvision's names, over those that it starts from.
    pub model: serde_json::Map<String, serde_json::Value>,
    /// Optimizer and its hyperparameters.
    pub optimizer: OptimizerConfig,
    /// Schedule of the learning rate.
    pub schedule: ScheduleConfig,
    /// Augmentation of the training images.
    pub augmentation: Augmentation,
    /// What is learned of the [`teacher`](Self::teacher).
    #[serde(skip_serializing_if = "DistillationConfig::is_default")]
    pub distillation: DistillationConfig,
}

impl Config for TrainConfig {}

/// Optimizer and its hyperparameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(prefix = "with_")]
pub struct OptimizerConfig {
    /// Update rule.
    pub kind: OptimizerKind,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Weight decay, of all parameters.
    pub weight_decay: f64,
}

impl Config for OptimizerConfig {}

/// Rule by which the parameters are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum (`torch.optim.SGD`).
    Sgd,
    /// Adam with decoupled weight decay (`torch.optim.AdamW`).
    AdamW,
}

impl Default for OptimizerConfig {
    /// torchvision's reference recipe; its rate of 0.02 is for 16 images a step.
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Sgd,
            learning_rate: 0.005,
            momentum: 0.9,
            weight_decay: 1e-4,
        }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            data_format: None,
            images: None,
            train_split: None,
            valid_split: None,
            clip: false,
            skip_invalid: false,
            weights: None,
            labels: None,
            backbone_weights: None,
            teacher: None,
            weights_prefix: None,
            keypoint_sigmas: Vec::new(),
            epochs: 10,
            batch_size: 4,
            accumulation: 1,
            seed: 0,
            loader_threads: 2,
            clip_norm: Some(10.0),
            ema: None,
            repeat_threshold: None,
            overfit: None,
            tensorboard: false,
            patience: None,
            freeze: Vec::new(),
            learning_rate_factors: Vec::new(),
            model: Default::default(),
            optimizer: OptimizerConfig::default(),
            schedule: ScheduleConfig::default(),
            augmentation: Augmentation::default(),
            distillation: DistillationConfig::default(),
        }
    }
}

/// TOML has no word for `None`, and a field that is left out has its default.
mod none_is_infinite {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(norm: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(norm.unwrap_or(f64::INFINITY))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        let norm = f64::deserialize(from)?;
        Ok((norm != f64::INFINITY).then_some(norm))
    }
}

impl TrainConfig {
    /// Reads a configuration in TOML.
    ///
    /// # Errors
    /// When it is not TOML, or has an unknown field.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Checks that all values are valid.
    ///
    /// # Errors
    /// Names the field, what it holds and what it may hold.
    pub fn validate(&self) -> Result<(), TrainError> {
        require_some("epochs", self.epochs)?;
        require_some("batch_size", self.batch_size)?;
        require_some("accumulation", self.accumulation)?;
        require_some("patience", self.patience.unwrap_or(1))?;
        require_some("overfit", self.overfit.unwrap_or(1))?;
        let ema = self.ema;
        let is_decay = |decay: f64| decay > 0.0 && decay < 1.0;
        require(
            ema.is_none_or(is_decay),
            "ema",
            ema,
            "more than 0 and less than 1, such as 0.999",
        )?;
        let threshold = self.repeat_threshold;
        let is_share = |share: f64| share > 0.0 && share <= 1.0;
        require(
            threshold.is_none_or(is_share),
            "repeat_threshold",
            threshold,
            "a share of the images, more than 0 and at most 1",
        )?;
        if let Some(norm) = self.clip_norm {
            require_positive("clip_norm", norm)?;
        }
        let OptimizerConfig {
            learning_rate,
            momentum,
            weight_decay,
            ..
        } = self.optimizer;
        require_positive("optimizer.learning_rate", learning_rate)?;
        require(
            (0.0..1.0).contains(&momentum),
            "optimizer.momentum",
            momentum,
            "0 or more and less than 1",
        )?;
        require(
            is_weight(weight_decay),
            "optimizer.weight_decay",
            weight_decay,
            "0 or more",
        )?;
        let ScheduleConfig {
            warmup_factor,
            gamma,
            ..
        } = self.schedule;
        require_within("schedule.warmup_factor", warmup_factor, 0.0..=1.0)?;
        require(
            gamma > 0.0 && gamma <= 1.0,
            "schedule.gamma",
            gamma,
            "more than 0, at most 1",
        )?;
        require(
            self.weights.is_none() || self.backbone_weights.is_none(),
            "backbone_weights",
            &self.backbone_weights,
            "no value, since `weights` already initialise the whole detector",
        )?;
        require(
            self.labels.is_none() || self.weights.is_some(),
            "labels",
            &self.labels,
            "no value without `weights`, whose classes they name",
        )?;
        self.distillation.validate()?;
        let augmentation = self.augmentation.validate();
        augmentation.map_err(TrainError::Augmentation)
    }

    /// The data that a run would train on, with the labels of a model that has the same classes in another order.
    ///
    /// # Errors
    /// When they cannot be read, or have nothing to learn.
    pub fn training_data(&self, model: &FasterRcnnConfig) -> Result<Dataset, TrainError> {
        Ok(Splits::read(self, Some(model))?.train)
    }

    /// The names and the order of classes that `model` gives.
    pub(crate) fn class_names(&self) -> Option<Vec<String>> {
        let names = self.model.get("class_names")?;
        // What is no list of names is refused with the other fields.
        serde_json::from_value(names.clone()).ok()
    }

    /// Augmentation of this run: none where it is to learn its images by heart.
    pub(crate) fn augmentation(&self) -> Augmentation {
        match self.overfit {
            Some(_) => Augmentation::none(),
            None => self.augmentation.clone(),
        }
    }

    /// The detector to be trained, with the data's classes: that of `weights` or torchvision's over the
    /// backbone of `model` (`fasterrcnn_resnet50_fpn`), with the fields of `model` over it.
    pub(crate) fn detector(
        &self,
        weights: Option<&Weights>,
        data: &Dataset,
    ) -> Result<FasterRcnnConfig, ConfigError> {
        let class_names = &data.class_names;
        let mut base = match weights {
            Some(weights) => weights.config.clone(),
            None => {
                let backbone = FasterRcnnConfig::default()
                    .overridden(&self.model)?
                    .backbone;
                FasterRcnnConfig::usual(backbone, class_names.len())
            }
        };
        base.num_classes = class_names.len();
        base.class_names = class_names.to_vec();
        let mut config = base.overridden(&self.model)?;
        self.describe_keypoints(&mut config, data);
        let given = |field: &str| {
            self.model
                .get("backbone")
                .is_some_and(|b| b.get(field).is_some())
        };
        if let Some(network) = config.backbone.architecture_mut() {
            if weights.is_none() && !given("norm") {
                // torchvision freezes the statistics of a trained body, and trains those of a new one.
                network.set_norm(match self.backbone_weights {
                    Some(_) => NormKind::FrozenBatchNorm2d,
                    None => NormKind::BatchNorm2d,
                });
            }
            if !self.model.contains_key("rpn_anchor_generator") {
                // Five sizes of anchors are for five levels.
                let levels = network.levels().len();
                let anchors = &mut config.rpn.anchor_generator;
                anchors.sizes.truncate(levels);
                anchors.aspect_ratios.truncate(levels);
            }
        }
        config.validate()?;
        Ok(config)
    }

    /// A keypoint branch that is added, and not said to have some number of keypoints, has those of the data;
    /// one that is there keeps its own, and gets the data's names where it has none.
    fn describe_keypoints(&self, config: &mut FasterRcnnConfig, data: &Dataset) {
        let objects = data
            .samples
            .iter()
            .flat_map(|sample| sample.instances.keypoints.iter().flatten());
        let count = objects.map(|points| points.0.len()).max().unwrap_or(0);
        let known = data
            .skeletons
            .iter()
            .find(|skeleton| skeleton.names.len() == count);
        let given = |field: &str| {
            self.model
                .get("keypoint")
                .is_some_and(|k| k.get(field).is_some())
        };
        let Some(keypoint) = config.roi_heads.keypoint.as_mut().filter(|_| count > 0) else {
            return;
        };
        if self.model.contains_key("keypoint") && !given("num_keypoints") {
            keypoint.num_keypoints = count;
        }
        if let Some(skeleton) = known.filter(|_| keypoint.num_keypoints == count)
            && keypoint.names.is_empty()
        {
            keypoint.names.clone_from(&skeleton.names);
            keypoint.skeleton.clone_from(&skeleton.edges);
        }
    }

    /// What is read of the data's objects besides boxes: what the model that this makes of `start` learns.
    pub(crate) fn fields(&self, start: Option<&FasterRcnnConfig>) -> Fields {
        let has = |field: &str, before: bool| {
            let asked = self.model.get(field).map(|value| !value.is_null());
            asked.unwrap_or(before)
        };
        let roi_heads = start.map(|config| &config.roi_heads);
        let mask = roi_heads.is_some_and(|heads| heads.mask.is_some());
        let keypoint = roi_heads.is_some_and(|heads| heads.keypoint.is_some());
        Fields {
            // Objects are cut out along their masks.
            masks: has("mask", mask) || self.augmentation.copy_paste > 0.0,
            keypoints: has("keypoint", keypoint),
            extras: false,
        }
    }

    /// Makes the paths of files absolute, so that a run can be resumed from anywhere.
    ///
    /// # Errors
    /// Also for a path that is not UTF-8, as TOML has no place for it.
    pub(crate) fn absolute(mut self) -> io::Result<Self> {
        let absolute = |path: &Path| {
            let path = std::path::absolute(path)?;
            match path.to_str() {
                Some(_) => Ok(path),
                None => Err(io::Error::other(format!(
                    "{}: run.toml cannot hold a path that is not UTF-8; give one through a link",
                    path.display()
                ))),
            }
        };
        self.data = absolute(&self.data)?;
        for path in [
            &mut self.images,
            &mut self.weights,
            &mut self.labels,
            &mut self.backbone_weights,
            &mut self.teacher,
        ]
        .into_iter()
        .flatten()
        {
            *path = absolute(path)?;
        }
        Ok(self)
    }
}
