//! COCO: one JSON file a split with `images`, `annotations` and `categories`; boxes are
//! `[x, y, width, height]` in pixels.
//!
//! Read are `annotations/instances_<split>.json`, `<split>.json` beside the images or in
//! `annotations`, and `<split>/_annotations.coco.json`. Crowds are set apart, as torchvision's
//! references leave them out of training.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::iter::repeat_with;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::dataset::ReadOptions;
use crate::error::DataError;
use crate::extras::Extras;
use crate::problems::{ProblemKind, Problems};
use crate::raw::{Raw, RawBounds, RawImage, RawObject};

pub(crate) const ANNOTATIONS: &str = "annotations";

/// Files that lie beside those of boxes and have none.
const OTHER_TASKS: [&str; 5] = [
    "captions_",
    "person_keypoints_",
    "image_info_",
    "stuff_",
    "panoptic_",
];

/// How much of a file is looked at to tell what it is, in bytes.
const HEAD: u64 = 1 << 20;

/// The file of Roboflow's exports.
const BESIDE_IMAGES: &str = "_annotations.coco.json";

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    #[serde(default)]
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
    width: Option<f64>,
    height: Option<f64>,
}

#[derive(Deserialize)]
struct Annotation {
    id: Option<u64>,
    image_id: u64,
    category_id: Option<u64>,
    bbox: Option<Loose<Vec<f64>>>,
    area: Option<Loose<f64>>,
    iscrowd: Option<Loose<u8>>,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

/// The same file with its entries as text, for what [`File`] has no fields for.
#[derive(Deserialize)]
struct Text<'a> {
    #[serde(borrow)]
    images: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    annotations: Vec<&'a RawValue>,
    #[serde(borrow)]
    categories: Vec<&'a RawValue>,
}

/// The extras of a file and of its entries, as many as those or none.
#[derive(Default)]
struct FileExtras {
    file: Extras,
    images: Vec<Extras>,
    annotations: Vec<Extras>,
    categories: Vec<Extras>,
}

impl FileExtras {
    fn read(text: &[u8]) -> serde_json::Result<Self> {
        let entries: Text = serde_json::from_slice(text)?;
        let all = |entries: Vec<&RawValue>, known: &[&str]| {
            let extras = entries.into_iter().map(|e| Extras::without(e, known));
            extras.collect::<serde_json::Result<Vec<_>>>()
        };
        let fields = ["id", "image_id", "category_id", "bbox", "area", "iscrowd"];
        Ok(Self {
            file: Extras::without(
                serde_json::from_slice(text)?,
                &["images", "annotations", "categories"],
            )?,
            images: all(entries.images, &["id", "file_name", "width", "height"])?,
            annotations: all(entries.annotations, &fields)?,
            categories: all(entries.categories, &["id", "name"])?,
        })
    }
}

/// A value of the right type, or of another.
#[derive(Deserialize)]
#[serde(untagged)]
enum Loose<T> {
    Right(T),
    Wrong(IgnoredAny),
}

impl<T> Loose<T> {
    fn right(self) -> Option<T> {
        match self {
            Self::Right(value) => Some(value),
            Self::Wrong(_) => None,
        }
    }
}

/// Whether a folder has JSON files where COCO's are.
pub(crate) fn fits(root: &Path) -> bool {
    // Any JSON may lie about; only one of COCO's shape counts.
    files(root).into_values().any(|path| {
        let mut head = Vec::new();
        let read = fs::File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
        let head = String::from_utf8_lossy(&head);
        let keys = ["\"images\"", "\"annotations\"", "\"categories\""];
        read.is_ok() && keys.iter().any(|key| head.contains(key))
    })
}

/// The JSON files of a folder, by split.
fn files(root: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for folder in [root.join(ANNOTATIONS), root.to_path_buf()] {
        let files = crate::files::files_by_stem(&folder, &["json"]).unwrap_or_default();
        for (stem, path) in files {
            if !OTHER_TASKS.iter().any(|task| stem.starts_with(task)) {
                let name = stem.strip_prefix("instances_").unwrap_or(&stem);
                found.entry(name.to_string()).or_insert(path);
            }
        }
    }
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path().join(BESIDE_IMAGES);
        if path.is_file() {
            found
                .entry(entry.file_name().to_string_lossy().into_owned())
                .or_insert(path);
        }
    }
    found
}

