//! Runs hotcoco: COCO's numbers, and which detection found which object.

use std::sync::Arc;

use hotcoco::primitives::sim::bbox_iou_pair;
use hotcoco::{Annotation, COCO, COCOeval, Category, Dataset, Image, IouType};

use rcnn_types::{BBox, Instance};

use crate::evaluation::Summary;
use crate::input::Sample;
use crate::{EvalError, MATCH_IOU};

/// COCO's numbers of one class.
pub(crate) struct ClassNumbers {
    pub(crate) ap: Option<f64>,
    pub(crate) ap50: Option<f64>,
    pub(crate) ar: Option<f64>,
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
pub(crate) struct Engine {
    truth: Arc<COCO>,
    found: Arc<COCO>,
    max_dets: usize,
}

impl Engine {
    pub(crate) fn new(
        samples: &[Sample],
        class_names: &[String],
        max_dets: usize,
    ) -> Result<Self, EvalError> {
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
        let mut annotations: Vec<Annotation> = samples.iter().flat_map(objects).collect();
        for (annotation, id) in annotations.iter_mut().zip(1..) {
            annotation.id = id;
        }
        let truth = COCO::from_dataset(Dataset {
            images: images.collect(),
            annotations,
            categories: categories.collect(),
            ..Dataset::default()
        });
        // The detections get the ids 1, 2, ... in this order.
        let found = truth.load_res_anns(samples.iter().flat_map(detections).collect())?;
        Ok(Self {
            truth: Arc::new(truth),
            found: Arc::new(found),
            max_dets,
        })
    }

    fn evaluator(&self) -> COCOeval {
        let mut evaluator = COCOeval::new(self.truth.clone(), self.found.clone(), IouType::Bbox);
        evaluator.params.max_dets = [1, 10, self.max_dets].map(|n| n.min(self.max_dets)).into();
        evaluator
    }

    /// COCO's summary and the numbers of each class from label 1 on.
    pub(crate) fn numbers(&self) -> Result<(Summary, Vec<ClassNumbers>), EvalError> {
        let mut evaluator = self.evaluator();
        evaluator.evaluate()?;
        evaluator.accumulate();
        // Unlike `summarize`, this prints nothing.
        evaluator.summarize_lines();
        let summary = Summary::from_stats(evaluator.stats().unwrap_or_default());
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
        Ok((summary, classes))
    }

    /// What each detection of each sample is.
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

fn objects<'a>(sample: &'a Sample) -> impl Iterator<Item = Annotation> + 'a {
    let objects = sample.truth().iter().enumerate();
    objects.map(|(index, object)| {
        let [.., width, height] = corner_and_size(&object.bbox);
        // pycocotools takes the annotated area, which COCO says is the mask's.
        let annotated = sample.truth().areas.as_ref().map(|areas| areas[index]);
        Annotation {
            area: Some(annotated.map_or(width * height, f64::from)),
            iscrowd: object.is_crowd,
            ..annotation(sample, &object)
        }
    })
}

fn detections<'a>(sample: &'a Sample) -> impl Iterator<Item = Annotation> + 'a {
    let found = sample.found.iter();
    found.map(|object| Annotation {
        score: Some(object.score.into()),
        ..annotation(sample, &object)
    })
}

fn annotation(sample: &Sample, object: &Instance) -> Annotation {
    Annotation {
        image_id: sample.image.image_id,
        category_id: object.label as u64,
        bbox: Some(corner_and_size(&object.bbox)),
        ..Annotation::default()
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
