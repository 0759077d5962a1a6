//! Writes COCO: a JSON file a split.

use std::path::PathBuf;

use serde::Serialize;

use super::Output;
use crate::coco::ANNOTATIONS;
use crate::error::DataError;

#[derive(Serialize)]
struct File<'a> {
    images: Vec<Image<'a>>,
    annotations: Vec<Annotation>,
    categories: Vec<Category<'a>>,
}

#[derive(Serialize)]
struct Image<'a> {
    id: u64,
    file_name: &'a str,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct Annotation {
    id: u64,
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    area: f64,
    iscrowd: u8,
    segmentation: [f64; 0],
}

#[derive(Serialize)]
struct Category<'a> {
    id: u64,
    name: &'a str,
    supercategory: &'static str,
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
    let ids = &output.dataset.category_ids;
    let category = |label: usize| ids.get(label).copied().unwrap_or(label as u64);
    let mut file = File {
        images: Vec::new(),
        annotations: Vec::new(),
        categories: output
            .classes()
            .iter()
            .zip(1..)
            .map(|(name, label)| Category {
                id: category(label),
                name,
                supercategory: "",
            })
            .collect(),
    };
    for &index in indices {
        let sample = &output.dataset.samples[index];
        file.images.push(Image {
            id: sample.image_id,
            file_name: &output.names[index].1,
            width: sample.width,
            height: sample.height,
        });
        let boxes = sample.boxes.iter().zip(&sample.labels).zip(&sample.areas);
        let boxes = boxes.map(|((b, label), area)| (b, *label, *area, 0));
        let crowds = sample.crowds.iter();
        let crowds = crowds.map(|crowd| (&crowd.bounds, crowd.label, crowd.area, 1));
        for (bounds, label, area, iscrowd) in boxes.chain(crowds) {
            let [x1, y1, x2, y2] = bounds.map(decimal);
            file.annotations.push(Annotation {
                id: file.annotations.len() as u64 + 1,
                image_id: sample.image_id,
                category_id: category(label),
                bbox: [x1, y1, difference(x2, x1), difference(y2, y1)],
                area: decimal(area),
                iscrowd,
                segmentation: [],
            });
        }
    }
    file
}

/// The number of the fewest digits that reads as this one: 0.1, not 0.10000000149.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

/// Without the noise of binary fractions.
fn difference(a: f64, b: f64) -> f64 {
    ((a - b) * 1e9).round() / 1e9
}
