//! Runs hotcoco: COCO's numbers, and which detection found which object.

use std::sync::Arc;

use hotcoco::primitives::sim::bbox_iou_pair;
use hotcoco::{Annotation, COCO, COCOeval, Category, Dataset, Image, IouType, Segmentation};
use serde::Serialize;

use rcnn_types::{BBox, Instances, Mask, Size};

use crate::input::Sample;
use crate::{EvalError, MATCH_IOU};

/// The shape by which objects and detections are compared.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'a> {
    /// Boxes, by their IoU.
    Box,
    /// Masks, by their IoU.
    Mask,
    /// Keypoints, by their OKS with these sigmas, one a keypoint.
    Keypoints(&'a [f64]),
}

/// COCO's numbers of one class; `None` if it has no objects.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassNumbers {
    /// Average precision, as in [`Summary::ap`](crate::Summary::ap).
    #[serde(rename = "AP")]
    pub ap: Option<f64>,
    /// Average precision at an IoU or OKS of 0.5.
    #[serde(rename = "AP50")]
    pub ap50: Option<f64>,
    /// Average recall with the most detections that count.
    #[serde(rename = "AR")]
    pub ar: Option<f64>,
}

/// What a detection is at [`MATCH_IOU`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MatchResult {
    /// It found the object of this index.
    TruePositive(usize),
    /// It found none.
    FalsePositive,
    /// It found a crowd, or its image has a hundred better ones of its class.
    Ignored,
}

/// Samples in hotcoco's types.
pub(crate) struct Engine<'a> {
    truth: Arc<COCO>,
    found: Arc<COCO>,
    max_dets: usize,
    shape: Shape<'a>,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(
        samples: &[Sample],
        class_names: &[String],
        max_dets: usize,
        shape: Shape<'a>,
    ) -> Self {
        let images = samples.iter().map(|sample| Image {
            id: sample.image.image_id,
            file_name: sample.image.file_name.clone(),
            ..Image::default()
        });
        let categories = class_names.iter().enumerate().skip(1);
        let categories = categories.map(|(label, name)| Category {
            id: label as u64,
            name: name.clone(),
            ..Category::default()
        });
        let (images, categories): (Vec<_>, Vec<_>) = (images.collect(), categories.collect());
        // Both get the ids 1, 2, ... in order.
        let dataset = |annotations: Vec<Annotation>| {
            let annotations = annotations.into_iter().zip(1..);
            let annotations = annotations.map(|(annotation, id)| Annotation { id, ..annotation });
            Arc::new(COCO::from_dataset(Dataset {
                images: images.clone(),
                annotations: annotations.collect(),
                categories: categories.clone(),
                ..Dataset::default()
            }))
        };
        let all = |of: fn(&Sample, Shape) -> Vec<Annotation>| {
            samples
                .iter()
                .flat_map(|sample| of(sample, shape))
                .collect()
        };
        Self {
            truth: dataset(all(objects)),
            found: dataset(all(detections)),
            max_dets,
            shape,
        }
    }

    fn evaluator(&self) -> COCOeval {
        let kind = match self.shape {
            Shape::Box => IouType::Bbox,
            Shape::Mask => IouType::Segm,
            Shape::Keypoints(_) => IouType::Keypoints,
        };
        let mut evaluator = COCOeval::new(self.truth.clone(), self.found.clone(), kind);
        if let Shape::Keypoints(sigmas) = self.shape {
            evaluator.params.kpt_oks_sigmas = sigmas.into();
        } else {
            evaluator.params.max_dets = [1, 10, self.max_dets].map(|n| n.min(self.max_dets)).into();
        }
        evaluator
    }

    /// pycocotools' `stats`, in which -1 stands for a missing number, and the numbers of each class from
    /// label 1 on.
    pub(crate) fn numbers(&self) -> Result<(Vec<f64>, Vec<ClassNumbers>), EvalError> {
        let mut evaluator = self.evaluator();
        evaluator.evaluate()?;
        evaluator.accumulate();
        // Unlike `summarize`, this prints nothing.
        evaluator.summarize_lines();
        let stats = evaluator.stats().unwrap_or_default().to_vec();
        let classes = match evaluator.accumulated() {
            Some(accumulated) => {
                let (area, most) = (
                    evaluator.params.all_area_idx(),
                    evaluator.params.max_det_idx(),
                );
                let shape = accumulated.shape;
                let class = |k| {
                    let precision = |t| {
                        let index = move |r| shape.precision_idx(t, r, k, area, most);
                        (0..shape.r).map(move |r| accumulated.precision[index(r)])
                    };
                    let recall = |t| accumulated.recall[shape.recall_idx(t, k, area, most)];
                    ClassNumbers {
                        ap: mean((0..shape.t).flat_map(precision)),
                        ap50: mean(precision(0)),
                        ar: mean((0..shape.t).map(recall)),
                    }
                };
                (0..shape.k).map(class).collect()
            }
            None => Vec::new(),
        };
        Ok((stats, classes))
    }

    /// The match of each detection of each sample.
    pub(crate) fn matches(&self, samples: &[Sample]) -> Result<Vec<Vec<MatchResult>>, EvalError> {
        let mut evaluator = self.evaluator();
        // The records of all thresholds and sizes would take gigabytes for COCO's images.
        evaluator.params.iou_thrs = vec![MATCH_IOU];
        evaluator
            .params
            .area_ranges
            .retain(|area| area.label == "all");
        evaluator.evaluate()?;

        let objects = places(samples.iter().map(|sample| sample.truth().len()));
        let found = places(samples.iter().map(|sample| sample.found.len()));
        let mut matches: Vec<Vec<MatchResult>> = samples
            .iter()
            .map(|sample| vec![MatchResult::Ignored; sample.found.len()])
            .collect();
        for record in evaluator.eval_imgs().iter().flatten() {
            for (position, &id) in record.dt_ids.iter().enumerate() {
                let (sample, index) = found[id as usize - 1];
                let cell = (0, position);
                matches[sample][index] = if record.dt_ignore[cell] {
                    MatchResult::Ignored
                } else if record.dt_matched[cell] {
                    MatchResult::TruePositive(objects[record.dt_matches[cell] as usize - 1].1)
                } else {
                    MatchResult::FalsePositive
                };
            }
        }
        Ok(matches)
    }
}

