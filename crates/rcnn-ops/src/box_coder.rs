//! Boxes to regression deltas and back: Faster R-CNN's parametrisation of a box by its anchor.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, backend::Backend};

use crate::channels::{primitive, tensor};
use crate::{BoxRules, DetectionBackend};

/// Encodes and decodes boxes relative to reference boxes
/// (`torchvision.models.detection._utils.BoxCoder`; Ren et al. 2015, section 3.1.2).
///
/// ```
/// # mod rcnn_burn { pub use burn::tensor::Tensor; pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::ops::BoxCoder;
/// use rcnn_burn::{Flex, Tensor};
///
/// let device = Default::default();
/// let coder = BoxCoder { weights: [10.0, 10.0, 5.0, 5.0] };
/// let anchors = Tensor::<Flex, 2>::from_floats([[0.0, 0.0, 32.0, 32.0]], &device);
/// let objects = Tensor::from_floats([[4.0, 0.0, 36.0, 32.0]], &device);
/// let deltas = coder.encode(objects, anchors.clone());
/// assert_eq!(deltas.to_data().to_vec::<f32>().unwrap(), [1.25, 0.0, 0.0, 0.0]);
/// assert_eq!(coder.decode(deltas, anchors).dims(), [1, 1, 4]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxCoder {
    /// Weights of the deltas `dx, dy, dw, dh`.
    pub weights: [f32; 4],
}

/// Bound of `dw` and `dh` before the exponential: a box grows at most 1000/16 times.
pub const BBOX_XFORM_CLIP: f64 = 4.135_166_556_742_356;

impl BoxCoder {
    /// Deltas that turn each reference box into its target.
    ///
    /// # Shapes
    /// - targets, references: `[N, 4]`, xyxy in pixels
    /// - output: `[N, 4]`
    pub fn encode<B: Backend>(
        &self,
        targets: Tensor<B, 2>,
        references: Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let [tx, ty, tw, th] = center_size(targets);
        let [rx, ry, rw, rh] = center_size(references);
        let [wx, wy, ww, wh] = self.weights;
        Tensor::cat(
            vec![
                (tx - rx) / rw.clone() * wx,
                (ty - ry) / rh.clone() * wy,
                (tw / rw).log() * ww,
                (th / rh).log() * wh,
            ],
            1,
        )
    }

    /// Decodes the deltas of each class to boxes, relative to the reference boxes.
    ///
    /// # Shapes
    /// - deltas: `[N, 4 * C]`, class by class
    /// - references: `[N, 4]`, xyxy in pixels
    /// - output: `[N, C, 4]`, xyxy in pixels
    pub fn decode<B: Backend>(
        &self,
        deltas: Tensor<B, 2>,
        references: Tensor<B, 2>,
    ) -> Tensor<B, 3> {
        self.decode_within(deltas, references, Some(BBOX_XFORM_CLIP))
    }

    fn decode_within<B: Backend>(
        &self,
        deltas: Tensor<B, 2>,
        references: Tensor<B, 2>,
        bound: Option<f64>,
    ) -> Tensor<B, 3> {
        let [n, columns] = deltas.dims();
        let deltas = deltas.reshape([n, columns / 4, 4]);
        let [x, y, width, height] = center_size(references).map(|t| t.unsqueeze_dim::<3>(2));
        let delta = |i: usize| deltas.clone().narrow(2, i, 1) / self.weights[i];
        let size = |i: usize| match bound {
            Some(bound) => delta(i).clamp_max(bound).exp(),
            None => delta(i).exp(),
        };
        let center_x = delta(0) * width.clone() + x;
        let center_y = delta(1) * height.clone() + y;
        let half_width = size(2) * width * 0.5;
        let half_height = size(3) * height * 0.5;
        Tensor::cat(
            vec![
                center_x.clone() - half_width.clone(),
                center_y.clone() - half_height.clone(),
                center_x + half_width,
                center_y + half_height,
            ],
            2,
        )
    }

    /// [`decode`](Self::decode), clipped to the images. No gradients flow through it.
    ///
    /// # Shapes
    /// - deltas: `[N, 4 * C]`, class by class
    /// - references: `[N, 4]`, xyxy in pixels
    /// - sizes: `[N, 2]`, height and width of the image that each row belongs to
    /// - output: `[N, C, 4]`, xyxy in pixels
    pub fn decode_clipped<B: DetectionBackend>(
        &self,
        deltas: Tensor<B, 2>,
        references: Tensor<B, 2>,
        sizes: Tensor<B, 2>,
    ) -> Tensor<B, 3> {
        let [deltas, references, sizes] =
            [deltas, references, sizes].map(|t| primitive(t.detach()));
        tensor(B::decode_boxes(deltas, references, sizes, self.weights))
    }

    /// [`decode`](Self::decode) by rules: clipped to the images, unless these are to suppress each other first. No
    /// gradients flow through it.
    ///
    /// # Shapes
    /// As [`decode_clipped`](Self::decode_clipped).
    pub fn decode_by<B: DetectionBackend>(
        &self,
        rules: BoxRules,
        deltas: Tensor<B, 2>,
        references: Tensor<B, 2>,
        sizes: Tensor<B, 2>,
    ) -> Tensor<B, 3> {
        let unbounded = || self.decode_within(deltas.clone().detach(), references.clone(), None);
        match rules {
            BoxRules::Torchvision => self.decode_clipped(deltas, references, sizes),
            BoxRules::Tensorflow2018 => clip(unbounded(), sizes),
            BoxRules::Tensorflow2019 => unbounded(),
        }
    }
}

/// Clips boxes to images on the device.
///
/// # Shapes
/// - boxes: `[N, C, 4]`, xyxy in pixels
/// - sizes: `[N, 2]`, height and width of the image that each row belongs to
pub fn clip<B: Backend>(boxes: Tensor<B, 3>, sizes: Tensor<B, 2>) -> Tensor<B, 3> {
    let [n, classes, _] = boxes.dims();
    if n == 0 {
        return boxes;
    }
    let limits = Tensor::cat(vec![sizes.clone().flip([1]), sizes.flip([1])], 1);
    let limits = limits.reshape([n, 1, 4]).expand([n, classes, 4]);
    boxes.clamp_min(0.0).min_pair(limits)
}

/// [`DetectionBackend::decode_boxes`], composed of Burn's operations.
pub fn reference<B: DetectionBackend>(
    deltas: FloatTensor<B>,
    references: FloatTensor<B>,
    sizes: FloatTensor<B>,
    weights: [f32; 4],
) -> FloatTensor<B> {
    let boxes = BoxCoder { weights }.decode(tensor::<B, 2>(deltas), tensor(references));
    primitive(clip(boxes, tensor(sizes)))
}

/// Centre x, centre y, width and height of boxes `[N, 4]`, each `[N, 1]`.
fn center_size<B: Backend>(boxes: Tensor<B, 2>) -> [Tensor<B, 2>; 4] {
    let column = |i: usize| boxes.clone().narrow(1, i, 1);
    let width = column(2) - column(0);
    let height = column(3) - column(1);
    [
        column(0) + width.clone() * 0.5,
        column(1) + height.clone() * 0.5,
        width,
        height,
    ]
}
