//! Overlaps of boxes on the device.

use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;

use crate::DetectionBackend;
use crate::channels::{primitive, tensor};

/// [`box_iou`](crate::box_iou) of every box with every other, on the device. No gradients flow through it.
///
/// # Shapes
/// - a: `[M, 4]`, b: `[N, 4]`, xyxy
/// - output: `[M, N]`
///
/// ```
/// # mod rcnn_burn { pub use burn::tensor::Tensor; pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::ops::box_iou_matrix;
/// use rcnn_burn::{Flex, Tensor};
///
/// let device = Default::default();
/// let a = Tensor::<Flex, 2>::from_floats([[0.0, 0.0, 10.0, 10.0]], &device);
/// let b = Tensor::from_floats([[0.0, 0.0, 10.0, 5.0], [20.0, 20.0, 30.0, 30.0]], &device);
/// let iou = box_iou_matrix(a, b).into_data();
/// assert_eq!(iou.to_vec::<f32>().unwrap(), [0.5, 0.0]);
/// ```
pub fn box_iou_matrix<B: DetectionBackend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    tensor(B::box_iou(primitive(a.detach()), primitive(b.detach())))
}

/// [`DetectionBackend::box_iou`], composed of Burn's operations.
pub fn iou_reference<B: DetectionBackend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    let (a, b) = (tensor::<B, 2>(a), tensor::<B, 2>(b));
    let ([m, _], [n, _]) = (a.dims(), b.dims());
    if m * n == 0 {
        return primitive(Tensor::<B, 2>::zeros([m, n], &a.device()));
    }
    let side = |low: usize| {
        let column = |boxes: &Tensor<B, 2>, i: usize| boxes.clone().narrow(1, i, 1);
        let row = |i: usize| column(&b, i).reshape([1, n]).expand([m, n]);
        let column = |i: usize| column(&a, i).expand([m, n]);
        let low_edge = column(low).max_pair(row(low));
        let high_edge = column(low + 2).min_pair(row(low + 2));
        let overlap = (high_edge - low_edge).clamp_min(0.0);
        (
            overlap,
            column(low + 2) - column(low),
            row(low + 2) - row(low),
        )
    };
    let ((width, a_width, b_width), (height, a_height, b_height)) = (side(0), side(1));
    let intersection = width * height;
    let union = a_width * a_height + b_width * b_height - intersection.clone();
    primitive(intersection / union)
}
