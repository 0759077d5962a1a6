//! Fit of anchors to boxes: each box's best IoU with the anchors that torchvision would lay over the
//! resized image.

use std::collections::BTreeMap;

use rayon::prelude::*;
use rcnn_types::boxes::{
    box_area, box_centre, box_height, box_iou, box_width, scale_box, shift_box,
};
use rcnn_types::{BBox, Size};
use serde::{Deserialize, Serialize};

use super::AnchorFit;
use crate::dataset::Dataset;

/// What the sides of a batch of images are padded to a multiple of, in pixels.
const DIVISIBLE: u32 = 32;

/// More than any image is resized to, in pixels.
const MAX_SIDE: u32 = 1 << 24;

/// Anchors, and the resizing of the images that they are laid over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnchorSpec {
    /// The sizes at each level, in pixels of the resized image.
    pub sizes: Vec<Vec<f32>>,
    /// The shapes at every level, as height over width.
    pub aspect_ratios: Vec<f32>,
    /// The pixels from one location to the next at each level.
    pub strides: Vec<u32>,
    /// Length in pixels that the shorter side of an image is resized to.
    pub min_size: u32,
    /// The most that the longer side may be, in pixels.
    pub max_size: u32,
}

impl Default for AnchorSpec {
    /// Those of torchvision's `fasterrcnn_resnet50_fpn`.
    fn default() -> Self {
        Self {
            sizes: [32.0, 64.0, 128.0, 256.0, 512.0]
                .map(|size| vec![size])
                .into(),
            aspect_ratios: vec![0.5, 1.0, 2.0],
            strides: vec![4, 8, 16, 32, 64],
            min_size: 800,
            max_size: 1333,
        }
    }
}

/// Coverage of boxes by anchors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// The number of boxes.
    pub boxes: usize,
    /// The share of boxes that some anchor reaches at an IoU of 0.5, from 0 to 1.
    pub at_50: f64,
    /// The share at an IoU of 0.7, which makes an anchor a positive one.
    pub at_70: f64,
    /// The mean of the best IoUs.
    pub mean_iou: f64,
}

impl Coverage {
    fn from_best(best: &[f32]) -> Self {
        let share = |count: usize| count as f64 / best.len().max(1) as f64;
        let reached = |iou| share(best.iter().filter(|&&best| best >= iou).count());
        // `sum` of nothing is -0.
        let sum = best.iter().fold(0.0, |sum, &iou| sum + f64::from(iou));
        Self {
            boxes: best.len(),
            at_50: reached(0.5),
            at_70: reached(0.7),
            mean_iou: sum / best.len().max(1) as f64,
        }
    }
}

/// The coverage of all boxes, and of those of each class.
pub(super) fn fit(dataset: &Dataset, anchors: &AnchorSpec) -> AnchorFit {
    let bases = anchors.bases();
    let best: Vec<(usize, f32)> = dataset
        .samples
        .par_iter()
        .flat_map_iter(|sample| {
            let image = Resized::new(sample.size, anchors);
            let objects = sample.objects();
            let best = objects.map(|o| (o.label, image.best_iou(&o.bbox, anchors, &bases)));
            best.collect::<Vec<_>>()
        })
        .collect();
    let mut classes: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (label, iou) in &best {
        let Some(name) = dataset.class_names.get(*label) else {
            continue;
        };
        classes.entry(name.clone()).or_default().push(*iou);
    }
    let all: Vec<f32> = best.into_iter().map(|(_, iou)| iou).collect();
    let classes = classes.into_iter();
    AnchorFit {
        anchors: anchors.clone(),
        all: Coverage::from_best(&all),
        classes: classes
            .map(|(name, best)| (name, Coverage::from_best(&best)))
            .collect(),
    }
}

impl AnchorSpec {
    /// The anchors around the origin at each level.
    fn bases(&self) -> Vec<Vec<BBox>> {
        let around = |size: f32, ratio: f32| {
            let (w, h) = (size / ratio.sqrt(), size * ratio.sqrt());
            // Ties go to the even number, as torch rounds.
            [-w, -h, w, h].map(|edge| (edge / 2.0).round_ties_even())
        };
        let of_level = |sizes: &Vec<f32>| {
            let all = sizes
                .iter()
                .flat_map(|&size| self.aspect_ratios.iter().map(move |&r| (size, r)));
            all.map(|(size, ratio)| around(size, ratio)).collect()
        };
        self.sizes.iter().map(of_level).collect()
    }
}

/// An image as the detector sees it.
pub(super) struct Resized {
    /// Factors of box coordinates.
    scale: [f32; 2],
    /// With padding.
    padded: [u32; 2],
}

