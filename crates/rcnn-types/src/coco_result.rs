//! An entry of COCO's results file.

use serde::{Deserialize, Serialize};

use crate::{BBox, Instance, Mask};

/// A detection in COCO's results format, as pycocotools' `loadRes` reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoResult {
    /// The id of the image.
    pub image_id: u64,
    /// The label.
    pub category_id: usize,
    /// Left, top, width and height in pixels, without a rounding error; results of masks or keypoints may
    /// lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bbox: Option<[f64; 4]>,
    /// The mask, if there are masks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Mask>,
    /// x, y and visibility of each keypoint, if there are keypoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keypoints: Option<Vec<f64>>,
    /// The score, without a rounding error.
    pub score: f64,
}

impl CocoResult {
    /// Makes the result of an object detected in an image.
    pub fn new(image_id: u64, object: &Instance) -> Self {
        // Single-precision decimals would be other numbers to pycocotools, which reads doubles.
        let [x1, y1, x2, y2] = object.bbox.map(f64::from);
        let keypoints = object.keypoints;
        Self {
            image_id,
            category_id: object.label,
            bbox: Some([x1, y1, x2 - x1, y2 - y1]),
            segmentation: object.mask.cloned(),
            keypoints: keypoints.map(|all| all.0.iter().flatten().map(|v| f64::from(*v)).collect()),
            score: object.score.into(),
        }
    }

    /// The object's box: the given one, else the one around its mask, else around its keypoints, as in
    /// `loadRes`; `None` if there is nothing.
    pub fn bounds(&self) -> Option<BBox> {
        if let Some([x, y, width, height]) = self.bbox {
            return Some([x, y, x + width, y + height].map(|v| v as f32));
        }
        if let Some(mask) = &self.segmentation {
            return Some(mask.bounds());
        }
        let points = self.keypoints.as_ref()?.chunks_exact(3);
        let points = points.map(|point| [point[0] as f32, point[1] as f32]);
        let around =
            |[x1, y1, x2, y2]: BBox, [x, y]: [f32; 2]| [x1.min(x), y1.min(y), x2.max(x), y2.max(y)];
        let boxes = points.map(|[x, y]| [x, y, x, y]);
        boxes.reduce(|b, [x, y, ..]| around(b, [x, y]))
    }
}
