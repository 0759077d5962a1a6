//! Writes a data set in any format: whole, or not at all.
//!
//! | format | labels | pictures | splits |
//! |---|---|---|---|
//! | COCO | `annotations/instances_<split>.json` | `images` | a file each |
//! | VOC | `Annotations/<stem>.xml`, `classes.txt` | `JPEGImages` | `ImageSets/Main/<split>.txt` |
//! | YOLO | `labels/<stem>.txt`, `data.yaml` | `images` | `<split>.txt` |
//!
//! Boxes and labels are kept; COCO's category ids are those of the data set. Only COCO has crowds and
//! areas, both masks and keypoints (as they were read, where [`Extras`] have them), and all other extras.
//! YOLO has keypoints or, where there are none, masks as polygons; VOC has its own attributes. What is left out is counted ([`Written::dropped`]). VOC is written as it is read,
//! without adding the 1 that its counting from 1 asks for.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rcnn_files::TemporaryFolder;

use crate::dataset::{Dataset, Sample};
use crate::detect_format::Format;
use crate::error::DataError;
use crate::extras::Extras;
use crate::voc::ATTRIBUTES;

mod coco;
mod voc;
mod yolo;

/// Treatment of the pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pictures {
    /// They are copied.
    #[default]
    Copy,
    /// They are hard-linked where the file system can, else copied.
    Link,
    /// They are left where they are, and labels written for when they are put in place.
    Leave,
}

/// Counts of what a conversion wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The number of images.
    pub images: usize,
    /// The number of boxes, crowds not counted.
    pub boxes: usize,
    /// Number of values that were left out because the format has no place for them: `crowds`, `masks`,
    /// `keypoints`, or the name of another member of an object's [`Extras`], and how many objects had it.
    pub dropped: BTreeMap<String, usize>,
}

/// Writes a data set with its splits to a new folder.
///
/// The folder appears once everything is in it.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_data as data; }
/// # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"))?;
/// use rcnn_burn::data::convert::{Pictures, convert};
/// use rcnn_burn::data::{Format, read};
///
/// let dataset = read("blood-cells".as_ref(), &Default::default())?.accept(true)?;
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// let written = convert(&dataset, "cells-coco".as_ref(), Format::Coco, Pictures::Leave)?;
/// println!("{} images, {} boxes", written.images, written.boxes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`DataError::NotEmpty`] if there is something in the folder already, and [`DataError::Io`].
pub fn convert(
    dataset: &Dataset,
    folder: &Path,
    format: Format,
    pictures: Pictures,
) -> Result<Written, DataError> {
    let io = DataError::io;
    let parent = new_folder(folder)?;
    // Beside the folder, since only within a file system can it be moved in one step.
    let started = TemporaryFolder::create_in(parent).map_err(io(parent))?;

    let output = Output {
        folder: started.path(),
        dataset,
        names: names(dataset),
        splits: all_splits(dataset),
    };
    let images = match format {
        Format::Coco => coco::write(&output),
        Format::Voc => voc::write(&output),
        Format::Yolo => yolo::write(&output),
    }?;
    output.place_pictures(&images, pictures)?;

    started.persist(folder).map_err(io(folder))?;
    Ok(Written {
        images: dataset.samples.len(),
        boxes: dataset.boxes(),
        dropped: match format {
            Format::Coco => BTreeMap::new(),
            Format::Voc => dropped(dataset, &ATTRIBUTES),
            Format::Yolo => dropped(dataset, yolo::Lines::of(dataset).kept()),
        },
    })
}

