//! COCO's file of results: an array of detections, as pycocotools' `loadRes` reads it.
//!
//! (`loadRes` fails on an empty array, also if it was written by pycocotools' own tools.)

use indexmap::IndexMap;
use rcnn_types::{CocoResult, ImageInstances};

use crate::EvalError;

/// The detections of images as JSON. `category_ids` are the numbers that the annotation file gives the classes, by label;
/// without one, the label itself is written.
pub fn write(detections: &[ImageInstances], category_ids: &[u64]) -> String {
    let category = |label: usize| category_ids.get(label).map_or(label, |id| *id as usize);
    let results: Vec<CocoResult> = detections
        .iter()
        .flat_map(|image| {
            let found = image.instances.iter();
            found.map(|object| CocoResult {
                category_id: category(object.label),
                ..CocoResult::new(image.image_id, &object)
            })
        })
        .collect();
    let lines = results.iter().map(|result| {
        // Numbers cannot fail to be written; those that are not finite become null.
        serde_json::to_string(result).expect("numbers")
    });
    format!("[{}]\n", lines.collect::<Vec<_>>().join(",\n "))
}

/// The detections in such JSON, an entry for each image in order of appearance.
///
/// # Errors
///
/// If it is not an array of results with boxes.
pub fn read(json: &str) -> Result<Vec<ImageInstances>, EvalError> {
    let results: Vec<CocoResult> = serde_json::from_str(json)?;
    let mut images: IndexMap<u64, Vec<_>> = IndexMap::new();
    for result in results {
        let [x, y, width, height] = result.bbox;
        let bbox = [x, y, x + width, y + height].map(|v| v as f32);
        let found = images.entry(result.image_id).or_default();
        found.push((bbox, result.category_id, result.score as f32));
    }
    let images = images.into_iter().map(|(image_id, found)| ImageInstances {
        image_id,
        instances: found.into_iter().collect(),
        ..ImageInstances::default()
    });
    Ok(images.collect())
}
