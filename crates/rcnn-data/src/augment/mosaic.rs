//! Mosaic: four pictures around a point, each with its boxes.

use image::imageops::{self, FilterType};
use rand::Rng;
use rcnn_types::{Instances, Size};

use super::crop::crop;
use super::{Labelled, between};

/// Where the point is, in shares of the sides.
const CENTRE: [f32; 2] = [0.3, 0.7];

/// How many times as long as its quarter a scaled picture may be.
const LONGEST: f32 = 8.0;

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
        instances: Instances::default(),
    };
    for (picture, [left, top, right, bottom]) in pictures.iter().zip(quarters) {
        let mut part = cover(picture, (right - left, bottom - top), rng);
        imageops::replace(&mut joined.image, &part.image, left.into(), top.into());
        let size = Size::from_dimensions((width, height));
        part.instances.paste(left, top, size);
        joined.instances.append(part.instances);
    }
    joined
}

/// A picture scaled and cut to a size.
fn cover(picture: &Labelled, size: (u32, u32), rng: &mut impl Rng) -> Labelled {
    let (w, h) = picture.image.dimensions();
    let scale = (size.0 as f32 / w as f32).max(size.1 as f32 / h as f32);
    // Scaled, a thin picture would be huge: most of what will be cut off goes before.
    let longest = |side: u32| ((side as f32 * LONGEST / scale).ceil() as u32).max(1);
    let seen = (w.min(longest(size.0)), h.min(longest(size.1)));
    let part;
    let picture = if seen == (w, h) {
        picture
    } else {
        part = cut_out(picture, seen, rng);
        &part
    };

    let (w, h) = picture.image.dimensions();
    let scaled = |side: u32, least: u32| ((side as f32 * scale).round() as u32).max(least);
    let (new_w, new_h) = (scaled(w, size.0), scaled(h, size.1));
    let mut instances = picture.instances.clone();
    let [from, to] = [(w, h), (new_w, new_h)].map(Size::from_dimensions);
    instances.resize(from, to);
    let image = imageops::resize(&picture.image, new_w, new_h, FilterType::Triangle);
    cut_out(&Labelled { image, instances }, size, rng)
}

/// A part of some size, at a place drawn by chance.
fn cut_out(picture: &Labelled, (width, height): (u32, u32), rng: &mut impl Rng) -> Labelled {
    let (w, h) = picture.image.dimensions();
    let mut offset = |free: u32| ((between([0.0, 1.0], rng) * (free + 1) as f32) as u32).min(free);
    let (left, top) = (offset(w - width), offset(h - height));
    crop(picture, [left, top, left + width, top + height])
}