/// Makes sure that a folder is new or empty, and returns that which it is to be in, which is made if need be.
pub(crate) fn new_folder(folder: &Path) -> Result<&Path, DataError> {
    let io = DataError::io;
    match fs::read_dir(folder).map(|mut entries| entries.next()) {
        Ok(None) => {}
        Ok(Some(_)) => {
            return Err(DataError::NotEmpty {
                path: folder.into(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(folder)(error)),
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(io(parent))?;
    Ok(parent)
}

/// What a format has no place for that keeps of an object's extras only some.
fn dropped(dataset: &Dataset, kept: &[&str]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut count = |kind: &str, number| *counts.entry(kind.to_string()).or_default() += number;
    for sample in &dataset.samples {
        for (index, object) in sample.instances.iter().enumerate() {
            if object.is_crowd {
                count("crowds", 1);
                continue;
            }
            let extras = sample.object_extras.get(index);
            let has = |name| extras.is_some_and(|extras| extras.get(name).is_some());
            let keeps = |name| kept.contains(&name);
            let has_mask = has("segmentation") || object.mask.is_some_and(|mask| mask.area() > 0);
            if has_mask && !keeps("segmentation") {
                count("masks", 1);
            }
            let has_keypoints =
                has("keypoints") || object.keypoints.is_some_and(|all| !all.0.is_empty());
            if has_keypoints && !keeps("keypoints") {
                count("keypoints", 1);
            }
            for (name, _) in extras.into_iter().flat_map(Extras::iter) {
                let said = ["segmentation", "keypoints", "num_keypoints"];
                if !said.contains(&name) && !kept.contains(&name) {
                    count(name, 1);
                }
            }
        }
    }
    counts
}

/// A data set on its way to a folder.
struct Output<'a> {
    folder: &'a Path,
    dataset: &'a Dataset,
    /// Stem and file name of each picture.
    names: Vec<(String, String)>,
    splits: BTreeMap<String, Vec<usize>>,
}

impl Output<'_> {
    fn samples(&self) -> impl Iterator<Item = (&Sample, &(String, String))> {
        self.dataset.samples.iter().zip(&self.names)
    }

    /// The classes but the background.
    fn classes(&self) -> &[String] {
        self.dataset.class_names.get(1..).unwrap_or_default()
    }

    fn create_folder(&self, name: &str) -> Result<PathBuf, DataError> {
        let path = self.folder.join(name);
        fs::create_dir_all(&path).map_err(DataError::io(&path))?;
        Ok(path)
    }

    /// Writes a file, named relative to the folder.
    fn write(
        &self,
        name: impl AsRef<Path>,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), DataError> {
        let path = self.folder.join(name);
        let written = fs::File::create(&path).and_then(|file| {
            let mut file = io::BufWriter::new(file);
            content(&mut file)?;
            file.flush()
        });
        written.map_err(DataError::io(&path))
    }

    fn write_lines<T: AsRef<str>>(
        &self,
        name: impl AsRef<Path>,
        lines: impl IntoIterator<Item = T>,
    ) -> Result<(), DataError> {
        self.write(name, |file| {
            let mut lines = lines.into_iter();
            lines.try_for_each(|line| writeln!(file, "{}", line.as_ref()))
        })
    }

    fn place_pictures(&self, folder: &Path, pictures: Pictures) -> Result<(), DataError> {
        for (sample, (_, name)) in self.samples() {
            let (from, to) = (&sample.image, folder.join(name));
            let linked = pictures == Pictures::Link && fs::hard_link(from, &to).is_ok();
            if !linked && pictures != Pictures::Leave {
                let at_fault = |_: &io::Error| if from.is_file() { &to } else { from };
                fs::copy(from, &to).map_err(|error| DataError::io(at_fault(&error))(error))?;
            }
        }
        Ok(())
    }
}

/// File names for the pictures, no two of the same stem.
fn names(dataset: &Dataset) -> Vec<(String, String)> {
    let mut used = HashSet::new();
    let unique = |sample: &Sample| {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.unwrap_or_default().to_string_lossy().into_owned()
        };
        let stem = text(sample.image.file_stem());
        let extension = text(sample.image.extension());
        let mut name = stem.clone();
        let mut number = 1;
        while !used.insert(name.clone()) {
            number += 1;
            name = format!("{stem}_{number}");
        }
        let file = format!("{name}.{extension}");
        (name, file)
    };
    dataset.samples.iter().map(unique).collect()
}

/// The splits, and `rest` for what is in none of them.
fn all_splits(dataset: &Dataset) -> BTreeMap<String, Vec<usize>> {
    let mut splits = dataset.splits.clone();
    let there = |index: &usize| *index < dataset.samples.len();
    splits.values_mut().for_each(|all| all.retain(there));
    let within: HashSet<usize> = splits.values().flatten().copied().collect();
    let all = 0..dataset.samples.len();
    let rest: Vec<usize> = all.filter(|index| !within.contains(index)).collect();
    if !splits.is_empty() && !rest.is_empty() {
        splits.insert("rest".into(), rest);
    }
    splits
}
