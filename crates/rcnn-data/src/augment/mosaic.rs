//! Mosaic: four pictures around a point, each with its boxes.

use image::imageops::{self, FilterType};
use rand::Rng;

use super::crop::crop;
use super::{Labelled, between};

/// Where the point is, in shares of the sides.
const CENTRE: [f32; 2] = [0.3, 0.7];

/// Joins four pictures into one of the first one's size.
///
/// Each is scaled to cover its quarter, and cut to it at a place drawn by chance; boxes whose
/// centre is cut off are dropped.
pub fn mosaic(pictures: &[Labelled; 4], rng: &mut impl Rng) -> Labelled {
    let (width, height) = pictures[0].image.dimensions();
    if width < 2 || height < 2 {
        return pictures[0].clone();
    }
    let mut point = |side: u32| ((side as f32 * between(CENTRE, rng)) as u32).clamp(1, side - 1);
    let (x, y) = (point(width), point(height));
    let quarters = [
        [0, 0, x, y],
        [x, 0, width, y],
        [0, y, x, height],
        [x, y, width, height],
    ];
    let mut joined = Labelled {
        image: image::RgbImage::new(width, height),
        boxes: Vec::new(),
        labels: Vec::new(),
    };
    for (picture, [left, top, right, bottom]) in pictures.iter().zip(quarters) {
        let part = cover(picture, (right - left, bottom - top), rng);
        imageops::replace(&mut joined.image, &part.image, left.into(), top.into());
        let (dx, dy) = (left as f32, top as f32);
        let moved = part.boxes.iter();
        let moved = moved.map(|b| [b[0] + dx, b[1] + dy, b[2] + dx, b[3] + dy]);
        joined.boxes.extend(moved);
        joined.labels.extend(part.labels);
    }
    joined
}

/// A picture scaled and cut to a size.
fn cover(picture: &Labelled, (width, height): (u32, u32), rng: &mut impl Rng) -> Labelled {
    let (w, h) = picture.image.dimensions();
    let scale = (width as f32 / w as f32).max(height as f32 / h as f32);
    let scaled = |side: u32, least: u32| ((side as f32 * scale).round() as u32).max(least);
    let (new_w, new_h) = (scaled(w, width), scaled(h, height));
    let (sx, sy) = (new_w as f32 / w as f32, new_h as f32 / h as f32);
    let resized = Labelled {
        image: imageops::resize(&picture.image, new_w, new_h, FilterType::Triangle),
        boxes: picture
            .boxes
            .iter()
            .map(|b| [b[0] * sx, b[1] * sy, b[2] * sx, b[3] * sy])
            .collect(),
        labels: picture.labels.clone(),
    };
    let mut offset = |free: u32| (between([0.0, 1.0], rng) * (free + 1) as f32) as u32;
    let (left, top) = (
        offset(new_w - width).min(new_w - width),
        offset(new_h - height).min(new_h - height),
    );
    crop(&resized, [left, top, left + width, top + height])
}
