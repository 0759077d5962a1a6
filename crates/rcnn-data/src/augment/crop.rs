//! Crops as SSD takes them: `RandomIoUCrop` of torchvision.

use rand::{Rng, RngExt};
use rcnn_types::BBox;
use rcnn_types::boxes::{box_centre, box_iou};
use rcnn_types::validate::{InvalidField, require, require_within};
use serde::{Deserialize, Serialize};

use super::{Labelled, between, chance, range};

/// How often another overlap is drawn before the picture is left as it is. torchvision draws until
/// an overlap of 1 comes up.
const ROUNDS: usize = 20;

/// A crop that at least one box overlaps well. Boxes whose centre is within stay, cut to the crop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IouCrop {
    /// The probability of a crop.
    pub p: f64,
    /// The range of each side's share of the picture.
    pub scale: [f32; 2],
    /// The range of width over height, in pixels.
    pub aspect_ratio: [f32; 2],
    /// The least overlaps (IoU of a box and the crop) to draw from; 1 leaves the picture as it is.
    pub overlaps: Vec<f32>,
    /// Number of crops that are tried for an overlap.
    pub trials: u32,
}

impl Default for IouCrop {
    fn default() -> Self {
        Self {
            p: 1.0,
            scale: [0.3, 1.0],
            aspect_ratio: [0.5, 2.0],
            overlaps: vec![0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0],
            trials: 40,
        }
    }
}

impl IouCrop {
    pub(super) fn validate(&self) -> Result<(), InvalidField> {
        require_within("crop.p", self.p, 0.0..=1.0)?;
        range("crop.scale", self.scale, [0.0, 1.0])?;
        range("crop.aspect_ratio", self.aspect_ratio, [0.0, f32::MAX])?;
        let holds = self.overlaps.iter().all(|v| (0.0..=1.0).contains(v));
        require(
            holds,
            "crop.overlaps",
            &self.overlaps,
            "numbers from 0 to 1",
        )
    }

    pub(super) fn apply(&self, picture: Labelled, rng: &mut impl Rng) -> Labelled {
        if !chance(self.p, rng) {
            return picture;
        }
        match self.window(picture.image.dimensions(), &picture.instances.boxes, rng) {
            Some(window) => crop(&picture, window),
            None => picture,
        }
    }

    /// The left, top, right and bottom of a crop.
    fn window(
        &self,
        (width, height): (u32, u32),
        boxes: &[BBox],
        rng: &mut impl Rng,
    ) -> Option<[u32; 4]> {
        if boxes.is_empty() || self.overlaps.is_empty() {
            return None;
        }
        let part = |whole: u32, share: f32| (whole as f32 * share) as u32;
        for _ in 0..ROUNDS {
            let least = self.overlaps[rng.random_range(0..self.overlaps.len())];
            if least >= 1.0 {
                return None;
            }
            for _ in 0..self.trials {
                let w = part(width, between(self.scale, rng)).min(width);
                let h = part(height, between(self.scale, rng)).min(height);
                let [low, high] = self.aspect_ratio;
                if w == 0 || h == 0 || !(low..=high).contains(&(w as f32 / h as f32)) {
                    continue;
                }
                let left = part(width - w, rng.random());
                let top = part(height - h, rng.random());
                let window = [left, top, left + w, top + h];
                let bounds = window.map(|v| v as f32);
                let mut within = boxes.iter().filter(|b| centred_in(b, &bounds));
                if within.any(|b| box_iou(b, &bounds) >= least) {
                    return Some(window);
                }
            }
        }
        None
    }
}

/// The window of a picture with the objects whose box has its centre in it.
pub(super) fn crop(picture: &Labelled, window: [u32; 4]) -> Labelled {
    let bounds = window.map(|v| v as f32);
    let mut instances = picture.instances.clone();
    instances.retain(|object| centred_in(&object.bbox, &bounds));
    instances.crop(window);
    Labelled {
        image: rcnn_image::crop(&picture.image, window),
        instances,
    }
}

/// Whether the centre of a box lies within a window.
fn centred_in(b: &BBox, window: &BBox) -> bool {
    let [x, y] = box_centre(b);
    window[0] < x && x < window[2] && window[1] < y && y < window[3]
}
