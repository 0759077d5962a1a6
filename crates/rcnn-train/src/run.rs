//! A run: a folder with the description, the checkpoints, the metrics and the models of a training.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module};
use burn::optim::adaptor::OptimizerAdaptor;
use rcnn_core::backbone::Backbone;
use rcnn_core::freeze::{FreezingOptimizer, Rule, with_torchvision_default};
use rcnn_core::ops::DetectionBackend;
use rcnn_core::weights::{Checkpoint, Weights, WeightsError, load_backbone_from};
use rcnn_core::{FasterRcnn, FasterRcnnConfig, StandardFasterRcnn};
use rcnn_files::{FolderLock, read_text, remove_old_leftovers};
use rcnn_types::parse_class_names;

use crate::average::Average;
use crate::checkpoint::{self, read_json, write_whole};
use crate::data::Splits;
use crate::fingerprint::Fingerprint;
use crate::folder::{occupied, write_description};
use crate::freezing::Freezing;
use crate::log;
use crate::optimizer::AnyOptimizer;
use crate::session::Session;
use crate::start::start_from;
use crate::stop::Stop;
use crate::teacher::Teacher;
use crate::trainee::Trainee;
use crate::training::{KEPT, Training};
use crate::{Decay, OptimizerKind, TrainConfig, TrainError};

/// A training run and its folder:
///
/// - `run.toml`: the [`TrainConfig`], `model.json`: the detector's configuration;
/// - `best.bpk`, `last.bpk`: the detector after the epoch of the best AP and the last one, its average where
///   [`TrainConfig::ema`] asks for one, `best.json`: the evaluation of the best;
/// - `metrics.jsonl`, `curves.png`: losses and AP;
/// - `checkpoint/`: what [`Run::resume`] goes on from, `data.json`: the data that it must find again, `stopped.json`: where
///   it failed;
/// - `run.lock`: says which process trains. The folder is locked as long as there is a `Run` of it.
#[derive(Debug, Clone)]
pub struct Run {
    folder: PathBuf,
    config: TrainConfig,
    accepts_changed_data: bool,
    _lock: Arc<FolderLock>,
}

/// Display of a run's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// burn-train's dashboard, for a terminal.
    Dashboard,
    /// A `tracing` event every ten seconds and after every epoch, which a subscriber such as that of the crate
    /// `tracing-subscriber` shows.
    Lines,
}

/// Result of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Epochs trained, those before a resumption included.
    pub epochs: usize,
    /// Epoch of the best model, from 1.
    pub best_epoch: usize,
    /// Its AP on the validation split, from 0 to 1.
    pub best_ap: f64,
}

impl Run {
    /// Starts a run in a new folder.
    ///
    /// # Errors
    /// If the configuration makes no sense, or the folder cannot be written, holds a run or files in its
    /// place, or is locked.
    pub fn create(folder: impl Into<PathBuf>, config: TrainConfig) -> Result<Self, TrainError> {
        let folder = folder.into();
        config.validate()?;
        let config = config.absolute().map_err(TrainError::io(&folder))?;
        occupied(&folder)?;
        let checkpoints = folder.join("checkpoint");
        fs::create_dir_all(&checkpoints).map_err(TrainError::io(&checkpoints))?;
        let lock = FolderLock::acquire(&folder)?;
        // Another run may have begun and ended meanwhile.
        occupied(&folder)?;
        write_description(&folder, &config)?;
        Ok(Self::new(folder, config, lock))
    }

    /// Opens a run that was interrupted, to continue from its last checkpoint.
    ///
    /// # Errors
    /// If the folder holds no run, its description is damaged, or the run is going on.
    pub fn resume(folder: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let folder = folder.into();
        let file = folder.join("run.toml");
        if !file.exists() {
            return Err(TrainError::NoRun {
                path: folder,
                missing: "run.toml",
            });
        }
        let lock = FolderLock::acquire(&folder)?;
        let text = read_text(&file).map_err(TrainError::io(&file))?;
        let damaged = |reason: String| TrainError::Damaged { path: file, reason };
        let config = TrainConfig::from_toml(&text).map_err(|error| error.to_string());
        let config = config.and_then(|config| match config.data.as_os_str().is_empty() {
            true => Err("`data` is missing".into()),
            false => config
                .validate()
                .map(|()| config)
                .map_err(|error| error.to_string()),
        });
        let config = config.map_err(damaged)?;
        Ok(Self::new(folder, config, lock))
    }