impl Resized {
    pub(super) fn new(size: Size, anchors: &AnchorSpec) -> Self {
        let (width, height) = size.dimensions();
        let sides = [width.max(1), height.max(1)];
        let short = f64::from(sides[0].min(sides[1]));
        let long = f64::from(sides[0].max(sides[1]));
        let factor = (f64::from(anchors.min_size) / short).min(f64::from(anchors.max_size) / long);
        let resized = sides.map(|side| ((f64::from(side) * factor) as u32).clamp(1, MAX_SIDE));
        Self {
            scale: [0, 1].map(|axis| resized[axis] as f32 / sides[axis] as f32),
            padded: resized.map(|side| side.next_multiple_of(DIVISIBLE)),
        }
    }

    pub(super) fn scale(&self, b: &BBox) -> BBox {
        let [x, y] = self.scale;
        scale_box(b, x, y)
    }

    /// The best IoU of a box with any anchor at any location.
    fn best_iou(&self, b: &BBox, anchors: &AnchorSpec, bases: &[Vec<BBox>]) -> f32 {
        let b = self.scale(b);
        let mut best = 0.0_f32;
        for (bases, &stride) in bases.iter().zip(&anchors.strides) {
            // Locations at a level, and the whole pixels between them.
            let grid = self.padded.map(|side| {
                let locations = side.div_ceil(stride.max(1));
                (locations, side / locations)
            });
            for base in bases {
                // Along each axis the overlap falls off on both sides of aligned centres, so the
                // nearest location has the most, and the IoU grows with the overlaps.
                let (middle, centre) = (box_centre(&b), box_centre(base));
                let [x, y] = [0, 1].map(|axis| nearest(middle[axis] - centre[axis], grid[axis]));
                best = best.max(box_iou(&b, &shift_box(base, x, y)));
            }
        }
        best
    }
}

fn nearest(position: f32, (locations, step): (u32, u32)) -> f32 {
    let last = locations.saturating_sub(1) as f32;
    (position / step as f32).round().clamp(0.0, last) * step as f32
}

/// The width and height of each box in its resized image; boxes of no area are left out.
pub(super) fn resized_sides(dataset: &Dataset, anchors: &AnchorSpec) -> Vec<[f32; 2]> {
    let sides = dataset.samples.iter().flat_map(|sample| {
        let image = Resized::new(sample.size, anchors);
        sample
            .objects()
            .map(move |object| image.scale(&object.bbox))
    });
    let sides = sides.filter(|b| box_area(b) > 0.0);
    sides.map(|b| [box_width(&b), box_height(&b)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchvisions_anchors() {
        let bases = AnchorSpec::default().bases();
        // AnchorGenerator().cell_anchors of the first level.
        let expected = [
            [-23.0, -11.0, 23.0, 11.0],
            [-16.0, -16.0, 16.0, 16.0],
            [-11.0, -23.0, 11.0, 23.0],
        ];
        assert_eq!(bases[0], expected);
    }

    /// It was said to be -0.000.
    #[test]
    fn the_fit_of_no_boxes_is_nothing() {
        assert!(Coverage::from_best(&[]).mean_iou.is_sign_positive());
    }

    #[test]
    fn resizing_and_strides() {
        let image = Resized::new(Size::new(480, 640), &AnchorSpec::default());
        assert_eq!(image.padded, [1088, 800]);
        assert_eq!(image.scale, [1066.0 / 640.0, 800.0 / 480.0]);
    }

    #[test]
    fn the_nearest_location_is_the_best() {
        let anchors = AnchorSpec::default();
        let image = Resized::new(Size::new(222, 333), &anchors);
        let bases = anchors.bases();
        for b in [
            [3.0, 4.0, 20.0, 50.0],
            [100.0, 20.0, 330.0, 220.0],
            [0.0, 0.0, 4.0, 2.0],
        ] {
            let scaled = image.scale(&b);
            let mut best = 0.0_f32;
            for (bases, &stride) in bases.iter().zip(&anchors.strides) {
                let [(nx, sx), (ny, sy)] = image.padded.map(|side| {
                    let n = side.div_ceil(stride);
                    (n, side / n)
                });
                for (x, y) in (0..nx).flat_map(|x| (0..ny).map(move |y| (x * sx, y * sy))) {
                    let (x, y) = (x as f32, y as f32);
                    for a in bases {
                        best = best.max(box_iou(&scaled, &shift_box(a, x, y)));
                    }
                }
            }
            let found = image.best_iou(&b, &anchors, &bases);
            assert!((found - best).abs() < 1e-6, "{b:?}: {found} {best}");
        }
    }
}
