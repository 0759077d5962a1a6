//! Nearest-neighbour resizing.

use rayon::prelude::*;

use super::conv2d::vectorised;
use super::pool::Floats;

/// Brings planes of one size to another.
pub(super) fn forward(x: &[f32], from: [usize; 2], to: [usize; 2]) -> Floats {
    let planes = x.len() / (from[0] * from[1]).max(1);
    let (rows, columns) = (sources(from[0], to[0]), sources(from[1], to[1]));
    let mut output = Floats::new(planes * to[0] * to[1]);
    output
        .par_chunks_mut((to[0] * to[1]).max(1))
        .zip(x.par_chunks((from[0] * from[1]).max(1)))
        .for_each(|(out, x)| plane(x, from[1], &rows, &columns, out));
    output
}

/// The position that each new one takes its value from, as Burn and torch count.
fn sources(from: usize, to: usize) -> Vec<usize> {
    let ratio = from as f64 / to as f64;
    let source = |i: usize| ((i as f64 * ratio) as usize).min(from - 1);
    (0..to).map(source).collect()
}

vectorised! {
    fn plane(x: &[f32], width: usize, rows: &[usize], columns: &[usize], out: &mut [f32]) {
        let out_width = columns.len();
        for (y, &row) in rows.iter().enumerate() {
            if y > 0 && rows[y - 1] == row {
                out.copy_within((y - 1) * out_width..y * out_width, y * out_width);
                continue;
            }
            let (line, out) = (&x[row * width..][..width], &mut out[y * out_width..][..out_width]);
            if out_width == 2 * width {
                for (pair, value) in out.as_chunks_mut::<2>().0.iter_mut().zip(line) {
                    *pair = [*value; 2];
                }
            } else {
                for (out, &column) in out.iter_mut().zip(columns) {
                    *out = line[column];
                }
            }
        }
    }
}
