//! Drawing: a canvas for lines, areas and text, and detections: boxes with their tags, masks and keypoints.

mod canvas;
mod labels;
mod shapes;
#[cfg(test)]
mod tests;

pub use canvas::{Align, BLACK, Canvas, GREY, PALE, WHITE, fit, is_legible, legible, text_width};
pub use labels::{Label, draw_labels};
pub use shapes::{Pen, draw_keypoints, draw_mask};
