//! A detector as burn-train's learner sees it: what a training step and a validation step are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::{AutodiffModule, Module, ModuleDisplay};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn_train::{InferenceStep, TrainOutput, TrainStep};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rcnn_core::backbone::Backbone;
use rcnn_core::image::to_tensor;
use rcnn_core::ops::{DetectionBackend, Subsample};
use rcnn_core::weights::{Precision, Weights};
use rcnn_core::{FasterRcnn, TrainingPass};
use rcnn_data::Example;
use rcnn_types::{ImageInstances, Instances, MASK_THRESHOLD, Size};

use crate::TrainError;
use crate::average::Average;
use crate::batches::Batch;
use crate::checkpoint::write_whole;
use crate::clip::scale_and_clip;
use crate::factor::take;
use crate::metrics::{Precisions, StepValues, precisions};
use crate::session::Session;
use crate::teacher::{Adapters, Teacher};

#[derive(Module, Debug)]
pub(crate) struct Trainee<B: Backend, N> {
    pub(crate) model: FasterRcnn<B, N>,
    /// Average that is validated and saved in place of `model`, if the run keeps one.
    pub(crate) average: Option<Average<B, FasterRcnn<B, N>>>,
    /// Convolutions that bring the student's feature maps to the teacher's channels, where these differ. Only
    /// checkpoints keep them.
    pub(crate) adapters: Option<Adapters<B>>,
    #[module(skip)]
    pub(crate) session: Arc<Session>,
    /// Place in the session's plan of what is frozen in `model`.
    #[module(skip)]
    pub(crate) stage: usize,
}

impl<B: AutodiffBackend, N: AutodiffModule<B> + ModuleDisplay> Trainee<B, N> {
    /// With that frozen which an epoch wants frozen. burn-train does not tell when an epoch begins,
    /// so that each step and each move of the parameters makes sure of it; what they find depends
    /// on the epoch alone, on each device and after a resumption.
    fn at_epoch(mut self, epoch: u64) -> Self {
        let stage = self.session.freezing.plan.stage(epoch as usize);
        if stage != self.stage {
            self.stage = stage;
            let plan = &self.session.freezing.plan;
            self.model = plan.at(epoch as usize).apply(self.model);
        }
        self
    }
}

impl<B, N> TrainStep for Trainee<B, N>
where
    B: AutodiffBackend<InnerBackend: DetectionBackend> + DetectionBackend,
    N: Backbone<B> + AutodiffModule<B, InnerModule: ModuleDisplay>,
{
    type Input = Batch;
    type Output = StepValues;

    fn step(&self, batch: Batch) -> TrainOutput<StepValues> {
        let mut this = self.clone().at_epoch(batch.epoch);
        this.model.transform.skip_resize |= self.session.sets_size;
        // If it fails, no gradients: the parameters stay as they are until burn-train has stopped.
        let step = self.session.attempt(|| this.gradients(batch));
        let (gradients, values) = step.unwrap_or_default();
        TrainOutput {
            grads: gradients,
            item: values,
        }
    }

    fn optimize<C, O>(self, optimizer: &mut O, rate: f64, mut gradients: GradientsParams) -> Self
    where
        C: AutodiffBackend,
        O: Optimizer<Self, C>,
        Self: AutodiffModule<C>,
    {
        let session = self.session.clone();
        let mut this = self.at_epoch(session.epoch());
        let scale = 1.0 / session.summed as f64;
        let norm = scale_and_clip::<C, _>(&this, &mut gradients, scale, session.config.clip_norm);
        if let Some(norm) = norm.filter(|norm| !norm.is_finite()) {
            session.fail(session.not_finite(format!("the norm of the gradients is {norm}")));
            return this;
        }
        for (factor, ids) in session.freezing.groups(&this.model) {
            let group = take::<C, _>(&this, &mut gradients, &ids);
            this = optimizer.step(rate * factor, this, group);
        }
        this = optimizer.step(rate, this, gradients);
        if let (Some(average), Some(decay)) = (this.average.take(), session.config.ema) {
            this.average = Some(average.follow(&this.model, decay));
        }
        this
    }
}

