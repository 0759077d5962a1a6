//! Pascal VOC: an XML file an image in `Annotations`, pictures in `JPEGImages`, and the stems of a
//! split's images in `ImageSets/Main/<split>.txt`. Folders may have other names, XML files may lie
//! beside their pictures, and each split may have a folder.
//!
//! Classes are those of the objects, by name, unless a `classes.txt` lists them. Coordinates are taken
//! as they stand, fractions included; as in torchvision's references, nothing is subtracted although
//! VOC counts pixels from 1. Objects marked difficult are objects; that and their other attributes
//! are extras. Parts of objects are not read.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rcnn_image::has_image_name;
use rcnn_types::Size;
use roxmltree::{Document, Node, ParsingOptions};

use crate::annotations::{AnnotatedImage, AnnotatedObject, Annotations, Bounds};
use crate::dataset::{BACKGROUND, ReadOptions};
use crate::error::DataError;
use crate::extras::Extras;
use crate::files::{PICTURES, files_by_stem, folded, is_one_of, lines_of};
use crate::problems::{ProblemKind, Problems};
use crate::text::{decode_xml, read_text};

mod layout;

use layout::Files;
pub(crate) use layout::{Layout, why_not};

pub(crate) const ANNOTATIONS: &str = "Annotations";
pub(crate) const IMAGES: &str = "JPEGImages";
pub(crate) const SPLITS: &str = "ImageSets/Main";
pub(crate) const CLASSES: &str = "classes.txt";
/// What an object says of itself besides its name and box.
pub(crate) const ATTRIBUTES: [&str; 4] = ["pose", "truncated", "difficult", "occluded"];

pub(crate) fn read(layout: &Layout, options: &ReadOptions) -> Result<Annotations, DataError> {
    let Files {
        mut annotations,
        pictures,
    } = layout.files(options.images.as_deref());
    let images_folder = options.images.clone().unwrap_or_else(|| layout.expected());
    let mut parsed: BTreeMap<String, Result<Annotation, String>> = annotations
        .par_iter()
        .map(|(stem, path)| (stem.clone(), Annotation::read(path)))
        .collect();
    let renamed = take_picture_names(&mut parsed, &mut annotations, &pictures);
    let mut problems = Problems::default();
    let splits = read_splits(
        layout,
        options,
        &annotations,
        &pictures,
        &renamed,
        &mut problems,
    )?;

    let listed_classes = lines_of(&layout.base().join(CLASSES))?;
    let mut class_names = listed_classes.unwrap_or_else(|| {
        // Every file has a say in the names, so that all splits agree on them.
        let objects = parsed.values().flatten().flat_map(|a| &a.objects);
        let names: BTreeSet<&String> = objects.filter_map(|o| o.name.as_ref()).collect();
        names.into_iter().cloned().collect()
    });
    class_names.retain(|name| name != BACKGROUND);
    let classes: HashMap<&String, usize> = class_names.iter().zip(0..).collect();

    let listed: BTreeSet<&String> = splits.values().flatten().collect();
    let all: BTreeSet<&String> = match options.split {
        Some(_) => listed.clone(),
        None => {
            let files = annotations.keys().chain(pictures.keys());
            files.chain(listed.iter().copied()).collect()
        }
    };
    let split_of: HashMap<&String, &String> = splits
        .iter()
        .flat_map(|(split, stems)| stems.iter().map(move |stem| (stem, split)))
        .collect();
    let split_file = |stem| {
        let split = split_of.get(stem)?;
        Some(layout.lists()?.join(format!("{split}.txt")))
    };
    let mut images = Vec::new();
    let mut places = HashMap::new();
    for (stem, id) in all.into_iter().zip(1..) {
        let labels = annotations.get(stem);
        let annotation = match (parsed.get(stem), labels) {
            (Some(Err(reason)), Some(path)) => {
                problems.push(ProblemKind::BrokenLabels, path, None, reason);
                continue;
            }
            (Some(Ok(annotation)), _) => annotation,
            _ => &Annotation::default(),
        };
        let path = match (pictures.get(stem).cloned(), labels) {
            (Some(path), _) => annotation.picture_beside(&path).unwrap_or(path),
            (None, Some(labels)) if !listed.contains(stem) => {
                let message = format!("no picture {stem} in {}", images_folder.display());
                problems.push(ProblemKind::OrphanLabels, labels, None, message);
                continue;
            }
            (None, _) => images_folder.join(format!("{stem}.jpg")),
        };
        places.insert(stem, images.len());
        images.push(AnnotatedImage {
            named_by: split_file(stem)
                .or(labels.cloned())
                .unwrap_or(layout.root.clone()),
            path,
            looked_in: None,
            id: Some(id),
            stated: annotation.size,
            labels: labels.cloned(),
            expected_labels: None,
            extras: Extras::default(),
            objects: annotation.objects(&classes, options.fields.extras),
        });
    }
    let place = |stem| places.get(stem).copied();
    let splits = splits.iter();
    let splits =
        splits.map(|(name, stems)| (name.clone(), stems.iter().filter_map(place).collect()));
    Ok(Annotations {
        splits: splits.collect(),
        class_names,
        images,
        problems,
        ..Annotations::default()
    })
}

