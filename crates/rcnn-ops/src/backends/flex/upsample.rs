//! Nearest-neighbour resizing of images as pixels.

use rayon::prelude::*;

use super::pool::{Floats, LANES, Lane};

/// Brings images of one size to another.
pub(super) fn forward(x: &[Lane], lanes: usize, from: [usize; 2], to: [usize; 2]) -> Floats {
    let image = from[0] * from[1] * lanes;
    let images = x.len() / image.max(1);
    let columns: Vec<usize> = sources(from[1], to[1]).collect();
    let rows: Vec<usize> = sources(from[0], to[0]).collect();
    let mut output = Floats::new(images * to[0] * to[1] * lanes * LANES);
    output
        .lanes_mut()
        .par_chunks_mut((to[1] * lanes).max(1))
        .enumerate()
        .for_each(|(i, out)| {
            let row = i / to[0] * image + rows[i % to[0]] * from[1] * lanes;
            for (out, column) in out.chunks_mut(lanes).zip(&columns) {
                out.copy_from_slice(&x[row + column * lanes..][..lanes]);
            }
        });
    output
}

/// The position that each new one takes its value from, as Burn and torch count.
fn sources(from: usize, to: usize) -> impl Iterator<Item = usize> {
    let ratio = from as f64 / to as f64;
    (0..to).map(move |i| ((i as f64 * ratio) as usize).min(from - 1))
}
