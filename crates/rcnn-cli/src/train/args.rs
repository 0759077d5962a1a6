//! Arguments of `rcnn train`, and what they change in the configuration of a run.

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rcnn_burn::backbone::BackboneConfig;
use rcnn_burn::freeze::{Change, Rule};
use rcnn_burn::surgery::Operation;
use rcnn_data::Format;
use rcnn_train::{Decay, LearningRateFactor, OptimizerKind, Progress, TrainConfig};
use serde_json::{Map, Value, json};

use super::networks;
use crate::augment_args::AugmentArgs;
use crate::backend::{DeviceName, default_device};
use crate::source::{PrefixArgs, positive, resolve};

macro_rules! examples {
    () => {
        "Examples:
  From scratch, small:
    rcnn train --data cells --arch resnet18 --min-size 240 --max-size 480 --out runs/cells
  From a trained detector:
    rcnn train --data cells --weights fasterrcnn_resnet50_fpn --learning-rate 0.002
  A new head on a frozen backbone:
    rcnn train --data cells --weights fasterrcnn_resnet50_fpn --freeze backbone
  After an interruption:
    rcnn train --resume --out runs/cells"
    };
}

/// Train a detector on labelled pictures
///
/// The data may be COCO JSON, Pascal VOC or YOLO. A TOML file can describe the run; arguments
/// override it. The run's folder gets both, the models (best.bpk, last.bpk), the metrics
/// (metrics.jsonl, curves.png) and the checkpoints for --resume.
#[derive(Args)]
#[command(after_help = examples!(), after_long_help = concat!(examples!(), "
  A small detector that learns from a large one:
    rcnn train --data cells --config small.toml --teacher runs/large/best.bpk --out runs/small
  More epochs, for a run with --decay step or constant:
    rcnn train --resume --epochs 30 --out runs/cells
  Can it learn two pictures by heart?
    rcnn train --data cells --arch resnet18 --min-size 240 --overfit 2 --out runs/check

