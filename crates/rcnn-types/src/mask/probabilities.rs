//! Masks as the network predicts them: a grid of probabilities over a box.

use super::{Mask, Segment};
use crate::Size;
use crate::boxes::{BBox, rotate_box_180, scale_box, shift_box};

/// Probabilities that a detected object covers each cell of a square grid over its box.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskProbabilities {
    /// The box that the grid covers, xyxy in pixels.
    pub bbox: BBox,
    /// Rows, and columns, of the grid: 28 in torchvision.
    pub side: usize,
    /// Probabilities `[side, side]`, row by row.
    pub values: Vec<f32>,
}

/// Grid cells of probability 0 that torchvision puts around the grid before it enlarges it.
const PADDING: usize = 1;

impl MaskProbabilities {
    /// The mask of an image of that size: the pixels whose probability is at least `threshold` after
    /// bilinear enlargement, with torchvision's rule (`paste_masks_in_image`).
    ///
    /// The mask is written as run lengths column by column, so that no image of probabilities is made.
    ///
    /// # Panics
    /// When the image has 2^32 pixels or more.
    pub fn paste(&self, image: Size, threshold: f32) -> Mask {
        let [x, y] = [0, 1].map(|axis| {
            let edge = if axis == 0 { image.width } else { image.height };
            Axis::new(self.bbox[axis], self.bbox[axis + 2], self.side, edge)
        });
        if threshold <= 0.0 || x.samples.is_empty() || y.samples.is_empty() {
            let everything = [(0, image.pixels())];
            let all = everything.into_iter().filter(|_| threshold <= 0.0);
            return Mask::from_runs(image, all);
        }
        let rows = y.stretches();
        let padded = self.padded();
        let side = self.side + 2 * PADDING;
        let mut column = vec![0.0; side];
        let mut segments: Vec<Segment> = Vec::new();
        for (at, sample) in x.samples.iter().enumerate() {
            for (value, row) in column.iter_mut().zip(padded.chunks_exact(side)) {
                *value = sample.mix(row);
            }
            let inside = |row: usize| y.samples[row].mix(&column) >= threshold;
            for &(first, last) in &rows {
                // Between two cells the probability rises or falls all along.
                let (start, end) = match (inside(first), inside(last)) {
                    (true, true) => (first, last + 1),
                    (false, false) => continue,
                    (true, false) => (first, first + partition(first, last, &inside)),
                    (false, true) => {
                        let outside = |row: usize| !inside(row);
                        (first + partition(first, last, &outside), last + 1)
                    }
                };
                segments.push((x.start + at, y.start + start, y.start + end));
            }
        }
        Mask::from_segments(image, segments)
    }

    /// The grid with zeros around it.
    fn padded(&self) -> Vec<f32> {
        let side = self.side + 2 * PADDING;
        let mut padded = vec![0.0; side * side];
        let rows = padded.chunks_exact_mut(side).skip(PADDING);
        for (padded, row) in rows.zip(self.values.chunks_exact(self.side)) {
            padded[PADDING..PADDING + self.side].copy_from_slice(row);
        }
        padded
    }

    /// Multiplies the coordinates of the box.
    pub(crate) fn scale(&mut self, x: f32, y: f32) {
        self.bbox = scale_box(&self.bbox, x, y);
    }

    /// Moves the box.
    pub(crate) fn shift(&mut self, x: f32, y: f32) {
        self.bbox = shift_box(&self.bbox, x, y);
    }

    /// Mirrors box and grid left to right in an image of that width.
    pub(crate) fn flip(&mut self, width: usize) {
        let right = width as f32;
        let [x1, y1, x2, y2] = self.bbox;
        self.bbox = [right - x2, y1, right - x1, y2];
        self.values
            .chunks_exact_mut(self.side)
            .for_each(<[f32]>::reverse);
    }

    /// Turns box and grid upside down in an image of that size.
    pub(crate) fn rotate_180(&mut self, size: Size) {
        self.bbox = rotate_box_180(&self.bbox, size);
        self.values.reverse();
    }
}

/// Number of rows from `first` on, up to `last`, for which a condition holds that once ends.
fn partition(first: usize, last: usize, holds: &impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (first, last);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low - first
}

/// Where a pixel lies between two neighbours of the padded grid.
#[derive(Clone, Copy)]
struct Sample {
    low: usize,
    high: usize,
    /// Share of the higher one.
    share: f32,
}

impl Sample {
    fn mix(self, values: &[f32]) -> f32 {
        (1.0 - self.share) * values[self.low] + self.share * values[self.high]
    }
}

