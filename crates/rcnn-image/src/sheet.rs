//! Several pictures in one.

use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};

/// A picture shrunk to fit a cell of some width and height in pixels; never enlarged.
pub fn shrink(picture: &RgbImage, cell: (u32, u32)) -> RgbImage {
    let (width, height) = picture.dimensions();
    if picture.is_empty() || (width <= cell.0 && height <= cell.1) {
        return picture.clone();
    }
    let scale = (cell.0 as f32 / width as f32).min(cell.1 as f32 / height as f32);
    let fitted = |side: u32| ((side as f32 * scale).round() as u32).max(1);
    resize(picture, fitted(width), fitted(height), FilterType::Triangle)
}

/// Rows of cells of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// The cells of a row; with fewer pictures, as many as those, and at least one.
    pub columns: u32,
    /// The width and height of a cell in pixels, at least one each.
    pub cell: (u32, u32),
    /// The pixels between cells and around them.
    pub gap: u32,
    /// What is seen there, and where a picture does not fill its cell.
    pub background: Rgb<u8>,
}

impl Grid {
    /// Lays pictures out row by row, each [shrunk](shrink) to fit its cell and centred in it. Without
    /// any, there is one empty cell.
    pub fn draw(&self, pictures: &[RgbImage]) -> RgbImage {
        let (width, height) = (self.cell.0.max(1), self.cell.1.max(1));
        let count = (pictures.len() as u32).max(1);
        let columns = self.columns.clamp(1, count);
        let side = |cells: u32, length: u32| cells * (length + self.gap) + self.gap;
        let size = (side(columns, width), side(count.div_ceil(columns), height));
        let mut sheet = RgbImage::from_pixel(size.0, size.1, self.background);
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
            cell: (20, 20),
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
            cell: (0, 0),
            ..grid
        };
        assert_eq!(none.draw(&[]).dimensions(), (9, 9));
        assert_eq!(none.draw(&[RgbImage::new(0, 7)]).dimensions(), (9, 9));
    }
}
