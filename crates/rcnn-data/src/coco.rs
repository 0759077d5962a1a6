//! COCO: one JSON file a split with `images`, `annotations` and `categories`; boxes are
//! `[x, y, width, height]` in pixels.
//!
//! Read are `annotations/instances_<split>.json`, `<split>.json` beside the images or in
//! `annotations`, and a file of any name in the folder of each split. Crowds are set apart, as
//! torchvision's references leave them out of training.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use rcnn_files::{Content, decode_text};
use rcnn_types::Size;

use crate::annotations::{AnnotatedImage, AnnotatedObject, Annotations, Bounds};
use crate::dataset::{BACKGROUND, Fields, ReadOptions};
use crate::error::DataError;
use crate::extras::Extras;
use crate::pictures::PictureFinder;
use crate::problems::{ProblemKind, Problems};

mod file;
mod foreign;
mod layout;
mod value;

use file::{Annotation, Category, File};
pub(crate) use layout::{Layout, why_not};
use value::{Id, quote_not_finite};

pub(crate) const ANNOTATIONS: &str = "annotations";

pub(crate) fn read(layout: Layout, options: &ReadOptions) -> Result<Annotations, DataError> {
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
    for (split, path) in &files {
        let file = parse(path, options.fields != Fields::NONE)?;
        let folders = layout.picture_folders(split, path);
        let names = file.images.iter().flat_map(|image| &image.file_name);
        let names = names.map(String::as_str);
        let pictures = match &options.images {
            Some(folder) => {
                let folders = vec![folder.join(split), folder.clone()];
                PictureFinder::new(folders, folder, split, names)
            }
            None => PictureFinder::new(folders, layout.base(), split, names),
        };
        reader.add(split.clone(), path, file, pictures)?;
    }
    let others = layout
        .files
        .iter()
        .filter(|(split, _)| !files.contains_key(*split));
    reader.leave_out_groups(others.map(|(_, path)| path.as_path()))?;
    Ok(reader.finish())
}

fn parse(path: &Path, with_extras: bool) -> Result<File, DataError> {
    let bytes = fs::read(path).map_err(DataError::io(path))?;
    let head = bytes[..bytes.len().min(Content::HEAD)].to_vec();
    let file = decode_text(bytes).and_then(|text| {
        File::parse(&text, with_extras).map_err(|error| match foreign::named(&text) {
            Some(format) => format!("{error}; this is {format}"),
            None => error.to_string(),
        })
    });
    file.map_err(|reason| {
        // What is no JSON at all is named for what it is.
        let is_json = head
            .trim_ascii_start()
            .first()
            .is_none_or(|byte| b"{[".contains(byte));
        let reason = match Content::sniff(&head) {
            Content::Other(content) if !is_json => format!("{reason}; this is {content}"),
            _ => reason,
        };
        DataError::malformed(path, reason)
    })
}

struct Class {
    name: String,
    supercategory: Option<String>,
    extras: Extras,
    /// The file that lists it.
    file: PathBuf,
}

