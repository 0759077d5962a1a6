//! The data of a run: one set to train on, one to validate on.

use rcnn_core::FasterRcnnConfig;
use rcnn_data::{Dataset, Fractions, ProblemKind, ReadOptions, random_split, read, repeat_factors};
use rcnn_types::Instances;

use crate::{TrainConfig, TrainError};
use rcnn_eval::MAX_DETS;

pub(crate) struct Splits {
    pub(crate) train: Dataset,
    pub(crate) valid: Dataset,
}

/// Fewer images than these are not split.
const MIN_TO_SPLIT: usize = 5;

/// Steps of an epoch on a few images that are to be learned by heart.
const OVERFIT_STEPS: usize = 50;

/// The name that any data have for everything.
const ALL: &str = "all";

impl Splits {
    /// Reads the data. If the model has the same classes in another order, be it one that the configuration gives, they
    /// get its labels.
    pub(crate) fn read(
        config: &TrainConfig,
        model: Option<&FasterRcnnConfig>,
    ) -> Result<Self, TrainError> {
        let fields = config.fields(model);
        let read = |class_names| {
            let options = ReadOptions {
                format: config.data_format,
                images: config.images.clone(),
                class_names,
                clip: config.clip,
                decode: config.skip_invalid,
                keypoint_files: fields.keypoints && !fields.masks,
                fields,
                ..Default::default()
            };
            let reading = read(&config.data, &options)?;
            let problems = reading.problems.clone();
            Ok::<_, TrainError>((reading.accept(config.skip_invalid)?, problems))
        };
        let (mut data, problems) = read(None)?;
        let given = config.class_names();
        let wanted = given.as_ref().or(model.map(|model| &model.class_names));
        if let Some(wanted) = wanted.filter(|wanted| **wanted != data.class_names) {
            match sorted(wanted) == sorted(&data.class_names) {
                true => (data, _) = read(Some(wanted.clone()))?,
                false if given.is_some() => {
                    return Err(TrainError::Config(format!(
                        "model.class_names: [{}], but {} has [{}]; they may stand in another order, and no more",
                        wanted.join(", "),
                        config.data.display(),
                        data.class_names.join(", ")
                    )));
                }
                false => {}
            }
        }
        if let Some(notes) = problems.notes() {
            tracing::warn!("{}: {notes}", config.data.display());
        }
        if problems.invalid() > 0 {
            let outside = problems.counts().contains_key(&ProblemKind::OutsideImage);
            let clip = match outside && !config.clip {
                true => " (`clip` keeps boxes that extend beyond their image, and cuts them)",
                false => "",
            };
            let invalid = problems.invalid();
            tracing::warn!("left out {invalid} invalid boxes or files{clip}");
        }
        let (train_split, valid_split) = names(config, &mut data)?;
        let mut train = split(&data, &train_split, "train_split")?;
        let mut valid = split(&data, &valid_split, "valid_split")?;
        if train.boxes() == 0 {
            return Err(TrainError::NoObjects {
                path: config.data.clone(),
                images: train.samples.len(),
                problems,
            });
        }
        tracing::info!(
            "{} images to train on ({train_split}), {} to validate on ({valid_split}); classes: {}",
            train.samples.len(),
            valid.samples.len(),
            data.class_names[1..].join(", ")
        );
        if let Some(images) = config.overfit {
            train = first_with_objects(&train, images);
            valid = train.clone();
            let images = train.samples.len();
            tracing::info!(
                "`overfit`: trained and validated on the first {images} of {train_split}"
            );
        }
        say_what_is_missing(&train, &train_split);
        say_what_is_missing(&valid, &valid_split);
        Ok(Self { train, valid })
    }

    /// How often each training image is to come in an epoch with batches of some size; once each if `None`.
    pub(crate) fn repeat_factors(
        &self,
        config: &TrainConfig,
        batch_size: usize,
    ) -> Option<Vec<f64>> {
        if config.overfit.is_some() {
            let images = self.train.samples.len();
            let times = (OVERFIT_STEPS * batch_size).div_ceil(images);
            return Some(vec![times as f64; images]);
        }
        let threshold = config.repeat_threshold?;
        let factors = repeat_factors(&self.train, threshold);
        let most = factors.iter().copied().fold(1.0, f64::max);
        let images = factors.iter().filter(|factor| **factor > 1.0).count();
        tracing::info!(
            "repeat_threshold = {threshold}: {images} images of rare classes are repeated up to {most:.2} times per epoch"
        );
        Some(factors)
    }

