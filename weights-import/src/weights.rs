//! A detector's weights with the configuration that they belong to: opened, loaded, written.

use std::io;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::backend::Backend;
use rcnn_backbone::{AnyBackbone, Backbone, BackboneConfig, NormFacts, NormKind, Shapes, Stage};
use rcnn_detector::surgery::SurgeryError;
use rcnn_detector::{ConfigError, FasterRcnn, FasterRcnnConfig, StandardFasterRcnn};
use rcnn_files::WriteError;
use rcnn_ops::DetectionBackend;
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use crate::names::{torchvision_names, without_wrapper};
use crate::origin::{self, ConfigOrigin};
use crate::published::{self, COCO_CATEGORIES};
use crate::recognize::{Recognized, check_anchors, recognize};
use crate::state_dict::{QUANTIZED, StateTensor, is_quantized};
use crate::{
    Checkpoint, CheckpointError, LoadReport, StateDict, StoredTensor, load_state_dict,
    parameter_shapes, state_dict, tensorflow,
};

/// Key of the configuration in the metadata of the files that this project writes.
pub(crate) const CONFIG_KEY: &str = "rcnn_burn_config";

/// Errors of opening, loading or writing weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file is sound, but of no known network.
    #[error("{}: architecture not recognised: {saw}", path.display())]
    Unrecognized {
        /// The file.
        path: PathBuf,
        /// What was seen and what to pass.
        saw: String,
    },
    /// The weights are an image classifier's.
    #[error(
        "{}: these are the weights of an image classifier ({arch}), which detects nothing by itself; train a \
         detector over it with `rcnn train --backbone-weights FILE`, in code with load_backbone",
        path.display()
    )]
    Classifier {
        /// The file.
        path: PathBuf,
        /// Its network.
        arch: &'static str,
    },
    /// The configuration stored in the file is unreadable.
    #[error("{}: the configuration in the file is damaged: {reason}", path.display())]
    StoredConfig {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// The configuration describes no detector.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: ConfigError,
    },
    /// An operation on the network cannot be.
    #[error("{}{reason}", prefix(path))]
    Surgery {
        /// The file; empty for a model in memory.
        path: PathBuf,
        /// Which, why, and what to do instead.
        reason: SurgeryError,
    },
    /// Keys of model and file differ.
    #[error("{}: {}\n{}", path.display(), report.summary(), report.to_string().trim_end())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is missing, unexpected or of another shape.
        report: Box<LoadReport>,
    },
    /// The file cannot be written.
    #[error("{}: could not be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said, or which tensor could not be read.
        source: io::Error,
    },
}

/// The file's name before a message; nothing for a model in memory.
fn prefix(path: &Path) -> String {
    match path.as_os_str().is_empty() {
        true => String::new(),
        false => format!("{}: ", path.display()),
    }
}

/// The tensors of a detector, in torch's layouts under torchvision's names, and its configuration. May be sent
/// to and shared with other threads.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_ops::backend_types::*; pub use weights_import as weights; }
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// # std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/rcnn-core/assets/blood-cells.bpk"), "cells.bpk")?;
/// use rcnn_burn::Flex;
/// use rcnn_burn::weights::{Precision, Weights};
///
/// let mut weights = Weights::open("cells.bpk")?; // or `fasterrcnn.pth`, `model.safetensors`, ...
/// println!("{}, {} classes; {}", weights.config.backbone, weights.config.num_classes, weights.origin);
/// weights.config.roi_heads.score_thresh = 0.5;
/// let model = weights.load::<Flex>(&Default::default())?;
/// assert_eq!(model.roi_heads.config.score_thresh, 0.5);
///
/// weights.write_safetensors("for-torchvision.safetensors")?;
/// weights.write_burnpack("half.bpk", Precision::F16)?;
/// assert_eq!(Weights::open("half.bpk")?.config, weights.config);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Weights {
    /// The file they come from; empty for those of a model in memory.
    pub path: PathBuf,
    /// Configuration of the detector. Fields that do not determine shapes (thresholds, image sizes) may be changed
    /// before loading.
    pub config: FasterRcnnConfig,
    /// Origin of the configuration.
    pub origin: ConfigOrigin,
    /// The tensors, still in the file; `num_batches_tracked` included where the file has it.
    pub tensors: StateDict,
}

