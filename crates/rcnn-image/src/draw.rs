//! Drawing: a canvas for lines, areas and text, and the boxes of detections with their tags.

mod canvas;
mod labels;
#[cfg(test)]
mod tests;

pub use canvas::{Align, BLACK, Canvas, GREY, PALE, WHITE, fit, is_legible, legible, text_width};
pub use labels::{Label, draw_labels};