/// Gives XML files that have no picture of their own name that of the picture they name, or else of the one whose name is
/// like theirs, and returns these names by the old ones.
fn take_picture_names(
    parsed: &mut BTreeMap<String, Result<Annotation, String>>,
    annotations: &mut BTreeMap<String, PathBuf>,
    pictures: &BTreeMap<String, PathBuf>,
) -> HashMap<String, String> {
    let is_free = |picture: &&String| !annotations.contains_key(*picture);
    let alike = Alike::new(pictures.keys().filter(is_free));
    let (mut renamed, mut taken) = (HashMap::new(), HashSet::new());
    for (name, annotation) in parsed
        .iter()
        .filter(|(name, _)| !pictures.contains_key(*name))
    {
        let filename = annotation.as_ref().ok().and_then(|a| a.filename.as_deref());
        let stem = filename.map(stem_of).unwrap_or_default();
        let stated = match name.rsplit_once('/') {
            Some((split, _)) => format!("{split}/{stem}"),
            None => stem.to_string(),
        };
        let exact = Some(&stated).filter(|name| pictures.contains_key(*name) && is_free(name));
        let similar = || alike.find(name).or_else(|| alike.find(&stated));
        if let Some(picture) = exact.or_else(similar)
            && taken.insert(picture.clone())
        {
            renamed.insert(name.clone(), picture.clone());
        }
    }
    for (name, picture) in &renamed {
        let files = parsed.remove(name).zip(annotations.remove(name));
        if let Some((content, path)) = files {
            parsed.insert(picture.clone(), content);
            annotations.insert(picture.clone(), path);
        }
    }
    renamed
}

/// Names by what they are when [folded].
struct Alike<'a>(HashMap<String, Vec<&'a String>>);

impl<'a> Alike<'a> {
    fn new(names: impl Iterator<Item = &'a String>) -> Self {
        let mut alike: HashMap<String, Vec<&String>> = HashMap::new();
        for name in names {
            alike.entry(folded(name)).or_default().push(name);
        }
        Self(alike)
    }

    /// The only name that is like this one.
    fn find(&self, name: &str) -> Option<&'a String> {
        match self.0.get(&folded(name)).map(Vec::as_slice) {
            Some(&[alike]) => Some(alike),
            _ => None,
        }
    }
}

/// The stem of a file that an XML file names, wherever it was.
fn stem_of(filename: &str) -> &str {
    let name = filename.rsplit(['/', '\\']).next().unwrap_or(filename);
    match Path::new(name).extension() {
        Some(extension) if is_one_of(extension, &PICTURES) => {
            &name[..name.len() - extension.len() - 1]
        }
        _ => name,
    }
}

/// The names in the folders of splits, or in the files of `ImageSets/Main`, of one split or of all.
fn read_splits(
    layout: &Layout,
    options: &ReadOptions,
    annotations: &BTreeMap<String, PathBuf>,
    pictures: &BTreeMap<String, PathBuf>,
    renamed: &HashMap<String, String>,
    problems: &mut Problems,
) -> Result<BTreeMap<String, Vec<String>>, DataError> {
    let is_wanted = |name: &str| options.split.as_ref().is_none_or(|split| split == name);
    let known = |stem: &str| {
        let names = [annotations, pictures];
        names.iter().any(|files| files.contains_key(stem)) || renamed.contains_key(stem)
    };
    let alike = LazyCell::new(|| {
        let all: BTreeSet<&String> = annotations.keys().chain(pictures.keys()).collect();
        Alike::new(all.into_iter())
    });
    let mut splits: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in pictures.keys() {
        if let Some((split, _)) = name.rsplit_once('/') {
            splits.entry(split.into()).or_default().push(name.clone());
        }
    }
    let lists = layout.lists().filter(|_| splits.is_empty());
    let files = lists.map(|folder| files_by_stem(&folder, &["txt"]));
    let files = files.transpose()?.unwrap_or_default();
    let available = files.keys().filter(|name| !name.contains('_'));
    let available = splits.keys().chain(available).cloned().collect();
    splits.retain(|name, _| is_wanted(name));
    for (name, path) in &files {
        let wanted = is_wanted(name);
        let text = read_text(path)?;
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
        // `cat_train.txt` says of each image whether there are cats, and is no split.
        let of_class = |line: &str| !known(line) && flag(line).is_some();
        if lines().next().is_some_and(of_class) || !wanted {
            continue;
        }
        let mut seen = HashSet::new();
        let mut stems = Vec::new();
        for line in lines() {
            let stem = match Path::new(line).extension() {
                Some(extension) if !known(line) && is_one_of(extension, &PICTURES) => {
                    let end = line.len() - extension.len() - 1;
                    &line[..end]
                }
                _ => line,
            };
            // Lists of other tools have paths.
            let stem = match stem.rsplit(['/', '\\']).next() {
                Some(name) if !known(stem) && known(name) => name,
                _ => stem,
            };
            let renamed = renamed.get(stem).map(String::as_str);
            let similar = || {
                let unknown = Some(stem).filter(|stem| !known(stem))?;
                alike.find(unknown).map(String::as_str)
            };
            let stem = renamed.or_else(similar).unwrap_or(stem);
            if seen.insert(stem) {
                stems.push(stem.to_string());
            } else {
                let message = format!("{stem} is listed twice");
                problems.push(ProblemKind::DuplicateImage, path, None, message);
            }
        }
        if stems.is_empty() {
            problems.push(ProblemKind::EmptySplit, path, None, "lists no images");
        }
        splits.insert(name.clone(), stems);
    }
    match &options.split {
        Some(split) if !splits.contains_key(split) => Err(DataError::UnknownSplit {
            root: layout.root.clone(),
            split: split.clone(),
            available,
        }),
        _ => Ok(splits),
    }
}