    fn new(folder: PathBuf, config: TrainConfig, lock: FolderLock) -> Self {
        remove_old_leftovers(&folder);
        remove_old_leftovers(&folder.join("checkpoint"));
        Self {
            folder,
            config,
            accepts_changed_data: false,
            _lock: Arc::new(lock),
        }
    }

    /// Goes on with data that have changed since the run began, instead of
    /// [refusing](TrainError::DataChanged) them.
    pub fn accept_changed_data(&mut self) {
        self.accepts_changed_data = true;
    }

    /// Changes the number of epochs of a resumed run, even of one that has ended.
    ///
    /// # Errors
    /// If the learning rate falls along a cosine, whose every step depends on the number of epochs, if more epochs are
    /// trained already, or the run's description cannot be written.
    pub fn set_epochs(&mut self, epochs: usize) -> Result<(), TrainError> {
        let before = self.config.epochs;
        if epochs == before {
            return Ok(());
        }
        if self.config.schedule.decay == Decay::Cosine {
            return Err(TrainError::Config(format!(
                "epochs = {epochs}: the learning rate falls along a cosine over {before} epochs; only runs with \
                 decay = \"constant\" or \"step\" can be extended"
            )));
        }
        let trained = self.last_checkpoint()?.unwrap_or(0);
        if epochs < trained {
            return Err(TrainError::Config(format!(
                "epochs = {epochs}: {trained} are trained already"
            )));
        }
        let config = TrainConfig {
            epochs,
            ..self.config.clone()
        };
        config.validate()?;
        write_description(&self.folder, &config)?;
        self.config = config;
        Ok(())
    }

    /// Folder of the run's files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Configuration of the run.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Trains the detector that the configuration describes, on one device or, with Burn's data
    /// parallelism, on several. Goes on from the last checkpoint if there is one.
    ///
    /// # Errors
    /// If data or weights cannot be used, a loss is not finite, or something cannot be written. The
    /// last checkpoint is kept.
    pub fn train<B: DetectionBackend>(
        &self,
        devices: &[B::Device],
        progress: Progress,
    ) -> Result<Report, TrainError> {
        let start = self.last_checkpoint()?;
        // The files that a run began from may be gone when it goes on.
        let saved = start.map(|_| self.saved_model()).transpose()?;
        let weights = match start {
            Some(_) => None,
            None => self.weights()?,
        };
        let known = weights.as_ref().map(|weights| &weights.config);
        let data = Splits::read(&self.config, known.or(saved.as_ref()))?;
        let device = devices.first().cloned().unwrap_or_default();
        B::seed(&device, self.config.seed);
        let config = match saved {
            Some(config) => config,
            None => self.config.detector(weights.as_ref(), &data.train)?,
        };
        let model: StandardFasterRcnn<Autodiff<B>> = match weights {
            _ if start.is_some() => config.init(&device)?,
            Some(weights) => start_from(weights, config, &device)?,
            None => {
                let mut model = config.init(&device)?;
                if let Some(path) = &self.config.backbone_weights {
                    load_backbone_from(&self.checkpoint_at(path)?, &mut model.backbone)?;
                    tracing::info!("backbone loaded from {}", path.display());
                }
                model
            }
        };
        let trained = self.config.weights.is_some() || self.config.backbone_weights.is_some();
        let (rules, ignored) = with_torchvision_default(self.config.freeze.clone(), trained);
        if ignored {
            tracing::warn!(
                "trainable_backbone_layers has no effect without weights or \
                 backbone_weights: all layers of the backbone are trainable"
            );
        }
        self.fit(model, rules, data, devices, progress)
    }

