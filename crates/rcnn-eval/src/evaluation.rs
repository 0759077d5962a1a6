//! The result of an evaluation.

use rcnn_types::{ImageInstances, Instances};
use serde::Serialize;

use crate::confusion::Confusion;
use crate::curves::{BestF1, Curve};
use crate::engine::{ClassNumbers, Engine, Shape};
use crate::input::{Sample, pair};
use crate::worst::{ImageErrors, errors};
use crate::{EvalError, MAX_DETS};

/// The score from which on the detections of a class without a best threshold count in confusion
/// and errors.
const DEFAULT_THRESHOLD: f32 = 0.5;

/// Accuracy of detections on a data set.
///
/// In JSON the fields of the summary are its own (`AP`, `AP50`, ...), and those for pictures are
/// left out. `Display` writes a table for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// COCO's twelve numbers for boxes.
    #[serde(flatten)]
    pub summary: Summary,
    /// The number of images.
    pub images: usize,
    /// The number of objects in them, without crowds.
    pub objects: usize,
    /// The number of detections.
    pub detections: usize,
    /// The best detections of each class that count in an image.
    pub max_dets: usize,
    /// Each class but the background, by label.
    pub per_class: Vec<ClassEvaluation>,
    /// The numbers of masks (COCO's `segm`), where both objects and detections have some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segm: Option<ShapeEvaluation<Summary>>,
    /// The numbers of keypoints, where both objects and detections have some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keypoints: Option<ShapeEvaluation<KeypointSummary>>,
    /// Confusion matrix of the classes.
    pub confusion: Confusion,
    /// The precision-recall curve of each class of `per_class`.
    #[serde(skip)]
    pub curves: Vec<Curve>,
    /// The errors in each image, in the order of the ground truth.
    #[serde(skip)]
    pub errors: Vec<ImageErrors>,
}

/// Evaluation of masks or keypoints: averages over all classes, and numbers for each class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapeEvaluation<S> {
    /// COCO's summary.
    #[serde(flatten)]
    pub summary: S,
    /// The classes of [`Evaluation::per_class`].
    pub per_class: Vec<ClassNumbers>,
}

/// COCO's ten numbers for keypoints, as fractions, each a mean over the classes that have it. Objects
/// without a labelled keypoint do not count, and the best 20 detections of each class in an image do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct KeypointSummary {
    /// Average precision, the mean over the OKS thresholds 0.5, 0.55, ... 0.95.
    #[serde(rename = "AP")]
    pub ap: Option<f64>,
    /// Average precision at an OKS of 0.5.
    #[serde(rename = "AP50")]
    pub ap50: Option<f64>,
    /// Average precision at an OKS of 0.75.
    #[serde(rename = "AP75")]
    pub ap75: Option<f64>,
    /// `ap` of objects from 32² to 96² pixels.
    #[serde(rename = "APm")]
    pub ap_medium: Option<f64>,
    /// `ap` of objects from 96² pixels on.
    #[serde(rename = "APl")]
    pub ap_large: Option<f64>,
    /// The part of the objects found, the mean over the OKS thresholds.
    #[serde(rename = "AR")]
    pub ar: Option<f64>,
    /// The part of the objects found at an OKS of 0.5.
    #[serde(rename = "AR50")]
    pub ar50: Option<f64>,
    /// The part of the objects found at an OKS of 0.75.
    #[serde(rename = "AR75")]
    pub ar75: Option<f64>,
    /// `ar` of objects from 32² to 96² pixels.
    #[serde(rename = "ARm")]
    pub ar_medium: Option<f64>,
    /// `ar` of objects from 96² pixels on.
    #[serde(rename = "ARl")]
    pub ar_large: Option<f64>,
}

/// How detections are evaluated: by default as pycocotools does.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOptions {
    /// The best detections of each class that count in an image, by box or mask: `maxDets`, at least 1.
    pub max_dets: usize,
    /// Sigmas of the object keypoint similarity, one a keypoint or one for all; if empty, COCO's for its 17
    /// keypoints of a person and [`DEFAULT_SIGMA`] for others.
    pub keypoint_sigmas: Vec<f64>,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self {
            max_dets: MAX_DETS,
            keypoint_sigmas: Vec::new(),
        }
    }
}

