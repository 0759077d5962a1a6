//! Large-scale jitter: a random size, and a window of a fixed one (`ScaleJitter` and `FixedSizeCrop` of
//! torchvision's detection references).

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use rand::{Rng, RngExt};
use rcnn_types::Size;
use rcnn_types::validate::{InvalidField, require};
use serde::{Deserialize, Serialize};

use super::{Labelled, between, range};

/// Largest side of a target, in pixels.
const MAX_SIDE: usize = 1 << 13;

/// Scales a picture so that it fits `target_size` times a factor drawn evenly from `scale_range`, its shape kept.
///
/// torchvision's two classes are documented with `(height, width)` and take `(width, height)`; this one does as
/// documented.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScaleJitter {
    /// Height and width that the picture fits at a factor of 1, in pixels.
    pub target_size: Size,
    /// The range of the factor.
    pub scale_range: [f32; 2],
}

impl Default for ScaleJitter {
    fn default() -> Self {
        Self {
            target_size: Size::new(1024, 1024),
            scale_range: [0.1, 2.0],
        }
    }
}

impl ScaleJitter {
    pub(super) fn validate(&self) -> Result<(), InvalidField> {
        side_range("scale_jitter.target_size", self.target_size)?;
        range("scale_jitter.scale_range", self.scale_range, [0.0, 16.0])?;
        let [low, _] = self.scale_range;
        let field = "scale_jitter.scale_range";
        require(low > 0.0, field, self.scale_range, "factors above 0")
    }

    pub(super) fn apply(&self, picture: Labelled, rng: &mut impl Rng) -> Labelled {
        let from = Size::from_dimensions(picture.image.dimensions());
        let scale = f64::from(between(self.scale_range, rng));
        let fit = |target: usize, side: usize| target as f64 / side as f64;
        let target = self.target_size;
        let ratio = fit(target.height, from.height).min(fit(target.width, from.width)) * scale;
        let side = |side: usize| ((side as f64 * ratio) as usize).max(1);
        let to = Size::new(side(from.height), side(from.width));
        let (width, height) = to.dimensions();
        let mut instances = picture.instances;
        instances.resize(from, to);
        Labelled {
            image: imageops::resize(&picture.image, width, height, FilterType::Triangle),
            instances,
        }
    }
}

/// Cuts a window of a fixed size out of a picture, at a place drawn by chance, and fills what the picture does
/// not reach at the right and below. Objects stay as far as they are in the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedSizeCrop {
    /// Height and width in pixels.
    pub size: Size,
    /// Colour of what is filled; ImageNet's mean by default, as in torchvision's references.
    pub fill: [u8; 3],
}

impl Default for FixedSizeCrop {
    fn default() -> Self {
        Self {
            size: Size::new(1024, 1024),
            fill: [123, 117, 104],
        }
    }
}

impl FixedSizeCrop {
    pub(super) fn validate(&self) -> Result<(), InvalidField> {
        side_range("fixed_size_crop.size", self.size)
    }

    pub(super) fn apply(&self, mut picture: Labelled, rng: &mut impl Rng) -> Labelled {
        let (width, height) = picture.image.dimensions();
        let (crop_width, crop_height) = self.size.dimensions();
        let (new_width, new_height) = (width.min(crop_width), height.min(crop_height));
        if (new_width, new_height) != (width, height) {
            // One number for both axes, as torchvision draws it.
            let r = rng.random::<f32>();
            let offset = |side: u32, kept: u32| ((side - kept) as f32 * r) as u32;
            let (left, top) = (offset(width, new_width), offset(height, new_height));
            let window = [left, top, left + new_width, top + new_height];
            picture.image =
                imageops::crop_imm(&picture.image, left, top, new_width, new_height).to_image();
            picture.instances.crop(window);
            picture.instances.retain(|object| {
                let [x1, y1, x2, y2] = object.bbox;
                x1 < x2 && y1 < y2
            });
        }
        if (new_width, new_height) != (crop_width, crop_height) {
            let mut filled = RgbImage::from_pixel(crop_width, crop_height, Rgb(self.fill));
            imageops::replace(&mut filled, &picture.image, 0, 0);
            picture.image = filled;
            picture.instances.paste(0, 0, self.size);
        }
        picture
    }
}

fn side_range(field: &str, size: Size) -> Result<(), InvalidField> {
    let sides = [size.height, size.width];
    let holds = sides.iter().all(|side| (1..=MAX_SIDE).contains(side));
    let expected = format_args!("a height and a width from 1 to {MAX_SIDE}");
    require(holds, field, sides, expected)
}
