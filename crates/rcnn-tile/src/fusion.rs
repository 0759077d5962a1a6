//! Weighted boxes fusion (Solovyev et al. 2019, <https://arxiv.org/abs/1910.13302>), as `weighted_boxes_fusion` of
//! ensemble-boxes does it for models of equal weight.

use rcnn_types::BBox;
use rcnn_types::boxes::box_area;

use crate::Merge;
use crate::merge::{Candidates, Group};
use crate::neighbours::Neighbours;

/// A cluster of detections, with the sums that its mean is made of.
struct Cluster {
    group: Group,
    /// Sum of the scores.
    weight: f64,
    /// Sum of the boxes, each by its score.
    boxes: [f64; 4],
}

impl Cluster {
    fn new(group: Group) -> Self {
        let weight = f64::from(group.score);
        Self {
            weight,
            boxes: group.bbox.map(|edge| f64::from(edge) * weight),
            group,
        }
    }

    fn push(&mut self, index: usize, bbox: &BBox, score: f32) {
        let score = f64::from(score);
        self.weight += score;
        for (sum, edge) in self.boxes.iter_mut().zip(bbox) {
            *sum += f64::from(*edge) * score;
        }
        self.group.members.push(index);
        if self.weight > 0.0 {
            self.group.bbox = self.boxes.map(|sum| (sum / self.weight) as f32);
        }
    }
}

/// Fuses the detections of `views` models: each joins the cluster whose mean it overlaps most and above the threshold,
/// or begins one, in order of their scores. A cluster's score is its mean score, lowered to the share of the models
/// where it has fewer detections than there are models. Boxes without an area are left out.
pub(crate) fn fuse(candidates: &Candidates, merge: &Merge, views: usize) -> Vec<Group> {
    let Candidates {
        boxes,
        scores,
        classes,
    } = *candidates;
    let mut neighbours = Neighbours::over(boxes);
    let mut clusters: Vec<Cluster> = Vec::new();
    for index in candidates.order() {
        let bbox = &boxes[index];
        if box_area(bbox) == 0.0 {
            continue;
        }
        let mut best = (merge.threshold, None);
        for near in neighbours.near(bbox) {
            let group = &clusters[near].group;
            let overlap = merge.metric.of(&group.bbox, bbox);
            if classes[group.members[0]] == classes[index] && overlap > best.0 {
                best = (overlap, Some(near));
            }
        }
        let joined = best.1.unwrap_or(clusters.len());
        match clusters.get_mut(joined) {
            Some(cluster) => cluster.push(index, bbox, scores[index]),
            None => clusters.push(Cluster::new(candidates.single(index))),
        }
        neighbours.insert(joined, &clusters[joined].group.bbox);
    }
    let scored = |Cluster {
                      mut group, weight, ..
                  }: Cluster| {
        let (found, views) = (group.members.len() as f64, views.max(1) as f64);
        group.score = (weight / found * found.min(views) / views) as f32;
        group
    };
    clusters.into_iter().map(scored).collect()
}
