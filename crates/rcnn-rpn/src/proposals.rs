//! Selection of proposals: the best anchors of each level, decoded, clipped, suppressed.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, DType, Tensor, TensorData, activation::sigmoid};
use rcnn_ops::{
    BBox, BoxRules, DetectionBackend, Phase, box_area, clip_box, clip_boxes, grouped_nms, top_k,
};
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
pub const MIN_SIZE: f32 = 1e-3;

/// Candidates for each proposal at first.
const CANDIDATES: usize = 16;
/// How many times more where they leave too few. Suppression compares each with all that stay, so far too many take longer
/// than a few in vain before.
const MORE_CANDIDATES: usize = 4;

impl Proposals {
    /// Clips the boxes to an image and drops those that are empty then.
    fn clip(&mut self, size: Size) {
        let clipped = self.boxes.iter().map(|b| clip_box(b, size));
        let rows = clipped.zip(self.scores.iter().copied());
        let rows = rows.filter(|(b, _)| box_area(b) > 0.0);
        (self.boxes, self.scores) = rows.unzip();
    }
}

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
        let levels: Vec<_> = output.levels().zip(anchors).collect();
        // Suppression asks better boxes only: of one level, as many of the best do as leave enough.
        let longest = levels.iter().map(|((logits, _), _)| logits.dims()[1]).max();
        let all = pre_nms.min(longest.unwrap_or(0));
        let mut candidates = match levels.len() {
            1 => all.min(post_nms.saturating_mul(CANDIDATES)),
            _ => all,
        };
        loop {
            let best: Vec<Tensor<B, 3>> = (levels.iter().cloned())
                .map(|((logits, deltas), anchors)| {
                    self.best(logits, deltas, anchors, &sizes, candidates, phase)
                })
                .collect();
            let found = self.suppressed(best, image_sizes, post_nms);
            let is_complete = |(_, kept): &(Proposals, usize)| *kept >= post_nms;
            if candidates == all || found.iter().all(is_complete) {
                return found.into_iter().map(|(proposals, _)| proposals).collect();
            }
            candidates = candidates.saturating_mul(MORE_CANDIDATES).min(all);
        }
    }

    /// The best rows of each level that survive suppression, best first, and their number before the rules dropped some.
    fn suppressed(
        &self,
        best: Vec<Tensor<B, 3>>,
        image_sizes: &[Size],
        post_nms: usize,
    ) -> Vec<(Proposals, usize)> {
        let images = image_sizes.len();
        let (levels, most) = (best.len(), longest(&best));
        let rows = Tensor::cat(best.into_iter().map(|rows| padded(rows, most)).collect(), 1);
        let keep = self.keep(rows.clone().reshape([images * levels, most, 5]));
        let keep = keep.reshape([images, levels * most, 1]);
        let rows = Tensor::cat(vec![rows, keep], 2);

        let rows: Vec<f32> = rows.into_data().into_vec().expect("f32");
        let (rows, _) = rows.as_chunks::<6>();
        let rows = rows.chunks(levels * most).zip(image_sizes);
        rows.map(|(rows, size)| {
            let mut found = proposals(rows, post_nms);
            let kept = found.boxes.len();
            if self.config.box_rules == BoxRules::Tensorflow2019 {
                found.clip(*size);
            }
            (found, kept)
        })
        .collect()
    }

    /// Which of the rows `[G, K, 5]` of each level and image are large and good enough and not
    /// suppressed: `[G, K]`, 1 or 0.
    fn keep(&self, rows: Tensor<B, 3>) -> Tensor<B, 2> {
        let [groups, k, _] = rows.dims();
        let column = |i: usize| rows.clone().narrow(2, i, 1).reshape([groups, k]);
        let large =
            |low: usize, side: f32| (column(low + 2) - column(low)).greater_equal_elem(side);
        let scores = column(4);
        let threshold = self.config.score_thresh;
        let good = match self.config.box_rules {
            BoxRules::Torchvision => scores.clone().greater_equal_elem(threshold),
            _ => scores.clone().greater_elem(threshold),
        };
        let eligible = match self.config.box_rules {
            BoxRules::Torchvision => good
                .bool_and(large(0, MIN_SIZE))
                .bool_and(large(1, MIN_SIZE)),
            BoxRules::Tensorflow2018 => {
                let any = f32::MIN_POSITIVE;
                good.bool_and(large(0, any)).bool_and(large(1, any))
            }
            BoxRules::Tensorflow2019 => good,
        };
        let scores = scores.mask_fill(eligible.bool_not(), -1.0);
        let boxes = rows.narrow(2, 0, 4);
        grouped_nms(boxes, scores, self.config.nms_thresh).float()
    }

    /// The best anchors of one level, decoded by the rules: `[N, K, 5]`, xyxy and objectness from 0 to 1.
    fn best(
        &self,
        logits: Tensor<B, 2>,
        deltas: Tensor<B, 3>,
        anchors: &Tensor<B, 2>,
        sizes: &Tensor<B, 2>,
        most: usize,
        phase: Phase,
    ) -> Tensor<B, 3> {
        let [n, total] = logits.dims();
        let k = total.min(most);
        // Half precision ends here: it would be pixels off.
        let mut logits = logits.cast(DType::F32);
        let rules = self.config.box_rules;
        if rules != BoxRules::Torchvision && phase == Phase::Training {
            let outside = crosses(anchors, sizes);
            logits = logits.detach().mask_fill(outside, f32::NEG_INFINITY);
        }
        let (logits, index) = top_k(logits, k);
        let anchors = anchors.clone().select(0, index.clone().reshape([n * k]));
        let index = index.unsqueeze_dim::<3>(2).expand([n, k, 4]);
        let deltas = deltas.detach().gather(1, index).reshape([n * k, 4]);
        let sizes = sizes.clone().unsqueeze_dim::<3>(1).expand([n, k, 2]);
        let sizes = sizes.reshape([n * k, 2]);
        let anchors = match rules {
            BoxRules::Torchvision => anchors,
            _ => clip_boxes(anchors.unsqueeze_dim(1), sizes.clone()).squeeze_dim(1),
        };
        let coder = self.config.box_coder();
        let boxes = coder.decode_by(rules, deltas.cast(DType::F32), anchors, sizes);
        let boxes = boxes.reshape([n, k, 4]);
        Tensor::cat(vec![boxes, sigmoid(logits).unsqueeze_dim(2)], 2)
    }
}

/// Which anchors `[A, 4]` reach out of which images, of sizes `[N, 2]`: `[N, A]`.
fn crosses<B: Backend>(anchors: &Tensor<B, 2>, sizes: &Tensor<B, 2>) -> Tensor<B, 2, Bool> {
    let ([a, _], [n, _]) = (anchors.dims(), sizes.dims());
    let column = |i: usize| {
        anchors
            .clone()
            .narrow(1, i, 1)
            .reshape([1, a])
            .expand([n, a])
    };
    let side = |i: usize| sizes.clone().narrow(1, i, 1).expand([n, a]);
    let before = column(0).lower_elem(0.0).bool_or(column(1).lower_elem(0.0));
    let after = column(2)
        .greater(side(1))
        .bool_or(column(3).greater(side(0)));
    before.bool_or(after)
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