A TOML file (missing keys have defaults; run.toml in the run's folder has them all):
  data = \"cells\"
  epochs = 10
  clip_norm = 10.0
  freeze = [\"roi_heads\", \"thaw box_predictor from epoch 2\", \"thaw box_head.fc7 from epoch 4\"]
  learning_rate_factors = [\"backbone=0.1\"]
  [model]                    # under torchvision's names
  min_size = [240]
  backbone.arch = \"resnet18\"
  [optimizer]
  kind = \"sgd\"               # or \"adamw\"
  learning_rate = 0.02
  [schedule]
  warmup_steps = 100
  decay = \"cosine\"           # or \"step\" with milestones and gamma, or \"constant\"
  [augmentation]
  horizontal_flip = 0.5"))]
pub(crate) struct TrainArgs {
    /// Folder of the data, or its COCO .json, YOLO .yaml or darknet .data file
    #[arg(long, value_name = "DIR", required_unless_present_any = ["config", "resume"])]
    data: Option<PathBuf>,
    /// Format of the labels, if there are several: coco, voc or yolo
    #[arg(long, value_name = "FORMAT", hide_short_help = true)]
    data_format: Option<Format>,
    /// Folder of the pictures, if they are not with the labels
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    images: Option<PathBuf>,
    /// TOML file that describes the run
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Folder of the run
    #[arg(long, short, value_name = "RUN_DIR", default_value = "runs/train")]
    pub(super) out: PathBuf,
    /// Continue the run in --out from its last checkpoint; with --epochs for longer, unless the learning
    /// rate follows a cosine
    #[arg(long, conflicts_with_all = ["config", "data"])]
    pub(super) resume: bool,
    /// Continue although the data have changed since the run started
    #[arg(long, requires = "resume", hide_short_help = true)]
    pub(super) accept_changed_data: bool,
    #[command(flatten)]
    splits: SplitArgs,
    #[command(flatten)]
    prefix: PrefixArgs,
    /// Detector to start from: a file, or the name of published weights
    #[arg(long, short, value_name = "FILE|NAME")]
    weights: Option<PathBuf>,
    /// File with the class names of --weights that have none, one per line
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    labels: Option<PathBuf>,
    /// Image classifier or detector whose backbone to start from: a file, or a name
    #[arg(long, value_name = "FILE|NAME", hide_short_help = true)]
    backbone_weights: Option<PathBuf>,
    /// Trained detector whose feature maps to learn from, besides the labels: a file, or a name
    #[arg(long, value_name = "FILE|NAME")]
    teacher: Option<PathBuf>,
    /// Weight of the teacher's feature maps [default: 6]
    #[arg(long, value_name = "X", hide_short_help = true)]
    distill_features: Option<f64>,
    /// Weight of the teacher's logits, whose classes and anchors must be the same [default: 0]
    #[arg(long, value_name = "X", hide_short_help = true)]
    distill_logits: Option<f64>,
    /// Backbone of a new detector, such as resnet18, mobilenet_v3_large or vgg16; mobilenet_v2 has one feature
    /// map, mobilenet_v2_fpn a pyramid [default: resnet50]
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Convolutions of a mask head to add, or to replace the existing one by: conv:256x4, conv_bn:256x4
    #[arg(long, value_name = "LAYERS", hide_short_help = true)]
    mask_head: Option<String>,
    /// Convolutions of a keypoint head to add, for the keypoints of the data: conv:512x8
    #[arg(long, value_name = "LAYERS", hide_short_help = true)]
    keypoint_head: Option<String>,
    /// Pixels to resize the shorter side to [default: the model's; torchvision's is 800]
    #[arg(long, value_name = "N", value_parser = positive)]
    min_size: Option<usize>,
    /// Maximum number of pixels of the longer side after resizing [default: the model's; torchvision's is 1333]
    #[arg(long, value_name = "N", value_parser = positive, hide_short_help = true)]
    max_size: Option<usize>,
    /// Passes over the training data [default: 10]
    #[arg(long, value_name = "N", value_parser = positive)]
    epochs: Option<usize>,
    /// Images per step [default: 4]
    #[arg(long, value_name = "N", value_parser = positive)]
    batch_size: Option<usize>,
    /// Steps to average gradients over before the parameters are updated [default: 1]
    #[arg(long, value_name = "N", value_parser = positive, hide_short_help = true)]
    accumulation: Option<usize>,
    /// Optimizer [default: sgd]
    #[arg(long, value_enum, hide_short_help = true)]
    optimizer: Option<Optimizer>,
    /// Learning rate after the warm-up [default: 0.005]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// Steps over which the learning rate rises [default: 100]
    #[arg(long, value_name = "N", hide_short_help = true)]
    warmup_steps: Option<usize>,
    /// Schedule of the learning rate after the warm-up [default: cosine]
    #[arg(long, value_enum, hide_short_help = true)]
    decay: Option<DecayName>,
    /// Validate and save an exponential moving average of the weights with this decay per step, such as 0.999
    #[arg(long, value_name = "DECAY", hide_short_help = true)]
    ema: Option<f64>,
    /// Repeat images of rare classes, those in less than this share of the images, such as 0.1 (detectron2's
    /// repeat factors)
    #[arg(long, value_name = "SHARE", hide_short_help = true)]
    repeat_threshold: Option<f64>,
    /// Check that the detector learns at all: train and validate on the first N images only, without augmentation
    #[arg(long, value_name = "N", value_parser = positive, hide_short_help = true)]
    overfit: Option<usize>,
    /// End the run after this many epochs without a better AP
    #[arg(long, value_name = "N", value_parser = positive, hide_short_help = true)]
    patience: Option<usize>,
    /// Parameters to freeze or thaw: `PATTERN`, `freeze PATTERN` or `thaw PATTERN`, each optionally with
    /// `from epoch N`; may be repeated, the last one wins. A pattern is a part (backbone, fpn, rpn,
    /// box_head), a stage (layer4), a glob over parameters' names, /expression/ or first:N
    #[arg(long, value_name = "RULE")]
    freeze: Vec<Rule>,
    /// Stages of the backbone to train, counted from the last: 0 to all (5 in a ResNet or VGG, 6 in a
    /// MobileNet) [default: 3 with trained weights, else all]
    #[arg(long, value_name = "N")]
    trainable_backbone_layers: Option<usize>,
    /// Factor on the learning rate of some parameters, such as backbone=0.1; may be repeated
    #[arg(long, value_name = "PATTERN=X", hide_short_help = true)]
    learning_rate_factor: Vec<LearningRateFactor>,
    /// Seed of all randomness: the same seed gives the same run [default: 0]
    #[arg(long, value_name = "N", hide_short_help = true)]
    seed: Option<u64>,
    /// Device to compute on; several of one backend, separated by commas, share each step
    #[arg(long, value_name = "D", value_delimiter = ',', default_values_t = [default_device()])]
    pub(super) device: Vec<DeviceName>,
    /// Write TensorBoard's event files into the run's folder too
    #[arg(long, hide_short_help = true)]
    tensorboard: bool,
    /// How to show progress [default: the dashboard on a terminal, else lines]
    #[arg(long, value_enum, hide_short_help = true)]
    progress: Option<ProgressName>,
    #[command(flatten)]
    augment: AugmentArgs,
}

/// Parts of the data to train and validate on, and boxes that do not fit.
#[derive(Args)]
pub(crate) struct SplitArgs {
    /// Split to train on, or all [default: train or trainval]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    train_split: Option<String>,
    /// Split to validate on, or all [default: val, valid or test]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    valid_split: Option<String>,
    /// Cut boxes that extend beyond their image, and say how many
    #[arg(long, hide_short_help = true)]
    clip: bool,
    /// Leave out boxes and files that are invalid, and say how many. All pictures are decoded once to find them
    #[arg(long)]
    skip_invalid: bool,
}

impl SplitArgs {
    /// Overrides what the configuration says.
    pub(crate) fn apply(&self, config: &mut TrainConfig) {
        for (field, value) in [
            (&mut config.train_split, &self.train_split),
            (&mut config.valid_split, &self.valid_split),
        ] {
            *field = value.clone().or(field.take());
        }
        config.clip |= self.clip;
        config.skip_invalid |= self.skip_invalid;
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Optimizer {
    Sgd,
    Adamw,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DecayName {
    Constant,
    Step,
    Cosine,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProgressName {
    Dashboard,
    Lines,
}

impl TrainArgs {
    /// Shows the run on a dashboard where somebody watches, else in lines, unless one of them is asked for.
    pub(super) fn progress(&self) -> Progress {
        match self.progress {
            Some(ProgressName::Lines) => Progress::Lines,
            Some(ProgressName::Dashboard) => Progress::Dashboard,
            None if stdout().is_terminal() => Progress::Dashboard,
            None => Progress::Lines,
        }
    }

    /// Overrides the description with what the arguments say.
    pub(super) fn apply(&self, config: &mut TrainConfig) -> Result<()> {
        fn set<T: Clone>(field: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                *field = value.clone();
            }
        }
        let model = &mut config.model;
        let sizes = [
            ("min_size", self.min_size.map(|n| json!([n]))),
            ("max_size", self.max_size.map(|n| json!(n))),
        ];
        for (name, value) in sizes {
            if let Some(value) = value {
                model.insert(name.into(), value);
            }
        }
        if let Some(arch) = &self.arch {
            let fields = table(model, "backbone")?;
            let named = json!(BackboneConfig::named(arch).context("--arch")?);
            for field in ["kind", "arch"] {
                fields.insert(field.into(), named[field].clone());
            }
            // With a pyramid or without, as the name says.
            for field in ["fpn", "returned_layers"] {
                if let Some(value) = named.get(field) {
                    fields.entry(field).or_insert_with(|| value.clone());
                }
            }
        }
        self.apply_heads(model)?;
        set(&mut config.data, &self.data);
        config.data_format = self.data_format.or(config.data_format);
        config.images = self.images.clone().or(config.images.take());
        self.splits.apply(config);
        let values = [&self.weights, &self.backbone_weights, &self.teacher];
        for (field, value) in networks(config).into_iter().zip(values) {
            if let Some(value) = value {
                *field = Some(std::path::absolute(resolve(value)?)?);
            }
        }
        let layers = self.trainable_backbone_layers;
        let layers = layers.map(|count| Rule::from(Change::TrainableBackboneLayers(count)));
        let rules: Vec<Rule> = layers.into_iter().chain(self.freeze.clone()).collect();
        if !rules.is_empty() {
            config.freeze = rules;
        }
        if !self.learning_rate_factor.is_empty() {
            config.learning_rate_factors = self.learning_rate_factor.clone();
        }
        self.augment.apply(&mut config.augmentation);
        config.tensorboard |= self.tensorboard;
        if let Some(labels) = &self.labels {
            config.labels = Some(std::path::absolute(labels)?);
        }
        if self.prefix.prefix.is_some() {
            config.weights_prefix.clone_from(&self.prefix.prefix);
        }
        let distillation = &mut config.distillation;
        set(&mut distillation.features, &self.distill_features);
        set(&mut distillation.logits, &self.distill_logits);
        set(&mut config.epochs, &self.epochs);
        set(&mut config.batch_size, &self.batch_size);
        set(&mut config.accumulation, &self.accumulation);
        set(&mut config.seed, &self.seed);
        set(&mut config.optimizer.learning_rate, &self.learning_rate);
        set(&mut config.schedule.warmup_steps, &self.warmup_steps);
        config.ema = self.ema.or(config.ema);
        config.repeat_threshold = self.repeat_threshold.or(config.repeat_threshold);
        config.overfit = self.overfit.or(config.overfit);
        config.patience = self.patience.or(config.patience);
        if let Some(optimizer) = self.optimizer {
            config.optimizer.kind = match optimizer {
                Optimizer::Sgd => OptimizerKind::Sgd,
                Optimizer::Adamw => OptimizerKind::AdamW,
            };
        }
        if let Some(decay) = self.decay {
            config.schedule.decay = match decay {
                DecayName::Constant => Decay::Constant,
                DecayName::Step => Decay::Step,
                DecayName::Cosine => Decay::Cosine,
            };
        }
        Ok(())
    }

    /// Adds the heads that are asked for to the description of the model.
    fn apply_heads(&self, model: &mut Map<String, Value>) -> Result<()> {
        let none = "this adds a head; `rcnn surgery` removes one";
        if let Some(text) = &self.mask_head {
            let operation = format!("mask-head {text}").parse();
            let Operation::MaskHead(Some(mask)) = operation.context("--mask-head")? else {
                bail!("--mask-head {text}: {none}");
            };
            let fields = table(model, "mask")?;
            fields.insert("layers".into(), json!(mask.layers));
            // TOML has no null, which is the default all the same.
            fields.extend(mask.norm.map(|norm| ("norm".into(), json!(norm))));
            fields.insert("dim_reduced".into(), json!(mask.dim_reduced));
        }
        if let Some(text) = &self.keypoint_head {
            let operation = format!("keypoint-head {text}").parse();
            let Operation::KeypointHead(Some(head)) = operation.context("--keypoint-head")? else {
                bail!("--keypoint-head {text}: {none}");
            };
            let fields = table(model, "keypoint")?;
            fields.insert("layers".into(), json!(head.layers));
            let count = head.num_keypoints;
            fields.extend(count.map(|count| ("num_keypoints".into(), json!(count))));
        }
        Ok(())
    }
}

/// A table of a model's description.
fn table<'a>(model: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Map<String, Value>> {
    let table = model.entry(name).or_insert_with(|| json!({}));
    let table = table.as_object_mut();
    table.with_context(|| format!("model.{name} is not a table"))
}
