//! Boxes on the host: area, overlap, clipping, moving and scaling. What torchvision has too is named as
//! in `torchvision.ops.boxes`.

use serde::{Deserialize, Serialize};

use crate::Size;

/// A box `[x1, y1, x2, y2]` in pixels.
pub type BBox = [f32; 4];

/// Rules by which a detector turns deltas into boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxRules {
    /// torchvision's: a box grows at most 1000/16 times; boxes are clipped to the image, and small ones dropped,
    /// before they suppress each other.
    #[default]
    Torchvision,
    /// Those of TensorFlow's Object Detection API in 2018: boxes are clipped and empty ones dropped before they
    /// suppress each other. Its first stage clips the anchors in inference and leaves out those that cross the border
    /// in training.
    Tensorflow2018,
    /// The API's since 2019: as in 2018, but boxes suppress each other before they are clipped.
    Tensorflow2019,
}

/// Width of a box, negative for a reversed one.
pub fn box_width(b: &BBox) -> f32 {
    b[2] - b[0]
}

/// Height of a box, negative for a reversed one.
pub fn box_height(b: &BBox) -> f32 {
    b[3] - b[1]
}

/// Area of a box in square pixels (`torchvision.ops.box_area`). Reversed boxes may have a negative one.
pub fn box_area(b: &BBox) -> f32 {
    box_width(b) * box_height(b)
}

/// Centre `[x, y]` of a box.
pub fn box_centre(b: &BBox) -> [f32; 2] {
    [(b[0] + b[2]) / 2.0, (b[1] + b[3]) / 2.0]
}

/// Intersection over union of two boxes (`torchvision.ops.box_iou`); NaN when neither has an area.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_types as types; pub use rcnn_types::*; }
/// use rcnn_burn::types::boxes::box_iou;
///
/// assert_eq!(box_iou(&[0.0, 0.0, 10.0, 10.0], &[5.0, 0.0, 15.0, 10.0]), 1.0 / 3.0);
/// ```
pub fn box_iou(a: &BBox, b: &BBox) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let intersection = width * height;
    intersection / (box_area(a) + box_area(b) - intersection)
}

/// A box clipped to an image.
pub fn clip_box(b: &BBox, size: Size) -> BBox {
    let (h, w) = (size.height as f32, size.width as f32);
    [
        b[0].clamp(0.0, w),
        b[1].clamp(0.0, h),
        b[2].clamp(0.0, w),
        b[3].clamp(0.0, h),
    ]
}

/// Clips boxes to an image (`torchvision.ops.clip_boxes_to_image`).
pub fn clip_boxes_to_image(boxes: &mut [BBox], size: Size) {
    for b in boxes {
        *b = clip_box(b, size);
    }
}

/// A box moved by `x` to the right and `y` down.
pub fn shift_box(b: &BBox, x: f32, y: f32) -> BBox {
    [b[0] + x, b[1] + y, b[2] + x, b[3] + y]
}

/// A box turned upside down with its image.
pub(crate) fn rotate_box_180(b: &BBox, size: Size) -> BBox {
    let (width, height) = (size.width as f32, size.height as f32);
    [width - b[2], height - b[3], width - b[0], height - b[1]]
}

/// A box with its coordinates multiplied.
pub fn scale_box(b: &BBox, x: f32, y: f32) -> BBox {
    [b[0] * x, b[1] * y, b[2] * x, b[3] * y]
}

/// Part of a box within a window `[left, top, right, bottom]`, in the window's coordinates.
pub(crate) fn crop_box(b: &BBox, [left, top, right, bottom]: [u32; 4]) -> BBox {
    let (height, width) = (bottom - top, right - left);
    let size = Size::from_dimensions((width, height));
    clip_box(&shift_box(b, -(left as f32), -(top as f32)), size)
}

/// Indices of the boxes whose sides are both at least `min_size` pixels
/// (`torchvision.ops.remove_small_boxes`).
pub fn remove_small_boxes(boxes: &[BBox], min_size: f32) -> Vec<usize> {
    let large = |b: &BBox| box_width(b) >= min_size && box_height(b) >= min_size;
    (0..boxes.len()).filter(|&i| large(&boxes[i])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_of_disjoint_equal_and_empty() {
        let a = [0.0, 0.0, 2.0, 2.0];
        assert_eq!(box_iou(&a, &[2.0, 2.0, 4.0, 4.0]), 0.0);
        assert_eq!(box_iou(&a, &a), 1.0);
        assert_eq!(box_iou(&a, &[1.0, 0.0, 3.0, 2.0]), 1.0 / 3.0);
        let point = [1.0, 1.0, 1.0, 1.0];
        assert!(box_iou(&point, &point).is_nan());
    }

    #[test]
    fn clip_and_filter() {
        let mut boxes = [[-5.0, 2.0, 30.0, 40.0], [50.0, 1.0, 60.0, 2.0]];
        clip_boxes_to_image(&mut boxes, Size::new(20, 25));
        assert_eq!(boxes, [[0.0, 2.0, 25.0, 20.0], [25.0, 1.0, 25.0, 2.0]]);
        assert_eq!(remove_small_boxes(&boxes, 1e-3), [0]);
    }

    #[test]
    fn cropping_moves_to_the_window() {
        let window = [10, 10, 30, 20];
        let cropped = crop_box(&[0.0, 12.0, 15.0, 50.0], window);
        assert_eq!(cropped, [0.0, 2.0, 5.0, 10.0]);
    }
}
