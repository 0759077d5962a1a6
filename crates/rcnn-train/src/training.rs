//! What burn-train is given to train a run, and what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::module::AutodiffModule;
use burn::optim::Optimizer;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn_train::checkpoint::KeepLastNCheckpoints;
use burn_train::metric::LearningRateMetric;
use burn_train::renderer::tui::TuiMetricsRendererWrapper;
use burn_train::{
    ExecutionStrategy, Learner, MultiDeviceOptim, SupervisedTraining, TrainingStrategy,
};
use rcnn_core::backbone::Backbone;
use rcnn_core::ops::DetectionBackend;
use rcnn_data::{Augmentation, Loader, LoaderOptions};

use crate::batches::Batches;
use crate::checkpoint::{self, WholeFileRecorder};
use crate::data::Splits;
use crate::log::JsonLines;
use crate::metrics::{ValueMetric, logged_losses, precision_names};
use crate::renderer::Lines;
use crate::schedule::Schedule;
use crate::session::{Patience, Session};
use crate::stop::Stop;
use crate::trainee::Trainee;
use crate::{Progress, Report, Run, TrainError};

/// Checkpoints that are kept.
pub(crate) const KEPT: usize = 2;

/// A run with everything that burn-train is to be given.
pub(crate) struct Training<'a, B: Backend> {
    pub(crate) run: &'a Run,
    /// Epoch to go on after.
    pub(crate) start: Option<usize>,
    pub(crate) batch_size: usize,
    /// How often each training image comes in an epoch; once if `None`.
    pub(crate) repeat_factors: Option<Vec<f64>>,
    pub(crate) session: Arc<Session>,
    pub(crate) data: Splits,
    pub(crate) devices: &'a [B::Device],
    pub(crate) progress: Progress,
}

impl<B: DetectionBackend> Training<'_, B> {
    pub(crate) fn launch<C, N, O>(
        self,
        trainee: Trainee<C, N>,
        optimizer: O,
    ) -> Result<Report, TrainError>
    where
        C: AutodiffBackend<InnerBackend = B, Device = B::Device> + DetectionBackend,
        N: Backbone<C> + AutodiffModule<C> + 'static,
        N::InnerModule: Backbone<B>,
        O: Optimizer<Trainee<C, N>, C> + 'static,
    {
        let (run, session) = (self.run, self.session);
        let config = run.config();
        let options = LoaderOptions {
            batch_size: self.batch_size,
            shuffle: true,
            drop_last: true,
            seed: config.seed,
            threads: config.loader_threads,
            ..Default::default()
        };
        let (train, valid) = (Arc::new(self.data.train), Arc::new(self.data.valid));
        let mut train = Loader::new(train, config.augmentation(), options)?;
        if let Some(factors) = self.repeat_factors {
            train = train.with_repeat_factors(factors);
        }
        let options = LoaderOptions {
            shuffle: false,
            drop_last: false,
            ..options
        };
        let valid = Loader::new(valid, Augmentation::none(), options)?;

        let schedule = Schedule {
            config: config.schedule.clone(),
            learning_rate: config.optimizer.learning_rate,
            steps_per_epoch: train.batches() / self.devices.len().max(1),
            epochs: config.epochs,
            step: 0,
        };
        let start = self.start;
        if start.is_none()
            && let Some(fault) = schedule.warmup_fault()
        {
            tracing::warn!("{fault}");
        }
        let losses = trainee.model.loss_names();
        let taught = config
            .teacher
            .iter()
            .flat_map(|_| config.distillation.loss_names());
        let taught: Vec<_> = taught.collect();
        let logged = logged_losses(&[&losses[..], &taught].concat());
        let precisions = precision_names(&trainee.model.roi_heads.config);
        let learner = Learner::new(trainee, optimizer, schedule);
        let first_epoch = start.map_or(1, |epoch| epoch + 1);
        let logger = JsonLines::new(
            session.clone(),
            first_epoch,
            logged.clone(),
            precisions.clone(),
            train.batches(),
        )?;
        let mut training = SupervisedTraining::new(
            run.folder(),
            Arc::new(Batches::new(train, first_epoch)),
            Arc::new(Batches::new(valid, first_epoch)),
        )
        .num_epochs(config.epochs)
        .with_interrupter(session.interrupter.clone())
        .with_application_logger(None)
        .with_file_checkpointer(WholeFileRecorder::default())
        .with_checkpointing_strategy(KeepLastNCheckpoints::new(KEPT))
        .with_metric_logger(logger)
        .metric_train_numeric(LearningRateMetric::new())
        .early_stopping(Patience(session.clone()));
        for metric in ValueMetric::losses(&losses) {
            training = training.metric_train_numeric(metric.clone());
            training = training.metric_valid_numeric(metric);
        }
        for metric in ValueMetric::each_loss(&taught) {
            training = training.metric_train_numeric(metric);
        }
        if config.teacher.is_some() {
            training = training.metric_train_numeric(ValueMetric::teacher());
        }
        for metric in ValueMetric::precisions(&precisions) {
            training = training.metric_valid_numeric(metric);
        }
        if config.accumulation > 1 {
            training = training.grads_accumulation(config.accumulation);
        }
        if let Some(epoch) = start {
            checkpoint::check::<C, _>(&run.checkpoints(), epoch, &learner)?;
            training = training.checkpoint(epoch);
            tracing::info!("resuming after epoch {epoch}");
        }
        let strategy = match self.devices {
            [] => ExecutionStrategy::single(Default::default()),
            [device] => ExecutionStrategy::single(device.clone()),
            devices => ExecutionStrategy::multi(devices.into(), MultiDeviceOptim::OptimMainDevice),
        };
        training = training.with_training_strategy(TrainingStrategy::Default(strategy));
        training = match self.progress {
            Progress::Lines => training.renderer(Lines::new(logged, precisions)),
            Progress::Dashboard => {
                let interrupter = session.interrupter.clone();
                training.renderer(TuiMetricsRendererWrapper::new(interrupter, start))
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| training.launch(learner))) {
            session.fail(session.panicked(panic.as_ref()));
        }
        if let Some(failure) = session.failure() {
            return Err(run.stopped(session.place(), failure));
        }
        Stop::forget(run.folder());
        let (best_epoch, best_ap) = session.best().unwrap_or_default();
        if let Some(images) = config.overfit {
            say_what_was_learned(images, best_ap);
        }
        Ok(Report {
            epochs: session.epochs_done(),
            best_epoch,
            best_ap,
        })
    }
}

/// The least AP at which images count as learned by heart.
const LEARNED: f64 = 0.9;

fn say_what_was_learned(images: usize, ap: f64) {
    match ap > LEARNED - 1e-9 {
        true => tracing::info!(
            "AP {ap:.3} on the {images} images of `overfit`: they were learned by heart"
        ),
        false => tracing::warn!(
            "AP {ap:.3} on the {images} images of `overfit`, where a detector that learns comes near 1: look at the \
             labels, the sizes of the anchors and the learning rate, or give it more epochs"
        ),
    }
}
