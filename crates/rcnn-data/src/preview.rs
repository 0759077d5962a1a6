//! Previews of augmented samples, and sheets of many pictures.

use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};

use crate::loader::{Example, LoadError, Loader};

/// The pixels between pictures of a sheet.
const GAP: u32 = 4;

/// Augmented samples as training sees them: the first `count` of an epoch.
///
/// # Errors
/// Each picture that can't be loaded is one, in its place.
pub fn examples(loader: &Loader, epoch: u64, count: usize) -> Vec<Result<Example, LoadError>> {
    loader.epoch(epoch).flatten().take(count).collect()
}

/// A picture shrunk to fit a cell of so many pixels of width and height; never blown up.
pub fn shrink(picture: &RgbImage, cell: (u32, u32)) -> RgbImage {
    let (width, height) = picture.dimensions();
    if picture.is_empty() || (width <= cell.0 && height <= cell.1) {
        return picture.clone();
    }
    let scale = (cell.0 as f32 / width as f32).min(cell.1 as f32 / height as f32);
    let fitted = |side: u32| ((side as f32 * scale).round() as u32).max(1);
    resize(picture, fitted(width), fitted(height), FilterType::Triangle)
}

/// Lays pictures out in rows, each [shrunk](shrink) to fit a cell and centred in it, on white.
///
/// `cell` is the width and height of a cell in pixels. Without pictures or columns, it is a single
/// empty cell.
pub fn contact_sheet(pictures: &[RgbImage], columns: u32, cell: (u32, u32)) -> RgbImage {
    let (width, height) = (cell.0.max(1), cell.1.max(1));
    let columns = columns.clamp(1, (pictures.len() as u32).max(1));
    let rows = (pictures.len() as u32).div_ceil(columns).max(1);
    let side = |cells: u32, length: u32| cells * (length + GAP) + GAP;
    let white = Rgb([255; 3]);
    let mut sheet = RgbImage::from_pixel(side(columns, width), side(rows, height), white);
    for (place, picture) in (0..).zip(pictures) {
        if picture.is_empty() {
            continue;
        }
        let small = shrink(picture, (width, height));
        let (w, h) = small.dimensions();
        let x = side(place % columns, width) + (width - w) / 2;
        let y = side(place / columns, height) + (height - h) / 2;
        replace(&mut sheet, &small, x.into(), y.into());
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_tiled() {
        let red = RgbImage::from_pixel(40, 20, Rgb([255, 0, 0]));
        let blue = RgbImage::from_pixel(5, 5, Rgb([0, 0, 255]));
        let sheet = contact_sheet(&[red.clone(), red, blue], 2, (20, 20));
        assert_eq!(sheet.dimensions(), (2 * 24 + 4, 2 * 24 + 4));
        assert_eq!(sheet.get_pixel(4, 9).0, [255, 0, 0]);
        assert_eq!(sheet.get_pixel(4, 8).0, [255; 3]);
        assert_eq!(sheet.get_pixel(28 + 19, 9 + 9).0, [255, 0, 0]);
        // Small pictures are not blown up.
        assert_eq!(sheet.get_pixel(4 + 7, 28 + 7).0, [0, 0, 255]);
        assert_eq!(sheet.get_pixel(4 + 6, 28 + 7).0, [255; 3]);
        contact_sheet(&[], 0, (0, 0));
    }
}
