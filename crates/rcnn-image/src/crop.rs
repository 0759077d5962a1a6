//! Parts of pictures.

use image::RgbImage;
use image::imageops::crop_imm;
use rcnn_types::Window;

/// The pixels of a window of a picture, as far as they are in it.
pub fn crop(picture: &RgbImage, [left, top, right, bottom]: Window) -> RgbImage {
    crop_imm(picture, left, top, right - left, bottom - top).to_image()
}
