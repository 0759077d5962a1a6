//! YOLO: a text file an image with a line `class x y width height` a box, in shares of the image;
//! `data.yaml`, or darknet's `obj.data`, names the classes and the splits.
//!
//! The labels of `images/a.jpg` are in `labels/a.txt`, or beside the picture. Without such a file,
//! names are read from `classes.txt`, `obj.names` and the like, and the folders in `images`, lists of
//! pictures, or folders with pictures and labels are the splits. A line of more numbers is a polygon,
//! whose box is taken; the polygon itself is kept as a mask in COCO's form. Where `kpt_shape` tells
//! of keypoints, these stand behind the box.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rcnn_files::decode_text;
use rcnn_image::has_image_name;

use crate::annotations::{AnnotatedImage, AnnotatedObject, Annotations, Bounds};
use crate::dataset::{BACKGROUND, ReadOptions};
use crate::error::DataError;
use crate::extras::Extras;
use crate::files::{files_by_stem, pictures_below};
use crate::pictures::PictureFinder;
use crate::problems::{ProblemKind, Problems};
use crate::text::read_text;
use crate::tree::{Tree, folder_of};

mod config;
mod labels;
mod layout;

use config::Config;
use labels::is_label_file;
pub(crate) use layout::Layout;

pub(crate) const IMAGES: &str = "images";
pub(crate) const LABELS: &str = "labels";

pub(crate) fn read(
    root: &Path,
    layout: &Layout,
    options: &ReadOptions,
) -> Result<Annotations, DataError> {
    let apart = options.images.as_deref();
    let mut config = layout.config(apart)?;
    let class_names = match config.names.take() {
        Some(names) => Some(names),
        None => layout::class_names(&config)?,
    };
    let numbered = || {
        let numbers = 0..config.classes?;
        Some(numbers.map(|number| format!("class_{number}")).collect())
    };
    let mut problems = Problems::default();
    let given = options
        .class_names
        .as_ref()
        .filter(|_| class_names.is_none());
    let given = given.map(|names| {
        let names = names.iter().filter(|name| *name != BACKGROUND);
        let names: Vec<String> = names.cloned().collect();
        let message = format!("the classes 0, 1, ... are taken for {}", names.join(", "));
        problems.push(ProblemKind::UnnamedClasses, &config.base, None, message);
        names
    });
    let class_names = class_names
        .or(given)
        .or_else(numbered)
        .ok_or_else(|| DataError::NoClassNames { root: root.into() })?;

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
    let listing = Listing::new(&config, apart, &mut problems)?;
    let pictures = listing
        .pictures
        .iter()
        .map(|picture| picture.path.as_path());
    let label_files = labels::find(pictures, apart.map(|_| config.base.as_path()));
    if let Some(first) = listing.pictures.first()
        && label_files.iter().all(Option::is_none)
    {
        return Err(DataError::NoLabels {
            root: config.base.clone(),
            images: listing.pictures.len(),
            expected: labels::expected(&first.path),
            found: Tree::scan(&config.base)?.summary(),
        });
    }
    if options.split.is_none() {
        tell_orphans(&label_files, &mut problems);
    }
    let lines = Lines {
        classes: class_names.len(),
        keypoint_shape: config.keypoint_shape,
        polygons: options.fields.masks || options.fields.extras,
        keypoints: options.fields.keypoints || options.fields.extras,
    };
    let pictures = listing.pictures.into_par_iter().zip(label_files);
    let read: Vec<Result<AnnotatedImage, (PathBuf, String)>> = pictures
        .enumerate()
        .map(|(i, (picture, labels))| image(i as u64 + 1, picture, labels, &lines))
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
    let category_extras = match config.keypoint_shape {
        [0, _] => Vec::new(),
        _ => (0..class_names.len())
            .map(|class| keypoint_extras(&config, class))
            .collect(),
    };
    let splits = listing.splits.into_iter().filter(|_| !config.unsplit);
    let splits = splits.map(|(name, all)| (name, all.iter().filter_map(|&i| kept[i]).collect()));
    Ok(Annotations {
        class_names,
        category_extras,
        images,
        splits: splits.collect(),
        problems,
        ..Annotations::default()
    })
}