impl<B, N> Trainee<B, N>
where
    B: AutodiffBackend<InnerBackend: DetectionBackend> + DetectionBackend,
    N: Backbone<B> + AutodiffModule<B, InnerModule: ModuleDisplay>,
{
    fn gradients(&self, batch: Batch) -> Result<(GradientsParams, StepValues), TrainError> {
        let mut random = self.random(&batch);
        let examples = self.session.begin(batch)?;
        let min_sizes: Vec<_> = examples
            .iter()
            .map(|e| e.min_size.map(|s| s as usize))
            .collect();
        let (images, targets) = self.tensors(examples);
        let subsample = &mut Subsample::Random(&mut random);
        let start = Instant::now();
        let mut pass = self
            .model
            .training_pass(&images, &targets, &min_sizes, subsample)?;
        let teaching = self.learn(&mut pass)?;
        let losses = pass.losses;
        let mut values = StepValues {
            losses: losses.values(),
            ..Default::default()
        };
        if !values.total().is_finite() {
            let losses = values.losses.iter();
            let losses: Vec<_> = losses
                .map(|(name, loss)| format!("{name} {loss}"))
                .collect();
            let losses = losses.join(", ");
            return Err(self
                .session
                .not_finite(format!("the loss is not finite: {losses}")));
        }
        let gradients = GradientsParams::from_grads(losses.total().backward(), self);
        values.teacher = teaching.map(|time| time.as_secs_f64() / start.elapsed().as_secs_f64());
        Ok((gradients, values))
    }

    /// Adds the losses against the teacher, if there is one, and returns the time that it took.
    fn learn(&self, pass: &mut TrainingPass<B>) -> Result<Option<Duration>, TrainError> {
        let teacher = self.session.teacher.as_ref();
        let Some(teacher) = teacher.and_then(|any| any.downcast_ref::<Teacher<B::InnerBackend>>())
        else {
            return Ok(None);
        };
        let device = pass.images.tensors.device();
        // Some backends return before the work is done; what goes wrong in it shows where it is read.
        let synchronised = || _ = B::sync(&device);
        synchronised();
        let start = Instant::now();
        let answers = teacher.answer(pass)?;
        synchronised();
        let time = start.elapsed();
        let losses = teacher.losses(pass, answers, self.adapters.as_ref());
        pass.losses.extend(losses);
        Ok(Some(time))
    }
}

impl<B: DetectionBackend, N: Backbone<B>> InferenceStep for Trainee<B, N> {
    type Input = Batch;
    type Output = StepValues;

    fn step(&self, batch: Batch) -> StepValues {
        let step = self.session.attempt(|| self.validate(batch));
        step.unwrap_or_default()
    }
}

impl<B: DetectionBackend, N: Backbone<B>> Trainee<B, N> {
    /// The model that is validated and saved.
    fn shown(&self) -> &FasterRcnn<B, N> {
        match &self.average {
            Some(average) => &average.model,
            None => &self.model,
        }
    }

    fn validate(&self, batch: Batch) -> Result<StepValues, TrainError> {
        let mut random = self.random(&batch);
        let examples = batch.examples?;
        let ids: Vec<u64> = examples.iter().map(|e| e.image_id).collect();
        let sizes: Vec<Size> = examples
            .iter()
            .map(|e| Size::from_dimensions(e.image.dimensions()))
            .collect();
        let (images, targets) = self.tensors(examples);
        let subsample = &mut Subsample::Random(&mut random);
        let (losses, detections) = self.shown().validate(&images, &targets, subsample)?;
        let pasted = detections.into_iter().zip(sizes).map(|(mut found, size)| {
            found.paste_masks(size, MASK_THRESHOLD);
            found.mask_probabilities = None;
            found
        });
        let found = ids.into_iter().zip(pasted);
        self.session
            .found(found.map(|(image_id, instances)| ImageInstances {
                image_id,
                instances,
                ..Default::default()
            }));
        let precisions = batch.last.then(|| self.end_epoch(batch.epoch));
        Ok(StepValues {
            losses: losses.values(),
            precisions: precisions.transpose()?.unwrap_or_default(),
            teacher: None,
        })
    }

    /// Evaluates the epoch and saves the model: as the last, and perhaps as the best.
    fn end_epoch(&self, epoch: u64) -> Result<Precisions, TrainError> {
        let (evaluation, is_best) = self.session.evaluate(epoch)?;
        let folder = &self.session.folder;
        let weights = Weights::from_model(self.shown());
        weights.write_burnpack(folder.join("last.bpk"), Precision::F32)?;
        if is_best {
            weights.write_burnpack(folder.join("best.bpk"), Precision::F32)?;
            let json = serde_json::to_string_pretty(&evaluation).expect("it is plain data");
            write_whole(&folder.join("best.json"), json.as_bytes())?;
        }
        Ok(precisions(&evaluation))
    }
}

impl<B: DetectionBackend, N: Backbone<B>> Trainee<B, N> {
    /// Chance of a batch by itself, so that a run that goes on needs no state of a generator.
    fn random(&self, batch: &Batch) -> StdRng {
        let place = batch.epoch << 32 | batch.number as u64;
        StdRng::seed_from_u64(self.session.config.seed.rotate_left(48) ^ place)
    }

    fn tensors(&self, examples: Vec<Example>) -> (Vec<Tensor<B, 3>>, Vec<Instances>) {
        let device = self.model.roi_heads.box_predictor.cls_score.weight.device();
        let pair = |example: Example| (to_tensor(&example.image, &device), example.instances);
        examples.into_iter().map(pair).unzip()
    }
}
