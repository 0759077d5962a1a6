//! Image files to the tensors that detectors take.

pub use image::RgbImage;
pub use rcnn_image::{Animation, ImageError, ImageErrorKind, StripReader, open_rgb, upright_size};

use burn::tensor::{Tensor, TensorData, backend::Backend};

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
