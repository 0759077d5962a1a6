//! COCO's file of results: an array of detections, as pycocotools' `loadRes` reads it.
//!
//! (`loadRes` fails on an empty array, also if it was written by pycocotools' own tools.)

use std::collections::HashMap;

use rcnn_types::CocoResult;

use crate::{EvalError, ImageDetections};

/// The detections of images as JSON.
pub fn write(detections: &[ImageDetections]) -> String {
    let results: Vec<CocoResult> = detections
        .iter()
        .flat_map(|found| {
            let values = found.boxes.iter().zip(&found.labels).zip(&found.scores);
            values.map(|((&bounds, &label), &score)| {
                CocoResult::new(found.image_id, bounds, label, score)
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
pub fn read(json: &str) -> Result<Vec<ImageDetections>, EvalError> {
    let results: Vec<CocoResult> = serde_json::from_str(json)?;
    let mut images: Vec<ImageDetections> = Vec::new();
    let mut positions = HashMap::new();
    for result in results {
        let position = *positions.entry(result.image_id).or_insert(images.len());
        if position == images.len() {
            images.push(ImageDetections {
                image_id: result.image_id,
                ..ImageDetections::default()
            });
        }
        let [x, y, width, height] = result.bbox;
        let image = &mut images[position];
        image
            .boxes
            .push([x, y, x + width, y + height].map(|v| v as f32));
        image.labels.push(result.category_id);
        image.scores.push(result.score as f32);
    }
    Ok(images)
}
