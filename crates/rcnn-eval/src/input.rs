//! What is evaluated: annotated images and the detections made in them.

use std::collections::HashMap;

use crate::EvalError;

/// An image and its annotated objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroundTruth {
    /// The image's id, unique among the data.
    pub image_id: u64,
    /// The name of its file, for people.
    pub file_name: String,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// Left, top, right and bottom of each object in pixels; in double precision, as in
    /// annotations, since an IoU may lie at a threshold.
    pub boxes: Vec<[f64; 4]>,
    /// The class of each object, from 1; 0 is the background.
    pub labels: Vec<usize>,
    /// Whether each box is a crowd, which need not be found and may be found often; empty if none
    /// is.
    pub crowd: Vec<bool>,
    /// The area of each object in square pixels, which decides whether it is small, medium or
    /// large. Empty for those of the boxes; COCO annotates those of the masks, and pycocotools
    /// always takes the annotated ones.
    pub areas: Vec<f64>,
}

/// The detections in an image, in any order; of each class, the best 100 count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageDetections {
    /// The id of the image.
    pub image_id: u64,
    /// Left, top, right and bottom of each detection in pixels.
    pub boxes: Vec<[f32; 4]>,
    /// The class of each detection, from 1.
    pub labels: Vec<usize>,
    /// The score of each detection.
    pub scores: Vec<f32>,
}

impl GroundTruth {
    pub(crate) fn is_crowd(&self, index: usize) -> bool {
        self.crowd.get(index).copied().unwrap_or(false)
    }

    /// The indices of the objects that are to be found: all but crowds.
    pub fn objects(&self) -> impl Iterator<Item = usize> {
        (0..self.boxes.len()).filter(|&index| !self.is_crowd(index))
    }

    /// Checks that the values of all objects are there and make sense; `classes` counts the
    /// background.
    ///
    /// # Errors
    /// [`EvalError::Length`], [`EvalError::Box`], [`EvalError::Label`] or [`EvalError::Number`], for
    /// the first one that does not.
    pub fn validate(&self, classes: usize) -> Result<(), EvalError> {
        let check = Check {
            image: &self.name(),
            what: "object",
            boxes: self.boxes.len(),
        };
        check.length("labels", self.labels.len())?;
        if !self.crowd.is_empty() {
            check.length("crowd flags", self.crowd.len())?;
        }
        if !self.areas.is_empty() {
            check.length("areas", self.areas.len())?;
        }
        check.boxes(self.boxes.iter().copied())?;
        check.labels(&self.labels, classes)?;
        check.numbers("area", self.areas.iter().copied(), 0.0)
    }

    /// The id, with the file's name if known.
    fn name(&self) -> String {
        match self.file_name.as_str() {
            "" => self.image_id.to_string(),
            name => format!("{} ({name})", self.image_id),
        }
    }
}

impl ImageDetections {
    fn validate(&self, image: &str, classes: usize) -> Result<(), EvalError> {
        let check = Check {
            image,
            what: "detection",
            boxes: self.boxes.len(),
        };
        check.length("labels", self.labels.len())?;
        check.length("scores", self.scores.len())?;
        check.boxes(self.boxes.iter().map(|bounds| bounds.map(f64::from)))?;
        check.labels(&self.labels, classes)?;
        let scores = self.scores.iter().map(|&score| f64::from(score));
        check.numbers("score", scores, f64::NEG_INFINITY)
    }
}

/// Checks the values of one image.
struct Check<'a> {
    image: &'a str,
    what: &'static str,
    boxes: usize,
}

impl Check<'_> {
    fn length(&self, values: &'static str, found: usize) -> Result<(), EvalError> {
        if found == self.boxes {
            return Ok(());
        }
        Err(EvalError::Length {
            image: self.image.into(),
            what: self.what,
            boxes: self.boxes,
            values,
            found,
        })
    }

    fn boxes(&self, mut boxes: impl Iterator<Item = [f64; 4]>) -> Result<(), EvalError> {
        let sound = |[x1, y1, x2, y2]: [f64; 4]| {
            x1 <= x2 && y1 <= y2 && [x1, y1, x2, y2].iter().all(|v| v.is_finite())
        };
        let mut bad = None;
        let index = boxes.position(|bounds| {
            bad = Some(bounds);
            !sound(bounds)
        });
        match (index, bad) {
            (Some(index), Some(bounds)) => Err(EvalError::Box {
                image: self.image.into(),
                what: self.what,
                index,
                bounds,
            }),
            _ => Ok(()),
        }
    }

    fn labels(&self, labels: &[usize], classes: usize) -> Result<(), EvalError> {
        let bad = |label: &usize| !(1..classes).contains(label);
        match labels.iter().position(bad) {
            None => Ok(()),
            Some(index) => Err(EvalError::Label {
                image: self.image.into(),
                what: self.what,
                index,
                label: labels[index],
                classes,
            }),
        }
    }

    fn numbers(
        &self,
        value: &'static str,
        numbers: impl Iterator<Item = f64>,
        least: f64,
    ) -> Result<(), EvalError> {
        let mut numbers = numbers.enumerate();
        match numbers.find(|(_, number)| !number.is_finite() || *number < least) {
            None => Ok(()),
            Some((index, number)) => Err(EvalError::Number {
                image: self.image.into(),
                what: self.what,
                index,
                value,
                number,
            }),
        }
    }
}

/// An annotated image and what was detected in it.
#[derive(Clone, Copy)]
pub(crate) struct Sample<'a> {
    pub(crate) truth: &'a GroundTruth,
    pub(crate) found: &'a ImageDetections,
}

/// Pairs images with their detections, which may be missing, and checks both.
pub(crate) fn pair<'a>(
    ground_truth: &'a [GroundTruth],
    detections: &'a [ImageDetections],
    classes: usize,
) -> Result<Vec<Sample<'a>>, EvalError> {
    static NOTHING: ImageDetections = ImageDetections {
        image_id: 0,
        boxes: Vec::new(),
        labels: Vec::new(),
        scores: Vec::new(),
    };
    let mut samples = Vec::with_capacity(ground_truth.len());
    let mut positions = HashMap::with_capacity(ground_truth.len());
    for truth in ground_truth {
        truth.validate(classes)?;
        if positions.insert(truth.image_id, samples.len()).is_some() {
            let (image, what) = (truth.name(), "images");
            return Err(EvalError::DuplicateImage { image, what });
        }
        samples.push(Sample {
            truth,
            found: &NOTHING,
        });
    }
    let mut seen = vec![false; samples.len()];
    for found in detections {
        let image_id = found.image_id;
        let Some(&position) = positions.get(&image_id) else {
            return Err(EvalError::UnknownImage { image_id });
        };
        let sample: &mut Sample = &mut samples[position];
        let image = sample.truth.name();
        if std::mem::replace(&mut seen[position], true) {
            let what = "sets of detections";
            return Err(EvalError::DuplicateImage { image, what });
        }
        found.validate(&image, classes)?;
        sample.found = found;
    }
    Ok(samples)
}
