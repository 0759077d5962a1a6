//! Contact sheets: several pictures in one.

use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};
use rcnn_types::Size;

/// Shrinks a picture to fit a cell, with its aspect ratio kept; never enlarges it.
pub fn shrink(picture: &RgbImage, cell: Size) -> RgbImage {
    let ((width, height), (most_w, most_h)) = (picture.dimensions(), cell.dimensions());
    if picture.is_empty() || (width <= most_w && height <= most_h) {
        return picture.clone();
    }
    let scale = (most_w as f32 / width as f32).min(most_h as f32 / height as f32);
    let fitted = |side: u32| ((side as f32 * scale).round() as u32).max(1);
    resize(picture, fitted(width), fitted(height), FilterType::Triangle)
}

/// Rows of cells of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Number of cells in a row, at least one; fewer where there are fewer pictures.
    pub columns: u32,
    /// Size of a cell; a side of 0 counts as 1.
    pub cell: Size,
    /// Width in pixels of the gaps between cells and around them.
    pub gap: u32,
    /// Colour of the gaps, and of what a picture leaves of its cell.
    pub background: Rgb<u8>,
}

impl Grid {
    /// Lays pictures out row by row, each [shrunk](shrink) to fit its cell and centred in it. Without
    /// any, there is one empty cell.
    pub fn draw(&self, pictures: &[RgbImage]) -> RgbImage {
        let cell = Size::new(self.cell.height.max(1), self.cell.width.max(1));
        let (width, height) = cell.dimensions();
        let count = (pictures.len() as u32).max(1);
        let columns = self.columns.clamp(1, count);
        let side = |cells: u32, length: u32| cells * (length + self.gap) + self.gap;
        let size = (side(columns, width), side(count.div_ceil(columns), height));
        let mut sheet = RgbImage::from_pixel(size.0, size.1, self.background);
        for (place, picture) in (0..).zip(pictures) {
            if picture.is_empty() {
                continue;
            }
            let small = shrink(picture, cell);
            let (w, h) = small.dimensions();
            let x = side(place % columns, width) + (width - w) / 2;
            let y = side(place / columns, height) + (height - h) / 2;
            replace(&mut sheet, &small, x.into(), y.into());
        }
        sheet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_tiled() {
        let red = RgbImage::from_pixel(40, 20, Rgb([255, 0, 0]));
        let blue = RgbImage::from_pixel(5, 5, Rgb([0, 0, 255]));
        let grid = Grid {
            columns: 2,
            cell: Size::new(20, 20),
            gap: 4,
            background: Rgb([255; 3]),
        };
        let sheet = grid.draw(&[red.clone(), red, blue]);
        assert_eq!(sheet.dimensions(), (2 * 24 + 4, 2 * 24 + 4));
        assert_eq!(sheet.get_pixel(4, 9).0, [255, 0, 0]);
        assert_eq!(sheet.get_pixel(4, 8).0, [255; 3]);
        assert_eq!(sheet.get_pixel(28 + 19, 9 + 9).0, [255, 0, 0]);
        // Small pictures are not enlarged.
        assert_eq!(sheet.get_pixel(4 + 7, 28 + 7).0, [0, 0, 255]);
        assert_eq!(sheet.get_pixel(4 + 6, 28 + 7).0, [255; 3]);
        let none = Grid {
            columns: 0,
            cell: Size::default(),
            ..grid
        };
        assert_eq!(none.draw(&[]).dimensions(), (9, 9));
        assert_eq!(none.draw(&[RgbImage::new(0, 7)]).dimensions(), (9, 9));
    }
}
