//! Content of label files of any format, not yet validated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

impl Annotations {
    /// The first label file of data whose boxes are in shares of the image although their format has pixels: all of them lie
    /// within a pixel.
    pub(crate) fn boxes_in_shares(&self) -> Option<&Path> {
        let mut objects = self.images.iter().flat_map(|image| &image.objects);
        let mut has_fractions = false;
        let are_within = objects.all(|object| match &object.bounds {
            Ok(Bounds::Pixels(edges)) => {
                has_fractions |= edges.iter().any(|edge| edge.fract() != 0.0);
                edges.iter().all(|edge| (0.0..=1.0).contains(edge))
            }
            Ok(Bounds::Relative(_)) => false,
            Err(_) => true,
        });
        let first = || self.images.iter().find_map(|image| image.labels.as_deref());
        first().filter(|_| are_within && has_fractions)
    }
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

#[derive(Clone)]
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
    /// `[x, y, visibility]` of its keypoints, x and y in shares of the image; empty if it has none.
    pub(crate) keypoints: Vec<[f64; 3]>,
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
    /// The extras, the polygon and the keypoints among them in pixels, as COCO has them.
    pub(crate) fn extras_in_pixels(&self, size: Size) -> Extras {
        let mut extras = self.extras.clone();
        // Without the noise of binary fractions.
        let pixels = |share: f64, side: usize| (share * side as f64 * 1e6).round() / 1e6;
        let list = |numbers: Vec<f64>| {
            let numbers: Vec<String> = numbers.iter().map(f64::to_string).collect();
            format!("[{}]", numbers.join(", "))
        };
        if !self.polygon.is_empty() {
            let sides = [size.width, size.height].into_iter().cycle();
            let corners = self.polygon.iter().zip(sides);
            let corners = corners.map(|(share, side)| pixels(*share, side));
            extras.push("segmentation", format!("[{}]", list(corners.collect())));
        }
        if !self.keypoints.is_empty() {
            let labelled = self.keypoints.iter().filter(|point| point[2] > 0.0);
            // pycocotools does without masks, but not without this.
            extras.push("num_keypoints", labelled.count().to_string());
            let points = self.keypoints.iter();
            let points =
                points.flat_map(|[x, y, v]| [pixels(*x, size.width), pixels(*y, size.height), *v]);
            extras.push("keypoints", list(points.collect()));
        }
        extras
    }
}
