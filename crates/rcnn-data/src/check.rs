//! Checks of a data set: its content, its problems, and the fit of anchors to its boxes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rcnn_types::boxes::{box_height, box_width};
use rcnn_types::{BBox, Size};
use serde::Serialize;

pub use anchors::{AnchorSpec, Coverage};

use crate::dataset::{Dataset, Reading, Sample};
use crate::problems::Problems;

mod anchors;
mod cluster;
mod suggest;
mod table;

/// COCO's limits between small, medium and large objects, in square pixels.
const SMALL: f32 = 32.0 * 32.0;
const MEDIUM: f32 = 96.0 * 96.0;

/// Findings about a data set. Displayed as tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The number of images.
    pub images: usize,
    /// The number of images without boxes.
    pub background_images: usize,
    /// The number of boxes, crowds not counted.
    pub boxes: usize,
    /// The number of crowds.
    pub crowds: usize,
    /// The number of boxes with a mask, if masks were read.
    pub masks: usize,
    /// The number of boxes with labelled keypoints, if keypoints were read.
    pub keypoints: usize,
    /// The number of images in each split.
    pub splits: BTreeMap<String, usize>,
    /// The images that two splits share although they should not.
    pub shared_by_splits: Vec<Shared>,
    /// The classes in order of their labels.
    pub classes: Vec<ClassCount>,
    /// The sizes of images as `[width, height]` and how many have them, the most frequent first.
    pub image_sizes: Vec<([u32; 2], usize)>,
    /// Boxes per image.
    pub boxes_per_image: Spread,
    /// The widths of boxes in pixels.
    pub box_widths: Spread,
    /// The heights of boxes in pixels.
    pub box_heights: Spread,
    /// The shapes of boxes, as height over width.
    pub box_shapes: Spread,
    /// Boxes smaller than 32x32, smaller than 96x96, and larger, in pixels of the picture.
    pub box_areas: [usize; 3],
    /// Fit of the anchors to the boxes.
    pub anchors: AnchorFit,
    /// Anchors that fit better, if any were found.
    pub suggestion: Option<AnchorFit>,
    /// Number of problems of each kind.
    pub problem_counts: BTreeMap<crate::ProblemKind, usize>,
    /// The problems one by one.
    pub problems: Problems,
}

/// Number of objects and images of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Its name.
    pub name: String,
    /// Its boxes.
    pub boxes: usize,
    /// The images it is on.
    pub images: usize,
}

/// Images in two splits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// The two splits.
    pub splits: [String; 2],
    /// The number of images in both.
    pub images: usize,
}

/// Minimum, 10th, 50th and 90th percentile and maximum of some numbers; 0 without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f32,
    /// 10th percentile.
    pub p10: f32,
    /// Median.
    pub median: f32,
    /// 90th percentile.
    pub p90: f32,
    /// The most.
    pub max: f32,
}

/// Anchors and how they fit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnchorFit {
    /// The anchors.
    pub anchors: AnchorSpec,
    /// Coverage of all boxes.
    pub all: Coverage,
    /// Coverage of the boxes of each class, by name.
    pub classes: BTreeMap<String, Coverage>,
}

