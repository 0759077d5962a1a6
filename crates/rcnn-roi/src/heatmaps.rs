//! Between keypoints and places in heat maps.

use rcnn_ops::BBox;
use rcnn_types::{Instances, Keypoints};

use crate::Positive;

/// Where a keypoint is in the heat map of its sample.
pub(crate) struct Place {
    /// Which keypoint.
    pub(crate) keypoint: usize,
    /// Index into the `side` x `side` places, row by row.
    pub(crate) index: usize,
}

/// Places of the keypoints of a sample's object that are visible and in the sample's box (torchvision's
/// `keypoints_to_heatmap`). A keypoint on the right or lower edge is in the last column or row.
pub(crate) fn places(sample: &Positive, targets: &[Instances], side: usize) -> Vec<Place> {
    let Some(keypoints) = &targets[sample.image].keypoints else {
        return Vec::new();
    };
    let b = &sample.proposal;
    let cell = |value: f32, axis: usize| {
        let (low, high) = (b[axis], b[axis + 2]);
        if value == high {
            return Some(side - 1);
        }
        let cell = ((value - low) * (side as f32 / (high - low))).floor();
        (cell >= 0.0 && cell < side as f32).then_some(cell as usize)
    };
    let points = keypoints[sample.object].0.iter().enumerate();
    let visible = points.filter(|(_, point)| point[2] > 0.0);
    let place = |(keypoint, point): (usize, &[f32; 3])| {
        let (x, y) = (cell(point[0], 0)?, cell(point[1], 1)?);
        let index = y * side + x;
        Some(Place { keypoint, index })
    };
    visible.filter_map(place).collect()
}

/// The keypoints of a box and the score of each, a logit, from heat maps `[keypoints, side, side]`: the
/// maximum of each after bicubic enlargement to the size of the box (torchvision's
/// `heatmaps_to_keypoints`).
pub(crate) fn keypoints_of_heatmaps(maps: &[f32], side: usize, b: &BBox) -> (Keypoints, Vec<f32>) {
    let axes = [0, 1].map(|axis| Axis::new(b[axis], b[axis + 2], side));
    let [x, y] = &axes;
    let point = |map: &[f32]| {
        let (row, column, score) = maximum(map, side, x, y);
        ([x.pixel(column), y.pixel(row), 1.0], score)
    };
    let (points, scores) = maps.chunks_exact(side * side).map(point).unzip();
    (Keypoints(points), scores)
}

/// Largest side that a heat map is enlarged to: that of the largest image.
const MAX_PIXELS: f32 = (1 << 24) as f32;

/// An axis of a heat map, enlarged to that of its box.
struct Axis {
    /// Where the box begins.
    low: f32,
    /// Width of a pixel of the enlarged map in pixels of the image: 1 or a little less.
    step: f32,
    /// The four values that each pixel is made of.
    taps: Vec<Taps>,
}

/// Four neighbours in the heat map, and how much each counts.
#[derive(Clone, Copy)]
struct Taps {
    indices: [usize; 4],
    weights: [f32; 4],
}

impl Axis {
    fn new(low: f32, high: f32, side: usize) -> Self {
        let length = (high - low).clamp(1.0, MAX_PIXELS);
        let pixels = length.ceil();
        let scale = side as f32 / pixels;
        let taps = (0..pixels as usize).map(|pixel| Taps::new(pixel, scale, side));
        Self {
            low,
            step: length / pixels,
            taps: taps.collect(),
        }
    }

    /// Coordinate in the image of the centre of a pixel.
    fn pixel(&self, index: usize) -> f32 {
        (index as f32 + 0.5) * self.step + self.low
    }
}

impl Taps {
    /// torch's for `mode="bicubic", align_corners=False`.
    fn new(pixel: usize, scale: f32, side: usize) -> Self {
        const A: f32 = -0.75;
        let place = scale * (pixel as f32 + 0.5) - 0.5;
        let first = place.floor().min((side - 1) as f32);
        let t = (place - first).clamp(0.0, 1.0);
        let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
        let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
        let last = side as i64 - 1;
        let index = |offset: i64| (first as i64 + offset).clamp(0, last) as usize;
        Self {
            indices: [-1, 0, 1, 2].map(index),
            weights: [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)],
        }
    }

    fn mix(&self, value: impl Fn(usize) -> f32) -> f32 {
        let [a, b, c, d] = self.indices.map(value);
        let [wa, wb, wc, wd] = self.weights;
        a * wa + b * wb + c * wc + d * wd
    }
}

