//! From images of any size to one padded batch, and boxes back to the images.

use burn::tensor::{Tensor, backend::Backend};
use rand::Rng;
use rcnn_ops::{BBox, Choice, DetectionBackend, ImageFit, fit_image};
use rcnn_roi::Detections;
use serde::{Deserialize, Serialize};

/// Height and width in pixels.
pub type ImageSize = (usize, usize);

/// Normalises, resizes and pads images
/// (`torchvision.models.detection.transform.GeneralizedRCNNTransform`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Width and height to resize to, whatever the image's shape.
    pub fixed_size: Option<(usize, usize)>,
    /// Whether training takes the images as they are. Inference resizes all the same.
    #[serde(rename = "_skip_resize")]
    pub skip_resize: bool,
}

impl Default for GeneralizedRcnnTransform {
    fn default() -> Self {
        Self {
            min_size: vec![800],
            max_size: 1333,
            image_mean: [0.485, 0.456, 0.406],
            image_std: [0.229, 0.224, 0.225],
            size_divisible: 32,
            fixed_size: None,
            skip_resize: false,
        }
    }
}

/// Images that a detector can't take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// An image is not `[3, H, W]` with at least one pixel.
    #[error(
        "image {index} has shape {found:?}; expected [3, height, width] with at least one pixel"
    )]
    ImageShape {
        /// Position of the image in the list.
        index: usize,
        /// Its shape.
        found: [usize; 3],
    },
}

/// A padded batch of resized images (`torchvision.models.detection.image_list.ImageList`).
#[derive(Debug, Clone)]
pub struct ImageList<B: Backend> {
    /// `[N, 3, H, W]`, zeros at right and bottom of smaller images.
    pub tensors: Tensor<B, 4>,
    /// Size of each image in the batch, without padding.
    pub image_sizes: Vec<ImageSize>,
    /// Size of each image before resizing.
    pub original_sizes: Vec<ImageSize>,
}

impl<B: Backend> ImageList<B> {
    /// Height and width of the batch, padding included.
    pub fn padded_size(&self) -> ImageSize {
        let [_, _, height, width] = self.tensors.dims();
        (height, width)
    }

    /// Brings detections back to the pixels of the original images (torchvision's `postprocess`).
    pub(crate) fn restore(&self, mut detections: Vec<Detections>) -> Vec<Detections> {
        let sizes = self.image_sizes.iter().zip(&self.original_sizes);
        for (found, (&resized, &original)) in detections.iter_mut().zip(sizes) {
            GeneralizedRcnnTransform::resize_boxes(&mut found.boxes, resized, original);
        }
        detections
    }
}

impl GeneralizedRcnnTransform {
    /// Size that an image is resized to in inference.
    ///
    /// torchvision fails where a side would fall below one pixel (a 30000x10 image); here it is one.
    pub fn resized(&self, size: ImageSize) -> ImageSize {
        self.resized_at(size, self.min_size.last().copied().unwrap_or(1))
    }

    /// Size that an image is resized to whose shorter side is to have `min_size` pixels.
    fn resized_at(&self, (height, width): ImageSize, min_size: usize) -> ImageSize {
        if let Some((fixed_width, fixed_height)) = self.fixed_size {
            return (fixed_height, fixed_width);
        }
        let shorter = height.min(width) as f64;
        let longer = height.max(width) as f64;
        let scale = (min_size as f64 / shorter).min(self.max_size as f64 / longer);
        let side = |length: usize| ((length as f64 * scale).floor() as usize).max(1);
        (side(height), side(width))
    }

    /// Makes a batch of images for inference.
    ///
    /// # Shapes
    /// - images: each `[3, H, W]`, RGB from 0 to 1, at least one
    ///
    /// # Errors
    /// When an image has another number of channels or no pixels.
    pub fn forward<B: DetectionBackend>(
        &self,
        images: &[Tensor<B, 3>],
    ) -> Result<ImageList<B>, DetectError> {
        let sizes = images.iter().map(|image| self.resized(image_size(image)));
        self.batch(images, sizes.collect())
    }

    /// Makes a batch of images for training: not resized at all with
    /// [`skip_resize`](Self::skip_resize), else each to its own of `min_sizes`; without one, to a
    /// [`min_size`](Self::min_size) of the choice's.
    ///
    /// # Shapes
    /// - images: each `[3, H, W]`, RGB from 0 to 1, at least one
    /// - min_sizes: one an image, in pixels
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    /// When images and sizes differ in number.
    pub fn forward_training<B: DetectionBackend, R: Rng>(
        &self,
        images: &[Tensor<B, 3>],
        min_sizes: &[Option<usize>],
        choice: &mut Choice<'_, R>,
    ) -> Result<ImageList<B>, DetectError> {
        assert_eq!(images.len(), min_sizes.len(), "one min_size an image");
        let sizes = images.iter().zip(min_sizes).map(|(image, min_size)| {
            if self.skip_resize {
                return image_size(image);
            }
            let min_size = min_size.or_else(|| choice.one_of(&self.min_size));
            self.resized_at(image_size(image), min_size.unwrap_or(1))
        });
        self.batch(images, sizes.collect())
    }

    /// Makes a batch of images that are brought to these sizes.
    fn batch<B: DetectionBackend>(
        &self,
        images: &[Tensor<B, 3>],
        image_sizes: Vec<ImageSize>,
    ) -> Result<ImageList<B>, DetectError> {
        for (index, image) in images.iter().enumerate() {
            let found @ [channels, height, width] = image.dims();
            if channels != 3 || height == 0 || width == 0 {
                return Err(DetectError::ImageShape { index, found });
            }
        }
        let padded = |side: fn(&ImageSize) -> usize| {
            let most = image_sizes.iter().map(side).max().unwrap_or(0);
            most.next_multiple_of(self.size_divisible.max(1))
        };
        let (height, width) = (padded(|s| s.0), padded(|s| s.1));
        let mut batch: Vec<Tensor<B, 4>> = images
            .iter()
            .zip(&image_sizes)
            .map(|(image, &(h, w))| {
                let fit = ImageFit {
                    mean: self.image_mean,
                    std: self.image_std,
                    size: [h, w],
                    padded: [height, width],
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
            original_sizes: images.iter().map(image_size).collect(),
        })
    }

    /// Brings boxes from the pixels of one image to those of its resized copy, or back
    /// (torchvision's `resize_boxes`).
    pub fn resize_boxes(boxes: &mut [BBox], from: ImageSize, to: ImageSize) {
        let y = to.0 as f32 / from.0 as f32;
        let x = to.1 as f32 / from.1 as f32;
        for b in boxes {
            *b = [b[0] * x, b[1] * y, b[2] * x, b[3] * y];
        }
    }
}

fn image_size<B: Backend>(image: &Tensor<B, 3>) -> ImageSize {
    let [_, height, width] = image.dims();
    (height, width)
}
