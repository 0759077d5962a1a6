//! Selection of proposals: the best anchors of each level, decoded, clipped, suppressed.

use burn::tensor::{DType, Tensor, TensorData, activation::sigmoid};
use rcnn_ops::{BBox, BoxCoder, DetectionBackend, Phase, grouped_nms, top_k};
use rcnn_types::Size;

use crate::{RegionProposalNetwork, RpnOutput};

/// Proposals of one image: boxes that might hold objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proposals {
    /// Boxes `[K, 4]`, xyxy in pixels of the resized image, best first.
    pub boxes: Vec<BBox>,
    /// Objectness of each, 0 to 1.
    pub scores: Vec<f32>,
}

/// Sides below which torchvision drops a proposal, in pixels.
const MIN_SIZE: f32 = 1e-3;

pub(crate) const BOX_CODER: BoxCoder = BoxCoder { weights: [1.0; 4] };

impl<B: DetectionBackend> RegionProposalNetwork<B> {
    /// Selects the proposals of every image (torchvision's `filter_proposals`) from the head's
    /// output and the [`anchors`](Self::anchors) of each level.
    ///
    /// All is done on the device and read back at once. torchvision keeps other numbers of them in
    /// training.
    pub fn select_proposals(
        &self,
        output: &RpnOutput<B>,
        anchors: &[Tensor<B, 2>],
        image_sizes: &[Size],
        phase: Phase,
    ) -> Vec<Proposals> {
        let (pre_nms, post_nms) = match phase {
            Phase::Inference => (
                self.config.pre_nms_top_n_test,
                self.config.post_nms_top_n_test,
            ),
            Phase::Training => (
                self.config.pre_nms_top_n_train,
                self.config.post_nms_top_n_train,
            ),
        };
        let images = image_sizes.len();
        let sizes: Vec<f32> = (image_sizes.iter())
            .flat_map(|size| [size.height as f32, size.width as f32])
            .collect();
        let sizes = TensorData::new(sizes, [images, 2]);
        let sizes = Tensor::from_data(sizes, &output.objectness[0].device());
        let best: Vec<Tensor<B, 3>> = output
            .levels()
            .zip(anchors)
            .map(|((logits, deltas), anchors)| best(logits, deltas, anchors, &sizes, pre_nms))
            .collect();
        let (levels, most) = (best.len(), longest(&best));
        let rows = Tensor::cat(best.into_iter().map(|rows| padded(rows, most)).collect(), 1);
        let keep = self.keep(rows.clone().reshape([images * levels, most, 5]));
        let keep = keep.reshape([images, levels * most, 1]);
        let rows = Tensor::cat(vec![rows, keep], 2);

        let rows: Vec<f32> = rows.into_data().into_vec().expect("f32");
        let (rows, _) = rows.as_chunks::<6>();
        rows.chunks(levels * most)
            .map(|rows| proposals(rows, post_nms))
            .collect()
    }

    /// Which of the rows `[G, K, 5]` of each level and image are large and good enough and not
    /// suppressed: `[G, K]`, 1 or 0.
    fn keep(&self, rows: Tensor<B, 3>) -> Tensor<B, 2> {
        let [groups, k, _] = rows.dims();
        let column = |i: usize| rows.clone().narrow(2, i, 1).reshape([groups, k]);
        let large = |low: usize| (column(low + 2) - column(low)).greater_equal_elem(MIN_SIZE);
        let scores = column(4);
        let good = scores.clone().greater_equal_elem(self.config.score_thresh);
        let eligible = large(0).bool_and(large(1)).bool_and(good);
        let scores = scores.mask_fill(eligible.bool_not(), -1.0);
        let boxes = rows.narrow(2, 0, 4);
        grouped_nms(boxes, scores, self.config.nms_thresh).float()
    }
}

/// The kept rows of one image, `[x1, y1, x2, y2, score, kept]`, best first.
fn proposals(rows: &[[f32; 6]], most: usize) -> Proposals {
    let mut kept: Vec<_> = rows.iter().filter(|row| row[5] > 0.0).collect();
    kept.sort_by(|a, b| b[4].total_cmp(&a[4]));
    kept.truncate(most);
    Proposals {
        boxes: kept.iter().map(|b| [b[0], b[1], b[2], b[3]]).collect(),
        scores: kept.iter().map(|row| row[4]).collect(),
    }
}

/// The best anchors of one level, decoded and clipped: `[N, K, 5]`, xyxy and objectness from 0 to 1.
fn best<B: DetectionBackend>(
    logits: Tensor<B, 2>,
    deltas: Tensor<B, 3>,
    anchors: &Tensor<B, 2>,
    sizes: &Tensor<B, 2>,
    most: usize,
) -> Tensor<B, 3> {
    let [n, total] = logits.dims();
    let k = total.min(most);
    // Half precision ends here: it would be pixels off.
    let (logits, index) = top_k(logits.cast(DType::F32), k);
    let anchors = anchors.clone().select(0, index.clone().reshape([n * k]));
    let index = index.unsqueeze_dim::<3>(2).expand([n, k, 4]);
    let deltas = deltas.detach().gather(1, index).reshape([n * k, 4]);
    let sizes = sizes.clone().unsqueeze_dim::<3>(1).expand([n, k, 2]);
    let sizes = sizes.reshape([n * k, 2]);
    let boxes = BOX_CODER.decode_clipped(deltas.cast(DType::F32), anchors, sizes);
    let boxes = boxes.reshape([n, k, 4]);
    Tensor::cat(vec![boxes, sigmoid(logits).unsqueeze_dim(2)], 2)
}

fn longest<B: DetectionBackend>(levels: &[Tensor<B, 3>]) -> usize {
    levels.iter().map(|rows| rows.dims()[1]).max().unwrap_or(0)
}

/// Rows `[N, K, 5]` with empty boxes after them, which are never kept, up to `most`.
fn padded<B: DetectionBackend>(rows: Tensor<B, 3>, most: usize) -> Tensor<B, 3> {
    let [n, k, columns] = rows.dims();
    match most - k {
        0 => rows,
        rest => {
            let padding = Tensor::zeros([n, rest, columns], &rows.device());
            Tensor::cat(vec![rows, padding], 1)
        }
    }
}
