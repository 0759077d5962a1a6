//! Image files to the tensors that detectors take, and detections drawn on pictures.

pub use image::RgbImage;
pub use rcnn_image::draw::{Label, draw_labels};
pub use rcnn_image::{
    Animation, ImageError, ImageErrorKind, StripReader, decode_rgb, open_rgb, upright_size,
};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rayon::prelude::*;
use rcnn_detector::GeneralizedRcnnTransform;
use rcnn_ops::DetectionBackend;

/// Converts a picture to the tensor that detectors take.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// # mod rcnn_burn { pub use rcnn_core::*; }
/// use rcnn_burn::Flex;
/// use rcnn_burn::image::{RgbImage, to_tensor};
///
/// let picture = RgbImage::new(64, 48);
/// let image = to_tensor::<Flex>(&picture, &Default::default());
/// assert_eq!(image.dims(), [3, 48, 64]);
/// # }
/// ```
///
/// # Shapes
/// - output: `[3, height, width]`, RGB from 0 to 1
pub fn to_tensor<B: Backend>(picture: &RgbImage, device: &B::Device) -> Tensor<B, 3> {
    let (width, height) = picture.dimensions();
    let (pixels, _) = picture.as_raw().as_chunks::<3>();
    let mut values = Vec::with_capacity(picture.as_raw().len());
    for channel in 0..3 {
        values.extend(pixels.iter().map(|pixel| f32::from(pixel[channel]) / 255.0));
    }
    let shape = [3, height as usize, width as usize];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Number of batches computed at the same time: on the CPU, two where they are small.
#[derive(Debug, Clone, Copy)]
pub struct Batching {
    concurrent: usize,
}

impl Batching {
    /// Chooses the number for this backend and the network's input size.
    pub fn new<B: DetectionBackend>(transform: &GeneralizedRcnnTransform) -> Self {
        let side = transform.min_size.last().unwrap_or(&0);
        let pixels = match transform.fixed_size {
            Some(size) => size.pixels(),
            None => side.saturating_mul(transform.max_size),
        };
        Self {
            concurrent: B::concurrent_batches(pixels),
        }
    }

    /// Number of batches computed at the same time.
    pub fn concurrent(self) -> usize {
        self.concurrent
    }

    /// Calls a function with batches of pictures, and concatenates the results.
    ///
    /// # Errors
    /// That of one of the batches.
    pub fn detect<T: Sync, R: Send, E: Send>(
        self,
        pictures: &[T],
        batch_size: usize,
        detect: impl Fn(&[T]) -> Result<Vec<R>, E> + Send + Sync,
    ) -> Result<Vec<R>, E> {
        let batch_size = batch_size.max(1);
        let found: Result<Vec<_>, E> = match self.concurrent {
            1 => pictures.chunks(batch_size).map(detect).collect(),
            // Even a single batch is computed within the pool: from outside, each of its layers would wake the pool's threads
            // and wait to be woken.
            _ => rayon::scope(|_| pictures.par_chunks(batch_size).map(detect).collect()),
        };
        Ok(found?.into_iter().flatten().collect())
    }
}
