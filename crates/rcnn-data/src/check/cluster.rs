//! k-means of box shapes, with 1 - IoU of centred boxes as the distance.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

const ITERATIONS: usize = 100;

/// The IoU of two boxes, given as width and height, around the same centre.
fn iou(a: [f32; 2], b: [f32; 2]) -> f32 {
    let shared = a[0].min(b[0]) * a[1].min(b[1]);
    shared / (a[0] * a[1] + b[0] * b[1] - shared)
}

/// The middles of at most `k` clusters of boxes of some width and height, above 0.
pub(super) fn k_means(boxes: &[[f32; 2]], k: usize, rng: &mut ChaCha8Rng) -> Vec<[f32; 2]> {
    let mut middles = spread_out(boxes, k, rng);
    let nearest = |b: &[f32; 2], middles: &[[f32; 2]]| {
        let ious = middles.iter().map(|middle| iou(*b, *middle)).enumerate();
        ious.max_by(|x, y| x.1.total_cmp(&y.1))
            .map_or(0, |best| best.0)
    };
    for _ in 0..ITERATIONS {
        let mut members = vec![Vec::new(); middles.len()];
        for b in boxes {
            members[nearest(b, &middles)].push(*b);
        }
        let before = middles.clone();
        for (middle, members) in middles.iter_mut().zip(&mut members) {
            // The median suits a distance of ratios better than the mean, which large boxes draw.
            if !members.is_empty() {
                *middle = [0, 1].map(|side| median(members, side));
            }
        }
        if middles == before {
            break;
        }
    }
    middles
}

fn median(boxes: &mut [[f32; 2]], side: usize) -> f32 {
    let half = boxes.len() / 2;
    boxes
        .select_nth_unstable_by(half, |a, b| a[side].total_cmp(&b[side]))
        .1[side]
}

/// k-means++: starts far from each other, drawn in proportion to their squared distances.
fn spread_out(boxes: &[[f32; 2]], k: usize, rng: &mut ChaCha8Rng) -> Vec<[f32; 2]> {
    let mut starts: Vec<[f32; 2]> = Vec::new();
    if boxes.is_empty() {
        return starts;
    }
    starts.push(boxes[rng.random_range(0..boxes.len())]);
    let mut far: Vec<f64> = vec![f64::INFINITY; boxes.len()];
    while starts.len() < k {
        let newest = starts[starts.len() - 1];
        for (far, b) in far.iter_mut().zip(boxes) {
            *far = far.min(f64::from(1.0 - iou(*b, newest)).powi(2));
        }
        let mut left = rng.random::<f64>() * far.iter().sum::<f64>();
        let chosen = far.iter().position(|far| {
            left -= far;
            left < 0.0
        });
        // All boxes are starts already.
        let Some(chosen) = chosen else { break };
        starts.push(boxes[chosen]);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, generator};

    #[test]
    fn clusters_are_found() {
        let mut boxes = Vec::new();
        for i in 0..30 {
            let noise = i as f32 / 30.0;
            boxes.extend([
                [10.0 + noise, 10.0],
                [100.0, 50.0 + noise],
                [30.0, 90.0 + noise],
            ]);
        }
        let run = |seed| {
            let mut found = k_means(&boxes, 3, &mut generator(seed, Purpose::Clusters, 0, 0));
            found.sort_by(|a, b| a[0].total_cmp(&b[0]));
            found
        };
        let found = run(0);
        assert_eq!(found, [[10.5, 10.0], [30.0, 90.5], [100.0, 50.5]]);
        assert_eq!(found, run(0));
        let mut rng = generator(0, Purpose::Clusters, 0, 0);
        assert_eq!(k_means(&[[1.0, 2.0]; 5], 3, &mut rng), [[1.0, 2.0]]);
        assert!(k_means(&[], 3, &mut rng).is_empty());
    }
}
