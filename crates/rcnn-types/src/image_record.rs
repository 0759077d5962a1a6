//! Detections of an image as JSON, as `rcnn detect` prints and `rcnn serve` answers them.

use serde::{Deserialize, Serialize};

use crate::{BBox, Instances, Mask, Size, class_name};

/// Representation of masks in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskFormat {
    /// Corners x, y, x, y, ... of one or more polygons.
    Polygon,
    /// COCO's compressed run lengths.
    #[default]
    Rle,
    /// Left out.
    None,
}

/// A mask in one of the formats.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Segmentation<'a> {
    /// Polygons, corners x, y, x, y, ... in pixels.
    Polygon(Vec<Vec<f64>>),
    /// Run lengths.
    Rle(&'a Mask),
}

impl MaskFormat {
    /// The mask in this format; `None` where there is no mask, or masks are left out.
    pub fn segmentation(self, mask: Option<&Mask>) -> Option<Segmentation<'_>> {
        match self {
            Self::Polygon => Some(Segmentation::Polygon(mask?.to_polygons())),
            Self::Rle => Some(Segmentation::Rle(mask?)),
            Self::None => None,
        }
    }
}

/// An image with what was found in it.
#[derive(Debug, Serialize)]
pub struct ImageRecord<'a> {
    image: &'a str,
    /// Number of the frame in its video, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// Time of the frame in seconds, where the video's rate is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<f64>,
    width: usize,
    height: usize,
    detections: Vec<DetectionRecord<'a>>,
}

#[derive(Debug, Serialize)]
struct DetectionRecord<'a> {
    #[serde(rename = "box")]
    bbox: BBox,
    label: usize,
    name: String,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    track_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segmentation: Option<Segmentation<'a>>,
    /// x, y and visibility of each, as COCO has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    keypoints: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keypoint_scores: Option<&'a [f32]>,
}

impl<'a> ImageRecord<'a> {
    /// Makes the record of an image of that name and size. `class_names` begin with the background's; a class
    /// without a name is called by its number.
    pub fn new(
        image: &'a str,
        size: Size,
        found: &'a Instances,
        class_names: &[String],
        masks: MaskFormat,
    ) -> Self {
        let scores = found.keypoint_scores.as_ref();
        let detections = found
            .iter()
            .enumerate()
            .map(|(index, object)| DetectionRecord {
                bbox: object.bbox,
                label: object.label,
                name: class_name(class_names, object.label),
                score: object.score,
                track_id: object.track_id,
                segmentation: masks.segmentation(object.mask),
                keypoints: object.keypoints.map(|points| points.0.as_flattened()),
                keypoint_scores: scores.map(|all| all[index].as_slice()),
            });
        Self {
            image,
            frame: None,
            time: None,
            width: size.width,
            height: size.height,
            detections: detections.collect(),
        }
    }
}
