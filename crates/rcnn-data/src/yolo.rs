//! YOLO: a text file an image with a line `class x y width height` a box, in shares of the image;
//! `data.yaml` names the classes and the splits.
//!
//! The labels of `images/a.jpg` are in `labels/a.txt`, or beside the picture. Without a `data.yaml`,
//! names are read from `classes.txt`, `obj.names` or `labels/classes.txt`, and the folders right in
//! `images` are the splits. A line of more numbers is a polygon, whose box is
//! taken; the polygon itself is kept as a mask in COCO's form.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;

use crate::dataset::ReadOptions;
use crate::error::DataError;
use crate::extras::Extras;
use crate::files::{files_by_stem, lines_of, pictures_below};
use crate::problems::{ProblemKind, Problems};
use crate::raw::{Raw, RawBounds, RawImage, RawObject};

mod config;

use config::Config;

pub(crate) const IMAGES: &str = "images";
pub(crate) const LABELS: &str = "labels";

/// Whether a folder has YOLO's layout.
pub(crate) fn fits(root: &Path) -> bool {
    Config::find(root).is_some() || root.join(IMAGES).is_dir() && root.join(LABELS).is_dir()
}

pub(crate) fn read(root: &Path, options: &ReadOptions) -> Result<Raw, DataError> {
    let mut config = match Config::find(root) {
        Some(file) => Config::read(&file)?,
        None => Config::of_layout(root)?,
    };
    let no_names = || DataError::NoClassNames { root: root.into() };
    let class_names = config.names.clone();
    let class_names = class_names.or_else(|| names_file(&config.base));
    let class_names = class_names
        .or(options.class_names.clone())
        .ok_or_else(no_names)?;

    if let Some(split) = &options.split {
        let sources = config.splits.remove(split).filter(|_| !config.unsplit);
        let sources = sources.ok_or_else(|| DataError::UnknownSplit {
            root: root.into(),
            split: split.clone(),
            available: match config.unsplit {
                true => Vec::new(),
                false => config.splits.keys().cloned().collect(),
            },
        })?;
        config.splits = BTreeMap::from([(split.clone(), sources)]);
    }
    let mut problems = Problems::default();
    let listing = Listing::new(&config, &mut problems)?;
    if options.split.is_none() {
        listing.tell_orphans(&mut problems);
    }
    let read: Vec<Result<RawImage, (PathBuf, String)>> = listing
        .pictures
        .into_par_iter()
        .map(|(picture, named_by)| image(picture, named_by, class_names.len(), options.boxes_only))
        .collect();
    let mut images = Vec::new();
    let mut kept = Vec::new();
    for image in read {
        kept.push(image.is_ok().then_some(images.len()));
        match image {
            Ok(image) => images.push(image),
            Err((file, reason)) => problems.push(ProblemKind::BrokenLabels, &file, None, reason),
        }
    }
    let splits = listing.splits.into_iter().filter(|_| !config.unsplit);
    let splits = splits.map(|(name, all)| (name, all.iter().filter_map(|&i| kept[i]).collect()));
    Ok(Raw {
        class_names,
        images,
        splits: splits.collect(),
        problems,
        ..Raw::default()
    })
}

/// The pictures of all splits, each once.
struct Listing {
    /// Pictures, and the folder or list that each was found in.
    pictures: Vec<(PathBuf, PathBuf)>,
    /// Indices of pictures.
    splits: BTreeMap<String, Vec<usize>>,
}

impl Listing {
    fn new(config: &Config, problems: &mut Problems) -> Result<Self, DataError> {
        let mut pictures = Vec::new();
        let mut places = HashMap::new();
        let mut splits = BTreeMap::new();
        for (split, sources) in &config.splits {
            let mut indices = Vec::new();
            let mut listed = HashSet::new();
            for source in sources {
                for picture in pictures_of(source)? {
                    let index = *places.entry(picture.clone()).or_insert(pictures.len());
                    if !listed.insert(index) {
                        let message = format!("{} is listed twice", picture.display());
                        problems.push(ProblemKind::DuplicateImage, source, None, message);
                        continue;
                    }
                    if index == pictures.len() {
                        pictures.push((picture, source.clone()));
                    }
                    indices.push(index);
                }
            }
            if indices.is_empty() {
                let file = sources.first().unwrap_or(&config.base);
                problems.push(ProblemKind::EmptySplit, file, None, "lists no images");
            }
            splits.insert(split.clone(), indices);
        }
        Ok(Self { pictures, splits })
    }

