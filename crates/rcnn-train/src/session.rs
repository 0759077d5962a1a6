//! State that the parts of a running training share: its folder, its results so far, and why it stops.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use burn_train::metric::store::EventStoreClient;
use burn_train::{EarlyStoppingStrategy, Interrupter};
use rcnn_data::{Dataset, Example, Sample};
use rcnn_eval::{EvalOptions, Evaluation, evaluate_with};
use rcnn_types::ImageInstances;

use crate::batches::Batch;
use crate::freezing::Freezing;
use crate::metrics::precisions;
use crate::stop::{Stop, panic_message};
use crate::{TrainConfig, TrainError};

pub(crate) struct Session {
    pub(crate) folder: PathBuf,
    pub(crate) config: TrainConfig,
    pub(crate) freezing: Freezing,
    /// Gradients that are summed before the parameters move.
    pub(crate) summed: usize,
    /// Whether training images come in the size that they are trained at.
    pub(crate) sets_size: bool,
    pub(crate) interrupter: Interrupter,
    /// The [`Teacher`](crate::teacher::Teacher) of the run's backend, which the types of the session do not name.
    pub(crate) teacher: Option<Box<dyn Any + Send + Sync>>,
    class_names: Vec<String>,
    files: Vec<PathBuf>,
    truth: Vec<ImageInstances>,
    found: Mutex<Vec<ImageInstances>>,
    /// AP of each epoch.
    history: Mutex<Vec<(usize, f64)>>,
    /// Epoch, step and images that the gradients are of.
    current: Mutex<(u64, usize, Vec<PathBuf>)>,
    failure: Mutex<Option<TrainError>>,
}

/// No thread panics while it holds one of the locks, so none is poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Session {
    pub(crate) fn new(
        folder: PathBuf,
        config: TrainConfig,
        freezing: Freezing,
        devices: usize,
        train: &Dataset,
        valid: &Dataset,
        history: Vec<(usize, f64)>,
    ) -> Self {
        Self {
            folder,
            summed: config.accumulation * devices,
            sets_size: config.augmentation().sets_size(),
            config,
            freezing,
            interrupter: Interrupter::new(),
            teacher: None,
            class_names: train.class_names.clone(),
            files: train.samples.iter().map(|s| s.image.clone()).collect(),
            truth: valid.samples.iter().map(Sample::ground_truth).collect(),
            found: Mutex::default(),
            history: Mutex::new(history),
            current: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Stops the run. The first reason counts.
    pub(crate) fn fail(&self, error: TrainError) {
        self.interrupter.stop(Some(&error.to_string()));
        lock(&self.failure).get_or_insert(error);
    }

    /// Why the run stopped early, if it did.
    pub(crate) fn failure(&self) -> Option<TrainError> {
        lock(&self.failure).take().or_else(|| {
            let stopped = self.interrupter.should_stop();
            stopped.then(|| {
                let reason = self.interrupter.get_message();
                TrainError::Interrupted(reason.unwrap_or_else(|| "no reason given".into()))
            })
        })
    }

    /// What a step comes to. If it fails or panics, the run stops.
    pub(crate) fn attempt<T>(&self, step: impl FnOnce() -> Result<T, TrainError>) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(step));
        let done = done.unwrap_or_else(|panic| Err(self.panicked(panic.as_ref())));
        done.map_err(|error| self.fail(error)).ok()
    }

    /// The examples of a batch that is now trained on.
    pub(crate) fn begin(&self, batch: Batch) -> Result<Vec<Example>, TrainError> {
        *lock(&self.current) = (batch.epoch, batch.number + 1, Vec::new());
        let examples = batch.examples?;
        let images = examples.iter().map(|e| self.files[e.index].clone());
        lock(&self.current).2 = images.collect();
        Ok(examples)
    }

    /// Epoch of the current batch.
    pub(crate) fn epoch(&self) -> u64 {
        lock(&self.current).0
    }

    /// Place of the current batch.
    pub(crate) fn place(&self) -> Stop {
        let current = lock(&self.current);
        let (epoch, step) = (current.0, current.1);
        Stop { epoch, step }
    }

    /// The error that something panicked.
    pub(crate) fn panicked(&self, panic: &(dyn Any + Send)) -> TrainError {
        let Stop { epoch, step } = self.place();
        TrainError::Panicked {
            epoch,
            step,
            what: panic_message(panic),
            checkpoint: None,
        }
    }

    /// The error that the current batch gave no number.
    pub(crate) fn not_finite(&self, what: String) -> TrainError {
        let (epoch, step, images) = lock(&self.current).clone();
        TrainError::NotFinite {
            epoch,
            step,
            what,
            images,
            checkpoint: None,
        }
    }

    /// Collects detections of a validation.
    pub(crate) fn found(&self, detections: impl IntoIterator<Item = ImageInstances>) {
        lock(&self.found).extend(detections);
    }

    /// Evaluates the detections collected, and tells whether they are the best so far.
    pub(crate) fn evaluate(&self, epoch: u64) -> Result<(Evaluation, bool), TrainError> {
        let found = std::mem::take(&mut *lock(&self.found));
        let options = EvalOptions {
            keypoint_sigmas: self.config.keypoint_sigmas.clone(),
            ..EvalOptions::default()
        };
        let evaluation = evaluate_with(&self.truth, &found, &self.class_names, &options)?;
        let precision = precisions(&evaluation).decisive();
        let is_best = self.best().is_none_or(|(_, best)| precision > best);
        lock(&self.history).push((epoch as usize, precision));
        Ok((evaluation, is_best))
    }

    /// Epoch and AP of the best model; the first of several.
    pub(crate) fn best(&self) -> Option<(usize, f64)> {
        let history = lock(&self.history);
        let better = |best: (usize, f64), next: &(usize, f64)| {
            if next.1 > best.1 { *next } else { best }
        };
        let first = *history.first()?;
        Some(history.iter().fold(first, better))
    }

    pub(crate) fn epochs_done(&self) -> usize {
        lock(&self.history).len()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.folder.display())
    }
}

/// Ends a run whose AP has not risen for `patience` epochs.
#[derive(Clone)]
pub(crate) struct Patience(pub(crate) std::sync::Arc<Session>);

impl EarlyStoppingStrategy for Patience {
    fn should_stop(&mut self, epoch: usize, _: &EventStoreClient) -> bool {
        let best = self.0.best().map_or(epoch, |(best, _)| best);
        let patience = self.0.config.patience;
        patience.is_some_and(|patience| epoch - best >= patience)
    }
}