fn objects(sample: &Sample, shape: Shape) -> Vec<Annotation> {
    let truth = sample.truth();
    let object = |index: usize| {
        let annotation = annotation(sample, truth, index, shape);
        // Whatever is found at an object without a mask is neither right nor wrong.
        let no_mask = matches!(shape, Shape::Mask) && !has_mask(truth, index);
        Annotation {
            iscrowd: truth.is_crowd(index) || no_mask,
            ..annotation
        }
    };
    (0..truth.len()).map(object).collect()
}

fn detections(sample: &Sample, shape: Shape) -> Vec<Annotation> {
    let found = sample.found;
    let detection = |index: usize| Annotation {
        score: Some(found.get(index).score.into()),
        ..annotation(sample, found, index, shape)
    };
    (0..found.len()).map(detection).collect()
}

fn annotation(sample: &Sample, objects: &Instances, index: usize, shape: Shape) -> Annotation {
    let bbox = corner_and_size(&objects.boxes[index]);
    // pycocotools takes the annotated area, which COCO says is the mask's.
    let area = objects.areas.as_ref().map(|areas| areas[index].into());
    let mut annotation = Annotation {
        image_id: sample.image.image_id,
        category_id: objects.labels[index] as u64,
        bbox: Some(bbox),
        area: Some(area.unwrap_or(bbox[2] * bbox[3])),
        ..Annotation::default()
    };
    match shape {
        Shape::Box => {}
        Shape::Mask => {
            let size = sample.size().unwrap_or_default();
            let mask = match &objects.masks {
                Some(masks) if has_mask(objects, index) => run_lengths(&masks[index]),
                _ => run_lengths(&box_mask(&objects.boxes[index], size)),
            };
            annotation.segmentation = Some(mask);
        }
        Shape::Keypoints(sigmas) => {
            let points = objects.keypoints.as_ref().map(|all| &all[index].0);
            let points = points.into_iter().flatten().flatten();
            let mut numbers: Vec<f64> = points.map(|v| f64::from(*v)).collect();
            numbers.resize(3 * sigmas.len(), 0.0);
            annotation.keypoints = Some(numbers);
        }
    }
    annotation
}

fn has_mask(objects: &Instances, index: usize) -> bool {
    let masks = objects.masks.as_ref();
    masks.is_some_and(|masks| masks[index].area() > 0)
}

fn box_mask(b: &BBox, size: Size) -> Mask {
    let [x1, y1, x2, y2] = b.map(f64::from);
    Mask::from_polygons(&[vec![x1, y1, x2, y1, x2, y2, x1, y2]], size)
}

fn run_lengths(mask: &Mask) -> Segmentation {
    Segmentation::UncompressedRle {
        size: [mask.size().height as u32, mask.size().width as u32],
        counts: mask.counts().into(),
    }
}

/// COCO's form of a box, computed in double precision as by pycocotools.
fn corner_and_size(b: &BBox) -> [f64; 4] {
    let [x1, y1, x2, y2] = b.map(f64::from);
    [x1, y1, x2 - x1, y2 - y1]
}

/// The IoU of two boxes as COCO's evaluation computes it: in double precision, 0 for boxes without area.
pub(crate) fn iou(a: &BBox, b: &BBox) -> f64 {
    bbox_iou_pair(corner_and_size(a), corner_and_size(b), false)
}

/// The sample and the position within it of the values numbered through all samples.
fn places(counts: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
    let counts = counts.enumerate();
    counts
        .flat_map(|(sample, count)| (0..count).map(move |index| (sample, index)))
        .collect()
}

/// The mean of the numbers that exist; those that don't are -1.
fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let numbers = numbers.filter(|number| *number >= 0.0);
    let (sum, count) = numbers.fold((0.0, 0), |(sum, count), number| (sum + number, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}