    /// Tells of label files, beside those of pictures, that belong to none.
    fn tell_orphans(&self, problems: &mut Problems) {
        let owned = self.pictures.iter().map(|(picture, _)| labels_of(picture));
        let owned: BTreeSet<PathBuf> = owned.collect();
        let folders: BTreeSet<&Path> = owned.iter().filter_map(|file| file.parent()).collect();
        for folder in folders {
            for (stem, file) in files_by_stem(folder, &["txt"]).unwrap_or_default() {
                if !owned.contains(&file) && stem != "classes" && is_label_file(&file) {
                    let message = "no picture belongs to it";
                    problems.push(ProblemKind::OrphanLabels, &file, None, message);
                }
            }
        }
    }
}

/// A picture with the content of its label file, or what is wrong with that file.
fn image(
    path: PathBuf,
    named_by: PathBuf,
    classes: usize,
    boxes_only: bool,
) -> Result<RawImage, (PathBuf, String)> {
    let labels = labels_of(&path);
    let (labels, objects) = match fs::read_to_string(&labels) {
        Ok(text) => (Some(labels), objects(&text, classes, boxes_only)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (None, Vec::new()),
        Err(error) => return Err((labels, error.to_string())),
    };
    Ok(RawImage {
        path,
        named_by,
        id: None,
        stated: None,
        labels,
        extras: Extras::default(),
        objects,
    })
}

/// The boxes of a label file.
fn objects(text: &str, classes: usize, boxes_only: bool) -> Vec<RawObject> {
    let text = text.trim_start_matches('\u{feff}');
    let lines = text
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.trim().is_empty());
    let objects = lines.map(|(line, number)| {
        let mut words = line.split_whitespace();
        let class = words.next().unwrap_or_default();
        let numbers: Result<Vec<f64>, String> = words
            .map(|word| word.parse().map_err(|_| format!("`{word}` is no number")))
            .collect();
        let mut polygon = Vec::new();
        let bounds = numbers.and_then(|numbers| match numbers[..] {
            [x, y, w, h] => Ok([x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]),
            ref points if points.len() >= 6 && points.len() % 2 == 0 => {
                let bounds = around(points);
                if !boxes_only {
                    polygon = numbers;
                }
                Ok(bounds)
            }
            ref other => Err(format!("{} numbers instead of 4", other.len())),
        });
        let number_of = class
            .parse::<f64>()
            .ok()
            .filter(|v| v.fract() == 0.0 && *v >= 0.0);
        let index = number_of
            .map(|v| v as usize)
            .filter(|index| *index < classes);
        RawObject {
            number,
            class: index.ok_or_else(|| format!("class {class} of {classes} (from 0)")),
            bounds: bounds.map(RawBounds::Relative),
            crowd: false,
            area: None,
            polygon,
            extras: Extras::default(),
        }
    });
    objects.collect()
}

/// The box around a polygon.
fn around(points: &[f64]) -> [f64; 4] {
    let start = [
        f64::INFINITY,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NEG_INFINITY,
    ];
    points.chunks_exact(2).fold(start, |b, p| {
        [
            b[0].min(p[0]),
            b[1].min(p[1]),
            b[2].max(p[0]),
            b[3].max(p[1]),
        ]
    })
}

/// The label file of a picture: the last `images` in its path is `labels`.
fn labels_of(picture: &Path) -> PathBuf {
    let mut parts: Vec<Component> = picture.components().collect();
    let folders = parts.len().saturating_sub(1);
    let place = parts[..folders]
        .iter()
        .rposition(|part| part.as_os_str() == IMAGES);
    if let Some(place) = place {
        parts[place] = Component::Normal(LABELS.as_ref());
    }
    parts.iter().collect::<PathBuf>().with_extension("txt")
}

/// Lists of pictures may lie among labels; their lines are no boxes.
fn is_label_file(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|text| {
        let first = text.split_whitespace().next();
        first.is_some_and(|word| word.parse::<f64>().is_ok())
    })
}

/// The pictures of a folder, or those listed in a text file.
fn pictures_of(source: &Path) -> Result<Vec<PathBuf>, DataError> {
    if source.is_dir() {
        return pictures_below(source);
    }
    let text = fs::read_to_string(source).map_err(DataError::io(source))?;
    let folder = source.parent().unwrap_or(Path::new(""));
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty());
    let pictures = lines.map(|line| folder.join(line.strip_prefix("./").unwrap_or(line)));
    Ok(pictures.collect())
}

/// A name a line.
fn names_file(base: &Path) -> Option<Vec<String>> {
    let files = [
        "classes.txt",
        "obj.names",
        "classes.names",
        "labels/classes.txt",
    ];
    files.iter().find_map(|file| lines_of(&base.join(file)))
}
