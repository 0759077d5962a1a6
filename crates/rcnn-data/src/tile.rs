//! Data sets of large pictures, cut into tiles to train on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;
use rayon::prelude::*;
use rcnn_files::TemporaryFolder;
use rcnn_types::boxes::box_area;
use rcnn_types::validate::{InvalidField, require_within};
use rcnn_types::{Instances, Size, TileGrid, Window};

use crate::convert::{Pictures, Written, convert, new_folder};
use crate::dataset::{Dataset, Sample, Source};
use crate::detect_format::Format;
use crate::error::DataError;
use crate::extras::Extras;

/// How a data set is cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TileOptions {
    /// The tiles.
    pub grid: TileGrid,
    /// Share of an object's area, that of its mask where it has one, that a tile must show to have the object.
    pub min_visible: f64,
    /// Whether tiles without objects are left out.
    pub skip_empty: bool,
}

impl TileOptions {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), InvalidField> {
        self.grid.validate()?;
        require_within("min_visible", self.min_visible, 0.0..=1.0)
    }
}

/// Counts of the tiles and objects that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiled {
    /// Tiles, as images, and their boxes.
    pub written: Written,
    /// How often an object lost so much of its area to the border of a tile that it is not in that tile.
    pub dropped: usize,
    /// Objects that are in no tile.
    pub lost: usize,
    /// Tiles without objects that were left out.
    pub empty: usize,
}

/// The objects of one tile, of [`objects_in`].
struct Cut {
    instances: Instances,
    /// Which of the picture's objects they are.
    indices: Vec<usize>,
    /// The objects that the tile shows too little of.
    dropped: Vec<usize>,
}

/// Cuts the pictures of a data set into tiles and writes them, with the objects on each, as COCO data to a new folder.
///
/// Splits stay. Masks and keypoints move with their objects; boxes of objects with masks are cut to what is left of these.
/// Tiles of a JPEG are JPEGs, all others PNGs. `progress` gets the number of pictures that are done.
///
/// # Errors
/// As [`convert`], and [`DataError::Image`] for a picture that cannot be read.
///
/// # Panics
/// When the options are not valid.
pub fn tile(
    dataset: &Dataset,
    folder: &Path,
    options: &TileOptions,
    mut progress: impl FnMut(usize),
) -> Result<Tiled, DataError> {
    let parent = new_folder(folder)?;
    let cut_to = TemporaryFolder::create_in(parent).map_err(DataError::io(parent))?;
    let mut tiles = Dataset {
        root: folder.into(),
        format: Format::Coco,
        samples: Vec::new(),
        renumbered: true,
        splits: BTreeMap::new(),
        ..dataset.subset(&[])
    };
    let (mut dropped, mut lost, mut empty) = (0, 0, 0);
    // Where the tiles of each picture are.
    let mut places = Vec::new();
    for (index, sample) in dataset.samples.iter().enumerate() {
        let picture = rcnn_image::open_rgb(&sample.image)?;
        let place = cut_to.path().join(index.to_string());
        fs::create_dir(&place).map_err(DataError::io(&place))?;
        let mut found = vec![false; sample.instances.len()];
        let mut kept = Vec::new();
        for window in options
            .grid
            .tiles(Size::from_dimensions(picture.dimensions()))
        {
            let cut = objects_in(&sample.instances, window, options.min_visible);
            dropped += cut.dropped.len();
            cut.indices.iter().for_each(|&object| found[object] = true);
            if options.skip_empty && cut.indices.is_empty() {
                empty += 1;
                continue;
            }
            kept.push((window, cut));
        }
        lost += (0..found.len())
            .filter(|&object| !found[object] && !sample.instances.is_crowd(object))
            .count();
        let images: Vec<PathBuf> = kept
            .par_iter()
            .map(|(window, _)| write(&picture, *window, &sample.image, &place))
            .collect::<Result<_, _>>()?;
        let start = tiles.samples.len();
        for ((window, cut), image) in kept.into_iter().zip(images) {
            let extras = |&object: &usize| {
                let extras = sample
                    .object_extras
                    .get(object)
                    .cloned()
                    .unwrap_or_default();
                extras.without_shapes()
            };
            tiles.samples.push(Sample {
                image,
                image_id: tiles.samples.len() as u64 + 1,
                size: Size::from_dimensions((window[2] - window[0], window[3] - window[1])),
                object_extras: cut.indices.iter().map(extras).collect(),
                instances: cut.instances,
                extras: Extras::new(),
                source: Source::default(),
            });
        }
        places.push(start..tiles.samples.len());
        progress(index + 1);
    }
    let split = |(name, samples): (&String, &Vec<usize>)| {
        let tiles = samples
            .iter()
            .filter_map(|&sample| places.get(sample).cloned());
        (name.clone(), tiles.flatten().collect())
    };
    tiles.splits = dataset.splits.iter().map(split).collect();
    Ok(Tiled {
        written: convert(&tiles, folder, Format::Coco, Pictures::Link)?,
        dropped,
        lost,
        empty,
    })
}

/// The objects that a window shows enough of, in its pixels; crowds as far as they are in it.
fn objects_in(all: &Instances, window: Window, min_visible: f64) -> Cut {
    let mut cut = all.clone();
    cut.crop(window);
    let (mut indices, mut dropped) = (Vec::new(), Vec::new());
    let mut areas = Vec::new();
    for index in 0..all.len() {
        let whole = all.get(index).mask.map_or(0, |mask| mask.area());
        let mask = cut.get(index).mask.filter(|_| whole > 0);
        let visible = match mask {
            Some(mask) => mask.area() as f64 / whole as f64,
            None => f64::from(box_area(&cut.boxes[index])) / f64::from(box_area(&all.boxes[index])),
        };
        if visible < 1.0
            && let Some(mask) = mask
        {
            let [left, top, right, bottom] = mask.bounds();
            let b = cut.boxes[index];
            cut.boxes[index] = [
                b[0].max(left),
                b[1].max(top),
                b[2].min(right),
                b[3].min(bottom),
            ];
        }
        let [x1, y1, x2, y2] = cut.boxes[index];
        if x1 >= x2 || y1 >= y2 {
            continue;
        }
        if visible >= min_visible || all.is_crowd(index) {
            indices.push(index);
            areas.push(
                match (visible < 1.0, cut.get(index).mask.filter(|_| whole > 0)) {
                    (false, _) => all.area(index),
                    (true, Some(mask)) => mask.area() as f32,
                    (true, None) => box_area(&cut.boxes[index]),
                },
            );
        } else {
            dropped.push(index);
        }
    }
    let mut instances = cut.select(&indices);
    instances.areas = Some(areas);
    Cut {
        instances,
        indices,
        dropped,
    }
}

/// Writes a tile of a picture that was read from `source` into a folder.
fn write(
    picture: &RgbImage,
    window: Window,
    source: &Path,
    folder: &Path,
) -> Result<PathBuf, DataError> {
    let [left, top, right, bottom] = window;
    let extension = source.extension().unwrap_or_default().to_ascii_lowercase();
    let extension = if extension == "jpg" || extension == "jpeg" {
        "jpg"
    } else {
        "png"
    };
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    let path = folder.join(format!("{stem}_{left}_{top}_{right}_{bottom}.{extension}"));
    let tile = rcnn_image::crop(picture, window);
    fs::write(&path, rcnn_image::encode(&path, &tile)?).map_err(DataError::io(&path))?;
    Ok(path)
}
