//! Writes COCO: a JSON file a split.

use std::path::PathBuf;

use rcnn_types::{Keypoints, Mask, decimal};
use serde::Serialize;

use super::Output;
use crate::coco::ANNOTATIONS;
use crate::error::DataError;
use crate::extras::Extras;

#[derive(Serialize)]
struct File<'a> {
    images: Vec<Image<'a>>,
    annotations: Vec<Annotation<'a>>,
    categories: Vec<Category<'a>>,
    #[serde(flatten)]
    extras: &'a Extras,
}

#[derive(Serialize)]
struct Image<'a> {
    id: u64,
    file_name: &'a str,
    width: usize,
    height: usize,
    #[serde(flatten)]
    extras: &'a Extras,
}

#[derive(Serialize)]
struct Annotation<'a> {
    id: u64,
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    area: f64,
    iscrowd: u8,
    /// Empty where the extras have none either: tools expect it.
    #[serde(skip_serializing_if = "Option::is_none")]
    segmentation: Option<Segmentation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keypoints: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_keypoints: Option<usize>,
    #[serde(flatten)]
    extras: &'a Extras,
}

/// The mask of an object, or that there is none.
#[derive(Serialize)]
#[serde(untagged)]
enum Segmentation<'a> {
    None([f64; 0]),
    Mask(&'a Mask),
}

impl<'a> Segmentation<'a> {
    fn new(mask: Option<&'a Mask>) -> Self {
        let mask = mask.filter(|mask| mask.area() > 0);
        mask.map_or(Self::None([]), Self::Mask)
    }
}

#[derive(Serialize)]
struct Category<'a> {
    id: u64,
    name: &'a str,
    /// Empty where the extras have none: tools expect it.
    #[serde(skip_serializing_if = "Option::is_none")]
    supercategory: Option<&'static str>,
    #[serde(flatten)]
    extras: &'a Extras,
}

pub(super) fn write(output: &Output) -> Result<PathBuf, DataError> {
    output.create_folder(ANNOTATIONS)?;
    let mut splits = output.splits.clone();
    if splits.is_empty() {
        splits.insert("all".into(), (0..output.dataset.samples.len()).collect());
    }
    for (split, indices) in &splits {
        let path = format!("{ANNOTATIONS}/instances_{split}.json");
        output.write(path, |file| {
            Ok(serde_json::to_writer(file, &content(output, indices))?)
        })?;
    }
    output.create_folder("images")
}

fn content<'a>(output: &'a Output, indices: &[usize]) -> File<'a> {
    static NONE: Extras = Extras::new();
    let dataset = output.dataset;
    let ids = &dataset.category_ids;
    let category_id = |label: usize| ids.get(label).copied().unwrap_or(label as u64);
    let category = |(name, label): (&'a String, usize)| {
        let extras = dataset.category_extras.get(label).unwrap_or(&NONE);
        Category {
            id: category_id(label),
            name,
            supercategory: extras.get("supercategory").is_none().then_some(""),
            extras,
        }
    };
    let mut file = File {
        images: Vec::new(),
        annotations: Vec::new(),
        categories: output.classes().iter().zip(1..).map(category).collect(),
        extras: &dataset.extras,
    };
    for &index in indices {
        let sample = &dataset.samples[index];
        file.images.push(Image {
            id: sample.image_id,
            file_name: &output.names[index].1,
            width: sample.size.width,
            height: sample.size.height,
            extras: &sample.extras,
        });
        for (index, object) in sample.instances.iter().enumerate() {
            let extras = sample.object_extras.get(index).unwrap_or(&NONE);
            let [x1, y1, x2, y2] = object.bbox.map(decimal);
            // The text that was read is exact.
            let keypoints = extras.get("keypoints").is_none();
            let keypoints = object
                .keypoints
                .filter(|all| keypoints && !all.0.is_empty());
            let segmentation = extras.get("segmentation").is_none();
            file.annotations.push(Annotation {
                id: file.annotations.len() as u64 + 1,
                image_id: sample.image_id,
                category_id: category_id(object.label),
                bbox: [x1, y1, difference(x2, x1), difference(y2, y1)],
                area: decimal(object.area),
                iscrowd: object.is_crowd.into(),
                segmentation: segmentation.then(|| Segmentation::new(object.mask)),
                num_keypoints: keypoints.map(Keypoints::labelled),
                keypoints: keypoints
                    .map(|all| all.0.iter().flatten().copied().map(decimal).collect()),
                extras,
            });
        }
    }
    file
}

/// Without the noise of binary fractions.
fn difference(a: f64, b: f64) -> f64 {
    ((a - b) * 1e9).round() / 1e9
}
