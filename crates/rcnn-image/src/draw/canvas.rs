//! Draws lines, areas and text on a picture.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, PxScaleFont, ScaleFont, point};
use image::{Rgb, RgbImage};

/// The background of a new canvas.
pub const WHITE: Rgb<u8> = Rgb([255; 3]);
/// Text that matters.
pub const BLACK: Rgb<u8> = Rgb([25, 28, 32]);
/// Axes and their text.
pub const GREY: Rgb<u8> = Rgb([105, 110, 118]);
/// Lines of a grid.
pub const PALE: Rgb<u8> = Rgb([226, 229, 233]);

/// DejaVu Sans 2.37 cut down to Latin, Greek, Cyrillic and punctuation, without hints and layout.
static FONT: LazyLock<FontRef> = LazyLock::new(|| {
    let bytes = include_bytes!("../../assets/DejaVuSans-subset.ttf");
    FontRef::try_from_slice(bytes).expect("the embedded font is sound")
});

/// Part of a text that stands at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Its start.
    Left,
    /// Its middle.
    Centre,
    /// Its end.
    Right,
}

/// A picture being drawn. What lies outside of it is cut off.
#[derive(Clone, Debug)]
pub struct Canvas(pub RgbImage);

impl Canvas {
    /// Creates a white canvas of a size in pixels.
    pub fn new(width: u32, height: u32) -> Self {
        Self(RgbImage::from_pixel(width, height, WHITE))
    }

    /// Covers a pixel with a colour to some extent, from 0 to 1.
    pub(super) fn blend(&mut self, x: i64, y: i64, colour: Rgb<u8>, coverage: f32) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
            return;
        };
        let Some(pixel) = self.0.get_pixel_mut_checked(x, y) else {
            return;
        };
        for (old, new) in pixel.0.iter_mut().zip(colour.0) {
            let (from, to) = (f32::from(*old), f32::from(new));
            *old = (from + (to - from) * coverage.clamp(0.0, 1.0)).round() as u8;
        }
    }

    /// Fills an area, given by its left top corner and its `[width, height]` in pixels.
    pub fn fill(&mut self, left: i64, top: i64, size: [i64; 2], colour: Rgb<u8>) {
        let (width, height) = (i64::from(self.0.width()), i64::from(self.0.height()));
        for y in top.max(0)..(top + size[1]).min(height) {
            for x in left.max(0)..(left + size[0]).min(width) {
                self.0.put_pixel(x as u32, y as u32, colour);
            }
        }
    }

    /// Draws the edges of a box `[left, top, right, bottom]`, `line` pixels wide, within it.
    pub fn frame(&mut self, bounds: [i64; 4], line: i64, colour: Rgb<u8>) {
        let [left, top, right, bottom] = bounds;
        let (width, height) = (right - left, bottom - top);
        self.fill(left, top, [width, line.min(height)], colour);
        self.fill(
            left,
            top.max(bottom - line),
            [width, line.min(height)],
            colour,
        );
        self.fill(left, top, [line.min(width), height], colour);
        self.fill(
            left.max(right - line),
            top,
            [line.min(width), height],
            colour,
        );
    }

    /// Draws a straight line with round ends; one from a point to itself is a disc.
    pub fn line(&mut self, from: [f32; 2], to: [f32; 2], width: f32, colour: Rgb<u8>) {
        let reach = width / 2.0 + 1.0;
        let range = |axis: usize| {
            let low = from[axis].min(to[axis]) - reach;
            let high = from[axis].max(to[axis]) + reach;
            low.floor() as i64..=high.ceil() as i64
        };
        let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
        let length = (dx * dx + dy * dy).max(f32::EPSILON);
        for y in range(1) {
            for x in range(0) {
                let (px, py) = (x as f32 + 0.5 - from[0], y as f32 + 0.5 - from[1]);
                let along = ((px * dx + py * dy) / length).clamp(0.0, 1.0);
                let distance = (px - along * dx).hypot(py - along * dy);
                self.blend(x, y, colour, width / 2.0 + 0.5 - distance);
            }
        }
    }

    /// Writes a text with an em of `size` pixels; `y` is the middle of its capitals.
    pub fn text(&mut self, [x, y]: [f32; 2], align: Align, text: &str, size: f32, colour: Rgb<u8>) {
        let start = x - shift(align) * text_width(text, size);
        glyphs(text, size, |along, across, coverage| {
            let at = [start + along, y + across].map(|v| v.round() as i64);
            self.blend(at[0], at[1], colour, coverage);
        });
    }

    /// Writes a text that reads upwards; `x` is the middle of its capitals.
    pub fn text_up(
        &mut self,
        [x, y]: [f32; 2],
        align: Align,
        text: &str,
        size: f32,
        colour: Rgb<u8>,
    ) {
        let start = y + shift(align) * text_width(text, size);
        glyphs(text, size, |along, across, coverage| {
            let at = [x + across, start - along].map(|v| v.round() as i64);
            self.blend(at[0], at[1], colour, coverage);
        });
    }
}

/// The share of a text's width that lies before its point.
fn shift(align: Align) -> f32 {
    match align {
        Align::Left => 0.0,
        Align::Centre => 0.5,
        Align::Right => 1.0,
    }
}

/// The font with an em of `size` pixels.
fn scaled(size: f32) -> PxScaleFont<&'static FontRef<'static>> {
    let font: &FontRef = &FONT;
    let em = font.units_per_em().unwrap_or(1000.0);
    font.into_scaled(size * font.height_unscaled() / em)
}

/// The height in pixels of a line of text with an em of `size` pixels.
pub(super) fn line_height(size: f32) -> f32 {
    scaled(size).height()
}

/// The width in pixels of a text with an em of `size` pixels.
pub fn text_width(text: &str, size: f32) -> f32 {
    let font = scaled(size);
    text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum()
}

/// Whether there is a glyph for each letter of a text.
pub fn is_legible(text: &str) -> bool {
    let font: &FontRef = &FONT;
    let mut letters = text.chars().filter(|c| !c.is_whitespace());
    letters.all(|letter| font.glyph_id(letter).0 != 0)
}

/// A text, or a number in its place where the font lacks letters of it: Chinese, for instance.
pub fn legible(text: &str, number: impl Display) -> Cow<'_, str> {
    match is_legible(text) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(number.to_string()),
    }
}

/// The text, or as much of its beginning as fits into `width` pixels, with an ellipsis.
pub fn fit(text: &str, size: f32, width: f32) -> String {
    if text_width(text, size) <= width {
        return text.into();
    }
    let mut fitting: String = text.into();
    while fitting.pop().is_some() {
        let cut = format!("{}…", fitting.trim_end());
        if text_width(&cut, size) <= width {
            return cut;
        }
    }
    fitting
}

/// Calls `pixel` with whole steps along and across (from the middle of capitals) and the coverage.
fn glyphs(text: &str, size: f32, mut pixel: impl FnMut(f32, f32, f32)) {
    let font = scaled(size);
    // Capitals of DejaVu are 0.73 em high.
    let baseline = (0.365 * size).round();
    let mut x = 0.0;
    for character in text.chars() {
        let id = font.glyph_id(character);
        let glyph = id.with_scale_and_position(font.scale(), point(x, baseline));
        x += font.h_advance(id);
        if let Some(outline) = font.outline_glyph(glyph) {
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, coverage| {
                pixel(corner.x + dx as f32, corner.y + dy as f32, coverage);
            });
        }
    }
}
