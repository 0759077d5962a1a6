//! The result of an evaluation.

use rcnn_types::ImageInstances;
use serde::Serialize;

use crate::confusion::Confusion;
use crate::curves::{BestF1, Curve};
use crate::engine::Engine;
use crate::input::pair;
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
    /// COCO's twelve numbers.
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
    /// Confusion matrix of the classes.
    pub confusion: Confusion,
    /// The precision-recall curve of each class of `per_class`.
    #[serde(skip)]
    pub curves: Vec<Curve>,
    /// The errors in each image, in the order of the ground truth.
    #[serde(skip)]
    pub errors: Vec<ImageErrors>,
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

impl Summary {
    /// From pycocotools' `stats`, in which -1 stands for a missing number.
    pub(crate) fn from_stats(stats: &[f64]) -> Self {
        let number = |index: usize| stats.get(index).copied().filter(|number| *number >= 0.0);
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

/// Evaluates detections.
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
    evaluate_most(ground_truth, detections, class_names, MAX_DETS)
}

/// [`evaluate`] with another number of detections of each class that count in an image than COCO's
/// [`MAX_DETS`]: `maxDets` of pycocotools, at least 1.
///
/// # Errors
///
/// As [`evaluate`].
pub fn evaluate_most(
    ground_truth: &[ImageInstances],
    detections: &[ImageInstances],
    class_names: &[String],
    max_dets: usize,
) -> Result<Evaluation, EvalError> {
    let samples = pair(ground_truth, detections, class_names.len())?;
    let engine = Engine::new(&samples, class_names, max_dets)?;
    let (summary, numbers) = engine.numbers()?;
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
        summary,
        images: samples.len(),
        objects: curves.iter().map(|curve| curve.objects).sum(),
        detections: counts.iter().sum(),
        max_dets,
        confusion: Confusion::count(&errors, class_names, thresholds),
        per_class,
        curves,
        errors,
    })
}