    /// The weights to start from, with the names that the configuration gives their classes.
    fn weights(&self) -> Result<Option<Weights>, TrainError> {
        let Some(path) = &self.config.weights else {
            return Ok(None);
        };
        let checkpoint = self.checkpoint_at(path)?;
        let mut weights = match Weights::from_checkpoint(&checkpoint) {
            // Anchors may be what the names do not tell.
            Err(WeightsError::Unrecognized { .. }) => {
                let mut anchors = self.config.model.clone();
                anchors.retain(|field, _| field == "rpn_anchor_generator");
                Weights::from_checkpoint_overridden(&checkpoint, &anchors)?
            }
            weights => weights?,
        };
        if let Some(path) = &self.config.labels {
            let text = read_text(path).map_err(TrainError::io(path))?;
            let names = parse_class_names(&text, weights.config.num_classes);
            weights.config.class_names = names.map_err(|error| TrainError::ClassNames {
                path: path.clone(),
                error,
            })?;
        }
        Ok(Some(weights))
    }

    /// Opens a checkpoint, the model of the configured prefix alone.
    fn checkpoint_at(&self, path: &Path) -> Result<Checkpoint, WeightsError> {
        let checkpoint = Checkpoint::open(path)?;
        for note in &checkpoint.notes {
            tracing::info!("{}: left out: {note}", path.display());
        }
        Ok(match &self.config.weights_prefix {
            Some(prefix) => checkpoint.within(prefix)?,
            None => checkpoint,
        })
    }