/// Examines a data set: its images and boxes as they were read, and the anchors to use for it.
///
/// The seed is that of the clustering which finds the suggested anchors.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_data as data; }
/// # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"))?;
/// use rcnn_burn::data::check::{AnchorSpec, check};
/// use rcnn_burn::data::read;
///
/// let reading = read("blood-cells".as_ref(), &Default::default())?;
/// let anchors = AnchorSpec { min_size: 240, max_size: 480, ..AnchorSpec::default() };
/// let report = check(&reading, &anchors, 0);
/// println!("{report}");
/// assert_eq!(report.images, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check(reading: &Reading, anchors: &AnchorSpec, seed: u64) -> Report {
    let Reading {
        dataset, problems, ..
    } = reading;
    let objects = || dataset.samples.iter().flat_map(Sample::objects);
    let boxes: Vec<BBox> = objects().map(|object| object.bbox).collect();
    let spread = |value: fn(&BBox) -> f32| Spread::from_values(boxes.iter().map(value));
    let boxes_an_image: Vec<usize> = dataset
        .samples
        .iter()
        .map(|s| s.objects().count())
        .collect();
    let mut box_areas = [0; 3];
    for area in objects().map(|object| object.area) {
        let class = usize::from(area >= SMALL) + usize::from(area >= MEDIUM);
        box_areas[class] += 1;
    }
    let at_hand = anchors::fit(dataset, anchors);
    Report {
        images: dataset.samples.len(),
        background_images: boxes_an_image.iter().filter(|count| **count == 0).count(),
        boxes: boxes.len(),
        crowds: dataset
            .samples
            .iter()
            .map(|s| s.instances.len())
            .sum::<usize>()
            - boxes.len(),
        masks: objects()
            .filter(|o| o.mask.is_some_and(|mask| mask.area() > 0))
            .count(),
        keypoints: objects()
            .filter(|o| o.keypoints.is_some_and(|all| all.labelled() > 0))
            .count(),
        splits: dataset
            .splits
            .iter()
            .map(|(name, all)| (name.clone(), all.len()))
            .collect(),
        shared_by_splits: shared_by_splits(dataset),
        classes: class_counts(dataset),
        image_sizes: image_sizes(dataset),
        boxes_per_image: Spread::from_values(boxes_an_image.iter().map(|count| *count as f32)),
        box_widths: spread(box_width),
        box_heights: spread(box_height),
        box_shapes: spread(|b| box_height(b) / box_width(b)),
        box_areas,
        suggestion: suggest::better(dataset, &at_hand, seed),
        anchors: at_hand,
        problem_counts: problems.counts(),
        problems: problems.clone(),
    }
}

impl Spread {
    fn from_values(values: impl Iterator<Item = f32>) -> Self {
        let mut values: Vec<f32> = values.collect();
        values.sort_by(f32::total_cmp);
        let at = |share: f32| {
            let place = share * values.len().saturating_sub(1) as f32;
            values.get(place.round() as usize).copied().unwrap_or(0.0)
        };
        Self {
            min: at(0.0),
            p10: at(0.1),
            median: at(0.5),
            p90: at(0.9),
            max: at(1.0),
        }
    }
}

fn class_counts(dataset: &Dataset) -> Vec<ClassCount> {
    let names = dataset.class_names.iter().skip(1);
    let mut counts: Vec<ClassCount> = names
        .map(|name| ClassCount {
            name: name.clone(),
            boxes: 0,
            images: 0,
        })
        .collect();
    for sample in &dataset.samples {
        let mut seen = BTreeSet::new();
        for label in sample.objects().map(|object| object.label) {
            if let Some(count) = label.checked_sub(1).and_then(|i| counts.get_mut(i)) {
                count.boxes += 1;
                count.images += usize::from(seen.insert(label));
            }
        }
    }
    counts
}

fn image_sizes(dataset: &Dataset) -> Vec<([u32; 2], usize)> {
    let mut counts: HashMap<[u32; 2], usize> = HashMap::new();
    for sample in &dataset.samples {
        let Size { height, width } = sample.size;
        *counts
            .entry([width, height].map(|side| side as u32))
            .or_default() += 1;
    }
    let mut sizes: Vec<_> = counts.into_iter().collect();
    sizes.sort_by_key(|&(size, count)| (std::cmp::Reverse(count), size));
    sizes
}

/// Splits are meant to have no image in common, but for the parts of a larger one (`trainval`).
fn shared_by_splits(dataset: &Dataset) -> Vec<Shared> {
    let splits: Vec<(&String, BTreeSet<usize>)> = dataset
        .splits
        .iter()
        .map(|(name, indices)| (name, indices.iter().copied().collect()))
        .collect();
    let mut shared = Vec::new();
    for (i, (a, in_a)) in splits.iter().enumerate() {
        for (b, in_b) in &splits[i + 1..] {
            let images = in_a.intersection(in_b).count();
            if images > 0 && !a.contains(b.as_str()) && !b.contains(a.as_str()) {
                shared.push(Shared {
                    splits: [a.to_string(), b.to_string()],
                    images,
                });
            }
        }
    }
    shared
}
