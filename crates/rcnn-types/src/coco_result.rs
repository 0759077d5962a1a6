//! An entry of COCO's results file.

use serde::{Deserialize, Serialize};

use crate::Instance;

/// A detection in COCO's results format, as pycocotools' `loadRes` reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoResult {
    /// The id of the image.
    pub image_id: u64,
    /// The label.
    pub category_id: usize,
    /// Left, top, width and height in pixels, without a rounding error.
    pub bbox: [f64; 4],
    /// The score, without a rounding error.
    pub score: f64,
}

impl CocoResult {
    /// Makes the result of an object detected in an image.
    pub fn new(image_id: u64, object: &Instance) -> Self {
        // Single-precision decimals would be other numbers to pycocotools, which reads doubles.
        let [x1, y1, x2, y2] = object.bbox.map(f64::from);
        Self {
            image_id,
            category_id: object.label,
            bbox: [x1, y1, x2 - x1, y2 - y1],
            score: object.score.into(),
        }
    }
}