impl Weights {
    /// Opens a checkpoint of any format and recognises its network, by the configuration that this
    /// project's own files carry, else by names and shapes.
    ///
    /// torchvision runs some of its published weights with another epsilon in the norms than it gives to
    /// new models (`FasterRCNN_ResNet50_FPN_Weights.COCO_V1` with 0). Those are recognised by the SHA-256
    /// of the file; see [`origin`](Self::origin).
    ///
    /// # Errors
    /// When the file is unreadable or its network unknown; the error says what was seen.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        Self::from_checkpoint(&Checkpoint::open(path)?)
    }

    /// Reads weights and configuration of an open checkpoint, as [`open`](Self::open) does of a file.
    ///
    /// # Errors
    /// When its network is unknown; the error says what was seen.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, WeightsError> {
        Self::from_checkpoint_overridden(checkpoint, &Map::new())
    }

    /// Reads an open checkpoint as [`from_checkpoint`](Self::from_checkpoint) does, with some parameters
    /// [replaced](FasterRcnnConfig::overridden). They also supply what names and shapes do not determine, such
    /// as anchors, to recognise the network by.
    ///
    /// # Errors
    /// When its network is unknown, or the parameters are no configuration.
    pub fn from_checkpoint_overridden(
        checkpoint: &Checkpoint,
        overrides: &Map<String, Value>,
    ) -> Result<Self, WeightsError> {
        let path = &checkpoint.path;
        let tensors = without_wrapper(torchvision_names(checkpoint)?);
        let (config, origin) = match checkpoint.metadata.get(CONFIG_KEY) {
            Some(json) => (stored_config(path, json)?, ConfigOrigin::Stored),
            None if checkpoint.format.is_tensorflow() => {
                let (mut config, origin) =
                    tensorflow::recognize(checkpoint, &shapes(&tensors), overrides)?;
                name_coco_classes(&mut config);
                (config, origin)
            }
            None => {
                let mut config = recognized(checkpoint, &tensors, overrides)?;
                let origin = origin::adopt_published(&mut config, checkpoint, published::all())?;
                (config, origin)
            }
        };
        let config = overridden(path, &config, overrides)?;
        config.validate().map_err(|source| WeightsError::Config {
            path: path.into(),
            source,
        })?;
        Ok(Self {
            path: path.into(),
            config,
            origin,
            tensors: lazy(tensors),
        })
    }

    /// Opens a checkpoint for a network that is already known. The configuration is taken as it is: what
    /// torchvision sets for published weights alone is not added.
    ///
    /// # Errors
    /// When the file is unreadable. Whether it fits shows when it is loaded.
    pub fn open_with(
        path: impl AsRef<Path>,
        config: FasterRcnnConfig,
    ) -> Result<Self, WeightsError> {
        Self::from_checkpoint_with(&Checkpoint::open(path)?, config)
    }

    /// Reads weights of an open checkpoint, as [`open_with`](Self::open_with) does of a file.
    ///
    /// # Errors
    /// When it holds several models.
    pub fn from_checkpoint_with(
        checkpoint: &Checkpoint,
        config: FasterRcnnConfig,
    ) -> Result<Self, WeightsError> {
        let mut tensors = torchvision_names(checkpoint)?;
        if config.backbone.architecture().is_some() {
            tensors = without_wrapper(tensors);
        }
        Ok(Self {
            path: checkpoint.path.clone(),
            config,
            origin: ConfigOrigin::Given,
            tensors: lazy(tensors),
        })
    }

    /// Takes the weights of a model in memory.
    ///
    /// ```
    /// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_ops::backend_types::*; pub use weights_import as weights; }
    /// use rcnn_burn::{FasterRcnnConfig, Flex};
    /// use rcnn_burn::weights::Weights;
    ///
    /// let config = FasterRcnnConfig::named("resnet18_fpn", 4)?
    ///     .with_surgery(&["cut-after layer1".parse()?, "box-head fc:16".parse()?])?;
    /// let model = config.init::<Flex>(&Default::default())?;
    /// let weights = Weights::from_model(&model);
    /// assert_eq!(weights.tensors["roi_heads.box_predictor.cls_score.weight"].shape, [4, 16]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_model<B: DetectionBackend, N: Backbone<B>>(model: &FasterRcnn<B, N>) -> Self {
        Self {
            path: PathBuf::new(),
            config: model.config(),
            origin: ConfigOrigin::Given,
            tensors: state_dict(model),
        }
    }

    /// Makes the detector and loads every weight into it.
    ///
    /// # Errors
    /// When keys are missing, unexpected or of another shape, with a list in torchvision's names.
    pub fn load<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<StandardFasterRcnn<B>, WeightsError> {
        let mut model = self.init(device)?;
        self.load_into(&mut model)?;
        Ok(model)
    }

    /// Makes the detector, loads what fits and reports the rest, which keeps its random start.
    ///
    /// # Errors
    /// When the configuration describes no detector.
    pub fn load_partial<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<(StandardFasterRcnn<B>, LoadReport), WeightsError> {
        let mut model = self.init(device)?;
        let report = load_state_dict(&mut model, self.parameters(), false);
        let report = report.unwrap_or_else(|report| report);
        Ok((model, report))
    }

    /// Loads every weight into an existing model, for example one with a custom backbone.
    ///
    /// # Errors
    /// As [`load`](Self::load); the model is then as it was.
    pub fn load_into<B: Backend, M: Module<B>>(&self, model: &mut M) -> Result<(), WeightsError> {
        match load_state_dict(model, self.parameters(), true) {
            Ok(_) => Ok(()),
            Err(report) => Err(keys_error(&self.path, report)),
        }
    }

    /// Whether the weights are those of their configuration, before anything is made of them.
    pub(crate) fn require_complete<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<(), WeightsError> {
        let tensors = self.parameters();
        let mut report = LoadReport::default();
        for (name, shape) in parameter_shapes(&self.init::<B>(device)?) {
            let tensor = tensors.get(&name);
            match tensor.map(|tensor| (tensor.shape.to_vec(), tensor.dtype)) {
                None => report.missing.push((name, shape)),
                Some((found, _)) if found != shape => {
                    report.mismatched.push((name, shape, found));
                }
                Some((_, dtype)) if is_quantized(dtype) => {
                    report.unreadable.push((name, QUANTIZED.into()));
                }
                Some(_) => report.loaded.push(name),
            }
        }
        let fits = report.mismatched.is_empty() && report.unreadable.is_empty();
        match report.missing.is_empty() && fits {
            true => Ok(()),
            false => Err(keys_error(&self.path, report)),
        }
    }

    pub(crate) fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<StandardFasterRcnn<B>, WeightsError> {
        let path = &self.path;
        let error = |source| WeightsError::Config {
            path: path.clone(),
            source,
        };
        self.config.init(device).map_err(error)
    }

    /// The configuration as files carry it, under [`CONFIG_KEY`].
    pub(crate) fn config_json(&self) -> String {
        serde_json::to_string(&self.config).expect("a configuration is plain data")
    }

    /// The tensors without the counters that only training reads.
    fn parameters(&self) -> StateDict {
        let tensors = self
            .tensors
            .iter()
            .filter(|(name, _)| !name.ends_with(".num_batches_tracked"));
        tensors
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect()
    }
}

