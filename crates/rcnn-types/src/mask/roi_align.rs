//! A mask cut out by a box, as the target of the mask branch.

use super::Mask;
use crate::BBox;

impl Mask {
    /// The share of the object in each cell of a grid of `side` x `side` over a box, row by row: what
    /// torchvision's `roi_align` makes of the mask's ones and zeros, with as many samples as a cell has
    /// pixels (`project_masks_on_boxes`).
    ///
    /// The samples of a cell are a product of rows and columns, so that each run of a column adds the
    /// difference of two sums; the mask is never written out.
    pub fn roi_align(&self, b: &BBox, side: usize) -> Vec<f32> {
        let [columns, rows] = [(0, self.size.width), (1, self.size.height)]
            .map(|(axis, edge)| weights(b[axis], b[axis + 2], side, edge));
        // Sums of the weights of the first rows, for each row of the grid.
        let sums: Vec<Vec<f64>> = rows.iter().map(|row| cumulated(row)).collect();
        let mut cells = vec![0.0f64; side * side];
        let counts = |x: usize| columns.iter().any(|column| column[x] > 0.0);
        let counts: Vec<bool> = (0..self.size.width).map(counts).collect();
        for (x, top, bottom) in self.segments().filter(|(x, ..)| counts[*x]) {
            for (sums, cells) in sums.iter().zip(cells.chunks_exact_mut(side)) {
                let covered = sums[bottom] - sums[top];
                if covered == 0.0 {
                    continue;
                }
                for (cell, column) in cells.iter_mut().zip(&columns) {
                    *cell += covered * f64::from(column[x]);
                }
            }
        }
        cells.into_iter().map(|cell| cell as f32).collect()
    }
}

/// Most samples of a cell along an axis, so that a box of any size is an ordinary one.
const MAX_SAMPLES: f32 = 4096.0;

/// How much each pixel of an axis of `edge` pixels counts in each of `side` cells from `low` to `high`.
fn weights(low: f32, high: f32, side: usize, edge: usize) -> Vec<Vec<f32>> {
    let length = (high - low).max(1.0);
    let cell = length / side as f32;
    let samples = cell.ceil().clamp(1.0, MAX_SAMPLES);
    let sampled = |index: usize| {
        let mut weights = vec![0.0; edge];
        let mut sample = 0.0;
        while sample < samples {
            let place = low + index as f32 * cell + (sample + 0.5) * cell / samples;
            sample += 1.0;
            // Outside, torchvision samples zero; half a pixel beyond the edge is the edge.
            if edge == 0 || !(-1.0..=edge as f32).contains(&place) {
                continue;
            }
            let place = place.max(0.0);
            let first = (place as usize).min(edge - 1);
            let share = if first == edge - 1 {
                0.0
            } else {
                place - first as f32
            };
            weights[first] += (1.0 - share) / samples;
            if share > 0.0 {
                weights[first + 1] += share / samples;
            }
        }
        weights
    };
    (0..side).map(sampled).collect()
}

/// The sum of the first values, for none of them, one, two, and so on.
fn cumulated(values: &[f32]) -> Vec<f64> {
    let mut sums = vec![0.0];
    let mut sum = 0.0;
    sums.extend(values.iter().map(|value| {
        sum += f64::from(*value);
        sum
    }));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Size;

    /// Made by torchvision 0.29.2: `roi_align(mask[None, None].float(), [box], (3, 3), 1.0)`.
    #[test]
    fn cells_are_torchvisions() {
        let size = Size::new(9, 11);
        let bit = |index: usize| (index / 11 * 3 + index % 11 * 5) % 7 < 3;
        let bits: Vec<bool> = (0..99).map(bit).collect();
        let mask = Mask::from_bits(&bits, size);
        for (b, expected) in CASES {
            let found = mask.roi_align(b, 3);
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{b:?}: {found} is not {expected}"
                );
            }
        }
    }

    const CASES: &[(BBox, [f32; 9])] = &[
        (
            [1.25, 0.5, 9.75, 7.0],
            [
                0.47239366, 0.41615236, 0.409465, 0.36128256, 0.47359392, 0.4260974, 0.45764744,
                0.36694103, 0.49622774,
            ],
        ),
        (
            [-3.0, -2.5, 4.0, 5.0],
            [
                0.0, 0.16666669, 0.1419753, 0.0, 0.3168724, 0.47736624, 0.0, 0.4886831, 0.3677983,
            ],
        ),
        (
            [6.0, 4.0, 14.5, 12.0],
            [
                0.39917696, 0.32201645, 0.0, 0.40397808, 0.12894365, 0.0, 0.0, 0.0, 0.0,
            ],
        ),
        (
            [2.0, 2.0, 2.25, 2.5],
            [
                0.83333325, 0.83333325, 0.83333325, 0.5, 0.5, 0.5, 0.16666651, 0.16666651,
                0.16666651,
            ],
        ),
        (
            [0.0, 0.0, 11.0, 9.0],
            [
                0.43229166, 0.41666666, 0.44618055, 0.40972224, 0.453125, 0.3871528, 0.3871528,
                0.46354163, 0.37847218,
            ],
        ),
    ];
}
