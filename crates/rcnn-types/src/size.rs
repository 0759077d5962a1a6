//! Size of an image.

use serde::{Deserialize, Serialize};

/// Height and width of an image, in pixels. In files `[height, width]`, as torchvision's tuples.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_types as types; pub use rcnn_types::*; }
/// use rcnn_burn::Size;
///
/// let size = Size::new(480, 640); // height, width
/// assert_eq!(size, Size::from_dimensions((640, 480)));
/// assert_eq!(size.pixels(), 307_200);
/// ```
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(from = "(usize, usize)", into = "(usize, usize)")]
pub struct Size {
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl Size {
    /// Size of `height` rows and `width` columns.
    pub const fn new(height: usize, width: usize) -> Self {
        Self { height, width }
    }

    /// Size from width and height, the order of the `image` crate.
    pub const fn from_dimensions((width, height): (u32, u32)) -> Self {
        Self::new(height as usize, width as usize)
    }

    /// Width and height, the order of the `image` crate. Sides that it has no numbers for are its largest.
    pub fn dimensions(self) -> (u32, u32) {
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        (side(self.width), side(self.height))
    }

    /// Number of pixels; the largest number where that overflows.
    pub const fn pixels(self) -> usize {
        self.height.saturating_mul(self.width)
    }
}

/// From height and width, torchvision's order.
impl From<(usize, usize)> for Size {
    fn from((height, width): (usize, usize)) -> Self {
        Self::new(height, width)
    }
}

/// Height and width, torchvision's order.
impl From<Size> for (usize, usize) {
    fn from(Size { height, width }: Size) -> Self {
        (height, width)
    }
}
