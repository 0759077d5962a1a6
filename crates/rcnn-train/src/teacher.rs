//! The teacher of a run: a trained detector that says what it makes of each batch.

use std::path::Path;

use burn::module::Initializer;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use rcnn_core::backbone::{Backbone, Forward, LevelSpec};
use rcnn_core::ops::{Conv2d, DetectionBackend};
use rcnn_core::weights::Weights;
use rcnn_core::{FasterRcnn, FasterRcnnConfig, ImageList, StandardFasterRcnn, TrainingPass};

use crate::TrainError;
use crate::distillation::{
    DistillationConfig, FEATURES, LOGITS, class_divergence, objectness_divergence, pkd,
};

/// 1x1 convolutions from a student's channels to its teacher's, one a level.
pub(crate) type Adapters<B> = Vec<Conv2d<B>>;

/// A trained detector on each device. Its backend does not track gradients.
#[derive(Debug)]
pub(crate) struct Teacher<B: Backend> {
    config: DistillationConfig,
    models: Vec<(B::Device, StandardFasterRcnn<B>)>,
    /// Index of the teacher's level for each of the student's.
    levels: Vec<usize>,
}

/// A teacher's outputs for a batch.
pub(crate) struct Answers<B: Backend> {
    /// Maps of the student's levels.
    features: Vec<Tensor<B, 4>>,
    /// Objectness of the student's levels, and class logits of the student's samples.
    logits: Option<(Vec<Tensor<B, 4>>, Tensor<B, 2>)>,
}

impl<B: DetectionBackend> Teacher<B> {
    /// Opens a teacher for a student, on each of its devices.
    ///
    /// # Errors
    /// When the file holds no detector, its levels do not match, it normalises images otherwise, or logits are to be
    /// learned and classes or anchors differ.
    pub(crate) fn open<S: DetectionBackend, N: Backbone<S>>(
        path: &Path,
        config: &DistillationConfig,
        student: &FasterRcnn<S, N>,
        devices: &[B::Device],
    ) -> Result<Self, TrainError> {
        let wrong =
            |what: String| TrainError::Config(format!("teacher {}: {what}", path.display()));
        let weights = Weights::open(path)?;
        let (own, its) = (student.config(), &weights.config);
        let mut models = Vec::new();
        for device in devices {
            models.push((device.clone(), weights.load::<B>(device)?));
        }
        if models.is_empty() {
            let device = B::Device::default();
            models.push((device.clone(), weights.load::<B>(&device)?));
        }
        let levels = student.backbone.levels();
        let levels = matching(&levels, &models[0].1.backbone.levels()).map_err(wrong)?;
        let [(own_mean, own_std), (mean, std)] =
            [&own.transform, &its.transform].map(|t| (t.image_mean, t.image_std));
        if (own_mean, own_std) != (mean, std) {
            return Err(wrong(format!(
                "it normalises images with mean {mean:?} and deviation {std:?}, the student with {own_mean:?} and \
                 {own_std:?}"
            )));
        }
        if config.logits > 0.0 {
            same_logits(&own, its, &levels).map_err(wrong)?;
        }
        Ok(Self {
            config: config.clone(),
            models,
            levels,
        })
    }

    fn channels(&self) -> usize {
        self.models[0].1.backbone.levels()[0].channels
    }

    /// New adapters for a student of some channels, where the teacher has others.
    pub(crate) fn adapters<S: Backend>(
        &self,
        channels: usize,
        device: &S::Device,
    ) -> Option<Adapters<S>> {
        // The loss does not depend on their scale, and the smaller they are, the faster they learn.
        let initializer = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        let config = Conv2dConfig::new([channels, self.channels()], [1, 1]);
        let config = config.with_initializer(initializer);
        let is_needed = self.config.features > 0.0 && channels != self.channels();
        let levels = self.levels.iter();
        is_needed.then(|| levels.map(|_| Conv2d::from(config.init(device))).collect())
    }

    /// The teacher's outputs for the batch that its student has just seen.
    ///
    /// # Errors
    /// When its maps are of other sizes than the student's.
    pub(crate) fn answer<S>(&self, pass: &TrainingPass<S>) -> Result<Answers<B>, TrainError>
    where
        S: AutodiffBackend<InnerBackend = B>,
    {
        let images = ImageList {
            tensors: pass.images.tensors.clone().inner(),
            image_sizes: pass.images.image_sizes.clone(),
            original_sizes: pass.images.original_sizes.clone(),
        };
        let device = images.tensors.device();
        let model = self.models.iter().find(|(its, _)| *its == device);
        let (_, model) = model.unwrap_or(&self.models[0]);
        let maps = model.features(&images)?;
        let features: Vec<_> = maps.iter().map(|(_, map)| map.clone()).collect();
        let features: Vec<_> = self.levels.iter().map(|i| features[*i].clone()).collect();
        for ((name, own), its) in pass.features.iter().zip(&features) {
            let ([.., height, width], [.., its_height, its_width]) = (own.dims(), its.dims());
            if (height, width) != (its_height, its_width) {
                return Err(TrainError::Config(format!(
                    "teacher: its map of the student's level {name} has {its_height}x{its_width} locations, the \
                     student's {height}x{width}"
                )));
            }
        }
        let logits = (self.config.logits > 0.0).then(|| {
            let cx = &mut Forward::inference();
            let objectness = model.rpn.head.forward(&maps, cx).objectness;
            let branch = model.roi_heads.box_branch();
            let pooled = branch.pool(&maps, &pass.samples.boxes(), &images.image_sizes);
            let objectness = self.levels.iter().map(|i| objectness[*i].clone());
            (
                objectness.collect(),
                branch.predict(pooled, cx).class_logits,
            )
        });
        Ok(Answers { features, logits })
    }