    /// Trains a detector of your own, such as one with a custom backbone; as [`train`](Self::train)
    /// otherwise. Its classes must be those of the data. What is frozen in it stays so, unless the
    /// configuration's `freeze` says otherwise; torchvision's default is not applied.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn train_model<B, N>(
        &self,
        model: FasterRcnn<Autodiff<B>, N>,
        devices: &[B::Device],
        progress: Progress,
    ) -> Result<Report, TrainError>
    where
        B: DetectionBackend,
        N: Backbone<Autodiff<B>> + AutodiffModule<Autodiff<B>> + 'static,
        N::InnerModule: Backbone<B>,
    {
        let data = Splits::read(&self.config, Some(&model.config()))?;
        self.fit(model, self.config.freeze.clone(), data, devices, progress)
    }

    fn fit<B, N>(
        &self,
        model: FasterRcnn<Autodiff<B>, N>,
        rules: Vec<Rule>,
        data: Splits,
        devices: &[B::Device],
        progress: Progress,
    ) -> Result<Report, TrainError>
    where
        B: DetectionBackend,
        N: Backbone<Autodiff<B>> + AutodiffModule<Autodiff<B>> + 'static,
        N::InnerModule: Backbone<B>,
    {
        let classes = &data.train.class_names;
        if model.num_classes() != classes.len() {
            return Err(TrainError::Config(format!(
                "the model has {} classes, the data {} (both with the background): {classes:?}",
                model.num_classes(),
                classes.len()
            )));
        }
        data.check_shapes(&model.config())?;
        let (images, count) = (data.train.samples.len(), devices.len().max(1));
        if images < count {
            return Err(TrainError::Config(format!(
                "{images} training images are too few for {count} devices"
            )));
        }
        let batch_size = self.config.batch_size.min(images / count);
        if batch_size < self.config.batch_size {
            tracing::warn!(
                "batch_size = {}: with {images} training images, steps are of {batch_size}",
                self.config.batch_size
            );
        }
        let repeat_factors = data.repeat_factors(&self.config, batch_size);
        let drawn = repeat_factors
            .as_ref()
            .map_or(images, |factors| rcnn_data::epoch_length(factors));
        let steps = drawn / batch_size / count;
        if self.config.accumulation > steps {
            return Err(TrainError::Config(format!(
                "accumulation = {}: an epoch has {steps} steps, so that the parameters would never be updated",
                self.config.accumulation
            )));
        }
        let freezing = Freezing::new(&model, &rules, &self.config.learning_rate_factors)?;
        let model = freezing.plan.at(1).apply(model);
        tracing::info!("{freezing}");
        if count > 1 && freezing.trains_norms(&model) {
            tracing::warn!(
                "{count} devices: batch norms normalise with the statistics of their own device's images (there is no \
                 SyncBN), and the running statistics are those of the device that finishes last, which may differ from \
                 run to run; `model.backbone.norm = \"FrozenBatchNorm2d\"` over a trained backbone has neither"
            );
        }
        let start = self.last_checkpoint()?;
        if start.is_none() && self.folder.join("metrics.jsonl").exists() {
            tracing::warn!("there is no checkpoint yet: the run starts from the beginning");
        }
        self.check_data(&data, start.is_some())?;
        let json = serde_json::to_string_pretty(&model.config()).expect("it is plain data");
        write_whole(&self.folder.join("model.json"), json.as_bytes())?;
        self.check_disk(model.num_params())?;

        let config = &self.config;
        let history = log::rewind(&self.folder, start.unwrap_or(0))?;
        let mut session = Session::new(
            self.folder.clone(),
            config.clone(),
            freezing,
            devices.len().max(1),
            &data.train,
            &data.valid,
            history,
        );
        let device = devices.first().cloned().unwrap_or_default();
        let mut adapters = None;
        if let Some(path) = &config.teacher {
            let teacher = Teacher::<B>::open(path, &config.distillation, &model, devices)?;
            let levels = model.backbone.levels();
            adapters = teacher.adapters(levels[0].channels, &device);
            tracing::info!("teacher: {}", path.display());
            session.teacher = Some(Box::new(teacher));
        }
        let session = Arc::new(session);
        let average = config.ema.map(|_| Average::new(&model, &device));
        let trainee = Trainee {
            model,
            average,
            adapters,
            session: session.clone(),
            stage: 0,
        };
        let training = Training {
            run: self,
            start,
            batch_size,
            repeat_factors,
            session,
            data,
            devices,
            progress,
        };
        let optimizer = OptimizerAdaptor::from(AnyOptimizer::new(&config.optimizer));
        training.launch::<Autodiff<B>, N, _>(trainee, FreezingOptimizer::from(optimizer))
    }

    /// Number of the epoch after which a resumed run continues: the last one with a complete checkpoint and a
    /// logged validation.
    ///
    /// # Errors
    /// If `metrics.jsonl` cannot be read, or is missing although there are checkpoints.
    pub fn last_checkpoint(&self) -> Result<Option<usize>, TrainError> {
        let validated = log::validated(&self.folder)?;
        let complete = checkpoint::complete(&self.checkpoints());
        if !complete.is_empty() && !self.folder.join("metrics.jsonl").exists() {
            return Err(TrainError::NoRun {
                path: self.folder.clone(),
                missing: "metrics.jsonl",
            });
        }
        let logged = |epoch: &usize| validated.contains(epoch);
        Ok(complete.into_iter().filter(logged).max())
    }

    /// Whether the data are those that the run began with, as far as it has begun.
    fn check_data(&self, data: &Splits, has_begun: bool) -> Result<(), TrainError> {
        let now = Fingerprint::new(data);
        if has_begun
            && let Some(then) = Fingerprint::read(&self.folder)?
            && then != now
        {
            let error = TrainError::DataChanged {
                path: self.config.data.clone(),
                changes: then.changes(&now),
            };
            if !self.accepts_changed_data {
                return Err(error);
            }
            tracing::warn!("{error}");
        }
        now.write(&self.folder)
    }

    /// A failure with what is left of the run, noted.
    pub(crate) fn stopped(&self, place: Stop, mut failure: TrainError) -> TrainError {
        if let TrainError::NotFinite { checkpoint, .. } | TrainError::Panicked { checkpoint, .. } =
            &mut failure
        {
            *checkpoint = self.last_checkpoint().unwrap_or_default();
        }
        place.note(&self.folder, failure)
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoint")
    }

    fn saved_model(&self) -> Result<FasterRcnnConfig, TrainError> {
        read_json(&self.folder.join("model.json"))
    }

    /// Before any work: is there room for all that a run keeps, and one checkpoint being written?
    fn check_disk(&self, parameters: usize) -> Result<(), TrainError> {
        let states = match self.config.optimizer.kind {
            OptimizerKind::Sgd => 1,
            OptimizerKind::AdamW => 2,
        };
        const MODELS: usize = 3;
        let averages = usize::from(self.config.ema.is_some());
        let copies = (KEPT + 1) * (1 + averages + states) + MODELS;
        let needed = (copies * parameters * size_of::<f32>()) as u64;
        let free = fs4::available_space(&self.folder).map_err(TrainError::io(&self.folder))?;
        if free < needed {
            return Err(TrainError::DiskSpace {
                path: self.folder.clone(),
                free: free / 1_000_000,
                needed: needed / 1_000_000,
            });
        }
        Ok(())
    }
}