pub(crate) fn read(root: &Path, options: &ReadOptions) -> Result<Raw, DataError> {
    let mut files = if root.is_file() {
        let stem = root.file_stem().unwrap_or_default().to_string_lossy();
        let name = stem.strip_prefix("instances_").unwrap_or(&stem).to_string();
        BTreeMap::from([(name, root.to_path_buf())])
    } else {
        files(root)
    };
    if let Some(split) = &options.split {
        let available: Vec<String> = files.keys().cloned().collect();
        // `train` also means `train2017` if there is only that.
        let year = |name: &&String| {
            let rest = name.strip_prefix(split.as_str());
            rest.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
        };
        let mut fitting = available.iter().filter(year);
        let name = match (files.get_key_value(split), fitting.next(), fitting.next()) {
            (Some((name, _)), ..) => name.clone(),
            (None, Some(name), None) => name.clone(),
            _ => {
                return Err(DataError::UnknownSplit {
                    root: root.into(),
                    split: split.clone(),
                    available,
                });
            }
        };
        files.retain(|key, _| *key == name);
    }
    let mut reader = Reader::default();
    for (split, path) in files {
        let text = fs::read(&path).map_err(DataError::io(&path))?;
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let malformed = |e| DataError::malformed(&path, e);
        let file = serde_json::from_slice(text).map_err(malformed)?;
        let extras = match options.boxes_only {
            true => FileExtras::default(),
            false => FileExtras::read(text).map_err(malformed)?,
        };
        reader.add(root, split, &path, file, extras)?;
    }
    Ok(reader.finish())
}

/// Joins files that have their classes in common.
#[derive(Default)]
struct Reader {
    /// Names by category id, with what else is said of them.
    categories: BTreeMap<u64, (String, Extras)>,
    /// Those of the first file.
    extras: Extras,
    images: Vec<RawImage>,
    /// The category ids of the objects of each image.
    ids: Vec<Vec<Option<u64>>>,
    by_path: HashMap<PathBuf, usize>,
    splits: BTreeMap<String, Vec<usize>>,
    problems: Problems,
}

impl Reader {
    fn add(
        &mut self,
        root: &Path,
        split: String,
        path: &Path,
        file: File,
        extras: FileExtras,
    ) -> Result<(), DataError> {
        // There are as many or none.
        let padded = |extras: Vec<Extras>| extras.into_iter().chain(repeat_with(Extras::default));
        for (Category { id, name }, extras) in
            file.categories.into_iter().zip(padded(extras.categories))
        {
            match self.categories.get(&id) {
                Some((known, _)) if *known != name => {
                    let reason = format!("category {id} is both `{known}` and `{name}`");
                    return Err(DataError::malformed(path, reason));
                }
                _ => self.categories.insert(id, (name, extras)),
            };
        }
        if self.images.is_empty() {
            self.extras = extras.file;
        }
        let mut folders = Folders::new(root, &split, path);
        // Images of this file by id; an image of an earlier file as well keeps its labels.
        let mut places: HashMap<u64, Option<usize>> = HashMap::new();
        let mut indices = Vec::new();
        let first = self.images.len();
        for (image, extras) in file.images.into_iter().zip(padded(extras.images)) {
            let picture = folders.find(&image.file_name);
            let earlier = self.by_path.get(&picture).copied();
            let of_this_file = earlier.is_some_and(|index| index >= first);
            if places.contains_key(&image.id) || of_this_file {
                let message = format!("image {} ({}) is listed twice", image.id, image.file_name);
                self.problems
                    .push(ProblemKind::DuplicateImage, path, None, message);
                places.entry(image.id).or_insert(earlier);
                continue;
            }
            if let Some(index) = earlier {
                places.insert(image.id, None);
                indices.push(index);
                continue;
            }
            let index = self.images.len();
            places.insert(image.id, Some(index));
            indices.push(index);
            self.by_path.insert(picture.clone(), index);
            let whole = |side: Option<f64>| side.filter(|v| *v >= 1.0).map(|v| v as u32);
            self.images.push(RawImage {
                path: picture,
                named_by: path.into(),
                id: Some(image.id),
                stated: whole(image.width).zip(whole(image.height)),
                labels: Some(path.into()),
                extras,
                objects: Vec::new(),
            });
            self.ids.push(Vec::new());
        }
        let annotations = file.annotations.into_iter().zip(1..);
        for ((annotation, place), extras) in annotations.zip(padded(extras.annotations)) {
            let number = annotation.id.unwrap_or(place);
            match places.get(&annotation.image_id) {
                Some(Some(index)) => {
                    self.ids[*index].push(annotation.category_id);
                    let object = annotation.object(number, extras);
                    self.images[*index].objects.push(object);
                }
                Some(None) => {}
                None => {
                    let message = format!("no image has the id {}", annotation.image_id);
                    self.problems
                        .push(ProblemKind::OrphanLabels, path, Some(number), message);
                }
            }
        }
        if indices.is_empty() {
            self.problems
                .push(ProblemKind::EmptySplit, path, None, "lists no images");
        }
        self.splits.insert(split, indices);
        Ok(())
    }

