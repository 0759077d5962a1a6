//! Images normalised, resized and padded in one pass.

use rayon::prelude::*;

use super::pool::Floats;
use crate::ImageFit;
use crate::image::{Tap, taps};

/// Fits an image of so many rows and columns, in planes of three channels.
pub(super) fn fit(image: &[f32], [height, width]: [usize; 2], fit: &ImageFit) -> Floats {
    let rows: Vec<Tap> = taps(height, fit.size[0]).collect();
    let columns: Vec<Tap> = taps(width, fit.size[1]).collect();
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
        let (line, margin) = line.split_at_mut(fit.size[1]);
        margin.fill(0.0);
        if [height, width] == fit.size {
            for (to, from) in line.iter_mut().zip(low) {
                *to = (from - mean) / std;
            }
            return;
        }
        for (to, column) in line.iter_mut().zip(&columns) {
            let [above, below] = [low, high].map(|line| {
                let [left, right] = [column.low, column.high].map(|x| (line[x] - mean) / std);
                mix(left, right, column.weight)
            });
            *to = mix(above, below, row.weight);
        }
    });
    output
}

/// From one value so far to the other.
fn mix(from: f32, to: f32, weight: f32) -> f32 {
    from * (1.0 - weight) + to * weight
}
