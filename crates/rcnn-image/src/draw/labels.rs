//! Draws detections on a picture: boxes, masks and keypoints coloured by class or track, each with a legible tag.

use image::{Rgb, RgbImage};
use rcnn_types::{Keypoints, Mask, Size};

use super::canvas::{Align, Canvas, line_height, text_width};
use super::shapes::{Pen, draw_keypoints, draw_mask};

/// The colours of classes and tracks, of which the first is the background's; early ones differ the most.
pub(super) const PALETTE: [[u8; 3]; 20] = [
    [128, 128, 128],
    [0, 110, 220],
    [255, 225, 25],
    [60, 200, 75],
    [230, 25, 75],
    [245, 130, 48],
    [145, 30, 180],
    [70, 240, 240],
    [240, 50, 230],
    [210, 245, 60],
    [0, 128, 128],
    [250, 190, 212],
    [170, 110, 40],
    [220, 190, 255],
    [128, 0, 0],
    [170, 255, 195],
    [128, 128, 0],
    [255, 215, 180],
    [0, 0, 128],
    [255, 250, 200],
];

/// An object to draw and what to write on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Label<'a> {
    /// `[left, top, right, bottom]` in pixels.
    pub bounds: [f32; 4],
    /// The text of its tag.
    pub text: &'a str,
    /// Number of its colour: its class, or its track. They repeat after 20.
    pub colour: usize,
    /// Its mask, of the picture's size.
    pub mask: Option<&'a Mask>,
    /// Its keypoints.
    pub keypoints: Option<&'a Keypoints>,
    /// Positions, from 0, of the keypoints that a line connects.
    pub skeleton: &'a [[usize; 2]],
}

/// Draws labels, the most important first: those lie on top and place their tags first.
///
/// Boxes are cut to the picture; objects outside of it or with an edge that is NaN are left out, as are
/// masks of another size, keypoints outside, and tags of which another would hide more than a third.
///
/// ```
/// # mod rcnn_burn { pub mod image { pub use image::RgbImage; pub use rcnn_image::draw::*; } }
/// use rcnn_burn::image::{Label, RgbImage, draw_labels};
///
/// let mut picture = RgbImage::new(64, 48);
/// let cell = Label { bounds: [8.0, 16.0, 40.0, 40.0], text: "cell 0.98", colour: 1, ..Label::default() };
/// draw_labels(&mut picture, &[cell]);
/// assert_ne!(picture, RgbImage::new(64, 48));
/// ```
pub fn draw_labels(image: &mut RgbImage, labels: &[Label]) {
    let style = Style::new(image);
    let (boxes, labels): (Vec<Rect>, Vec<&Label>) = labels
        .iter()
        .filter_map(|label| Some((Rect::visible(label.bounds, style.picture)?, label)))
        .unzip();
    let tags = style.place_tags(&boxes, &labels);

    let mut canvas = Canvas(std::mem::take(image));
    let size = Size::from_dimensions(canvas.0.dimensions());
    let pen = |number: usize| Pen {
        colour: Rgb(colour(number)),
        shade: Rgb(shade(colour(number))),
        line: style.line,
        edge: style.edge,
    };
    for label in labels.iter().rev() {
        if let Some(mask) = label.mask.filter(|mask| mask.size() == size) {
            draw_mask(&mut canvas, mask, pen(label.colour));
        }
    }
    for (area, label) in boxes.iter().zip(&labels).rev() {
        let colour = colour(label.colour);
        canvas.frame(area.bounds(), style.line + style.edge, Rgb(shade(colour)));
        canvas.frame(area.bounds(), style.line, Rgb(colour));
    }
    for label in labels.iter().rev() {
        if let Some(keypoints) = label.keypoints {
            draw_keypoints(&mut canvas, keypoints, label.skeleton, pen(label.colour));
        }
    }
    for (tag, label) in tags.iter().zip(&labels).rev() {
        let Some(tag) = *tag else { continue };
        let colour = colour(label.colour);
        canvas.fill(tag.left, tag.top, tag.size(), Rgb(colour));
        canvas.frame(tag.bounds(), style.edge, Rgb(shade(colour)));
        let start = [tag.left + style.padding, (tag.top + tag.bottom) / 2].map(|v| v as f32);
        let ink = Rgb(contrast(colour));
        canvas.text(start, Align::Left, label.text, style.text, ink);
    }
    *image = canvas.0;
}

/// The colour of a number.
pub(super) fn colour(number: usize) -> [u8; 3] {
    PALETTE[number % PALETTE.len()]
}

/// A dark shade of a colour, which keeps boxes and tags of one colour apart.
fn shade(colour: [u8; 3]) -> [u8; 3] {
    colour.map(|v| v / 2)
}

/// Black or white, whichever contrasts more with a colour (by the relative luminance of WCAG 2).
pub(super) fn contrast(colour: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = colour.map(|v| (f32::from(v) / 255.0).powf(2.2));
    let luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    if luminance > 0.179 { [0; 3] } else { [255; 3] }
}

