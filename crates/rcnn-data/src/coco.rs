//! COCO: one JSON file a split with `images`, `annotations` and `categories`; boxes are
//! `[x, y, width, height]` in pixels.
//!
//! Read are `annotations/instances_<split>.json`, `<split>.json` beside the images or in
//! `annotations`, and a file of any name in the folder of each split. Crowds are set apart, as
//! torchvision's references leave them out of training.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter::repeat_with;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::dataset::ReadOptions;
use crate::error::DataError;
use crate::extras::Extras;
use crate::pictures::PictureFinder;
use crate::problems::{ProblemKind, Problems};
use crate::raw::{Raw, RawBounds, RawImage, RawObject};
use crate::text::read_text;

mod layout;

pub(crate) use layout::{Layout, why_not};

pub(crate) const ANNOTATIONS: &str = "annotations";

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

pub(crate) fn read(layout: Layout, options: &ReadOptions) -> Result<Raw, DataError> {
    let mut files = layout.files.clone();
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
                    root: layout.root,
                    split: split.clone(),
                    available,
                });
            }
        };
        files.retain(|key, _| *key == name);
    }
    let mut reader = Reader::default();
    for (split, path) in files {
        let text = read_text(&path)?;
        let malformed = |e| DataError::malformed(&path, e);
        let file: File = serde_json::from_str(&text).map_err(malformed)?;
        let extras = match options.boxes_only {
            true => FileExtras::default(),
            false => FileExtras::read(text.as_bytes()).map_err(malformed)?,
        };
        let folders = layout.picture_folders(&split, &path);
        let names = file.images.iter().map(|image| image.file_name.as_str());
        let pictures = match &options.images {
            Some(folder) => {
                let folders = vec![folder.join(&split), folder.clone()];
                PictureFinder::new(folders, folder, &split, names)
            }
            None => PictureFinder::new(folders, layout.base(), &split, names),
        };
        reader.add(split, &path, file, extras, pictures)?;
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
        split: String,
        path: &Path,
        file: File,
        extras: FileExtras,
        mut pictures: PictureFinder,
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
        // Images of this file by id; an image of an earlier file as well keeps its labels.
        let mut places: HashMap<u64, Option<usize>> = HashMap::new();
        let mut indices = Vec::new();
        let first = self.images.len();
        for (image, extras) in file.images.into_iter().zip(padded(extras.images)) {
            let found = pictures.find(&image.file_name);
            let looked_in = found.is_none().then(|| pictures.tried());
            let picture = found.unwrap_or_else(|| pictures.expected(&image.file_name));
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
                looked_in,
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
