//! The transform of images of any size to one padded batch, and of detections back to the images.

use burn::config::Config;
use burn::tensor::{Tensor, backend::Backend};
use derive_setters::Setters;
use rand::Rng;
use rcnn_ops::{DetectionBackend, ImageFit, PixelPositions, Subsample, fit_image};
use rcnn_types::validate::{InvalidField, is_positive, require, require_within};
use rcnn_types::{Instances, Size};
use serde::{Deserialize, Serialize};

use crate::DetectError;

/// Largest number of pixels of a batch, padding included: one image of 8192 x 8192, or 37 of 1344 x 1344,
/// the largest that torchvision's defaults make.
///
/// At this size the first convolution of a ResNet alone puts out 4 GiB. A larger batch is an error before
/// anything is allocated: an allocation that fails would abort the process.
pub const MAX_BATCH_PIXELS: usize = 1 << 26;

/// Largest side that an image may be asked to be resized to, in pixels.
const MAX_SIDE: usize = 1 << 24;
/// Largest `size_divisible`: a square of that side has [`MAX_BATCH_PIXELS`].
const MAX_DIVISOR: usize = 1 << 13;

/// Normalises, resizes and pads images
/// (`torchvision.models.detection.transform.GeneralizedRCNNTransform`).
///
/// ```
/// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_types::Size; }
/// use rcnn_burn::{GeneralizedRcnnTransform, Size};
///
/// let transform = GeneralizedRcnnTransform::default().with_min_size(vec![240]).with_max_size(480);
/// assert_eq!(transform.resized(Size::new(480, 640)), Size::new(240, 320));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default)]
#[setters(prefix = "with_")]
pub struct GeneralizedRcnnTransform {
    /// Length in pixels that the shorter side is brought to. Inference takes the last of several,
    /// training one at random for each image.
    pub min_size: Vec<usize>,
    /// Most pixels of the longer side.
    pub max_size: usize,
    /// Mean of each channel, subtracted.
    pub image_mean: [f32; 3],
    /// Deviation of each channel, divided by.
    pub image_std: [f32; 3],
    /// Height and width of the batch are padded to a multiple of this.
    pub size_divisible: usize,
    /// Size to resize to, whatever the image's shape. In files `[width, height]`, torchvision's order here.
    #[serde(with = "width_first")]
    pub fixed_size: Option<Size>,
    /// Rule of the new size and of the pixels in it.
    pub resize_rule: ResizeRule,
    /// Whether training takes the images as they are. Inference resizes all the same.
    #[serde(rename = "_skip_resize")]
    pub skip_resize: bool,
}

impl Config for GeneralizedRcnnTransform {}

impl Default for GeneralizedRcnnTransform {
    fn default() -> Self {
        Self {
            min_size: vec![800],
            max_size: 1333,
            image_mean: [0.485, 0.456, 0.406],
            image_std: [0.229, 0.224, 0.225],
            size_divisible: 32,
            fixed_size: None,
            resize_rule: ResizeRule::Torchvision,
            skip_resize: false,
        }
    }
}

/// How images are resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeRule {
    /// torchvision's: sides are rounded down, and pixels' centres stay where they are.
    #[default]
    Torchvision,
    /// That of TensorFlow's Object Detection API in 2018: sides are rounded, that to `max_size` where the one to
    /// `min_size` would be longer, and pixels' upper left edges stay where they are.
    Tensorflow2018,
    /// The API's since 2019: the smaller of both scales, of which sides are rounded.
    Tensorflow2019,
}

/// A padded batch of resized images (`torchvision.models.detection.image_list.ImageList`).
#[derive(Debug, Clone)]
pub struct ImageList<B: Backend> {
    /// `[N, 3, H, W]`, zeros at right and bottom of smaller images.
    pub tensors: Tensor<B, 4>,
    /// Size of each image in the batch, without padding.
    pub image_sizes: Vec<Size>,
    /// Size of each image before resizing.
    pub original_sizes: Vec<Size>,
}

impl<B: Backend> ImageList<B> {
    /// Height and width of the batch, padding included.
    pub fn padded_size(&self) -> Size {
        let [_, _, height, width] = self.tensors.dims();
        Size::new(height, width)
    }