/// Loads the body of a backbone from an ImageNet classification checkpoint (`resnet50-....pth`), or
/// from a detector's. The pyramid stays as it is.
///
/// ```no_run
/// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_ops::backend_types::*; pub use weights_import as weights; }
/// use rcnn_burn::{FasterRcnnConfig, Flex};
/// use rcnn_burn::weights::load_backbone;
///
/// let mut model = FasterRcnnConfig::named("resnet50_fpn", 4)?.init::<Flex>(&Default::default())?;
/// load_backbone("resnet50-11ad3fa6.pth", &mut model.backbone)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the file is unreadable or its body is not this one; the backbone is then as it was.
pub fn load_backbone<B: DetectionBackend>(
    path: impl AsRef<Path>,
    backbone: &mut AnyBackbone<B>,
) -> Result<(), WeightsError> {
    load_backbone_from(&Checkpoint::open(path)?, backbone)
}

/// Loads a backbone from an open checkpoint, as [`load_backbone`] does from a file.
///
/// # Errors
/// As [`load_backbone`].
pub fn load_backbone_from<B: DetectionBackend>(
    checkpoint: &Checkpoint,
    backbone: &mut AnyBackbone<B>,
) -> Result<(), WeightsError> {
    let path = &checkpoint.path;
    let tensors = without_wrapper(torchvision_names(checkpoint)?);
    let (config, stages) = (backbone.config(), backbone.stages());
    let is_detector = (tensors.iter()).any(|(name, _)| name.starts_with("backbone."));
    let in_backbone = |name: &str| match is_detector {
        true => name.strip_prefix("backbone.").map(String::from),
        false => config.architecture()?.classifier_parameter(name),
    };
    let is_pyramid = |name: &str| is_detector && !stages.iter().any(|stage| stage.owns(name));
    // Stages and blocks that the backbone does not have have no use for their weights.
    let is_dropped = |name: &str| stages.iter().any(|stage| stage.is_dropped(name));
    let body = tensors.into_iter().filter_map(|(name, tensor)| {
        let name = in_backbone(&name)?;
        let unused =
            name.ends_with(".num_batches_tracked") || is_pyramid(&name) || is_dropped(&name);
        (!unused).then_some((name, tensor))
    });
    let mut loaded = backbone.clone();
    let report = load_state_dict(&mut loaded, lazy(body.collect()), false);
    let mut report = report.unwrap_or_else(|report| report);
    let is_body = |name: &str| stages.iter().any(|stage: &Stage| stage.owns(name));
    report.missing.retain(|(name, _)| is_body(name));
    if !report.is_complete() {
        return Err(keys_error(path, report));
    }
    *backbone = loaded;
    Ok(())
}

