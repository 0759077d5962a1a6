//! Decoding with clipping, and IoU, box by box.

use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;
use rcnn_types::Size;

use crate::box_coder::BBOX_XFORM_CLIP;
use crate::{box_coder, box_iou, boxes, clip_box};

/// `[N, D]` of another precision than f32 is left to the reference bodies.
fn all_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

pub(super) fn decode(
    deltas: FlexTensor,
    references: FlexTensor,
    sizes: FlexTensor,
    weights: [f32; 4],
) -> FlexTensor {
    if !all_f32(&[&deltas, &references, &sizes]) {
        return box_coder::reference::<Flex>(deltas, references, sizes, weights);
    }
    let [n, columns] = deltas.layout().shape().dims();
    let [deltas, references, sizes] = [deltas, references, sizes].map(|t| t.to_contiguous());
    let (references, _) = references.storage::<f32>().as_chunks::<4>();
    let (sizes, _) = sizes.storage::<f32>().as_chunks::<2>();
    let mut boxes = vec![0.0f32; n * columns];
    boxes
        .par_chunks_mut(columns.max(1))
        .zip(deltas.storage::<f32>().par_chunks(columns.max(1)))
        .enumerate()
        .for_each(|(row, (boxes, deltas))| {
            let [x1, y1, x2, y2] = references[row];
            let (width, height) = (x2 - x1, y2 - y1);
            let (x, y) = (x1 + width * 0.5, y1 + height * 0.5);
            let size = Size::new(sizes[row][0] as usize, sizes[row][1] as usize);
            let (boxes, _) = boxes.as_chunks_mut::<4>();
            for (output, deltas) in boxes.iter_mut().zip(deltas.as_chunks::<4>().0) {
                let delta = |i: usize| deltas[i] / weights[i];
                let scale = |i: usize| delta(i).min(BBOX_XFORM_CLIP as f32).exp();
                let (x, y) = (delta(0) * width + x, delta(1) * height + y);
                let half = (scale(2) * width * 0.5, scale(3) * height * 0.5);
                let decoded = [x - half.0, y - half.1, x + half.0, y + half.1];
                *output = clip_box(&decoded, size);
            }
        });
    FlexTensor::from_data(TensorData::new(boxes, [n, columns / 4, 4]))
}

pub(super) fn iou(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    if !all_f32(&[&a, &b]) {
        return boxes::iou_reference::<Flex>(a, b);
    }
    let ([m, _], [n, _]) = (a.layout().shape().dims(), b.layout().shape().dims());
    let [a, b] = [a, b].map(|t| t.to_contiguous());
    let (a, b) = (
        a.storage::<f32>().as_chunks::<4>().0,
        b.storage::<f32>().as_chunks::<4>().0,
    );
    let pairs = a
        .par_iter()
        .flat_map_iter(|a| b.iter().map(move |b| box_iou(a, b)));
    FlexTensor::from_data(TensorData::new(pairs.collect::<Vec<f32>>(), [m, n]))
}
