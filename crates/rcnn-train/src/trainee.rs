//! A detector as burn-train's learner sees it: what a training step and a validation step are.

use std::sync::Arc;

use burn::module::{AutodiffModule, Module, ModuleDisplay};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn_train::{InferenceStep, TrainOutput, TrainStep};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rcnn_core::FasterRcnn;
use rcnn_core::backbone::Backbone;
use rcnn_core::image::to_tensor;
use rcnn_core::ops::{DetectionBackend, Subsample};
use rcnn_core::weights::{Precision, Weights};
use rcnn_data::Example;
use rcnn_types::{ImageInstances, Instances, MASK_THRESHOLD, Size};

use crate::TrainError;
use crate::batches::Batch;
use crate::checkpoint::write_whole;
use crate::clip::scale_and_clip;
use crate::factor::take;
use crate::metrics::{Precisions, StepValues, precisions};
use crate::session::Session;

#[derive(Module, Debug)]
pub(crate) struct Trainee<B: Backend, N> {
    pub(crate) model: FasterRcnn<B, N>,
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
    B: AutodiffBackend + DetectionBackend,
    N: Backbone<B> + AutodiffModule<B, InnerModule: ModuleDisplay>,
{
    type Input = Batch;
    type Output = StepValues;

    fn step(&self, batch: Batch) -> TrainOutput<StepValues> {
        let this = self.clone().at_epoch(batch.epoch);
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
        optimizer.step(rate, this, gradients)
    }
}

impl<B, N> Trainee<B, N>
where
    B: AutodiffBackend + DetectionBackend,
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
        let losses = self
            .model
            .losses_at(&images, &targets, &min_sizes, subsample)?;
        let values = StepValues {
            losses: losses.values(),
            precisions: Precisions::default(),
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
        let gradients = GradientsParams::from_grads(losses.total().backward(), &self.model);
        Ok((gradients, values))
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
        let (losses, detections) = self.model.validate(&images, &targets, subsample)?;
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
        })
    }

    /// Evaluates the epoch and saves the model: as the last, and perhaps as the best.
    fn end_epoch(&self, epoch: u64) -> Result<Precisions, TrainError> {
        let (evaluation, is_best) = self.session.evaluate(epoch)?;
        let folder = &self.session.folder;
        let weights = Weights::from_model(&self.model);
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
