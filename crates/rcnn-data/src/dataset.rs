//! A data set in memory: images with their boxes, the names of the classes, and the splits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::detect_format::{Format, Layout};
use crate::error::DataError;
use crate::extras::Extras;
use crate::problems::{ProblemKind, Problems};
use crate::{coco, voc, yolo};

/// The name of class 0, which no box has.
pub const BACKGROUND: &str = "__background__";

/// Images with their boxes. Pictures stay on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The folder or file that was read.
    pub root: PathBuf,
    /// The format of its labels.
    pub format: Format,
    /// Names by label; the first is [`BACKGROUND`]. COCO's are in order of their ids, YOLO's in
    /// order of their numbers, VOC's by name.
    pub class_names: Vec<String>,
    /// The data's own number of each label: COCO's category ids, else the labels themselves.
    pub category_ids: Vec<u64>,
    /// What else COCO says of each label's category, such as its keypoints; empty if nothing.
    pub category_extras: Vec<Extras>,
    /// What else COCO says of all: `info` and `licenses`.
    pub extras: Extras,
    /// The images.
    pub samples: Vec<Sample>,
    /// Indices of the samples in each split; splits may overlap (VOC's `trainval`).
    pub splits: BTreeMap<String, Vec<usize>>,
}

/// One image and what is on it. Without boxes, it is background.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The picture file.
    pub image: PathBuf,
    /// A number of its own within the data set: COCO's id, else the place in order from 1.
    pub image_id: u64,
    /// The width of the upright picture in pixels.
    pub width: u32,
    /// The height of the upright picture in pixels.
    pub height: u32,
    /// `[x1, y1, x2, y2]` in pixels, within the image and with an area.
    pub boxes: Vec<[f32; 4]>,
    /// The label of each box, from 1.
    pub labels: Vec<usize>,
    /// The area of each object in square pixels: COCO's `area`, which is that of the mask, else
    /// the box's.
    pub areas: Vec<f32>,
    /// What else the labels say of each object, such as its mask; empty if nothing, as after
    /// [`ReadOptions::boxes_only`].
    pub object_extras: Vec<Extras>,
    /// Crowds, which are not trained on, and which an evaluation ignores.
    pub crowds: Vec<Crowd>,
    /// What else COCO says of the image, such as its licence.
    pub extras: Extras,
    /// Where the boxes were read.
    pub source: Source,
}

/// A region of many objects (`iscrowd` of COCO).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Crowd {
    /// `[x1, y1, x2, y2]` in pixels.
    pub bounds: [f32; 4],
    /// The label, from 1.
    pub label: usize,
    /// The area of the mask in square pixels.
    pub area: f32,
    /// What else the labels say of it: its mask.
    pub extras: Extras,
}

/// Where boxes were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The label file; `None` for an image without one.
    pub file: Option<PathBuf>,
    /// The number of each box there: its place from 1, or COCO's annotation id.
    pub objects: Vec<u64>,
}

/// What to read, and how.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The format; told from the files if `None`.
    pub format: Option<Format>,
    /// The folder of the pictures, where they are not with the labels.
    pub images: Option<PathBuf>,
    /// One split alone, such as `train`; everything if `None`.
    pub split: Option<String>,
    /// The classes to use, in order of their labels, [`BACKGROUND`] first or left out. Boxes of
    /// others are invalid. If `None`, the classes are those of the data.
    pub class_names: Option<Vec<String>>,
    /// Cut boxes that reach beyond the image instead of calling them invalid.
    pub clip: bool,
    /// Leave out all [`Extras`], as masks, which only conversion needs and which take room.
    pub boxes_only: bool,
}

/// A data set without what is invalid in it, and what that was.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What can be used.
    pub dataset: Dataset,
    /// What can't be used and was left out, and what is worth a note.
    pub problems: Problems,
}

impl Reading {
    /// The data set, if nothing is invalid or if that is to be skipped.
    ///
    /// # Errors
    /// [`DataError::Invalid`] naming files and boxes; in any case if no image is left.
    pub fn accept(self, skip_invalid: bool) -> Result<Dataset, DataError> {
        let Self { dataset, problems } = self;
        let refused = !skip_invalid && problems.invalid() > 0;
        if refused || dataset.samples.is_empty() {
            return Err(DataError::Invalid { problems });
        }
        Ok(dataset)
    }
}

/// Reads the labels of a data set and the sizes of its pictures.
///
/// `root` is a folder, a COCO `.json`, a YOLO `.yaml` or a darknet `.data` file. What is wrong with single files and
/// boxes doesn't stop the reading; it is in [`Reading::problems`].
///
/// # Errors
/// When there is nothing to read: no known format, an unreadable index file, no such split, no
/// class names, no images at all.
pub fn read(root: &Path, options: &ReadOptions) -> Result<Reading, DataError> {
    let layout = Layout::find(root, options.format)?;
    let format = layout.format();
    let raw = match layout {
        Layout::Coco(layout) => coco::read(layout, options),
        Layout::Voc(layout) => voc::read(&layout, options),
        Layout::Yolo(layout) => yolo::read(root, &layout, options),
    }?;
    let nothing_wrong = raw
        .problems
        .iter()
        .all(|p| p.kind == ProblemKind::EmptySplit);
    if raw.images.is_empty() && nothing_wrong {
        return Err(DataError::NoImages {
            root: root.into(),
            split: options.split.clone(),
        });
    }
    raw.finish(root, format, options)
}

impl Dataset {
    /// The samples of one split, with the same classes.
    ///
    /// # Errors
    /// [`DataError::UnknownSplit`].
    pub fn split(&self, name: &str) -> Result<Self, DataError> {
        let indices = self
            .splits
            .get(name)
            .ok_or_else(|| DataError::UnknownSplit {
                root: self.root.clone(),
                split: name.into(),
                available: self.splits.keys().cloned().collect(),
            })?;
        let mut split = self.subset(indices);
        let all = (0..split.samples.len()).collect();
        split.splits = BTreeMap::from([(name.to_string(), all)]);
        Ok(split)
    }

    /// The samples of some indices, without splits; indices that there are not are left out.
    pub fn subset(&self, indices: &[usize]) -> Self {
        let samples = indices.iter().filter_map(|&i| self.samples.get(i).cloned());
        Self {
            root: self.root.clone(),
            format: self.format,
            class_names: self.class_names.clone(),
            category_ids: self.category_ids.clone(),
            category_extras: self.category_extras.clone(),
            extras: self.extras.clone(),
            samples: samples.collect(),
            splits: BTreeMap::new(),
        }
    }

    /// The number of boxes, crowds not counted.
    pub fn boxes(&self) -> usize {
        self.samples.iter().map(|sample| sample.boxes.len()).sum()
    }
}