    /// Checks that the data have what the branches of the model learn: a warning where there is nothing, and
    /// an error where objects have other keypoints than the model.
    pub(crate) fn check_shapes(&self, config: &FasterRcnnConfig) -> Result<(), TrainError> {
        let objects = || self.train.samples.iter().map(|sample| &sample.instances);
        let says = |what: &str, is_there: fn(&Instances) -> bool| {
            if !objects().any(is_there) {
                tracing::warn!("no object has a {what}: the {what} head learns nothing");
            }
        };
        if config.roi_heads.mask.is_some() {
            says("mask", |objects| objects.masks.is_some());
        }
        let Some(keypoint) = &config.roi_heads.keypoint else {
            return Ok(());
        };
        says("keypoint", |objects| {
            let mut keypoints = objects.keypoints.iter().flatten();
            keypoints.any(|points| points.labelled() > 0)
        });
        let expected = keypoint.num_keypoints;
        for sample in self.train.samples.iter().chain(&self.valid.samples) {
            let mut counts = sample
                .instances
                .keypoints
                .iter()
                .flatten()
                .map(|points| points.0.len());
            if let Some(found) = counts.find(|count| *count != 0 && *count != expected) {
                return Err(TrainError::Config(format!(
                    "{}: an object has {found} keypoints, the model {expected} (keypoint.num_keypoints)",
                    sample.image.display()
                )));
            }
        }
        Ok(())
    }
}

/// The splits to train and to validate on. Data without splits get some.
fn names(config: &TrainConfig, data: &mut Dataset) -> Result<(String, String), TrainError> {
    let is_free = config.train_split.is_none() && config.valid_split.is_none();
    if is_free && data.splits.len() < 2 {
        let images = data.samples.len();
        if images < MIN_TO_SPLIT {
            tracing::warn!(
                "the data have no splits and {images} images, too few to set some apart: all are \
                 trained and validated on"
            );
            return Ok((ALL.into(), ALL.into()));
        }
        tracing::info!(
            "the data have no splits: a tenth of the images, chosen at random, is kept for validation"
        );
        let fractions = Fractions {
            val: 0.1,
            test: 0.0,
        };
        random_split(data, fractions, config.seed)?;
    }
    let choose = |given: &Option<String>, field: &str, usual: &[&str]| {
        let is_there = |name: &&&str| data.splits.contains_key(**name);
        let usual = || usual.iter().find(is_there).map(|name| name.to_string());
        given.clone().or_else(usual).ok_or_else(|| {
            let known: Vec<&str> = data.splits.keys().map(String::as_str).collect();
            let known = [&known[..], &[ALL]].concat().join(", ");
            TrainError::Config(format!("{field}: name one of the data's splits: {known}"))
        })
    };
    let train = choose(&config.train_split, "train_split", &["train", "trainval"])?;
    let usual = ["val", "valid", "validation", "test"];
    let valid = choose(&config.valid_split, "valid_split", &usual)?;
    Ok((train, valid))
}

fn split(data: &Dataset, name: &str, field: &str) -> Result<Dataset, TrainError> {
    let split = match data.splits.contains_key(name) || name != ALL {
        true => data.split(name)?,
        false => data.clone(),
    };
    if split.samples.is_empty() {
        return Err(TrainError::Config(format!(
            "{field} = {name:?}: it has no images"
        )));
    }
    Ok(split)
}

/// The first images that show something, at most that number.
fn first_with_objects(data: &Dataset, images: usize) -> Dataset {
    let is_shown = |index: &usize| data.samples[*index].objects().next().is_some();
    let shown = (0..data.samples.len()).filter(is_shown);
    data.subset(&shown.take(images).collect::<Vec<_>>())
}

fn say_what_is_missing(data: &Dataset, split: &str) {
    if data.boxes() == 0 {
        tracing::warn!(
            "{split}: none of the images has a box, so that there is no AP, and best.bpk is the model of \
             the first epoch"
        );
        return;
    }
    let missing = data.classes_without_boxes();
    if !missing.is_empty() {
        tracing::warn!("{split}: no box of {}", missing.join(", "));
    }
    let (images, most) = data.crowded_images(MAX_DETS);
    if images > 0 {
        tracing::warn!(
            "{split}: {images} images have more than {MAX_DETS} objects of a class, up to {most}; AP counts \
             the best {MAX_DETS} detections"
        );
    }
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<_> = names.iter().collect();
    names.sort();
    names
}