/// The sigma of keypoints that COCO has none for: how far, relative to the square root of the object's
/// area, annotators of one keypoint differ.
pub const DEFAULT_SIGMA: f64 = 0.1;

/// COCO's sigmas of a person's keypoints, from the nose to the ankles.
const PERSON_SIGMAS: [f64; 17] = [
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
];

impl EvalOptions {
    /// Sigmas for that many keypoints.
    fn sigmas(&self, keypoints: usize) -> Result<Vec<f64>, EvalError> {
        let given = &self.keypoint_sigmas;
        let is_valid = given.iter().all(|sigma| *sigma > 0.0 && sigma.is_finite());
        match given[..] {
            [] if keypoints == PERSON_SIGMAS.len() => Ok(PERSON_SIGMAS.into()),
            [] => Ok(vec![DEFAULT_SIGMA; keypoints]),
            [sigma] if is_valid => Ok(vec![sigma; keypoints]),
            _ if is_valid && given.len() == keypoints => Ok(given.clone()),
            _ => Err(EvalError::Sigmas {
                found: given.len(),
                expected: keypoints,
            }),
        }
    }
}

/// COCO's twelve numbers, as fractions, each a mean over the classes that have it.
///
/// A number is `None` (`null` in JSON) if no class has an object of its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Average precision, the mean over the IoU thresholds 0.5, 0.55, ... 0.95.
    #[serde(rename = "AP")]
    pub ap: Option<f64>,
    /// Average precision at an IoU of 0.5.
    #[serde(rename = "AP50")]
    pub ap50: Option<f64>,
    /// Average precision at an IoU of 0.75.
    #[serde(rename = "AP75")]
    pub ap75: Option<f64>,
    /// `ap` of objects up to 32² pixels.
    #[serde(rename = "APs")]
    pub ap_small: Option<f64>,
    /// `ap` of objects from 32² to 96² pixels.
    #[serde(rename = "APm")]
    pub ap_medium: Option<f64>,
    /// `ap` of objects from 96² pixels on.
    #[serde(rename = "APl")]
    pub ap_large: Option<f64>,
    /// The part of the objects found (the mean over the IoU thresholds) with the best detection of
    /// each class in an image.
    #[serde(rename = "AR1")]
    pub ar1: Option<f64>,
    /// The same with the best 10 detections.
    #[serde(rename = "AR10")]
    pub ar10: Option<f64>,
    /// The same with the best 100 detections, or as many as [`Evaluation::max_dets`] says.
    #[serde(rename = "AR100")]
    pub ar100: Option<f64>,
    /// `ar100` of objects up to 32² pixels.
    #[serde(rename = "ARs")]
    pub ar_small: Option<f64>,
    /// `ar100` of objects from 32² to 96² pixels.
    #[serde(rename = "ARm")]
    pub ar_medium: Option<f64>,
    /// `ar100` of objects from 96² pixels on.
    #[serde(rename = "ARl")]
    pub ar_large: Option<f64>,
}

/// A number of pycocotools' `stats`, in which -1 stands for a missing one.
fn number(stats: &[f64], index: usize) -> Option<f64> {
    stats.get(index).copied().filter(|number| *number >= 0.0)
}

impl Summary {
    fn from_stats(stats: &[f64]) -> Self {
        let number = |index| number(stats, index);
        Self {
            ap: number(0),
            ap50: number(1),
            ap75: number(2),
            ap_small: number(3),
            ap_medium: number(4),
            ap_large: number(5),
            ar1: number(6),
            ar10: number(7),
            ar100: number(8),
            ar_small: number(9),
            ar_medium: number(10),
            ar_large: number(11),
        }
    }
}

impl KeypointSummary {
    fn from_stats(stats: &[f64]) -> Self {
        let number = |index| number(stats, index);
        Self {
            ap: number(0),
            ap50: number(1),
            ap75: number(2),
            ap_medium: number(3),
            ap_large: number(4),
            ar: number(5),
            ar50: number(6),
            ar75: number(7),
            ar_medium: number(8),
            ar_large: number(9),
        }
    }
}

