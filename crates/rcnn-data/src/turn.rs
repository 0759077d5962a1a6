//! Labels made on a picture as it is stored, for which the orientation in the file was not heeded.

use rcnn_image::{Header, Orientation};
use rcnn_types::{Mask, Size};

use crate::annotations::{AnnotatedObject, Bounds};
use crate::shapes;

/// Turns labels with their picture.
pub(crate) struct Turn {
    stored: Size,
    upright: Size,
    orientation: Orientation,
}

/// Whether a data set's labels were made on the pictures as they are stored: some sizes show that, and none the contrary.
pub(crate) fn are_on_stored<'a>(
    mut pictures: impl Iterator<Item = (&'a Header, Option<Size>)>,
) -> bool {
    let mut shown = false;
    let contrary = pictures.any(|(header, stated)| {
        let upright = header.upright_size();
        shown |= is_stored_size(header, stated);
        upright != header.stored && stated == Some(upright)
    });
    shown && !contrary
}

fn is_stored_size(header: &Header, stated: Option<Size>) -> bool {
    stated == Some(header.stored) && header.stored != header.upright_size()
}

/// Whether a picture is turned or flipped and its size does not show on which way up it was labelled.
pub(crate) fn is_unclear(header: &Header, stated: Option<Size>) -> bool {
    let same = header.stored == header.upright_size();
    let shows_nothing = |stated: Size| same && stated == header.stored;
    header.orientation != Orientation::NoTransforms && stated.is_none_or(shows_nothing)
}

impl Turn {
    /// The turn that the labels of a picture need whose stated size is not that of the upright picture but
    /// that of the stored one. Where the sizes do not show it, its labels are `like_others`.
    pub(crate) fn new(header: &Header, stated: Option<Size>, like_others: bool) -> Option<Self> {
        let needed = is_stored_size(header, stated) || like_others && is_unclear(header, stated);
        needed.then(|| Self {
            stored: header.stored,
            upright: header.upright_size(),
            orientation: header.orientation,
        })
    }

    pub(crate) fn object(&self, object: &AnnotatedObject) -> AnnotatedObject {
        let mut object = object.clone();
        if let Ok(Bounds::Pixels([x1, y1, x2, y2])) = object.bounds {
            let [a, b] = [self.point([x1, y1]), self.point([x2, y2])];
            let low = |axis: usize| a[axis].min(b[axis]);
            let high = |axis: usize| a[axis].max(b[axis]);
            // A box the wrong way round stays wrong.
            if x1 < x2 && y1 < y2 {
                object.bounds = Ok(Bounds::Pixels([low(0), low(1), high(0), high(1)]));
            }
        }
        // What cannot be read is validated as it stands.
        let mut turn = |name: &str, turned: fn(&Self, &str) -> Option<String>| {
            if let Some(json) = object.extras.get(name).and_then(|json| turned(self, json)) {
                object.extras.set(name, json);
            }
        };
        turn("segmentation", Self::segmentation);
        turn("keypoints", Self::keypoints);
        object
    }

    /// Where a point of the stored picture is in the upright one.
    fn point(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let (width, height) = (self.stored.width as f64, self.stored.height as f64);
        match self.orientation {
            Orientation::NoTransforms => [x, y],
            Orientation::FlipHorizontal => [width - x, y],
            Orientation::FlipVertical => [x, height - y],
            Orientation::Rotate180 => [width - x, height - y],
            Orientation::Rotate90 => [height - y, x],
            Orientation::Rotate270 => [y, width - x],
            Orientation::Rotate90FlipH => [y, x],
            Orientation::Rotate270FlipH => [height - y, width - x],
        }
    }

    /// Polygons, or run lengths.
    fn segmentation(&self, json: &str) -> Option<String> {
        if !json.trim_start().starts_with('[') {
            let mask = self.mask(&shapes::mask(json, self.stored).ok()?);
            let Size { height, width } = self.upright;
            let rle = serde_json::json!({"size": [height, width], "counts": mask.to_compressed()});
            return Some(rle.to_string());
        }
        let mut polygons: Vec<Vec<f64>> = serde_json::from_str(json).ok()?;
        for corner in polygons
            .iter_mut()
            .flat_map(|polygon| polygon.as_chunks_mut::<2>().0)
        {
            *corner = self.point(*corner);
        }
        serde_json::to_string(&polygons).ok()
    }

    fn keypoints(&self, json: &str) -> Option<String> {
        let mut numbers: Vec<f64> = serde_json::from_str(json).ok()?;
        for [x, y, visibility] in numbers.as_chunks_mut::<3>().0 {
            // The others are zeros by convention.
            if *visibility > 0.0 {
                [*x, *y] = self.point([*x, *y]);
            }
        }
        serde_json::to_string(&numbers).ok()
    }

    fn mask(&self, mask: &Mask) -> Mask {
        let mut bits = vec![false; self.upright.pixels()];
        let object = mask
            .to_bits()
            .into_iter()
            .enumerate()
            .filter(|(_, bit)| *bit);
        for (place, _) in object {
            let (x, y) = (place % self.stored.width, place / self.stored.width);
            let [x, y] = self.point([x as f64 + 0.5, y as f64 + 0.5]);
            bits[y as usize * self.upright.width + x as usize] = true;
        }
        Mask::from_bits(&bits, self.upright)
    }
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GrayImage, Luma};

    use super::*;

    /// Each pixel goes where the decoder puts it.
    #[test]
    fn points_turn_with_the_picture() {
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let stored = GrayImage::from_fn(3, 2, |x, y| Luma([(3 * y + x) as u8]));
            let mut upright = DynamicImage::from(stored.clone());
            upright.apply_orientation(orientation);
            let upright = upright.into_luma8();
            let turn = Turn {
                stored: Size::new(2, 3),
                upright: Size::from_dimensions(upright.dimensions()),
                orientation,
            };
            for (x, y, pixel) in stored.enumerate_pixels() {
                let [x, y] = turn.point([f64::from(x) + 0.5, f64::from(y) + 0.5]);
                assert_eq!(
                    upright.get_pixel(x as u32, y as u32),
                    pixel,
                    "orientation {exif}"
                );
                let bits: Vec<bool> = stored.pixels().map(|p| p == pixel).collect();
                let mask = turn.mask(&Mask::from_bits(&bits, turn.stored));
                let expected: Vec<bool> = upright.pixels().map(|p| p == pixel).collect();
                assert_eq!(mask.to_bits(), expected, "orientation {exif}");
            }
        }
    }
}
