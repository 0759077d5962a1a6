//! Tiles of a large picture.

use crate::Size;
use crate::validate::{InvalidField, require};

/// A part of a picture: left, top, right and bottom in pixels.
pub type Window = [u32; 4];

/// Overlapping square tiles that cover a picture, those of SAHI's `get_slice_bboxes`.
///
/// Where the last tile of a row or column would reach beyond the picture, it is moved back inside; a picture that is
/// smaller than a tile is one tile.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_types as tile; pub use rcnn_types::Size; }
/// use rcnn_burn::Size;
/// use rcnn_burn::tile::TileGrid;
///
/// let grid = TileGrid { side: 640, overlap: 0.2 };
/// let tiles: Vec<_> = grid.tiles(Size::new(480, 1000)).collect();
/// assert_eq!(tiles, [[0, 0, 640, 480], [360, 0, 1000, 480]]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TileGrid {
    /// Width and height of a tile, in pixels.
    pub side: u32,
    /// Share of a tile's side that its neighbour covers too, from 0 to below 1.
    pub overlap: f64,
}

impl TileGrid {
    /// Checks side and overlap.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), InvalidField> {
        require(
            self.side > 0,
            "tile",
            self.side,
            "a number of pixels from 1",
        )?;
        let valid = (0.0..1.0).contains(&self.overlap);
        require(
            valid,
            "overlap",
            self.overlap,
            "a share of the tile, from 0 to below 1",
        )
    }

    /// The tiles of a picture, row by row; none where it has no pixels.
    ///
    /// # Panics
    /// When the grid is not valid.
    pub fn tiles(&self, picture: Size) -> impl ExactSizeIterator<Item = Window> + use<> {
        let (width, height) = picture.dimensions();
        let (columns, rows) = (self.intervals(width), self.intervals(height));
        let across = columns.len();
        (0..rows.len() * across).map(move |index| {
            let ([top, bottom], [left, right]) = (rows[index / across], columns[index % across]);
            [left, top, right, bottom]
        })
    }

    /// Starts and ends of the tiles along a side.
    fn intervals(&self, length: u32) -> Vec<[u32; 2]> {
        let shared = (self.overlap * f64::from(self.side)) as u32;
        assert!(shared < self.side, "tiles that overlap wholly");
        let step = u64::from(self.side - shared);
        let (side, length) = (u64::from(self.side), u64::from(length));
        let number = match length {
            0 => 0,
            _ => length.saturating_sub(side).div_ceil(step) + 1,
        };
        let interval = |index: u64| {
            let end = (index * step + side).min(length);
            [end.saturating_sub(side) as u32, end as u32]
        };
        (0..number).map(interval).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `get_slice_bboxes` of SAHI, as it is written there.
    fn sahi(picture: Size, side: i64, overlap: f64) -> Vec<Window> {
        let (width, height) = (picture.width as i64, picture.height as i64);
        let shared = (overlap * side as f64) as i64;
        let mut tiles = Vec::new();
        let (mut y_min, mut y_max) = (0, 0);
        while y_max < height {
            let (mut x_min, mut x_max) = (0, 0);
            y_max = y_min + side;
            while x_max < width {
                x_max = x_min + side;
                if y_max > height || x_max > width {
                    x_max = x_max.min(width);
                    y_max = y_max.min(height);
                    x_min = (x_max - side).max(0);
                    y_min = (y_max - side).max(0);
                }
                tiles.push([x_min, y_min, x_max, y_max].map(|edge| edge as u32));
                x_min = x_max - shared;
            }
            y_min = y_max - shared;
        }
        tiles
    }

    #[test]
    fn tiles_are_sahis() {
        for side in [1, 2, 7, 64, 100, 640] {
            for overlap in [0.0, 0.1, 0.2, 0.29, 0.5, 0.9, 0.99] {
                for (height, width) in [(1, 1), (7, 200), (64, 65), (199, 640), (301, 97)] {
                    let (picture, grid) = (Size::new(height, width), TileGrid { side, overlap });
                    let tiles: Vec<_> = grid.tiles(picture).collect();
                    assert_eq!(
                        tiles,
                        sahi(picture, i64::from(side), overlap),
                        "{grid:?} {picture:?}"
                    );
                }
            }
        }
        let grid = TileGrid {
            side: 640,
            overlap: 0.2,
        };
        assert_eq!(grid.tiles(Size::new(3000, 4000)).len(), 48);
        assert_eq!(grid.tiles(Size::new(0, 10)).len(), 0);
        assert_eq!(grid.tiles(Size::new(20_000, 30_000)).len(), 39 * 59);
    }

    #[test]
    fn a_grid_that_cannot_be_is_an_error() {
        let fault = |side, overlap| {
            TileGrid { side, overlap }
                .validate()
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            fault(0, 0.2),
            "tile = 0: expected a number of pixels from 1"
        );
        for overlap in [1.0, -0.1, f64::NAN] {
            assert!(fault(640, overlap).starts_with("overlap = "));
        }
    }
}
