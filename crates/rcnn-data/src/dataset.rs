//! A data set in memory: images with their boxes, the names of the classes, and the splits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use rcnn_types::BACKGROUND;
use rcnn_types::{ImageInstances, Instance, Instances, Size, Skeleton, UNUSED};

use crate::detect_format::{Format, Layout};
use crate::error::DataError;
use crate::extras::Extras;
use crate::problems::{ProblemKind, Problems};
use crate::{coco, voc, yolo};

/// A data set in memory: images with their boxes. Pictures stay on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The folder or file that was read.
    pub root: PathBuf,
    /// The format of its labels.
    pub format: Format,
    /// Names by label; the first is [`BACKGROUND`]. COCO's are in order of their ids, YOLO's in
    /// order of their numbers, VOC's by name.
    pub class_names: Vec<String>,
    /// The data's own number of each label: COCO's category ids, else the labels themselves. Classes that
    /// COCO data do not have get numbers above theirs.
    pub category_ids: Vec<u64>,
    /// The keypoints of each label's objects; empty if those are not read or not known.
    pub skeletons: Vec<Skeleton>,
    /// Other fields of each label's COCO category; empty if none.
    pub category_extras: Vec<Extras>,
    /// What else COCO says of all: `info` and `licenses`.
    pub extras: Extras,
    /// The images.
    pub samples: Vec<Sample>,
    /// Whether COCO's images are numbered anew, as their ids are no numbers, or several files have the same.
    pub renumbered: bool,
    /// Indices of the samples in each split; splits may overlap (VOC's `trainval`).
    pub splits: BTreeMap<String, Vec<usize>>,
}

/// An image and its objects. Without boxes, it is background.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The picture file.
    pub image: PathBuf,
    /// A number of its own within the data set: COCO's id, else the place in order from 1.
    pub image_id: u64,
    /// The size of the upright picture.
    pub size: Size,
    /// Its objects and crowds. Boxes are within the image and have an area; areas are COCO's, which are
    /// those of the masks, else the boxes'.
    pub instances: Instances,
    /// What else the labels say of each of [`instances`](Self::instances); empty if nothing.
    pub object_extras: Vec<Extras>,
    /// What else COCO says of the image, such as its licence.
    pub extras: Extras,
    /// Source of the boxes.
    pub source: Source,
}

impl Sample {
    /// The objects, without crowds.
    pub fn objects(&self) -> impl Iterator<Item = Instance<'_>> {
        self.instances.iter().filter(|object| !object.is_crowd)
    }

    /// Ground truth that an evaluation compares detections with.
    pub fn ground_truth(&self) -> ImageInstances {
        let file_name = self.image.file_name().unwrap_or_default();
        ImageInstances {
            image_id: self.image_id,
            file_name: file_name.to_string_lossy().into(),
            instances: self.instances.clone(),
        }
    }
}

/// Source of an image's boxes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The label file; `None` for an image without one.
    pub file: Option<PathBuf>,
    /// The number of each box there: its place from 1, or COCO's annotation id.
    pub objects: Vec<u64>,
}

/// Options for reading a data set.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The format; inferred from the files if `None`.
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
    /// Decode every picture, which takes time: else damage behind a picture's header shows when it is loaded.
    pub decode: bool,
    /// Optional fields to read for each object, besides box, label, area and crowd flag; all by default.
    pub fields: Fields,
    /// Read COCO's `person_keypoints_<split>.json` instead of `instances_<split>.json`, where there are both.
    pub keypoint_files: bool,
}

/// Fields that are read of each object besides box, label, area and crowd: all by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Masks.
    pub masks: bool,
    /// Keypoints, and the [`Skeleton`]s of the classes.
    pub keypoints: bool,
    /// All other [`Extras`], and the text of masks and keypoints, which conversion keeps.
    pub extras: bool,
}

impl Fields {
    /// No further fields, which takes the least time and memory.
    pub const NONE: Self = Self {
        masks: false,
        keypoints: false,
        extras: false,
    };
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            masks: true,
            keypoints: true,
            extras: true,
        }
    }
}