fn keys_error(path: &Path, report: LoadReport) -> WeightsError {
    WeightsError::Keys {
        path: path.into(),
        report: Box::new(report),
    }
}

fn stored_config(path: &Path, json: &str) -> Result<FasterRcnnConfig, WeightsError> {
    serde_json::from_str(json).map_err(|error| WeightsError::StoredConfig {
        path: path.into(),
        reason: error.to_string(),
    })
}

pub(crate) fn overridden(
    path: &Path,
    config: &FasterRcnnConfig,
    overrides: &Map<String, Value>,
) -> Result<FasterRcnnConfig, WeightsError> {
    config
        .overridden(overrides)
        .map_err(|source| WeightsError::Config {
            path: path.into(),
            source,
        })
}

fn recognized(
    checkpoint: &Checkpoint,
    tensors: &[(String, StoredTensor)],
    overrides: &Map<String, Value>,
) -> Result<FasterRcnnConfig, WeightsError> {
    let path = &checkpoint.path;
    let unrecognized = |saw: String| WeightsError::Unrecognized {
        path: path.into(),
        // What is not read may be just what was looked for.
        saw: (checkpoint.notes.iter().take(3)).fold(saw, |saw, note| format!("{saw}; {note}")),
    };
    let shapes = shapes(tensors);
    let mut config = match recognize(&shapes).map_err(unrecognized)? {
        Recognized::Detector(config) => {
            if !overrides.contains_key("backbone") {
                warn_of_assumed_norms(path, &shapes, &config.backbone);
            }
            overridden(path, &config, overrides)?
        }
        Recognized::Classifier(arch) => {
            return Err(WeightsError::Classifier {
                path: path.into(),
                arch,
            });
        }
    };
    check_anchors(&shapes, &config).map_err(unrecognized)?;
    name_coco_classes(&mut config);
    Ok(config)
}

/// Warns where nothing tells the kind of the norms, and their epsilon hangs on it.
fn warn_of_assumed_norms(path: &Path, shapes: &Shapes, assumed: &BackboneConfig) {
    let backbone = shapes.within("backbone");
    let norms = backbone.names().filter_map(|name| {
        let name = name.strip_suffix(".running_var")?;
        let (kind, eps) = (Some(NormKind::FrozenBatchNorm2d), None);
        let is_unknown = backbone.norm(name) == NormFacts::default();
        is_unknown.then(|| (name.to_string(), NormFacts { kind, eps }))
    });
    let frozen: Vec<_> = norms.collect();
    let frozen = BackboneConfig::recognize(&backbone.with_norms(frozen));
    let eps = |config: &BackboneConfig| Some(config.architecture()?.norm_eps());
    if let (Some(Ok(frozen)), Some(assumed_eps)) = (frozen, eps(assumed))
        && let Some(frozen_eps) = eps(&frozen)
        && frozen_eps != assumed_eps
    {
        tracing::warn!(
            "{}: norms without num_batches_tracked are taken as the BatchNorm2d of torchvision's {assumed}, with an epsilon \
             of {assumed_eps:?}; if they were FrozenBatchNorm2d, pass --config FILE (Weights::open_with) with \
             {{\"backbone\": {{\"norm_eps\": {frozen_eps:?}}}}}",
            path.display()
        );
    }
}

fn shapes(tensors: &[(String, StoredTensor)]) -> Shapes {
    let shape = |(name, tensor): &(String, StoredTensor)| (name.clone(), tensor.shape.clone());
    let norm = |(name, tensor): &(String, StoredTensor)| {
        Some((name.strip_suffix(".running_var")?.to_string(), tensor.norm))
    };
    let shapes: Shapes = tensors.iter().map(shape).collect();
    shapes.with_norms(tensors.iter().filter_map(norm))
}

/// Names the classes of a model that has as many as COCO, where nothing else does.
fn name_coco_classes(config: &mut FasterRcnnConfig) {
    // Nobody but COCO, as torchvision and TensorFlow number it, has 91.
    if config.num_classes == COCO_CATEGORIES.len() && config.class_names.is_empty() {
        config.class_names = COCO_CATEGORIES.map(String::from).into();
    }
}

/// Writes a file, whole or not at all.
pub(crate) fn write(
    path: &Path,
    write: impl FnOnce(&mut NamedTempFile) -> io::Result<()>,
) -> Result<(), WeightsError> {
    rcnn_files::write_whole(path, write)
        .map_err(|WriteError { path, source }| WeightsError::Write { path, source })
}

fn lazy(tensors: Vec<(String, StoredTensor)>) -> StateDict {
    let entry = |(name, tensor): (String, StoredTensor)| {
        let (shape, dtype) = (tensor.shape.clone(), tensor.dtype);
        (name, StateTensor::lazy(shape, dtype, move || tensor.data()))
    };
    tensors.into_iter().map(entry).collect()
}
