//! Annotated images, paired with the detections made in them.

use std::collections::HashMap;

use rcnn_types::validate::{InvalidField, require};
use rcnn_types::{ImageInstances, Instances, Mask, Size};

use crate::EvalError;

/// Checks the objects of an annotated image; `classes` counts the background.
///
/// # Errors
/// [`EvalError::Instances`] for the first value that cannot be.
pub fn validate(image: &ImageInstances, classes: usize) -> Result<(), EvalError> {
    let valid = image.instances.validate(classes);
    valid.map_err(|fault| EvalError::Instances {
        image: name(image),
        what: "objects",
        fault,
    })
}

/// The id, with the file's name if known.
fn name(image: &ImageInstances) -> String {
    match image.file_name.as_str() {
        "" => image.image_id.to_string(),
        name => format!("{} ({name})", image.image_id),
    }
}

/// An annotated image and what was detected in it.
#[derive(Clone, Copy)]
pub(crate) struct Sample<'a> {
    pub(crate) image: &'a ImageInstances,
    pub(crate) found: &'a Instances,
}

impl Sample<'_> {
    /// The annotated objects.
    pub(crate) fn truth(&self) -> &Instances {
        &self.image.instances
    }

    /// The size of the image, where there are masks to tell.
    pub(crate) fn size(&self) -> Option<Size> {
        let all = [self.truth(), self.found];
        let mut masks = all.into_iter().flat_map(|objects| &objects.masks).flatten();
        masks.next().map(Mask::size)
    }

    /// The most keypoints that one of some objects has.
    pub(crate) fn most_keypoints(objects: &Instances) -> usize {
        let keypoints = objects.keypoints.iter().flatten();
        keypoints.map(|points| points.0.len()).max().unwrap_or(0)
    }
}

/// Checks that the masks of detections have the image's size, and objects and detections the same number
/// of keypoints.
fn validate_shapes(sample: &Sample) -> Result<(), InvalidField> {
    let size = sample.size().unwrap_or_default();
    for (index, mask) in sample.found.masks.iter().flatten().enumerate() {
        let (field, expected) = (format!("size of masks[{index}]"), format_args!("{size:?}"));
        require(mask.size() == size, &field, mask.size(), expected)?;
    }
    let [expected, found] = [sample.truth(), sample.found].map(Sample::most_keypoints);
    let valid = expected == 0 || found == 0 || expected == found;
    require(valid, "number of keypoints", found, expected)
}

/// Pairs images with their detections, which may be missing, and checks both.
pub(crate) fn pair<'a>(
    ground_truth: &'a [ImageInstances],
    detections: &'a [ImageInstances],
    classes: usize,
) -> Result<Vec<Sample<'a>>, EvalError> {
    static NOTHING: Instances = Instances::new(Vec::new(), Vec::new());
    let mut samples = Vec::with_capacity(ground_truth.len());
    let mut positions = HashMap::with_capacity(ground_truth.len());
    for image in ground_truth {
        validate(image, classes)?;
        if positions.insert(image.image_id, samples.len()).is_some() {
            let (image, what) = (name(image), "images");
            return Err(EvalError::DuplicateImage { image, what });
        }
        samples.push(Sample {
            image,
            found: &NOTHING,
        });
    }
    let mut seen = vec![false; samples.len()];
    for ImageInstances {
        image_id,
        instances: found,
        ..
    } in detections
    {
        let Some(&position) = positions.get(image_id) else {
            let image_id = *image_id;
            return Err(EvalError::UnknownImage { image_id });
        };
        let sample: &mut Sample = &mut samples[position];
        let image = name(sample.image);
        if std::mem::replace(&mut seen[position], true) {
            let what = "sets of detections";
            return Err(EvalError::DuplicateImage { image, what });
        }
        let scores = found.scores.as_ref().map_or(0, Vec::len);
        let scored = require(
            scores == found.len(),
            "scores",
            format_args!("{scores} values"),
            format_args!("{}, one per box", found.len()),
        );
        let valid = scored.and_then(|()| found.validate(classes));
        sample.found = found;
        let valid = valid.and_then(|()| validate_shapes(sample));
        valid.map_err(|fault| EvalError::Instances {
            image,
            what: "detections",
            fault,
        })?;
    }
    Ok(samples)
}