/// Names and connections of a class's keypoints, as in COCO's categories.
fn keypoint_extras(config: &Config, class: usize) -> Extras {
    let names = &config.keypoint_names;
    let names = names.get(class).or(names.first()).cloned();
    let numbered = || (1..=config.keypoint_shape[0]).map(|number| format!("keypoint_{number}"));
    let names = names.unwrap_or_else(|| numbered().collect());
    let mut extras = Extras::default();
    extras.push("keypoints", serde_json::json!(names).to_string());
    extras.push("skeleton", "[]".into());
    if !config.flip_idx.is_empty() {
        extras.push("flip_idx", serde_json::json!(config.flip_idx).to_string());
    }
    extras
}

/// A picture, and where it is listed.
struct Picture {
    path: PathBuf,
    named_by: PathBuf,
    /// Where it was looked for in vain.
    looked_in: Option<String>,
}

/// The pictures of all splits, each once.
struct Listing {
    pictures: Vec<Picture>,
    /// Indices of pictures.
    splits: BTreeMap<String, Vec<usize>>,
}

impl Listing {
    fn new(
        config: &Config,
        apart: Option<&Path>,
        problems: &mut Problems,
    ) -> Result<Self, DataError> {
        let mut pictures = Vec::new();
        let mut places = HashMap::new();
        let mut splits = BTreeMap::new();
        for (split, sources) in &config.splits {
            let mut indices = Vec::new();
            let mut listed = HashSet::new();
            for source in sources {
                for picture in pictures_of(source, split, apart.unwrap_or(&config.base))? {
                    let index = *places.entry(picture.path.clone()).or_insert(pictures.len());
                    if !listed.insert(index) {
                        let message = format!("{} is listed twice", picture.path.display());
                        problems.push(ProblemKind::DuplicateImage, source, None, message);
                        continue;
                    }
                    if index == pictures.len() {
                        pictures.push(picture);
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
}

/// Tells of label files, beside those of pictures, that belong to none.
fn tell_orphans(owned: &[Option<PathBuf>], problems: &mut Problems) {
    let owned: BTreeSet<&Path> = owned.iter().flatten().map(PathBuf::as_path).collect();
    let folders: BTreeSet<&Path> = owned.iter().filter_map(|file| file.parent()).collect();
    for folder in folders {
        for file in files_by_stem(folder, &["txt"])
            .unwrap_or_default()
            .into_values()
        {
            if !owned.contains(file.as_path()) && is_label_file(&file) {
                let message = "no picture belongs to it";
                problems.push(ProblemKind::OrphanLabels, &file, None, message);
            }
        }
    }
}

/// A picture with the content of its label file, or what is wrong with that file.
fn image(
    id: u64,
    picture: Picture,
    labels: Option<PathBuf>,
    lines: &Lines,
) -> Result<AnnotatedImage, (PathBuf, String)> {
    let objects = match &labels {
        Some(file) => {
            let bytes = fs::read(file).map_err(|error| error.to_string());
            let text = bytes.and_then(decode_text);
            lines.objects(&text.map_err(|reason| (file.clone(), reason))?)
        }
        None => Vec::new(),
    };
    Ok(AnnotatedImage {
        expected_labels: Some(labels::expected(&picture.path)),
        path: picture.path,
        named_by: picture.named_by,
        looked_in: picture.looked_in,
        id: Some(id),
        stated: None,
        labels,
        extras: Extras::default(),
        objects,
    })
}

/// How the lines of label files are read.
struct Lines {
    classes: usize,
    /// How many keypoints are behind a box, and the numbers of each; zeros if none are.
    keypoint_shape: [usize; 2],
    polygons: bool,
    keypoints: bool,
}

impl Lines {
    /// The boxes of a label file.
    fn objects(&self, text: &str) -> Vec<AnnotatedObject> {
        let lines = text.lines().zip(1..);
        let lines = lines.filter(|(line, _)| !line.trim().is_empty());
        lines
            .map(|(line, number)| self.object(line, number))
            .collect()
    }

    fn object(&self, line: &str, number: u64) -> AnnotatedObject {
        let classes = self.classes;
        let mut words = line.split_whitespace();
        let class = words.next().unwrap_or_default();
        let numbers: Result<Vec<f64>, String> = words
            .map(|word| {
                word.parse()
                    .map_err(|_| format!("`{word}` is not a number"))
            })
            .collect();
        let (mut polygon, mut keypoints) = (Vec::new(), Vec::new());
        let [points, each] = self.keypoint_shape;
        let bounds = numbers.and_then(|numbers| match numbers[..] {
            [x, y, w, h, ref rest @ ..] if rest.is_empty() || rest.len() == points * each => {
                if self.keypoints && !rest.is_empty() {
                    keypoints = rest.chunks_exact(each).map(keypoint).collect();
                }
                Ok([x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0])
            }
            ref other if points > 0 => {
                let (found, more) = (other.len(), points * each);
                Err(format!(
                    "{found} numbers instead of 4 and {more} of keypoints"
                ))
            }
            ref points if points.len() >= 6 && points.len() % 2 == 0 => {
                let bounds = around(points);
                if self.polygons {
                    polygon = numbers;
                }
                Ok(bounds)
            }
            [] if class.contains(',') => Err("numbers with commas between them, not spaces".into()),
            ref other => Err(format!("{} numbers instead of 4", other.len())),
        });
        let number_of = class
            .parse::<f64>()
            .ok()
            .filter(|v| v.fract() == 0.0 && *v >= 0.0);
        let index = number_of
            .map(|v| v as usize)
            .filter(|index| *index < classes);
        AnnotatedObject {
            number,
            class: index.ok_or_else(|| format!("class {class} of {classes} (from 0)")),
            bounds: bounds.map(Bounds::Relative),
            crowd: false,
            area: None,
            polygon,
            keypoints,
            extras: Extras::default(),
        }
    }
}

/// x, y and COCO's visibility of a keypoint that has two or three numbers. Where they do not tell, one
/// that is not at 0, 0 is visible.
fn keypoint(numbers: &[f64]) -> [f64; 3] {
    let [x, y] = [numbers[0], numbers[1]];
    let given = numbers.get(2).copied();
    match given.unwrap_or(if x > 0.0 || y > 0.0 { 2.0 } else { 0.0 }) {
        visibility if visibility > 0.0 => [x, y, visibility],
        _ => [0.0; 3],
    }
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

/// The pictures of a folder, or those listed in a text file, which may have been in another place.
fn pictures_of(source: &Path, split: &str, below: &Path) -> Result<Vec<Picture>, DataError> {
    let picture = |path| Picture {
        path,
        named_by: source.into(),
        looked_in: None,
    };
    if !source.is_file() {
        return Ok(pictures_below(source)?.into_iter().map(picture).collect());
    }
    let text = read_text(source)?;
    let lines = text.lines().map(str::trim);
    let lines = lines.map(|line| line.strip_prefix("./").unwrap_or(line));
    let lines = lines.filter(|line| !line.is_empty());
    let folders = vec![
        folder_of(source).to_path_buf(),
        below.join(split),
        below.into(),
    ];
    let mut finder = PictureFinder::new(folders, below, split, lines.clone());
    let pictures = lines.map(|line| {
        let found = finder.find(line);
        let looked_in = found.is_none().then(|| finder.tried());
        let path = found.unwrap_or_else(|| finder.expected(line));
        Picture {
            looked_in,
            ..picture(path)
        }
    });
    Ok(pictures.collect())
}

/// Whether a text file lists pictures.
fn is_list(file: &Path) -> bool {
    let text = read_text(file).unwrap_or_default();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .next()
        .is_some_and(|line| has_image_name(Path::new(line)))
}