/// Accuracy of the detections of one class; numbers are `None` if it has no objects.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassEvaluation {
    /// The class's name.
    pub name: String,
    /// The class's label.
    pub label: usize,
    /// Average precision, as in [`Summary::ap`].
    #[serde(rename = "AP")]
    pub ap: Option<f64>,
    /// Average precision at an IoU of 0.5.
    #[serde(rename = "AP50")]
    pub ap50: Option<f64>,
    /// Average recall, as in [`Summary::ar100`].
    #[serde(rename = "AR")]
    pub ar: Option<f64>,
    /// The number of objects, without crowds.
    pub objects: usize,
    /// The number of detections.
    pub detections: usize,
    /// The score threshold with the best F1; `None` also if nothing was found.
    pub best_f1: Option<BestF1>,
}

/// Evaluates detections against annotations, as pycocotools does by default.
///
/// `class_names` are indexed by label, so the first is the background's. An image may be without
/// objects, and without detections, in which case it may be missing from `detections`. Equal scores
/// are ranked by image id, then by position, as in pycocotools.
///
/// # Errors
///
/// If an image is there twice or only in `detections`, if the fields of one image differ in length, if
/// detections have no scores, or if a box, label, score or area cannot be.
pub fn evaluate(
    ground_truth: &[ImageInstances],
    detections: &[ImageInstances],
    class_names: &[String],
) -> Result<Evaluation, EvalError> {
    evaluate_with(
        ground_truth,
        detections,
        class_names,
        &EvalOptions::default(),
    )
}

/// [`evaluate`] with other options than pycocotools' defaults.
///
/// # Errors
///
/// As [`evaluate`], and if the sigmas are not those of as many keypoints as there are.
pub fn evaluate_with(
    ground_truth: &[ImageInstances],
    detections: &[ImageInstances],
    class_names: &[String],
    options: &EvalOptions,
) -> Result<Evaluation, EvalError> {
    let max_dets = options.max_dets;
    let samples = pair(ground_truth, detections, class_names.len())?;
    let engine = Engine::new(&samples, class_names, max_dets, Shape::Box);
    let (stats, numbers) = engine.numbers()?;
    let both_have = |is_there: fn(&Instances) -> bool| {
        samples.iter().any(|sample| is_there(sample.truth()))
            && samples.iter().any(|sample| is_there(sample.found))
    };
    let mut segm = None;
    if both_have(|objects| objects.masks.is_some()) {
        let engine = Engine::new(&samples, class_names, max_dets, Shape::Mask);
        let (stats, per_class) = engine.numbers()?;
        let summary = Summary::from_stats(&stats);
        segm = Some(ShapeEvaluation { summary, per_class });
    }
    let mut keypoints = None;
    if both_have(|objects| objects.keypoints.is_some()) {
        let most = samples
            .iter()
            .map(|sample| Sample::most_keypoints(sample.truth()));
        let sigmas = options.sigmas(most.max().unwrap_or(0))?;
        let shape = Shape::Keypoints(&sigmas);
        let (stats, per_class) = Engine::new(&samples, class_names, max_dets, shape).numbers()?;
        let summary = KeypointSummary::from_stats(&stats);
        keypoints = Some(ShapeEvaluation { summary, per_class });
    }
    let matches = engine.matches(&samples)?;

    let labels = 1..class_names.len();
    let curves = Curve::all(&samples, &matches, class_names.len());
    let found = samples.iter().flat_map(|sample| &sample.found.labels);
    let mut counts = vec![0; class_names.len()];
    found.for_each(|&label| counts[label] += 1);
    let classes = labels.zip(&curves).zip(numbers);
    let per_class: Vec<_> = classes
        .map(|((label, curve), numbers)| ClassEvaluation {
            name: class_names[label].clone(),
            label,
            ap: numbers.ap,
            ap50: numbers.ap50,
            ar: numbers.ar,
            objects: curve.objects,
            detections: counts[label],
            best_f1: curve.best_f1(),
        })
        .collect();

    let best = per_class.iter().map(|class| &class.best_f1);
    let thresholds: Vec<f32> = best
        .map(|best| best.as_ref().map_or(DEFAULT_THRESHOLD, |best| best.score))
        .collect();
    let errors = errors(&samples, &matches, &thresholds);
    Ok(Evaluation {
        summary: Summary::from_stats(&stats),
        images: samples.len(),
        objects: curves.iter().map(|curve| curve.objects).sum(),
        detections: counts.iter().sum(),
        max_dets,
        segm,
        keypoints,
        confusion: Confusion::count(&errors, class_names, thresholds),
        per_class,
        curves,
        errors,
    })
}
