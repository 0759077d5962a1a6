//! Augmentation of training images: mosaic, copy-paste, photometric distortion, crops and flips.

use image::RgbImage;
use image::imageops::flip_horizontal_in_place;
use rand::{Rng, RngExt};
use rcnn_types::{Instances, Skeleton};
use serde::{Deserialize, Serialize};

pub use copy_paste::copy_paste;
pub use crop::IouCrop;
pub use mosaic::mosaic;
pub use photometric::Photometric;

mod copy_paste;
mod crop;
mod mosaic;
mod photometric;

/// A picture and the objects on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// The pixels.
    pub image: RgbImage,
    /// The objects, within the picture.
    pub instances: Instances,
}

/// A setting of an [`Augmentation`] that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{setting} is {found}, expected {expected}")]
pub struct AugmentationError {
    /// The setting, such as `crop.scale`.
    pub setting: &'static str,
    /// Its value.
    pub found: String,
    /// Expected value, such as `a range within 0 and 1`.
    pub expected: String,
}

/// Random changes to training images, in this order: mosaic, copy-paste, photometric distortion, crop, flip.
///
/// The default is that of torchvision's detection references: flips, and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// The probability of a horizontal flip.
    pub horizontal_flip: f64,
    /// Scale jitter: the sizes of the shorter side, in pixels, of which the detector's resizing is
    /// to take one by chance. Empty for the detector's own.
    pub min_sizes: Vec<u32>,
    /// Crops that keep objects.
    pub crop: Option<IouCrop>,
    /// Changes of colours.
    pub photometric: Option<Photometric>,
    /// The probability that four pictures become one.
    pub mosaic: f64,
    /// The probability that objects of another picture are pasted in, cut out along their masks; without
    /// masks, nothing is.
    pub copy_paste: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            horizontal_flip: 0.5,
            ..Self::none()
        }
    }
}

impl Augmentation {
    /// Leaves pictures as they are.
    pub fn none() -> Self {
        Self {
            horizontal_flip: 0.0,
            min_sizes: Vec::new(),
            crop: None,
            photometric: None,
            mosaic: 0.0,
            copy_paste: 0.0,
        }
    }

    /// Checks that all numbers are in range.
    ///
    /// # Errors
    /// For the first setting that is not.
    pub fn validate(&self) -> Result<(), AugmentationError> {
        probability("horizontal_flip", self.horizontal_flip)?;
        probability("mosaic", self.mosaic)?;
        probability("copy_paste", self.copy_paste)?;
        let sizes = &self.min_sizes;
        expect("min_sizes", sizes, !sizes.contains(&0), "sizes from 1")?;
        self.crop.as_ref().map_or(Ok(()), IouCrop::validate)?;
        let photometric = self.photometric.as_ref();
        photometric.map_or(Ok(()), Photometric::validate)
    }

    /// Applies all but [`mosaic`] and [`copy_paste`], which take more pictures than one. `skeletons` are those of the labels.
    pub fn apply(
        &self,
        mut picture: Labelled,
        skeletons: &[Skeleton],
        rng: &mut impl Rng,
    ) -> Labelled {
        if let Some(photometric) = &self.photometric {
            photometric.apply(&mut picture.image, rng);
        }
        if let Some(crop) = &self.crop {
            picture = crop.apply(picture, rng);
        }
        if chance(self.horizontal_flip, rng) {
            flip(&mut picture, skeletons);
        }
        picture
    }
}

/// Mirrors a picture and its objects left to right. `skeletons` are those of the labels.
pub fn flip(picture: &mut Labelled, skeletons: &[Skeleton]) {
    flip_horizontal_in_place(&mut picture.image);
    let width = picture.image.width() as usize;
    picture.instances.flip(width, skeletons);
}

/// True with a probability; out of range is never or always.
pub(crate) fn chance(probability: f64, rng: &mut impl Rng) -> bool {
    rng.random::<f64>() < probability
}

fn expect(
    setting: &'static str,
    found: impl std::fmt::Debug,
    holds: bool,
    expected: impl Into<String>,
) -> Result<(), AugmentationError> {
    if holds {
        return Ok(());
    }
    Err(AugmentationError {
        setting,
        found: format!("{found:?}"),
        expected: expected.into(),
    })
}

fn probability(setting: &'static str, value: f64) -> Result<(), AugmentationError> {
    let holds = (0.0..=1.0).contains(&value);
    expect(setting, value, holds, "a number from 0 to 1")
}

fn range(
    setting: &'static str,
    value @ [low, high]: [f32; 2],
    [least, most]: [f32; 2],
) -> Result<(), AugmentationError> {
    let holds = least <= low && low <= high && high <= most;
    let expected = match most {
        f32::MAX => format!("a range from {least} on"),
        _ => format!("a range from {least} to {most}"),
    };
    expect(setting, value, holds, expected)
}

/// A number between two.
fn between([low, high]: [f32; 2], rng: &mut impl Rng) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

#[cfg(test)]
mod tests;
