//! From scored anchors to proposals: best of each level, decoded, clipped, suppressed.

use burn::tensor::{Tensor, activation::sigmoid, backend::Backend};
use rcnn_backbone::Phase;
use rcnn_ops::{BBox, BoxCoder, batched_nms, clip_box};

use crate::{RegionProposalNetwork, RpnOutput};

/// Where one image might have objects.
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

impl<B: Backend> RegionProposalNetwork<B> {
    /// Selects the proposals of every image (torchvision's `filter_proposals`) from the head's
    /// output and the [`anchors`](Self::anchors) of each level.
    ///
    /// The best of every level are decoded on the device and read back together. torchvision keeps
    /// other numbers of them in training.
    pub fn select_proposals(
        &self,
        output: &RpnOutput<B>,
        anchors: &[Tensor<B, 2>],
        image_sizes: &[(usize, usize)],
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
        let best: Vec<Tensor<B, 3>> = output
            .levels()
            .zip(anchors)
            .map(|((logits, deltas), anchors)| best(logits, deltas, anchors, pre_nms))
            .collect();
        let level: Vec<usize> = best
            .iter()
            .enumerate()
            .flat_map(|(level, best)| vec![level; best.dims()[1]])
            .collect();
        let rows = Tensor::cat(best, 1).into_data().convert::<f32>();
        let rows: Vec<f32> = rows.into_vec().expect("converted to f32");
        rows.chunks(level.len() * 5)
            .zip(image_sizes)
            .map(|(rows, &size)| self.filter(rows, &level, size, post_nms))
            .collect()
    }

    /// Clips and suppresses the boxes of one image, `[x1, y1, x2, y2, score]` a row.
    fn filter(
        &self,
        rows: &[f32],
        level: &[usize],
        size: (usize, usize),
        most: usize,
    ) -> Proposals {
        let (mut boxes, mut scores, mut levels) = (Vec::new(), Vec::new(), Vec::new());
        for (row, &level) in rows.chunks(5).zip(level) {
            let clipped = clip_box(&[row[0], row[1], row[2], row[3]], size);
            let sides = (clipped[2] - clipped[0], clipped[3] - clipped[1]);
            if sides.0 >= MIN_SIZE && sides.1 >= MIN_SIZE && row[4] >= self.config.score_thresh {
                boxes.push(clipped);
                scores.push(row[4]);
                levels.push(level);
            }
        }
        let mut keep = batched_nms(&boxes, &scores, &levels, self.config.nms_thresh);
        keep.truncate(most);
        Proposals {
            boxes: keep.iter().map(|&i| boxes[i]).collect(),
            scores: keep.iter().map(|&i| scores[i]).collect(),
        }
    }
}

/// The best anchors of one level, decoded: `[N, K, 5]`, xyxy and objectness from 0 to 1.
fn best<B: Backend>(
    logits: Tensor<B, 2>,
    deltas: Tensor<B, 3>,
    anchors: &Tensor<B, 2>,
    most: usize,
) -> Tensor<B, 3> {
    let [n, total] = logits.dims();
    let k = total.min(most);
    let (logits, index) = logits.detach().topk_with_indices(k, 1);
    let anchors = anchors.clone().select(0, index.clone().reshape([n * k]));
    let index = index.unsqueeze_dim::<3>(2).expand([n, k, 4]);
    let deltas = deltas.detach().gather(1, index).reshape([n * k, 4]);
    let boxes = BOX_CODER.decode(deltas, anchors).reshape([n, k, 4]);
    Tensor::cat(vec![boxes, sigmoid(logits).unsqueeze_dim(2)], 2)
}