/// A data set without its invalid parts, and the list of those.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Valid data.
    pub dataset: Dataset,
    /// Invalid data that were left out, and notes.
    pub problems: Problems,
    /// Names of the classes that the data have, without the background; others than those of `dataset` if
    /// the caller gave names.
    pub own_classes: Vec<String>,
}

impl Reading {
    /// The data set, if nothing is invalid or if that is to be skipped.
    ///
    /// # Errors
    /// [`DataError::Invalid`] naming files and boxes; in any case if no image is left.
    pub fn accept(self, skip_invalid: bool) -> Result<Dataset, DataError> {
        let Self {
            dataset, problems, ..
        } = self;
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
/// ```
/// # mod rcnn_burn { pub use rcnn_data as data; }
/// # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"))?;
/// use rcnn_burn::data::{ReadOptions, read};
///
/// let options = ReadOptions { clip: true, ..ReadOptions::default() };
/// let reading = read("blood-cells".as_ref(), &options)?;
/// for problem in reading.problems.iter() {
///     println!("{problem}");
/// }
/// let dataset = reading.accept(true)?; // without what is invalid
/// assert_eq!(dataset.samples.len(), 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When there is nothing to read: no known format, an unreadable index file, no such split, no
/// class names, no images at all.
pub fn read(root: &Path, options: &ReadOptions) -> Result<Reading, DataError> {
    let layout = Layout::find(root, options.format, options.keypoint_files)?;
    let format = layout.format();
    let annotations = match layout {
        Layout::Coco(layout) => coco::read(layout, options),
        Layout::Voc(layout) => voc::read(&layout, options),
        Layout::Yolo(layout) => yolo::read(root, &layout, options),
    }?;
    let nothing_wrong = annotations
        .problems
        .iter()
        .all(|p| p.kind == ProblemKind::EmptySplit);
    if annotations.images.is_empty() && nothing_wrong {
        return Err(DataError::NoImages {
            root: root.into(),
            split: options.split.clone(),
        });
    }
    annotations.into_reading(root, format, options)
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

    /// The samples with these indices, without splits; indices out of range are ignored.
    pub fn subset(&self, indices: &[usize]) -> Self {
        let samples = indices.iter().filter_map(|&i| self.samples.get(i).cloned());
        Self {
            root: self.root.clone(),
            format: self.format,
            class_names: self.class_names.clone(),
            category_ids: self.category_ids.clone(),
            skeletons: self.skeletons.clone(),
            category_extras: self.category_extras.clone(),
            extras: self.extras.clone(),
            samples: samples.collect(),
            renumbered: self.renumbered,
            splits: BTreeMap::new(),
        }
    }

    /// The number of boxes, crowds not counted.
    pub fn boxes(&self) -> usize {
        self.samples.iter().map(|s| s.objects().count()).sum()
    }

    /// The classes without a box, in order of their labels.
    pub fn classes_without_boxes(&self) -> Vec<&str> {
        let mut is_empty = vec![true; self.class_names.len()];
        let objects = self.samples.iter().flat_map(Sample::objects);
        objects.for_each(|object| is_empty[object.label] = false);
        let names = self.class_names.iter().zip(is_empty).skip(1);
        let empty = names.filter(|(name, is_empty)| *is_empty && *name != UNUSED);
        empty.map(|(name, _)| name.as_str()).collect()
    }

    /// The number of images that have more boxes of a class than `most`, and the most that one has.
    pub fn crowded_images(&self, most: usize) -> (usize, usize) {
        let boxes_of_a_class = self.samples.iter().map(|sample| {
            let mut counts = vec![0; self.class_names.len()];
            sample
                .objects()
                .for_each(|object| counts[object.label] += 1);
            counts.into_iter().max().unwrap_or(0)
        });
        let more = boxes_of_a_class.filter(|boxes| *boxes > most);
        more.fold((0, 0), |(images, max), boxes| (images + 1, boxes.max(max)))
    }
}
