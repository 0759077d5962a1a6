//! Suggests anchors that fit the boxes of a data set better than those at hand.

use rand::seq::index::sample;

use super::AnchorFit;
use super::anchors::{AnchorSpec, fit, resized_sides};
use super::cluster::k_means;
use crate::dataset::Dataset;
use crate::random::{Purpose, generator};

/// So many boxes tell the shapes of all.
const MOST_BOXES: usize = 20_000;

/// How much more of the boxes must be reached for a change of anchors to be worth it.
const WORTH: f64 = 0.005;

/// Anchors that reach more boxes with as many anchors, or `None`.
///
/// Candidates are sizes and shapes from clusters of the boxes, each alone and together. A change
/// of shapes alone keeps more of pretrained weights' worth, so it comes first among equals.
pub(super) fn better(dataset: &Dataset, at_hand: &AnchorFit, seed: u64) -> Option<AnchorFit> {
    let anchors = &at_hand.anchors;
    let mut rng = generator(seed, Purpose::Clusters, 0, 0);
    let mut boxes = resized_sides(dataset, anchors);
    if boxes.is_empty() || anchors.sizes.is_empty() {
        return None;
    }
    if boxes.len() > MOST_BOXES {
        let drawn = sample(&mut rng, boxes.len(), MOST_BOXES);
        boxes = drawn.into_iter().map(|i| boxes[i]).collect();
    }
    // Shapes apart from sizes: boxes of one area, and squares of the boxes' areas.
    let shapes: Vec<[f32; 2]> = boxes
        .iter()
        .map(|[w, h]| [(w / h).sqrt(), (h / w).sqrt()])
        .collect();
    let squares: Vec<[f32; 2]> = boxes.iter().map(|[w, h]| [(w * h).sqrt(); 2]).collect();

    let mut ratios: Vec<f32> = k_means(&shapes, anchors.aspect_ratios.len(), &mut rng)
        .into_iter()
        .map(|[w, h]| (h / w * 100.0).round() / 100.0)
        .filter(|&ratio| ratio > 0.0)
        .collect();
    let count = anchors.sizes.iter().map(Vec::len).sum();
    let mut sizes: Vec<f32> = k_means(&squares, count, &mut rng)
        .into_iter()
        .map(|[side, _]| side.round().max(1.0))
        .collect();
    for values in [&mut ratios, &mut sizes] {
        values.sort_by(f32::total_cmp);
        values.dedup();
    }
    let other_ratios = AnchorSpec {
        aspect_ratios: ratios.clone(),
        ..anchors.clone()
    };
    let mut candidates = vec![other_ratios];
    if let Some(sizes) = share_out(&sizes, &anchors.sizes) {
        for aspect_ratios in [&anchors.aspect_ratios, &ratios] {
            candidates.push(AnchorSpec {
                sizes: sizes.clone(),
                aspect_ratios: aspect_ratios.clone(),
                ..anchors.clone()
            });
        }
    }
    let score = |fit: &AnchorFit| fit.all.at_70 + fit.all.at_50;
    let mut best: Option<AnchorFit> = None;
    for candidate in candidates
        .into_iter()
        .filter(|c| !c.aspect_ratios.is_empty())
    {
        let found = fit(dataset, &candidate);
        if score(&found) > score(best.as_ref().unwrap_or(at_hand)) + WORTH {
            best = Some(found);
        }
    }
    best
}

/// Sizes in rising order on as many levels as there are, the same number on each, as detectors
/// need; where there are fewer sizes than places, the largest one is grown by octaves.
fn share_out(sizes: &[f32], levels: &[Vec<f32>]) -> Option<Vec<Vec<f32>>> {
    let per_level = levels.first()?.len();
    if per_level == 0 || levels.iter().any(|level| level.len() != per_level) {
        return None;
    }
    let mut sizes = sizes.to_vec();
    while sizes.len() < per_level * levels.len() {
        sizes.push(sizes.last()? * 2.0);
    }
    Some(sizes.chunks(per_level).map(<[f32]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shared_out() {
        let levels = [vec![1.0], vec![2.0], vec![3.0]];
        let shared = share_out(&[10.0, 20.0], &levels).unwrap();
        assert_eq!(shared, [vec![10.0], vec![20.0], vec![40.0]]);
        assert_eq!(share_out(&[], &levels), None);
        assert_eq!(share_out(&[1.0], &[vec![1.0], vec![1.0, 2.0]]), None);
    }
}