/// Pixels from `left` and `top` up to, but not including, `right` and `bottom`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    pub(super) left: i64,
    pub(super) top: i64,
    pub(super) right: i64,
    pub(super) bottom: i64,
}

impl Rect {
    pub(super) fn new(left: i64, top: i64, right: i64, bottom: i64) -> Self {
        Self {
            left,
            top,
            right,
            bottom,
        }
    }

    /// The part of a box within the picture, at least a pixel large.
    fn visible(bounds: [f32; 4], picture: Rect) -> Option<Self> {
        let [x1, y1, x2, y2] = bounds;
        let (width, height) = (picture.right as f32, picture.bottom as f32);
        // No comparison holds for NaN.
        let inside = x1 < width && y1 < height && x2 >= 0.0 && y2 >= 0.0;
        if picture.area() == 0 || !inside || !(x1 <= x2 && y1 <= y2) {
            return None;
        }
        let left = (x1.round() as i64).clamp(0, picture.right - 1);
        let top = (y1.round() as i64).clamp(0, picture.bottom - 1);
        let right = (x2.round() as i64).clamp(left + 1, picture.right);
        let bottom = (y2.round() as i64).clamp(top + 1, picture.bottom);
        Some(Self::new(left, top, right, bottom))
    }

    fn bounds(&self) -> [i64; 4] {
        [self.left, self.top, self.right, self.bottom]
    }

    /// Width and height.
    fn size(&self) -> [i64; 2] {
        [self.right - self.left, self.bottom - self.top]
    }

    pub(super) fn area(&self) -> i64 {
        let [width, height] = self.size();
        width * height
    }

    /// The number of pixels shared with another.
    pub(super) fn overlap(&self, other: &Self) -> i64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0) * height.max(0)
    }
}

/// The sizes that suit a picture, in pixels.
pub(super) struct Style {
    pub(super) picture: Rect,
    /// The em of the text.
    text: f32,
    pub(super) line: i64,
    pub(super) edge: i64,
    padding: i64,
    tag_height: i64,
}

impl Style {
    pub(super) fn new(image: &RgbImage) -> Self {
        let (width, height) = image.dimensions();
        let text = (width.min(height) as f32 / 40.0).clamp(10.0, 64.0);
        Self {
            picture: Rect::new(0, 0, width.into(), height.into()),
            line: (text / 7.0).round() as i64,
            edge: (text / 24.0).ceil() as i64,
            padding: (text / 4.0).round() as i64,
            tag_height: line_height(text).ceil() as i64,
            text,
        }
    }

    /// The places of the tags, each chosen with regard to the boxes and to the tags before it.
    pub(super) fn place_tags(&self, boxes: &[Rect], labels: &[&Label]) -> Vec<Option<Rect>> {
        let mut tags: Vec<Option<Rect>> = Vec::with_capacity(boxes.len());
        for (area, label) in boxes.iter().zip(labels) {
            let placed = || tags.iter().flatten();
            // Tags must not hide each other and should not hide small boxes.
            let cost = |(rank, tag): (usize, Rect)| {
                let size = tag.area() as f32;
                let tags: i64 = placed().map(|other| tag.overlap(other)).sum();
                let small = |other: &Rect| (size / other.area() as f32).min(1.0).powi(2);
                let boxes: f32 = boxes.iter().map(|b| tag.overlap(b) as f32 * small(b)).sum();
                (20.0 * tags as f32 + boxes + 0.03 * size * rank as f32, tag)
            };
            let places = self.places(area, label.text);
            let costs = places.into_iter().enumerate().map(cost);
            let best = costs.min_by(|a, b| a.0.total_cmp(&b.0)).map(|best| best.1);
            let hidden = |tag: &Rect| placed().any(|other| 3 * tag.overlap(other) > tag.area());
            tags.push(best.filter(|tag| !label.text.is_empty() && !hidden(tag)));
        }
        tags
    }

    /// Where the tag of a box may be, the most usual places first.
    fn places(&self, area: &Rect, text: &str) -> Vec<Rect> {
        let width = text_width(text, self.text).ceil() as i64 + 2 * self.padding;
        let width = width.min(self.picture.right);
        let height = self.tag_height.min(self.picture.bottom);

        let lowest = self.picture.bottom - height;
        let within = area.top.clamp(0, lowest);
        let (above, inside) = (area.top - height, area.bottom - height);
        let rows = [above, area.top, area.bottom, inside, within];
        let free = area.right - area.left - width;
        let along = [0, 4, 2, 1, 3].map(|quarter| area.left + free * quarter / 4);
        let over = [area.left - width / 3, area.right - width * 2 / 3];
        let columns = [&along[..], &over].concat();
        let fitting = rows.iter().filter(|row| (0..=lowest).contains(*row));
        let places = fitting.flat_map(|&top| {
            columns.iter().map(move |&x| {
                let left = x.clamp(0, self.picture.right - width);
                Rect::new(left, top, left + width, top + height)
            })
        });
        places.collect()
    }
}
