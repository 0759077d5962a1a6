//! Doubts about masks and keypoints that can be read.

use rcnn_types::{BBox, Keypoints, Mask, Size};

use crate::dataset::Sample;
use crate::problems::{ProblemKind as Kind, Problems};
use crate::shapes;

/// How far a mask's or a keypoint's place may be from the box's edges: pixels, and a share of the side.
const NEAR: [f32; 2] = [2.0, 0.1];

/// How far something may be beyond the image, in pixels, as for boxes.
const BEYOND: f64 = 1.0;

type Doubt = (Kind, String);

/// Doubts about the mask of an object, read from `json`.
pub(crate) fn of_mask(json: &str, mask: &Mask, b: &BBox, size: Size) -> Option<Doubt> {
    if mask.area() == 0 {
        return Some((Kind::EmptyMask, "it covers no pixel".into()));
    }
    if json.trim_start().starts_with('[')
        && let Some([x, y]) = corner_outside(json, size)
    {
        let message = format!("a corner at {x}, {y} of {}x{}", size.width, size.height);
        return Some((Kind::MaskOutside, message));
    }
    let bounds = mask.bounds();
    let fits = bounds
        .iter()
        .zip(b)
        .zip(near(b))
        .all(|((a, b), near)| (a - b).abs() <= near);
    let message = || format!("it is within {bounds:?}, the box {b:?}");
    (!fits).then(|| (Kind::MaskMismatch, message()))
}

fn corner_outside(json: &str, size: Size) -> Option<[f64; 2]> {
    let polygons = shapes::polygons(json).ok()?;
    let mut corners = polygons
        .iter()
        .flat_map(|polygon| polygon.as_chunks::<2>().0)
        .copied();
    corners.find(|corner| is_outside(*corner, size))
}

fn is_outside([x, y]: [f64; 2], size: Size) -> bool {
    let within = |v: f64, side: usize| (-BEYOND..=side as f64 + BEYOND).contains(&v);
    !within(x, size.width) || !within(y, size.height)
}

/// Doubts about the keypoints of an object: the first one outside the image, or outside the box.
pub(crate) fn of_keypoints(keypoints: &Keypoints, b: &BBox, size: Size) -> Option<Doubt> {
    let [x1, y1, x2, y2] = *b;
    let [dx, dy, ..] = near(b);
    let mut labelled = keypoints
        .0
        .iter()
        .zip(1..)
        .filter(|(point, _)| point[2] > 0.0);
    labelled.find_map(|([x, y, _], number)| {
        let place = if is_outside([*x, *y].map(f64::from), size) {
            format!("{}x{}", size.width, size.height)
        } else if !(x1 - dx..=x2 + dx).contains(x) || !(y1 - dy..=y2 + dy).contains(y) {
            format!("the box {b:?}")
        } else {
            return None;
        };
        let message = format!("keypoint {number} at {x}, {y}, outside of {place}");
        Some((Kind::KeypointOutside, message))
    })
}

/// Adds doubts about objects with another number of keypoints than the first object that has some.
pub(crate) fn of_counts(samples: &[Sample], problems: &mut Problems) {
    let mut first = None;
    for sample in samples {
        let file = sample.source.file.as_ref().unwrap_or(&sample.image);
        let keypoints = sample.instances.keypoints.iter().flatten();
        let counts = keypoints.map(|points| points.0.len());
        let counts = counts.zip(&sample.source.objects);
        for (count, number) in counts.filter(|(count, _)| *count > 0) {
            let expected = *first.get_or_insert(count);
            if count != expected {
                let message = format!("{count} keypoints, the first object {expected}");
                problems.push(Kind::KeypointCount, file, Some(*number), message);
            }
        }
    }
}

/// How far from each edge of a box is near.
fn near([x1, y1, x2, y2]: &BBox) -> [f32; 4] {
    let [pixels, share] = NEAR;
    let [x, y] = [x2 - x1, y2 - y1].map(|side| pixels + share * side);
    [x, y, x, y]
}