/// The pixels of an image that the enlarged grid covers along an axis.
struct Axis {
    /// The first of them.
    start: usize,
    /// Where each lies in the grid.
    samples: Vec<Sample>,
}

impl Axis {
    /// Of a box from `low` to `high` in an image of `edge` pixels.
    fn new(low: f32, high: f32, side: usize, edge: usize) -> Self {
        let padded = side + 2 * PADDING;
        // The box grows with the padding; pixels are cut off, as torchvision does.
        let scale = padded as f32 / side as f32;
        let half = (high - low) * 0.5 * scale;
        let centre = (high + low) * 0.5;
        let (low, high) = ((centre - half) as i64, (centre + half) as i64);
        let pixels = (high.saturating_sub(low).saturating_add(1)).max(1);
        let start = low.clamp(0, edge as i64);
        let end = high.saturating_add(1).clamp(start, edge as i64);
        let step = padded as f32 / pixels as f32;
        let sample = |pixel: i64| {
            let place = (step * (pixel.saturating_sub(low) as f32 + 0.5) - 0.5).max(0.0);
            let low = (place as usize).min(padded - 1);
            Sample {
                low,
                high: (low + 1).min(padded - 1),
                share: (place - low as f32).min(1.0),
            }
        };
        Self {
            start: start as usize,
            samples: (start..end).map(sample).collect(),
        }
    }

    /// First and last pixel of each run of pixels between the same two neighbours.
    fn stretches(&self) -> Vec<(usize, usize)> {
        let runs = self.samples.chunk_by(|a, b| a.low == b.low);
        let stretch = |next: &mut usize, run: &[Sample]| {
            let first = *next;
            *next += run.len();
            Some((first, *next - 1))
        };
        runs.scan(0, stretch).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probabilities(bbox: BBox, values: impl Fn(usize, usize) -> f32) -> MaskProbabilities {
        let cells = (0..28).flat_map(|y| (0..28).map(move |x| (x, y)));
        MaskProbabilities {
            bbox,
            side: 28,
            values: cells.map(|(x, y)| values(x, y)).collect(),
        }
    }

    /// Every pixel by itself, without run lengths.
    fn pixels(mask: &MaskProbabilities, image: Size, threshold: f32) -> Vec<bool> {
        let x = Axis::new(mask.bbox[0], mask.bbox[2], mask.side, image.width);
        let y = Axis::new(mask.bbox[1], mask.bbox[3], mask.side, image.height);
        let padded = mask.padded();
        let mut bits = vec![false; image.pixels()];
        for (j, row) in y.samples.iter().enumerate() {
            for (i, column) in x.samples.iter().enumerate() {
                let [upper, lower] = [row.low, row.high].map(|r| column.mix(&padded[30 * r..]));
                let value = (1.0 - row.share) * upper + row.share * lower;
                bits[(y.start + j) * image.width + x.start + i] = value >= threshold;
            }
        }
        bits
    }

    #[test]
    fn run_lengths_are_those_of_the_pixels() {
        let image = Size::new(90, 120);
        let wave = |x: usize, y: usize| ((x * 7 + y * 11) % 17) as f32 / 16.0;
        for bbox in [
            [10.3, 5.7, 80.9, 77.2],
            [-20.0, -9.5, 40.0, 30.0],
            [100.0, 70.0, 300.0, 200.0],
            [50.2, 40.1, 52.0, 41.0],
            [50.0, 40.0, 50.0, 40.0],
            [200.0, 200.0, 210.0, 210.0],
            [-50.0, 10.0, -20.0, 30.0],
        ] {
            let mask = probabilities(bbox, wave);
            for threshold in [0.3, 0.5, 0.9] {
                let pasted = mask.paste(image, threshold);
                assert!(
                    pasted.to_bits() == pixels(&mask, image, threshold),
                    "{bbox:?}"
                );
            }
        }
    }

    #[test]
    fn a_certain_mask_fills_its_box() {
        let mask =
            probabilities([20.0, 10.0, 48.0, 38.0], |_, _| 1.0).paste(Size::new(60, 70), 0.5);
        assert_eq!(mask.bounds(), [20.0, 10.0, 49.0, 39.0]);
        let all = probabilities([20.0, 10.0, 48.0, 38.0], |_, _| 0.0).paste(Size::new(6, 7), 0.0);
        assert_eq!(all.area(), 42);
    }

    #[test]
    fn a_box_without_end_is_pasted_all_the_same() {
        for edge in [f32::INFINITY, f32::NAN, 1e30] {
            let mask = probabilities([0.0, 0.0, edge, 8.0], |_, _| 1.0);
            assert!(mask.paste(Size::new(10, 10), 0.5).area() <= 100);
        }
    }
}