/// The -1, 0 or 1 behind a name.
fn flag(line: &str) -> Option<&str> {
    let (_, last) = line.rsplit_once(char::is_whitespace)?;
    matches!(last, "-1" | "0" | "1").then_some(last)
}

/// The content of an XML file.
#[derive(Default)]
struct Annotation {
    filename: Option<String>,
    size: Option<Size>,
    objects: Vec<Object>,
}

struct Object {
    name: Option<String>,
    bounds: Result<Bounds, String>,
    extras: Extras,
}

impl Annotation {
    fn read(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let text = decode_xml(bytes)?;
        let options = ParsingOptions {
            // Entities could make any amount of text of a short one.
            allow_dtd: !text.contains("<!ENTITY"),
            ..Default::default()
        };
        let document = Document::parse_with_options(&text, options);
        let document = document.map_err(|error| error.to_string())?;
        let root = document.root_element();
        if !root.has_tag_name("annotation") {
            return Err(format!("<{}> is not <annotation>", root.tag_name().name()));
        }
        let size = child(root, "size");
        let side = |name| {
            let side = text_of(size?, name)?.parse::<f64>().ok()?;
            (side.fract() == 0.0).then_some(side as usize)
        };
        let objects = root.children().filter(|node| node.has_tag_name("object"));
        Ok(Self {
            filename: text_of(root, "filename").map(String::from),
            // Some tools write 0 for what they don't know.
            size: side("height")
                .zip(side("width"))
                .map(Size::from)
                .filter(|size| *size != Size::default()),
            objects: objects.map(Object::new).collect(),
        })
    }

    /// The picture that it names where that is another than `path` but for the extension: of `a.jpg` and `a.png`.
    fn picture_beside(&self, path: &Path) -> Option<PathBuf> {
        let name = self.filename.as_deref()?.rsplit(['/', '\\']).next()?;
        let other = path.with_file_name(name);
        let is_other = other != *path && other.file_stem() == path.file_stem();
        (is_other && has_image_name(&other) && other.is_file()).then_some(other)
    }

    fn objects(&self, classes: &HashMap<&String, usize>, extras: bool) -> Vec<AnnotatedObject> {
        let objects = self.objects.iter().zip(1..);
        let objects = objects.map(|(object, number)| AnnotatedObject {
            number,
            class: match &object.name {
                Some(name) => {
                    let class = classes.get(name).copied();
                    class.ok_or_else(|| format!("class `{name}` is not in {CLASSES}"))
                }
                None => Err("no <name>".into()),
            },
            bounds: object.bounds.clone(),
            crowd: false,
            area: None,
            polygon: Vec::new(),
            keypoints: Vec::new(),
            extras: match extras {
                true => object.extras.clone(),
                false => Extras::default(),
            },
        });
        objects.collect()
    }
}

impl Object {
    fn new(node: Node) -> Self {
        let line = node.document().text_pos_at(node.range().start).row;
        let edge = |parent: Node, name: &str| match text_of(parent, name) {
            None => Err(format!("no <{name}> (object at line {line})")),
            Some(text) => text
                .parse::<f64>()
                .map_err(|_| format!("<{name}> is `{text}` (object at line {line})")),
        };
        let bounds = child(node, "bndbox").ok_or(format!("no <bndbox> (object at line {line})"));
        let bounds = bounds.and_then(|b| {
            let edge = |name| edge(b, name);
            let edges = [edge("xmin")?, edge("ymin")?, edge("xmax")?, edge("ymax")?];
            Ok(Bounds::Pixels(edges))
        });
        let mut extras = Extras::default();
        for name in ATTRIBUTES {
            let text = text_of(node, name).filter(|text| !["0", "Unspecified"].contains(text));
            let number = |text: &str| text.parse::<u32>().map(|number| number.to_string());
            if let Some(text) = text {
                let json = number(text).unwrap_or_else(|_| serde_json::json!(text).to_string());
                extras.push(name, json);
            }
        }
        Self {
            name: text_of(node, "name").map(String::from),
            bounds,
            extras,
        }
    }
}

fn child<'a, 'd>(node: Node<'a, 'd>, name: &str) -> Option<Node<'a, 'd>> {
    node.children().find(|child| child.has_tag_name(name))
}

/// The text of a child; `None` if there is none or if it is blank.
fn text_of<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let text = child(node, name)?.text()?.trim();
    (!text.is_empty()).then_some(text)
}