    fn finish(mut self) -> Raw {
        let classes: HashMap<u64, usize> = self.categories.keys().copied().zip(0..).collect();
        for (image, ids) in self.images.iter_mut().zip(self.ids) {
            for (object, id) in image.objects.iter_mut().zip(ids) {
                object.class = match id {
                    None => Err("no category_id".into()),
                    Some(id) => {
                        let class = classes.get(&id).copied();
                        class.ok_or_else(|| format!("category_id {id} is not in `categories`"))
                    }
                };
            }
        }
        // Files may number their images each for itself.
        let mut seen = HashSet::new();
        if !self.images.iter().all(|image| seen.insert(image.id)) {
            self.images.iter_mut().for_each(|image| image.id = None);
        }
        let (category_ids, categories): (_, Vec<_>) = self.categories.into_iter().unzip();
        let (class_names, category_extras) = categories.into_iter().unzip();
        Raw {
            class_names,
            category_ids,
            category_extras,
            extras: self.extras,
            images: self.images,
            splits: self.splits,
            problems: self.problems,
        }
    }
}

impl Annotation {
    fn object(self, number: u64, extras: Extras) -> RawObject {
        let bounds = match self.bbox {
            None => Err("no bbox".to_string()),
            Some(Loose::Right(b)) => match b[..] {
                [x, y, w, h] => Ok(RawBounds::Pixels([x, y, x + w, y + h])),
                _ => Err(format!("bbox has {} numbers", b.len())),
            },
            Some(Loose::Wrong(_)) => Err("bbox is no list of numbers".into()),
        };
        let crowd = self.iscrowd.and_then(Loose::right);
        let area = self.area.and_then(Loose::right);
        RawObject {
            number,
            class: Err(String::new()),
            bounds,
            crowd: crowd.is_some_and(|crowd| crowd != 0),
            area: area.map(|area| area as f32),
            polygon: Vec::new(),
            extras,
        }
    }
}

/// The folders that the images of a file may be in, the last one that had some first.
struct Folders(Vec<PathBuf>);

impl Folders {
    fn new(root: &Path, split: &str, file: &Path) -> Self {
        let beside = file.parent().unwrap_or(root);
        let above = beside.parent().unwrap_or(beside);
        let mut folders = Vec::new();
        for base in [root, beside, above]
            .into_iter()
            .filter(|base| base.is_dir())
        {
            let names = [&format!("images/{split}"), split, "images", ""];
            folders.extend(names.map(|name| base.join(name)));
        }
        Self(folders)
    }

    /// The file of that name; where it is not found, where it would best be.
    fn find(&mut self, name: &str) -> PathBuf {
        let found = self.0.iter().position(|folder| folder.join(name).is_file());
        if let Some(place) = found {
            self.0[..=place].rotate_right(1);
        }
        self.0
            .first()
            .map_or_else(|| name.into(), |folder| folder.join(name))
    }
}
