//! Draws masks and keypoints of detections.

use image::Rgb;
use rcnn_types::{Keypoints, Mask};

use super::canvas::{Canvas, WHITE};

/// How much of the picture a mask hides.
const COVERAGE: f32 = 0.4;

/// Lines of a colour within a dark edge, so that they show on light and dark pictures.
#[derive(Clone, Copy, Debug)]
pub struct Pen {
    /// Colour of the line.
    pub colour: Rgb<u8>,
    /// Colour of its edge.
    pub shade: Rgb<u8>,
    /// Width of the line in pixels.
    pub line: i64,
    /// Width of the edge in pixels, on each side.
    pub edge: i64,
}

/// Covers a mask, of the picture's size, with a translucent colour and draws its outline.
pub fn draw_mask(canvas: &mut Canvas, mask: &Mask, pen: Pen) {
    let Pen {
        colour,
        shade,
        line,
        edge,
    } = pen;
    let [x1, y1, x2, y2] = mask.bounds().map(|v| v as i64);
    let (width, height) = (mask.size().width as i64, mask.size().height as i64);
    let window = [
        (x1 - edge).max(0),
        (y1 - edge).max(0),
        (x2 + edge).min(width),
        (y2 + edge).min(height),
    ];
    let [left, top, right, bottom] = window;
    let bits = mask.crop(window.map(|v| v as u32)).to_bits();
    let columns = right - left;
    let is_object = |x: i64, y: i64| {
        let within = (left..right).contains(&x) && (top..bottom).contains(&y);
        within && bits[((y - top) * columns + x - left) as usize]
    };
    for y in top..bottom {
        for x in left..right {
            let around = |by: i64| [(x - by, y), (x + by, y), (x, y - by), (x, y + by)];
            let (colour, coverage) = match is_object(x, y) {
                true if around(line).iter().any(|&(x, y)| !is_object(x, y)) => (colour, 1.0),
                true => (colour, COVERAGE),
                false if around(edge).iter().any(|&(x, y)| is_object(x, y)) => (shade, 1.0),
                false => continue,
            };
            canvas.blend(x, y, colour, coverage);
        }
    }
}

/// Draws the keypoints that are labelled, and lines between those that `edges` connects, positions from 0.
pub fn draw_keypoints(canvas: &mut Canvas, keypoints: &Keypoints, edges: &[[usize; 2]], pen: Pen) {
    let Pen {
        colour,
        shade,
        line,
        edge,
    } = pen;
    let (width, height) = canvas.0.dimensions();
    let at = |index: usize| {
        let [x, y, visibility] = *keypoints.0.get(index)?;
        // No comparison holds for NaN.
        let inside = 0.0 <= x && x <= width as f32 && 0.0 <= y && y <= height as f32;
        (inside && visibility > 0.0).then_some([x, y])
    };
    let lines = || {
        let ends = edges
            .iter()
            .filter_map(|[from, to]| Some((at(*from)?, at(*to)?)));
        ends.map(|ends| (ends, line as f32))
    };
    let points = || {
        let points = (0..keypoints.0.len()).filter_map(at);
        points.map(|point| ((point, point), 3.0 * line as f32))
    };
    for ((from, to), size) in lines().chain(points()) {
        canvas.line(from, to, size + 2.0 * edge as f32, shade);
    }
    for ((from, to), size) in lines() {
        canvas.line(from, to, size, colour);
    }
    for ((from, to), size) in points() {
        canvas.line(from, to, size, WHITE);
    }
}