/// Joins files that have their classes in common.
#[derive(Default)]
struct Reader {
    /// By id.
    categories: BTreeMap<Id, Class>,
    /// Those of the first file.
    extras: Extras,
    images: Vec<AnnotatedImage>,
    /// The category ids of the objects of each image.
    ids: Vec<Vec<Result<Id, String>>>,
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
        mut pictures: PictureFinder,
    ) -> Result<(), DataError> {
        for (number, reason) in file.refused {
            let problems = &mut self.problems;
            problems.push(ProblemKind::BadEntry, path, number, reason);
        }
        for category in file.categories {
            let Category {
                id,
                name,
                supercategory,
                extras,
            } = category;
            match self.categories.get(&id) {
                Some(class) if class.name != name => {
                    let reason = format!("category {id} is both `{}` and `{name}`", class.name);
                    return Err(DataError::malformed(path, reason));
                }
                _ => {
                    let class = Class {
                        name,
                        supercategory,
                        extras,
                        file: path.into(),
                    };
                    self.categories.insert(id, class)
                }
            };
        }
        if self.images.is_empty() {
            self.extras = file.extras;
        }
        // Images of this file by id; an image of an earlier file as well keeps its labels.
        let mut places: HashMap<Id, Option<usize>> = HashMap::new();
        let mut indices = Vec::new();
        let first = self.images.len();
        for image in file.images {
            let name = match image.file_name {
                Ok(name) => name,
                Err(reason) => {
                    let problems = &mut self.problems;
                    problems.push(ProblemKind::BadEntry, path, None, reason);
                    places.insert(image.id, None);
                    continue;
                }
            };
            let found = pictures.find(&name);
            let looked_in = found.is_none().then(|| pictures.tried());
            let picture = found.unwrap_or_else(|| pictures.expected(&name));
            let earlier = self.by_path.get(&picture).copied();
            let of_this_file = earlier.is_some_and(|index| index >= first);
            if places.contains_key(&image.id) || of_this_file {
                let message = format!("image {} ({name}) is listed twice", image.id);
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
            let id = image.id.number();
            places.insert(image.id, Some(index));
            indices.push(index);
            self.by_path.insert(picture.clone(), index);
            let whole = |side: Option<f64>| side.filter(|v| *v >= 1.0).map(|v| v as usize);
            self.images.push(AnnotatedImage {
                path: picture,
                named_by: path.into(),
                looked_in,
                id,
                stated: whole(image.height).zip(whole(image.width)).map(Size::from),
                labels: Some(path.into()),
                expected_labels: None,
                extras: image.extras,
                objects: Vec::new(),
            });
            self.ids.push(Vec::new());
        }
        for annotation in file.annotations {
            let number = annotation.number;
            match places.get(&annotation.image_id) {
                Some(Some(index)) => {
                    let (id, object) = annotation.object();
                    self.ids[*index].push(id);
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

    /// Leaves out categories without objects that only group others, as Roboflow's exports begin with,
    /// and the background. Objects may also be in files that are not read.
    fn leave_out_groups<'a>(
        &mut self,
        others: impl Iterator<Item = &'a Path>,
    ) -> Result<(), DataError> {
        let used: HashSet<&Id> = self.ids.iter().flatten().flatten().collect();
        let classes = self.categories.values();
        let groups: HashSet<&str> = classes.flat_map(|c| c.supercategory.as_deref()).collect();
        let no_group = |name: &Option<String>| {
            let name = name.as_deref().unwrap_or_default();
            ["", "none"].contains(&name)
        };
        let is_left_out = |class: &Class| {
            let name = class.name.as_str();
            let is_group = groups.contains(name) && no_group(&class.supercategory);
            is_group || ["background", "_background_", BACKGROUND].contains(&name)
        };
        let unused = self.categories.iter().filter(|(id, _)| !used.contains(id));
        let unused = unused.filter(|(_, class)| is_left_out(class));
        let mut unused: Vec<Id> = unused.map(|(id, _)| id.clone()).collect();
        if !unused.is_empty() {
            for path in others {
                let annotations = parse(path, false)?.annotations;
                let used: HashSet<Id> = annotations
                    .into_iter()
                    .flat_map(|a| a.category_id)
                    .collect();
                unused.retain(|id| !used.contains(id));
            }
        }
        for id in unused {
            if let Some(class) = self.categories.remove(&id) {
                let message = format!("category {id} is `{}` and has no boxes", class.name);
                let problems = &mut self.problems;
                problems.push(ProblemKind::CategoryGroup, &class.file, None, message);
            }
        }
        Ok(())
    }

    /// Gives each category a name of its own.
    fn name_apart(&mut self) {
        let mut names: HashSet<String> = HashSet::new();
        for (id, class) in &mut self.categories {
            if names.insert(class.name.clone()) {
                continue;
            }
            let name = format!("{} ({id})", class.name);
            let message = format!(
                "category {id} is the second `{}`, and `{name}` here",
                class.name
            );
            let problems = &mut self.problems;
            problems.push(ProblemKind::DuplicateCategory, &class.file, None, message);
            names.insert(name.clone());
            class.name = name;
        }
    }

    fn finish(mut self) -> Annotations {
        self.name_apart();
        let classes: HashMap<&Id, usize> = self.categories.keys().zip(0..).collect();
        for (image, ids) in self.images.iter_mut().zip(self.ids) {
            for (object, id) in image.objects.iter_mut().zip(ids) {
                object.class = id.and_then(|id| {
                    let class = classes.get(&id).copied();
                    class.ok_or_else(|| format!("category_id {id} is not in `categories`"))
                });
            }
        }
        // Files may number their images each for itself.
        let mut seen = HashSet::new();
        let mut all = self.images.iter().map(|image| image.id);
        let renumbered = !all.all(|id| id.is_some() && seen.insert(id));
        if renumbered {
            self.images.iter_mut().for_each(|image| image.id = None);
        }
        let category_ids: Option<Vec<u64>> = self.categories.keys().map(Id::number).collect();
        let classes = self.categories.into_values();
        let (class_names, category_extras) = classes.map(|c| (c.name, c.extras)).unzip();
        Annotations {
            class_names,
            category_ids: category_ids.unwrap_or_default(),
            category_extras,
            extras: self.extras,
            images: self.images,
            renumbered,
            splits: self.splits,
            problems: self.problems,
        }
    }
}

impl Annotation {
    /// Its category and the object.
    fn object(self) -> (Result<Id, String>, AnnotatedObject) {
        let bounds = self.bbox.map(|[x, y, w, h]| [x, y, x + w, y + h]);
        let object = AnnotatedObject {
            number: self.number,
            class: Err(String::new()),
            bounds: bounds.map(Bounds::Pixels),
            crowd: self.is_crowd,
            area: self.area.map(|area| area as f32),
            polygon: Vec::new(),
            keypoints: Vec::new(),
            extras: self.extras,
        };
        (self.category_id, object)
    }
}
