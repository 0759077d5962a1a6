//! Images normalised, resized and padded in one pass.

use rayon::prelude::*;

use crate::arena::Floats;

/// The two positions that a new one lies between along an axis, and how far it is from the first, from
/// 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Tap {
    /// The position before.
    pub low: usize,
    /// The position after.
    pub high: usize,
    /// The part that the position after has in the new one.
    pub weight: f32,
}

/// Normalisation, size and padding of an image of three channels.
#[derive(Clone, Copy, Debug)]
pub struct FitImage<'a> {
    /// Mean of each channel, subtracted.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, divided by.
    pub std: [f32; 3],
    /// For each row of the resized image, the rows of the image to interpolate between.
    pub rows: &'a [Tap],
    /// For each column of the resized image, the columns of the image that it lies between.
    pub columns: &'a [Tap],
    /// Height and width with the zeros below and at the right, no less than rows and columns.
    pub padded: [usize; 2],
}

/// Fits an image of this height and width, as planes.
pub fn forward(fit: &FitImage<'_>, image: &[f32], [height, width]: [usize; 2]) -> Floats {
    let (rows, columns) = (fit.rows, fit.columns);
    let [padded_height, padded_width] = fit.padded;
    let mut output = Floats::new(3 * padded_height * padded_width);
    let lines = output.par_chunks_mut(padded_width).enumerate();
    lines.for_each(|(i, line)| {
        let (channel, y) = (i / padded_height, i % padded_height);
        let Some(row) = rows.get(y) else {
            return line.fill(0.0);
        };
        let (mean, std) = (fit.mean[channel], fit.std[channel]);
        let plane = &image[channel * height * width..][..height * width];
        let [low, high] = [row.low, row.high].map(|y| &plane[y * width..][..width]);
        let (line, margin) = line.split_at_mut(columns.len());
        margin.fill(0.0);
        if [height, width] == [rows.len(), columns.len()] {
            for (to, from) in line.iter_mut().zip(low) {
                *to = (from - mean) / std;
            }
            return;
        }
        for (to, column) in line.iter_mut().zip(columns) {
            let [above, below] = [low, high].map(|line| {
                let [left, right] = [column.low, column.high].map(|x| (line[x] - mean) / std);
                mix(left, right, column.weight)
            });
            *to = mix(above, below, row.weight);
        }
    });
    output
}

/// Linear interpolation from one value to the other.
fn mix(from: f32, to: f32, weight: f32) -> f32 {
    from * (1.0 - weight) + to * weight
}