    /// Losses of a student against the teacher's answers, weighted, under [`DistillationConfig::loss_names`].
    pub(crate) fn losses<S>(
        &self,
        pass: &TrainingPass<S>,
        answers: Answers<B>,
        adapters: Option<&Adapters<S>>,
    ) -> Vec<(&'static str, Tensor<S, 1>)>
    where
        S: AutodiffBackend<InnerBackend = B> + DetectionBackend,
    {
        let mut losses = Vec::new();
        if self.config.features > 0.0 {
            let mut levels = Vec::new();
            for (i, ((_, own), its)) in pass.features.iter().zip(answers.features).enumerate() {
                let own = match adapters {
                    Some(adapters) => adapters[i].forward(own.clone()),
                    None => own.clone(),
                };
                levels.push(pkd(own, Tensor::from_inner(its)));
            }
            let loss = Tensor::cat(levels, 0).sum();
            losses.push((FEATURES, loss * self.config.features));
        }
        if let Some((objectness, class_logits)) = answers.logits {
            let own = pass
                .rpn
                .objectness
                .iter()
                .map(|map| map.clone().flatten::<1>(0, 3));
            let its = objectness
                .into_iter()
                .map(|map| Tensor::from_inner(map.flatten::<1>(0, 3)));
            let own = Tensor::cat(own.collect(), 0);
            let objects = objectness_divergence(own, Tensor::cat(its.collect(), 0));
            let classes =
                class_divergence(pass.class_logits.clone(), Tensor::from_inner(class_logits));
            losses.push((LOGITS, (objects + classes) * self.config.logits));
        }
        losses
    }
}

/// Index of the teacher's level of the same stride for each of the student's.
fn matching(own: &[LevelSpec], its: &[LevelSpec]) -> Result<Vec<usize>, String> {
    let same = |level: &LevelSpec| its.iter().position(|other| other.stride == level.stride);
    own.iter().map(same).collect::<Option<_>>().ok_or_else(|| {
        let [own, its] = [own, its].map(|levels| {
            let levels: Vec<String> = levels.iter().map(LevelSpec::to_string).collect();
            levels.join(", ")
        });
        format!(
            "its levels are {its}, the student's {own}: each of those needs one of the same stride"
        )
    })
}

/// Whether the logits of two detectors stand for the same.
fn same_logits(
    own: &FasterRcnnConfig,
    its: &FasterRcnnConfig,
    levels: &[usize],
) -> Result<(), String> {
    let names =
        |config: &FasterRcnnConfig| config.class_names.get(1..).unwrap_or_default().join(", ");
    if (own.num_classes, &own.class_names) != (its.num_classes, &its.class_names) {
        return Err(format!(
            "`distillation.logits` requires the student's classes: they are {} ({}), the student's {} ({})",
            its.num_classes - 1,
            names(its),
            own.num_classes - 1,
            names(own)
        ));
    }
    let (own, its) = (&own.rpn.anchor_generator, &its.rpn.anchor_generator);
    let anchors = |i: usize| its.sizes.get(i).zip(its.aspect_ratios.get(i));
    let mut pairs = own.sizes.iter().zip(&own.aspect_ratios).zip(levels);
    match pairs.all(|(own, level)| anchors(*level) == Some(own)) {
        true => Ok(()),
        false => Err(format!(
            "`distillation.logits` requires the student's anchors: the sizes are {:?} with ratios {:?}, the student's {:?} \
             with {:?}",
            its.sizes, its.aspect_ratios, own.sizes, own.aspect_ratios
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_match_by_stride() {
        let levels = |strides: &[usize]| -> Vec<LevelSpec> {
            let named = strides.iter().enumerate();
            named
                .map(|(i, stride)| LevelSpec::new(i.to_string(), 8, *stride))
                .collect()
        };
        let large = levels(&[4, 8, 16, 32, 64]);
        assert_eq!(matching(&levels(&[8, 16]), &large), Ok(vec![1, 2]));
        assert_eq!(matching(&large, &large), Ok(vec![0, 1, 2, 3, 4]));
        let error = matching(&levels(&[8, 128]), &large).unwrap_err();
        assert!(error.contains("1 (8 channels, stride 128)"), "{error}");
    }
}
