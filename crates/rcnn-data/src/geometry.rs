//! Boxes as `[x1, y1, x2, y2]`: areas, overlaps and cutting to a window.

/// A box's edges from left, top, right to bottom, in pixels.
pub(crate) type Bounds = [f32; 4];

pub(crate) fn width(b: &Bounds) -> f32 {
    b[2] - b[0]
}

pub(crate) fn height(b: &Bounds) -> f32 {
    b[3] - b[1]
}

/// The area in square pixels, 0 for a box turned inside out.
pub(crate) fn area(b: &Bounds) -> f32 {
    width(b).max(0.0) * height(b).max(0.0)
}

pub(crate) fn centre(b: &Bounds) -> (f32, f32) {
    ((b[0] + b[2]) / 2.0, (b[1] + b[3]) / 2.0)
}

/// Intersection over union; 0 where neither box has an area.
pub(crate) fn iou(a: &Bounds, b: &Bounds) -> f32 {
    let shared = area(&[
        a[0].max(b[0]),
        a[1].max(b[1]),
        a[2].min(b[2]),
        a[3].min(b[3]),
    ]);
    let union = area(a) + area(b) - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}

/// Whether the centre of a box lies within a window.
pub(crate) fn centred_in(b: &Bounds, window: &Bounds) -> bool {
    let (x, y) = centre(b);
    window[0] < x && x < window[2] && window[1] < y && y < window[3]
}

/// The part of a box within a window, in the window's coordinates.
pub(crate) fn cut(b: &Bounds, window: &Bounds) -> Bounds {
    let (w, h) = (width(window), height(window));
    [
        (b[0] - window[0]).clamp(0.0, w),
        (b[1] - window[1]).clamp(0.0, h),
        (b[2] - window[0]).clamp(0.0, w),
        (b[3] - window[1]).clamp(0.0, h),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_of_boxes() {
        let a = [0.0, 0.0, 10.0, 10.0];
        assert_eq!(iou(&a, &a), 1.0);
        assert_eq!(iou(&a, &[5.0, 0.0, 15.0, 10.0]), 50.0 / 150.0);
        assert_eq!(iou(&a, &[20.0, 0.0, 30.0, 10.0]), 0.0);
        assert_eq!(iou(&[1.0; 4], &[1.0; 4]), 0.0);
    }

    #[test]
    fn cutting_moves_to_the_window() {
        let window = [10.0, 10.0, 30.0, 20.0];
        assert_eq!(
            cut(&[0.0, 12.0, 15.0, 50.0], &window),
            [0.0, 2.0, 5.0, 10.0]
        );
    }
}