    /// Brings detections back to the pixels of the original images (torchvision's `postprocess`).
    pub(crate) fn restore(&self, mut detections: Vec<Instances>) -> Vec<Instances> {
        let sizes = self.image_sizes.iter().zip(&self.original_sizes);
        for (found, (&resized, &original)) in detections.iter_mut().zip(sizes) {
            found.resize(resized, original);
        }
        detections
    }
}

impl GeneralizedRcnnTransform {
    /// Checks every field. A `min_size` may be larger than `max_size`, which then decides.
    ///
    /// # Errors
    /// Names the field at fault under torchvision's name.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let sides = |sides: &[usize]| sides.iter().all(|side| (1..=MAX_SIDE).contains(side));
        let min_size = &self.min_size;
        require(
            !min_size.is_empty() && sides(min_size),
            "min_size",
            min_size,
            format_args!("one or more numbers of pixels from 1 to {MAX_SIDE}"),
        )?;
        require_within("max_size", self.max_size, 1..=MAX_SIDE)?;
        require_within("size_divisible", self.size_divisible, 1..=MAX_DIVISOR)?;
        if let Some(size) = self.fixed_size {
            require(
                sides(&[size.width, size.height]) && size.pixels() <= MAX_BATCH_PIXELS,
                "fixed_size",
                (size.width, size.height),
                format_args!("a width and a height from 1, {MAX_BATCH_PIXELS} pixels at most"),
            )?;
        }
        let (mean, std) = (self.image_mean, self.image_std);
        let finite = mean.iter().all(|mean| mean.is_finite());
        require(finite, "image_mean", mean, "three numbers")?;
        let positive = std.iter().all(|std| is_positive(*std));
        require(positive, "image_std", std, "three positive numbers")
    }

    /// The transform that brings images to `factor` times the size that this one brings them to in inference.
    pub(crate) fn scaled(&self, factor: f32) -> Self {
        let side = |side: usize| ((side as f64 * f64::from(factor)).round() as usize).max(1);
        let size = |size: Size| Size::new(side(size.height), side(size.width));
        Self {
            min_size: self
                .min_size
                .last()
                .map(|&last| side(last))
                .into_iter()
                .collect(),
            max_size: side(self.max_size),
            fixed_size: self.fixed_size.map(size),
            ..self.clone()
        }
    }

    /// Size that an image is resized to in inference.
    ///
    /// torchvision fails where a side would fall below one pixel (a 30000x10 image); here it is one.
    pub fn resized(&self, size: Size) -> Size {
        self.resized_at(size, self.min_size.last().copied().unwrap_or(1))
    }

    /// Size that an image is resized to whose shorter side is to have `min_size` pixels.
    fn resized_at(&self, size: Size, min_size: usize) -> Size {
        if let Some(fixed) = self.fixed_size {
            return fixed;
        }
        let Size { height, width } = size;
        if self.resize_rule != ResizeRule::Torchvision {
            return self.resized_by_tensorflow(size, min_size);
        }
        let shorter = height.min(width) as f64;
        let longer = height.max(width) as f64;
        let scale = (min_size as f64 / shorter).min(self.max_size as f64 / longer);
        let side = |length: usize| ((length as f64 * scale).floor() as usize).max(1);
        Size::new(side(height), side(width))
    }

    /// TensorFlow's sizes, in f32 as there.
    fn resized_by_tensorflow(&self, size: Size, min_size: usize) -> Size {
        let (height, width) = (size.height as f32, size.width as f32);
        let (least, most) = (min_size as f32, self.max_size as f32);
        let by = |scale: f32| {
            let side = |length: f32| ((length * scale).round_ties_even() as usize).max(1);
            Size::new(side(height), side(width))
        };
        if self.resize_rule == ResizeRule::Tensorflow2019 {
            let (to_height, to_width) = if height < width {
                (least, most)
            } else {
                (most, least)
            };
            return by((to_height / height).min(to_width / width));
        }
        let large = by(least / height.min(width));
        match large.height.max(large.width) > self.max_size {
            true => by(most / height.max(width)),
            false => large,
        }
    }

    /// Makes a batch of images for inference.
    ///
    /// # Shapes
    /// - images: each `[3, H, W]`, RGB from 0 to 1, at least one
    ///
    /// # Errors
    /// When there is no image, one does not have three channels or has no pixels, or the batch has more
    /// than [`MAX_BATCH_PIXELS`].
    pub fn forward<B: DetectionBackend>(
        &self,
        images: &[Tensor<B, 3>],
    ) -> Result<ImageList<B>, DetectError> {
        self.batch(images, |_, size| self.resized(size))
    }

    /// Makes a batch of images for training: not resized at all with
    /// [`skip_resize`](Self::skip_resize), else each to its own of `min_sizes`; without one, to a
    /// [`min_size`](Self::min_size) of `subsample`'s choice.
    ///
    /// # Shapes
    /// - images: each `[3, H, W]`, RGB from 0 to 1, at least one
    /// - min_sizes: one an image, in pixels
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and when images and sizes differ in number.
    pub fn forward_training<B: DetectionBackend, R: Rng>(
        &self,
        images: &[Tensor<B, 3>],
        min_sizes: &[Option<usize>],
        subsample: &mut Subsample<'_, R>,
    ) -> Result<ImageList<B>, DetectError> {
        if images.len() != min_sizes.len() {
            return Err(DetectError::Count {
                what: "min_sizes",
                found: min_sizes.len(),
                images: images.len(),
            });
        }
        self.batch(images, |index, size| {
            if self.skip_resize {
                return size;
            }
            let min_size = min_sizes[index].or_else(|| subsample.one_of(&self.min_size));
            self.resized_at(size, min_size.unwrap_or(1))
        })
    }

    /// Makes a batch of images, each resized to what `resized` returns for its position and size.
    fn batch<B: DetectionBackend>(
        &self,
        images: &[Tensor<B, 3>],
        mut resized: impl FnMut(usize, Size) -> Size,
    ) -> Result<ImageList<B>, DetectError> {
        self.validate()?;
        if images.is_empty() {
            return Err(DetectError::NoImages);
        }
        let (mut image_sizes, mut original_sizes) = (Vec::new(), Vec::new());
        for (index, image) in images.iter().enumerate() {
            let found @ [channels, height, width] = image.dims();
            if channels != 3 || height == 0 || width == 0 {
                return Err(DetectError::ImageShape { index, found });
            }
            let original = Size::new(height, width);
            let resized = resized(index, original);
            if resized.pixels() > MAX_BATCH_PIXELS {
                return Err(DetectError::ImageSize {
                    index,
                    original,
                    resized,
                    limit: MAX_BATCH_PIXELS,
                });
            }
            image_sizes.push(resized);
            original_sizes.push(original);
        }
        let padded = self.padded(&image_sizes)?;
        let mut batch: Vec<Tensor<B, 4>> = images
            .iter()
            .zip(&image_sizes)
            .map(|(image, &size)| {
                let fit = ImageFit {
                    mean: self.image_mean,
                    std: self.image_std,
                    size,
                    positions: match self.resize_rule {
                        ResizeRule::Torchvision => PixelPositions::Centres,
                        _ => PixelPositions::Edges,
                    },
                    padded,
                };
                fit_image(image.clone(), &fit).unsqueeze()
            })
            .collect();
        Ok(ImageList {
            // One image need not be copied.
            tensors: match batch.len() {
                1 => batch.remove(0),
                _ => Tensor::cat(batch, 0),
            },
            image_sizes,
            original_sizes,
        })
    }

    /// A size with the padding that makes it divisible.
    pub fn pad(&self, size: Size) -> Size {
        let side = |side: usize| side.next_multiple_of(self.size_divisible);
        Size::new(side(size.height), side(size.width))
    }

    /// Size of a batch of images of these sizes, padding included.
    fn padded(&self, image_sizes: &[Size]) -> Result<Size, DetectError> {
        let most = |side: fn(&Size) -> usize| image_sizes.iter().map(side).max().unwrap_or(0);
        let padded = self.pad(Size::new(most(|s| s.height), most(|s| s.width)));
        let images = image_sizes.len();
        let limit = MAX_BATCH_PIXELS;
        if padded.pixels().saturating_mul(images) > limit {
            return Err(DetectError::BatchSize {
                images,
                padded,
                limit,
            });
        }
        Ok(padded)
    }
}

/// torchvision's order of `fixed_size`, which it has for this parameter alone.
mod width_first {
    use rcnn_types::Size;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(size: &Option<Size>, to: S) -> Result<S::Ok, S::Error> {
        size.map(|size| (size.width, size.height)).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Size>, D::Error> {
        let sides = Option::<(usize, usize)>::deserialize(from)?;
        Ok(sides.map(|(width, height)| Size::new(height, width)))
    }
}
