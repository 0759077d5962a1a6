//! The highest values of each row: how the first stage picks its candidates.

use std::cmp::Ordering;

use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Int, Tensor, TensorData};

use crate::DetectionBackend;
use crate::channels::{primitive, tensor};

/// The `k` highest values of each row and where they stood, highest first; among equal values the
/// earlier one wins (`torch.topk`, which leaves that open). No gradients flow through it.
///
/// # Shapes
/// - values: `[R, N]`
/// - outputs: `[R, k]`
///
/// # Panics
/// Panics when `k` is greater than `N`.
pub fn top_k<B: DetectionBackend>(
    values: Tensor<B, 2>,
    k: usize,
) -> (Tensor<B, 2>, Tensor<B, 2, Int>) {
    let [_, n] = values.dims();
    assert!(k <= n, "the {k} highest of {n} values");
    let (values, indices) = B::top_k(primitive(values.detach()), k);
    (tensor(values), Tensor::from_primitive(indices))
}

/// [`DetectionBackend::top_k`], selected on the host.
pub fn reference<B: DetectionBackend>(
    values: FloatTensor<B>,
    k: usize,
) -> (FloatTensor<B>, IntTensor<B>) {
    let values = tensor::<B, 2>(values);
    let [rows, n] = values.dims();
    let data = values.to_data().convert::<f32>();
    let data = data.as_slice::<f32>().expect("converted to f32");
    let indices = (0..rows).flat_map(|row| top_indices(&data[row * n..][..n], k));
    let indices = TensorData::new(indices.collect::<Vec<i32>>(), [rows, k]);
    let indices = Tensor::<B, 2, Int>::from_data(indices, &values.device());
    let values = values.gather(1, indices.clone());
    (primitive(values), indices.into_primitive())
}

fn top_indices(values: &[f32], k: usize) -> Vec<i32> {
    let better = |&a: &i32, &b: &i32| -> Ordering {
        let (x, y) = (values[a as usize], values[b as usize]);
        y.total_cmp(&x).then(a.cmp(&b))
    };
    let mut indices: Vec<i32> = (0..values.len() as i32).collect();
    if k < indices.len() {
        indices.select_nth_unstable_by(k, better);
        indices.truncate(k);
    }
    indices.sort_unstable_by(better);
    indices
}

#[cfg(test)]
mod tests {
    use super::top_indices;

    #[test]
    fn highest_first_and_the_earlier_of_equals() {
        let values = [0.5, -1.0, 2.0, 0.5, f32::NEG_INFINITY, 2.0];
        assert_eq!(top_indices(&values, 3), [2, 5, 0]);
        assert_eq!(top_indices(&values, 6), [2, 5, 0, 3, 1, 4]);
        assert!(top_indices(&values, 0).is_empty());
        assert!(top_indices(&[], 0).is_empty());
    }
}
