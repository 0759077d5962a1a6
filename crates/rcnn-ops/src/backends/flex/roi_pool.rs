//! RoIPool's forward pass: a task for each box. Its backward pass is the reference body.

use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::{dims, parse_rois, pixels, tensor};
use crate::{RoiPoolOptions, roi_pool};

/// Pooled values and the positions of the maxima; see [`roi_pool`](crate::roi_pool()).
pub(super) fn forward(
    features: FlexTensor,
    rois: FlexTensor,
    options: RoiPoolOptions,
) -> (FlexTensor, FlexTensor) {
    if features.dtype() != DType::F32 {
        return roi_pool::forward::<Flex>(features, rois, options);
    }
    let [_, c, h, w] = dims(&features);
    let features = pixels::to_planes(features);
    let features = features.storage::<f32>();
    let rois = parse_rois(rois);
    let [out_h, out_w] = options.output_size;
    let scale = options.spatial_scale;
    let size = rois.len() * c * out_h * out_w;
    let (mut values, mut positions) = (vec![0.0f32; size], vec![-1i32; size]);
    let per_roi = (c * out_h * out_w).max(1);
    values
        .par_chunks_mut(per_roi)
        .zip(positions.par_chunks_mut(per_roi))
        .zip(&rois)
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
    let shape = [rois.len(), c, out_h, out_w];
    let positions = FlexTensor::from_data(TensorData::new(positions, shape));
    (tensor(values, shape), positions)
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
