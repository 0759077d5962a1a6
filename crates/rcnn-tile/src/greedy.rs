//! Greedy suppression and merging, by SAHI's rules: the best detection takes all that match it and that no better one
//! took.

use crate::Merge;
use crate::merge::{Candidates, Group};
use crate::neighbours::Neighbours;

/// The best detections (SAHI's `nms`).
pub(crate) fn suppress(candidates: &Candidates, merge: &Merge) -> Vec<Group> {
    let claims = claims(candidates, merge).into_iter();
    claims.map(|(best, _)| candidates.single(best)).collect()
}

/// The best detections, united with what they took (SAHI's `greedy_nmm`).
///
/// As there, one that no longer matches the box as it has grown by then is dropped.
pub(crate) fn unite(candidates: &Candidates, merge: &Merge) -> Vec<Group> {
    let unite = |(best, others): (usize, Vec<usize>)| {
        let mut group = candidates.single(best);
        for other in others {
            let (mine, theirs) = (group.bbox, candidates.boxes[other]);
            if merge.metric.of(&mine, &theirs) >= merge.threshold {
                let edge = |i: usize, outermost: fn(f32, f32) -> f32| outermost(mine[i], theirs[i]);
                let [low, high] = [f32::min, f32::max];
                group.bbox = [edge(0, low), edge(1, low), edge(2, high), edge(3, high)];
                group.members.push(other);
            }
        }
        group
    };
    claims(candidates, merge).into_iter().map(unite).collect()
}

/// Each detection that no better one took, and those that it took, best first.
fn claims(candidates: &Candidates, merge: &Merge) -> Vec<(usize, Vec<usize>)> {
    let Candidates { boxes, classes, .. } = *candidates;
    let order = candidates.order();
    let mut rank = vec![0; order.len()];
    let mut neighbours = Neighbours::over(boxes);
    for (place, &index) in order.iter().enumerate() {
        rank[index] = place;
        neighbours.insert(index, &boxes[index]);
    }
    let mut taken = vec![false; boxes.len()];
    let mut claims = Vec::new();
    for best in order {
        if taken[best] {
            continue;
        }
        taken[best] = true;
        let mut others = neighbours.near(&boxes[best]);
        others.retain(|&other| {
            !taken[other]
                && classes[other] == classes[best]
                && merge.metric.of(&boxes[best], &boxes[other]) >= merge.threshold
        });
        others.iter().for_each(|&other| taken[other] = true);
        others.sort_unstable_by_key(|&other| rank[other]);
        claims.push((best, others));
    }
    claims
}