/// Row, column and value of the first maximum of a heat map enlarged along both axes.
///
/// A row is computed only if it can hold the maximum: its values lie within what the largest and the
/// smallest of its four source rows can make.
fn maximum(map: &[f32], side: usize, x: &Axis, y: &Axis) -> (usize, usize, f32) {
    let width = x.taps.len();
    let mut rows = Vec::with_capacity(side * width);
    let (mut low, mut high) = (Vec::new(), Vec::new());
    for row in map.chunks_exact(side) {
        let start = rows.len();
        rows.extend(x.taps.iter().map(|taps| taps.mix(|i| row[i])));
        let wide = &rows[start..];
        low.push(wide.iter().copied().fold(f32::INFINITY, f32::min));
        high.push(wide.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    }
    let bound = |taps: &Taps| {
        let terms = taps.indices.iter().zip(taps.weights);
        let terms = terms.map(|(&i, weight)| weight * if weight > 0.0 { high[i] } else { low[i] });
        let bound: f32 = terms.sum();
        // What rounding may add.
        bound + 1e-5 * bound.abs()
    };
    let mut best = (0, 0, f32::NEG_INFINITY);
    let mut bounds: Vec<(usize, f32)> = y.taps.iter().map(bound).enumerate().collect();
    // The most promising first, so that most others need not be looked at.
    bounds.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (at, bound) in bounds {
        if bound < best.2 {
            break;
        }
        let taps = &y.taps[at];
        for column in 0..width {
            let value = taps.mix(|i| rows[i * width + column]);
            if value > best.2 || (value == best.2 && (at, column) < (best.0, best.1)) {
                best = (at, column, value);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of several bumps.
    fn map(side: usize, seed: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 997) as f32 / 100.0 - 5.0;
        (0..side * side).map(value).collect()
    }

    #[test]
    fn skipped_rows_do_not_hold_the_maximum() {
        for (seed, (width, height)) in [(3.0, 90.0), (64.5, 31.25), (200.0, 120.0), (0.2, 0.3)]
            .into_iter()
            .enumerate()
        {
            let map = map(56, seed);
            let (x, y) = (
                Axis::new(1.5, 1.5 + width, 56),
                Axis::new(2.0, 2.0 + height, 56),
            );
            let (row, column, best) = maximum(&map, 56, &x, &y);
            for (j, down) in y.taps.iter().enumerate() {
                for (i, across) in x.taps.iter().enumerate() {
                    let value = down.mix(|r| across.mix(|c| map[r * 56 + c]));
                    assert!(value < best || (j, i) >= (row, column), "{seed}: {j}, {i}");
                    assert!(value <= best, "{seed}: {j}, {i}");
                }
            }
        }
    }

    #[test]
    fn a_keypoint_on_the_far_edge_is_in_the_last_cell() {
        let sample = Positive {
            row: 0,
            image: 0,
            proposal: [10.0, 20.0, 66.0, 76.0],
            label: 1,
            object: 0,
        };
        let points = vec![
            [66.0, 76.0, 2.0],
            [10.0, 20.0, 1.0],
            [66.5, 30.0, 2.0],
            [30.0, 30.0, 0.0],
            [9.9, 30.0, 2.0],
        ];
        let targets = [Instances {
            keypoints: Some(vec![Keypoints(points)]),
            ..Instances::new(vec![[0.0, 0.0, 90.0, 90.0]], vec![1])
        }];
        let found: Vec<_> = places(&sample, &targets, 56)
            .iter()
            .map(|place| (place.keypoint, place.index))
            .collect();
        assert_eq!(found, [(0, 56 * 56 - 1), (1, 0)]);
        assert!(places(&sample, &[Instances::default()], 56).is_empty());
    }
}
