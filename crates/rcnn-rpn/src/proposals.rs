//! From scored anchors to proposals: best of each level, decoded, clipped, suppressed.

use burn::tensor::{Tensor, activation::sigmoid, backend::Backend};
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

const BOX_CODER: BoxCoder = BoxCoder { weights: [1.0; 4] };

impl<B: Backend> RegionProposalNetwork<B> {
    /// Selects the proposals of every image (torchvision's `filter_proposals`) from the head's
    /// output and the [`anchors`](Self::anchors) of each level.
    ///
    /// The best of every level are decoded on the device and read back together.
    pub fn select_proposals(
        &self,
        output: RpnOutput<B>,
        anchors: Vec<Tensor<B, 2>>,
        image_sizes: &[(usize, usize)],
    ) -> Vec<Proposals> {
        let levels = output
            .objectness
            .into_iter()
            .zip(output.deltas)
            .zip(anchors);
        let best: Vec<Tensor<B, 3>> = levels
            .map(|((objectness, deltas), anchors)| self.best_of_level(objectness, deltas, anchors))
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
            .map(|(rows, &size)| self.filter(rows, &level, size))
            .collect()
    }

    /// The best anchors of one level, decoded: `[N, K, 5]`, xyxy and objectness from 0 to 1.
    fn best_of_level(
        &self,
        objectness: Tensor<B, 4>,
        deltas: Tensor<B, 4>,
        anchors: Tensor<B, 2>,
    ) -> Tensor<B, 3> {
        let [n, a, h, w] = objectness.dims();
        let total = a * h * w;
        let objectness = objectness.permute([0, 2, 3, 1]).reshape([n, total]);
        let deltas = deltas
            .reshape([n, a, 4, h, w])
            .permute([0, 3, 4, 1, 2])
            .reshape([n, total, 4]);
        let k = total.min(self.config.pre_nms_top_n_test);
        let (logits, index) = objectness.detach().topk_with_indices(k, 1);
        let anchors = anchors.select(0, index.clone().reshape([n * k]));
        let index = index.unsqueeze_dim::<3>(2).expand([n, k, 4]);
        let deltas = deltas.detach().gather(1, index).reshape([n * k, 4]);
        let boxes = BOX_CODER.decode(deltas, anchors).reshape([n, k, 4]);
        Tensor::cat(vec![boxes, sigmoid(logits).unsqueeze_dim(2)], 2)
    }

    /// Clips and suppresses the boxes of one image, `[x1, y1, x2, y2, score]` a row.
    fn filter(&self, rows: &[f32], level: &[usize], size: (usize, usize)) -> Proposals {
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
        keep.truncate(self.config.post_nms_top_n_test);
        Proposals {
            boxes: keep.iter().map(|&i| boxes[i]).collect(),
            scores: keep.iter().map(|&i| scores[i]).collect(),
        }
    }
}
