//! Augmentation of training images: mosaic, copy-paste, photometric distortion, crops, scale jitter and flips.

use derive_setters::Setters;
use image::RgbImage;
use image::imageops::{flip_horizontal_in_place, rotate180_in_place};
use rand::{Rng, RngExt};
use rcnn_types::validate::{InvalidField, require, require_within};
use rcnn_types::{Instances, Size, Skeleton};
use serde::{Deserialize, Serialize};

pub use copy_paste::copy_paste;
pub use crop::IouCrop;
pub use mosaic::mosaic;
pub use photometric::Photometric;
pub use scale_jitter::{FixedSizeCrop, ScaleJitter};

mod copy_paste;
mod crop;
mod mosaic;
mod photometric;
mod scale_jitter;

/// A picture and the objects on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// The pixels.
    pub image: RgbImage,
    /// The objects, within the picture.
    pub instances: Instances,
}

/// Random changes to training images, in this order: mosaic, copy-paste, photometric distortion, crop,
/// scale jitter, fixed-size crop, flips.
///
/// The default is that of torchvision's detection references: flips, and nothing else.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_data as data; }
/// use rcnn_burn::data::Augmentation;
///
/// let augmentation = Augmentation::default().with_vertical_flip(0.5).with_min_sizes(vec![240, 300]);
/// augmentation.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(prefix = "with_")]
pub struct Augmentation {
    /// The probability of a horizontal flip.
    pub horizontal_flip: f64,
    /// The probability of a vertical flip, for pictures without an upper side: of cells, or from above.
    #[serde(skip_serializing_if = "is_zero")]
    pub vertical_flip: f64,
    /// The sizes of the shorter side, in pixels, of which the detector's resizing is to take one by chance, its
    /// `max_size` kept (torchvision's `RandomShortestSize`). Empty for the detector's own.
    pub min_sizes: Vec<u32>,
    /// Crops that keep objects.
    pub crop: Option<IouCrop>,
    /// Sizes over a wide range; with [`fixed_size_crop`](Self::fixed_size_crop), large-scale jitter.
    pub scale_jitter: Option<ScaleJitter>,
    /// Windows of a fixed size.
    pub fixed_size_crop: Option<FixedSizeCrop>,
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
    /// No augmentation: pictures stay as they are.
    pub fn none() -> Self {
        Self {
            horizontal_flip: 0.0,
            vertical_flip: 0.0,
            min_sizes: Vec::new(),
            crop: None,
            scale_jitter: None,
            fixed_size_crop: None,
            photometric: None,
            mosaic: 0.0,
            copy_paste: 0.0,
        }
    }

    /// Checks that all numbers are in range.
    ///
    /// # Errors
    /// For the first setting that is not.
    pub fn validate(&self) -> Result<(), InvalidField> {
        require_within("horizontal_flip", self.horizontal_flip, 0.0..=1.0)?;
        require_within("vertical_flip", self.vertical_flip, 0.0..=1.0)?;
        require_within("mosaic", self.mosaic, 0.0..=1.0)?;
        require_within("copy_paste", self.copy_paste, 0.0..=1.0)?;
        let sizes = &self.min_sizes;
        require(!sizes.contains(&0), "min_sizes", sizes, "sizes from 1")?;
        self.crop.as_ref().map_or(Ok(()), IouCrop::validate)?;
        let jitter = self.scale_jitter.as_ref();
        jitter.map_or(Ok(()), ScaleJitter::validate)?;
        let window = self.fixed_size_crop.as_ref();
        window.map_or(Ok(()), FixedSizeCrop::validate)?;
        let photometric = self.photometric.as_ref();
        photometric.map_or(Ok(()), Photometric::validate)
    }

    /// Whether pictures come in the size that they are trained at, so that the detector must not resize them.
    pub fn sets_size(&self) -> bool {
        self.scale_jitter.is_some() || self.fixed_size_crop.is_some()
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
        if let Some(jitter) = &self.scale_jitter {
            picture = jitter.apply(picture, rng);
        }
        if let Some(window) = &self.fixed_size_crop {
            picture = window.apply(picture, rng);
        }
        if chance(self.horizontal_flip, rng) {
            flip(&mut picture, skeletons);
        }
        // Without it, all else is drawn as it was before there was any.
        if self.vertical_flip > 0.0 && chance(self.vertical_flip, rng) {
            flip(&mut picture, skeletons);
            rotate180_in_place(&mut picture.image);
            let size = Size::from_dimensions(picture.image.dimensions());
            picture.instances.rotate_180(size);
        }
        picture
    }
}

fn is_zero(probability: &f64) -> bool {
    *probability == 0.0
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

fn range(
    field: &str,
    value @ [low, high]: [f32; 2],
    [least, most]: [f32; 2],
) -> Result<(), InvalidField> {
    let holds = least <= low && low <= high && high <= most;
    let expected = match most {
        f32::MAX => format!("a range from {least} on"),
        _ => format!("a range from {least} to {most}"),
    };
    require(holds, field, value, expected)
}

/// A number between two.
fn between([low, high]: [f32; 2], rng: &mut impl Rng) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

#[cfg(test)]
mod tests;
