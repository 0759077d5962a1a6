//! What the readers of all formats yield: the content of label files, not yet validated.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rcnn_types::Size;

use crate::extras::Extras;
use crate::problems::Problems;

/// The content of label files, which [`into_reading`](Self::into_reading) validates.
#[derive(Default)]
pub(crate) struct Annotations {
    /// Without the background.
    pub(crate) class_names: Vec<String>,
    /// As many as names, or empty for 1, 2, ...
    pub(crate) category_ids: Vec<u64>,
    /// As many as names, or empty.
    pub(crate) category_extras: Vec<Extras>,
    pub(crate) extras: Extras,
    pub(crate) images: Vec<AnnotatedImage>,
    /// Whether the images have lost the ids of their files.
    pub(crate) renumbered: bool,
    /// Indices of images.
    pub(crate) splits: BTreeMap<String, Vec<usize>>,
    pub(crate) problems: Problems,
}

pub(crate) struct AnnotatedImage {
    pub(crate) path: PathBuf,
    /// Where the image is named, for messages.
    pub(crate) named_by: PathBuf,
    /// Where it was looked for, if it was not found.
    pub(crate) looked_in: Option<String>,
    pub(crate) id: Option<u64>,
    /// The size by the label file.
    pub(crate) stated: Option<Size>,
    pub(crate) labels: Option<PathBuf>,
    /// Where they were looked for.
    pub(crate) expected_labels: Option<PathBuf>,
    pub(crate) extras: Extras,
    pub(crate) objects: Vec<AnnotatedObject>,
}

pub(crate) struct AnnotatedObject {
    pub(crate) number: u64,
    /// An index of `class_names`, or what stands there instead.
    pub(crate) class: Result<usize, String>,
    /// The edges, or what is wrong with them.
    pub(crate) bounds: Result<Bounds, String>,
    pub(crate) crowd: bool,
    pub(crate) area: Option<f32>,
    /// The corners of its mask in shares of the image, `x, y, x, y, ...`; empty if it has none.
    pub(crate) polygon: Vec<f64>,
    pub(crate) extras: Extras,
}

/// Left, top, right and bottom.
#[derive(Clone, Copy)]
pub(crate) enum Bounds {
    Pixels([f64; 4]),
    /// In shares of the image.
    Relative([f64; 4]),
}

impl AnnotatedObject {
    /// The extras, the polygon among them as a mask in pixels.
    pub(crate) fn extras_in_pixels(&self, size: Size) -> Extras {
        let mut extras = self.extras.clone();
        if !self.polygon.is_empty() {
            let sides = [size.width, size.height].into_iter().cycle();
            let corners = self.polygon.iter().zip(sides);
            // Without the noise of binary fractions.
            let pixels = |(share, side): (&f64, usize)| (share * side as f64 * 1e6).round() / 1e6;
            let corners: Vec<String> = corners.map(|c| pixels(c).to_string()).collect();
            extras.push("segmentation", format!("[[{}]]", corners.join(", ")));
        }
        extras
    }
}
