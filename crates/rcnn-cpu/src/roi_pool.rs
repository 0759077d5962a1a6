//! RoIPool: the largest value in each bin of a box.

use rayon::prelude::*;

use crate::roi_align::Roi;

/// Options of RoIPool, in torchvision's terms.
#[derive(Clone, Copy, Debug)]
pub struct RoiPool {
    /// Rows and columns of bins.
    pub output_size: [usize; 2],
    /// Pixels of the features for one of the network's input.
    pub spatial_scale: f32,
}

/// The largest value of each bin of each box, and its position `y * W + x`; of an empty bin, 0 and -1.
/// Both are `[K, C, output height, output width]`; features are `[N, C, H, W]`, as planes.
pub fn forward(
    options: &RoiPool,
    features: &[f32],
    [_, c, h, w]: [usize; 4],
    rois: &[Roi],
) -> (Vec<f32>, Vec<i32>) {
    let [out_h, out_w] = options.output_size;
    let scale = options.spatial_scale;
    let size = rois.len() * c * out_h * out_w;
    let (mut values, mut positions) = (vec![0.0f32; size], vec![-1i32; size]);
    let per_roi = (c * out_h * out_w).max(1);
    values
        .par_chunks_mut(per_roi)
        .zip(positions.par_chunks_mut(per_roi))
        .zip(rois)
        .for_each(|((values, positions), roi)| {
            let [x1, y1, x2, y2] = roi.bounds;
            let rows = windows(y1, y2, h, out_h, scale);
            let columns = windows(x1, x2, w, out_w, scale);
            for channel in 0..c {
                let plane = (roi.image * c + channel) * h * w;
                let plane = &features[plane..plane + h * w];
                for bin in 0..out_h * out_w {
                    let at = channel * out_h * out_w + bin;
                    let (rows, columns) = (rows[bin / out_w], columns[bin % out_w]);
                    if let Some(best) = first_max(plane, w, rows, columns) {
                        values[at] = plane[best];
                        positions[at] = best as i32;
                    }
                }
            }
        });
    (values, positions)
}

/// First and last-but-one pixel of each of RoIPool's bins along an axis of `length` pixels.
fn windows(low: f32, high: f32, length: usize, bins: usize, scale: f32) -> Vec<(usize, usize)> {
    let start = (low * scale).round();
    let size = ((high * scale).round() - start + 1.0).max(1.0) / bins as f32;
    let clip = |edge: f32| (edge + start).clamp(0.0, length as f32) as usize;
    (0..bins)
        .map(|bin| {
            let bin = bin as f32;
            (
                clip((bin * size).floor()),
                clip(((bin + 1.0) * size).ceil()),
            )
        })
        .collect()
}

fn first_max(
    plane: &[f32],
    width: usize,
    (top, bottom): (usize, usize),
    (left, right): (usize, usize),
) -> Option<usize> {
    let mut best = None;
    for y in top..bottom {
        for position in y * width + left..y * width + right {
            if best.is_none_or(|b: usize| plane[position] > plane[b]) {
                best = Some(position);
            }
        }
    }
    best
}
