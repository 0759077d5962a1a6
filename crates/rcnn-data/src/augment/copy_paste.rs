//! Copy-paste: objects of another picture, cut out along their masks (Ghiasi et al. 2021,
//! <https://arxiv.org/abs/2012.07177>).

use image::imageops::{self, FilterType};
use rand::Rng;
use rcnn_types::{Instances, Mask, Size};

use super::{Labelled, chance};

/// The probability that an object is taken, as in torchvision's references about half of them are.
const TAKEN: f64 = 0.5;

/// Pastes objects of another picture, drawn by chance, over a picture, at the places where they are in the
/// other one, scaled to the same size.
///
/// Objects beneath lose what is covered: their masks, areas and boxes shrink, those that are covered whole
/// are dropped, and covered keypoints are hidden ones. Objects without a mask, and whole pictures without
/// one, are left as they are.
pub fn copy_paste(mut picture: Labelled, other: &Labelled, rng: &mut impl Rng) -> Labelled {
    let has_mask = |objects: &Instances, index: usize| {
        let masks = objects.masks.as_ref();
        masks.is_some_and(|masks| masks[index].area() > 0)
    };
    let objects = &other.instances;
    let taken = (0..objects.len()).filter(|&index| has_mask(objects, index));
    let taken: Vec<usize> = taken.filter(|_| chance(TAKEN, rng)).collect();
    // A list of boxes without masks would lose those of the objects that come.
    let fits = picture.instances.is_empty() || picture.instances.masks.is_some();
    if taken.is_empty() || !fits {
        return picture;
    }
    let mut pasted = objects.select(&taken);
    let [from, to] = [other, &picture].map(|p| Size::from_dimensions(p.image.dimensions()));
    let resized;
    let source = if from == to {
        &other.image
    } else {
        pasted.resize(from, to);
        let (width, height) = picture.image.dimensions();
        resized = imageops::resize(&other.image, width, height, FilterType::Triangle);
        &resized
    };
    pasted.retain(|object| object.mask.is_some_and(|mask| mask.area() > 0));
    let masks = pasted.masks.iter().flatten().cloned();
    let Some(cover) = masks.reduce(|all, mask| all.union(&mask)) else {
        return picture;
    };
    let bits = cover.to_bits();
    let pixels = picture.image.pixels_mut().zip(source.pixels());
    for ((pixel, other), _) in pixels.zip(&bits).filter(|(_, covered)| **covered) {
        *pixel = *other;
    }
    let is_covered = |x: f32, y: f32| {
        let inside = 0.0 <= x && 0.0 <= y && x < to.width as f32 && y < to.height as f32;
        inside && bits[y as usize * to.width + x as usize]
    };
    uncover(&mut picture.instances, &cover, is_covered);
    picture.instances.append(pasted);
    picture
}

/// Takes what is covered off the objects.
fn uncover(objects: &mut Instances, cover: &Mask, is_covered: impl Fn(f32, f32) -> bool) {
    let mut areas: Vec<f32> = (0..objects.len())
        .map(|index| objects.area(index))
        .collect();
    let mut gone = vec![false; objects.len()];
    for (index, mask) in objects.masks.iter_mut().flatten().enumerate() {
        let left = mask.subtract(cover);
        if left != *mask {
            gone[index] = left.area() == 0;
            objects.boxes[index] = left.bounds();
            areas[index] = left.area() as f32;
            *mask = left;
        }
    }
    for point in objects
        .keypoints
        .iter_mut()
        .flatten()
        .flat_map(|points| &mut points.0)
    {
        if point[2] > 1.0 && is_covered(point[0], point[1]) {
            point[2] = 1.0;
        }
    }
    objects.areas = Some(areas);
    let left: Vec<usize> = (0..objects.len()).filter(|&index| !gone[index]).collect();
    *objects = objects.select(&left);
}
