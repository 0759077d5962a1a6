//! Boxes: area, overlap, clipping and filtering, as in `torchvision.ops.boxes`.

use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;

use crate::DetectionBackend;
use crate::channels::{primitive, tensor};

/// A box `[x1, y1, x2, y2]` in pixels.
pub type BBox = [f32; 4];

/// Area of each box, in square pixels (`torchvision.ops.box_area`). Reversed boxes may be negative.
pub fn box_area(b: &BBox) -> f32 {
    (b[2] - b[0]) * (b[3] - b[1])
}

/// Intersection over union of two boxes (`torchvision.ops.box_iou`); NaN when both have no area.
pub fn box_iou(a: &BBox, b: &BBox) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let intersection = width * height;
    intersection / (box_area(a) + box_area(b) - intersection)
}

/// [`box_iou`] of every box with every other, on the device. No gradients flow through it.
///
/// # Shapes
/// - a: `[M, 4]`, b: `[N, 4]`, xyxy
/// - output: `[M, N]`
pub fn box_iou_matrix<B: DetectionBackend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    tensor(B::box_iou(primitive(a.detach()), primitive(b.detach())))
}

/// [`DetectionBackend::box_iou`], composed of Burn's operations.
pub fn iou_reference<B: DetectionBackend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    let (a, b) = (tensor::<B, 2>(a), tensor::<B, 2>(b));
    let ([m, _], [n, _]) = (a.dims(), b.dims());
    if m * n == 0 {
        return primitive(Tensor::<B, 2>::zeros([m, n], &a.device()));
    }
    let side = |low: usize| {
        let column = |boxes: &Tensor<B, 2>, i: usize| boxes.clone().narrow(1, i, 1);
        let row = |i: usize| column(&b, i).reshape([1, n]).expand([m, n]);
        let column = |i: usize| column(&a, i).expand([m, n]);
        let low_edge = column(low).max_pair(row(low));
        let high_edge = column(low + 2).min_pair(row(low + 2));
        let overlap = (high_edge - low_edge).clamp_min(0.0);
        (
            overlap,
            column(low + 2) - column(low),
            row(low + 2) - row(low),
        )
    };
    let ((width, a_width, b_width), (height, a_height, b_height)) = (side(0), side(1));
    let intersection = width * height;
    let union = a_width * a_height + b_width * b_height - intersection.clone();
    primitive(intersection / union)
}

/// Clips one box to an image of `(height, width)` pixels.
pub fn clip_box(b: &BBox, (height, width): (usize, usize)) -> BBox {
    let (h, w) = (height as f32, width as f32);
    [
        b[0].clamp(0.0, w),
        b[1].clamp(0.0, h),
        b[2].clamp(0.0, w),
        b[3].clamp(0.0, h),
    ]
}

/// Clips boxes to an image of `(height, width)` pixels (`torchvision.ops.clip_boxes_to_image`).
pub fn clip_boxes_to_image(boxes: &mut [BBox], size: (usize, usize)) {
    for b in boxes {
        *b = clip_box(b, size);
    }
}

/// Indices of the boxes whose sides are both at least `min_size` pixels
/// (`torchvision.ops.remove_small_boxes`).
pub fn remove_small_boxes(boxes: &[BBox], min_size: f32) -> Vec<usize> {
    (0..boxes.len())
        .filter(|&i| {
            let b = boxes[i];
            b[2] - b[0] >= min_size && b[3] - b[1] >= min_size
        })
        .collect()
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
        clip_boxes_to_image(&mut boxes, (20, 25));
        assert_eq!(boxes, [[0.0, 2.0, 25.0, 20.0], [25.0, 1.0, 25.0, 2.0]]);
        assert_eq!(remove_small_boxes(&boxes, 1e-3), [0]);
    }
}
