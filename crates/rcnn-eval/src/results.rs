//! COCO's file of results: an array of detections, as pycocotools' `loadRes` reads it.
//!
//! Each has its box, and its mask and keypoints where there are some, so that one file serves pycocotools'
//! `bbox`, `segm` and `keypoints`. (`loadRes` fails on an empty array, also if it was written by
//! pycocotools' own tools.)

use indexmap::IndexMap;
use rcnn_types::boxes::box_area;
use rcnn_types::{CocoResult, ImageInstances, Instances, Keypoints, Mask, Size};

use crate::EvalError;

/// Writes the detections of images as JSON. `category_ids` are the numbers that the annotation file gives the classes, by label;
/// without one, the label itself is written.
pub fn write(detections: &[ImageInstances], category_ids: &[u64]) -> String {
    let category = |label: usize| category_ids.get(label).map_or(label, |id| *id as usize);
    let lines = detections.iter().flat_map(|image| {
        let found = image.instances.iter();
        found.map(|object| {
            let result = CocoResult {
                category_id: category(object.label),
                ..CocoResult::new(image.image_id, &object)
            };
            // Numbers cannot fail to be written; those that are not finite become null.
            serde_json::to_string(&result).expect("numbers")
        })
    });
    format!("[{}]\n", lines.collect::<Vec<_>>().join(",\n "))
}

/// Reads detections in such JSON, an entry for each image in order of appearance.
///
/// Where the first has no box, boxes and areas are those of the masks, or around the keypoints, as
/// `loadRes` has them.
///
/// # Errors
///
/// If it is not an array of results with boxes, masks or keypoints.
pub fn read(json: &str) -> Result<Vec<ImageInstances>, EvalError> {
    let results: Vec<CocoResult> = serde_json::from_str(json)?;
    let is_boxed = results.first().is_none_or(|first| first.bbox.is_some());
    let mut images: IndexMap<u64, Vec<CocoResult>> = IndexMap::new();
    for (index, result) in results.into_iter().enumerate() {
        if result.bounds().is_none() {
            return Err(EvalError::Shapeless { index });
        }
        images.entry(result.image_id).or_default().push(result);
    }
    let images = images.into_iter().map(|(image_id, found)| ImageInstances {
        image_id,
        instances: instances(found, is_boxed),
        ..ImageInstances::default()
    });
    Ok(images.collect())
}

/// The results of one image. Single ones without a mask or keypoints get empty ones.
fn instances(found: Vec<CocoResult>, is_boxed: bool) -> Instances {
    let object = |result: &CocoResult| {
        let bbox = result.bounds().unwrap_or_default();
        (bbox, result.category_id, result.score as f32)
    };
    let mut instances: Instances = found.iter().map(object).collect();
    let size = found.iter().flat_map(|result| &result.segmentation).next();
    let size = size.map(Mask::size);
    if !is_boxed {
        let mask = |result: &CocoResult| result.segmentation.as_ref().map(|m| m.area() as f32);
        let boxes = found.iter().zip(&instances.boxes);
        let areas = boxes.map(|(result, b)| mask(result).unwrap_or_else(|| box_area(b)));
        instances.areas = Some(areas.collect());
    }
    let has_keypoints = found.iter().any(|result| result.keypoints.is_some());
    let (masks, keypoints): (Vec<_>, Vec<_>) = found
        .into_iter()
        .map(|result| (result.segmentation, result.keypoints))
        .unzip();
    let points = |numbers: Option<Vec<f64>>| {
        let numbers: Vec<f32> = numbers.into_iter().flatten().map(|v| v as f32).collect();
        Keypoints(numbers.as_chunks().0.to_vec())
    };
    let mask = |mask: Option<Mask>, size: Size| mask.unwrap_or_else(|| Mask::empty(size));
    instances.masks = size.map(|size| masks.into_iter().map(|m| mask(m, size)).collect());
    instances.keypoints = has_keypoints.then(|| keypoints.into_iter().map(points).collect());
    instances
}
