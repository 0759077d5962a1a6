//! Pascal VOC: an XML file an image in `Annotations`, pictures in `JPEGImages`, and the stems of a
//! split's images in `ImageSets/Main/<split>.txt`.
//!
//! Classes are those of the objects, by name, unless a `classes.txt` lists them. Coordinates are taken
//! as they stand, fractions included; as in torchvision's references, nothing is subtracted although
//! VOC counts pixels from 1. Objects marked difficult are objects; that and their other attributes
//! are extras. Parts of objects are not read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use rayon::prelude::*;
use roxmltree::{Document, Node};

use crate::dataset::{BACKGROUND, ReadOptions};
use crate::error::DataError;
use crate::extras::Extras;
use crate::files::{PICTURES, files_by_stem, is_one_of, lines_of};
use crate::problems::{ProblemKind, Problems};
use crate::raw::{Raw, RawBounds, RawImage, RawObject};

pub(crate) const ANNOTATIONS: &str = "Annotations";
pub(crate) const IMAGES: &str = "JPEGImages";
pub(crate) const SPLITS: &str = "ImageSets/Main";
pub(crate) const CLASSES: &str = "classes.txt";
/// What an object says of itself besides its name and box.
pub(crate) const ATTRIBUTES: [&str; 4] = ["pose", "truncated", "difficult", "occluded"];

/// Whether a folder has VOC's layout.
pub(crate) fn fits(root: &Path) -> bool {
    files_by_stem(&root.join(ANNOTATIONS), &["xml"]).is_ok_and(|files| !files.is_empty())
}

pub(crate) fn read(root: &Path, options: &ReadOptions) -> Result<Raw, DataError> {
    let annotations = files_by_stem(&root.join(ANNOTATIONS), &["xml"])?;
    let images_folder = root.join(IMAGES);
    let pictures = files_by_stem(&images_folder, &PICTURES).unwrap_or_default();
    let mut problems = Problems::default();
    let known = |stem: &str| annotations.contains_key(stem) || pictures.contains_key(stem);
    let splits = read_splits(root, options, known, &mut problems)?;

    let parsed: BTreeMap<&String, Result<Annotation, String>> = annotations
        .par_iter()
        .map(|(stem, path)| (stem, Annotation::read(path)))
        .collect();
    let listed_classes = lines_of(&root.join(CLASSES));
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
        Some(root.join(SPLITS).join(format!("{split}.txt")))
    };
    let mut images = Vec::new();
    let mut places = HashMap::new();
    for stem in all {
        let labels = annotations.get(stem);
        let annotation = match (parsed.get(stem), labels) {
            (Some(Err(reason)), Some(path)) => {
                problems.push(ProblemKind::BrokenLabels, path, None, reason);
                continue;
            }
            (Some(Ok(annotation)), _) => annotation,
            _ => &Annotation::default(),
        };
        let path = pictures.get(stem).cloned().or_else(|| {
            let named = images_folder.join(annotation.filename.as_ref()?);
            named.is_file().then_some(named)
        });
        let path = match (path, labels) {
            (Some(path), _) => path,
            (None, Some(labels)) if !listed.contains(stem) => {
                let message = format!("no picture {stem} in {}", images_folder.display());
                problems.push(ProblemKind::OrphanLabels, labels, None, message);
                continue;
            }
            (None, _) => images_folder.join(format!("{stem}.jpg")),
        };
        places.insert(stem, images.len());
        images.push(RawImage {
            named_by: split_file(stem).or(labels.cloned()).unwrap_or(root.into()),
            path,
            id: None,
            stated: annotation.size,
            labels: labels.cloned(),
            extras: Extras::default(),
            objects: annotation.objects(&classes, options.boxes_only),
        });
    }
    let place = |stem| places.get(stem).copied();
    let splits = splits.iter();
    let splits =
        splits.map(|(name, stems)| (name.clone(), stems.iter().filter_map(place).collect()));
    Ok(Raw {
        splits: splits.collect(),
        class_names,
        images,
        problems,
        ..Raw::default()
    })
}

/// The stems in the files of `ImageSets/Main`, of one split or of all.
fn read_splits(
    root: &Path,
    options: &ReadOptions,
    known: impl Fn(&str) -> bool,
    problems: &mut Problems,
) -> Result<BTreeMap<String, Vec<String>>, DataError> {
    let files = files_by_stem(&root.join(SPLITS), &["txt"]).unwrap_or_default();
    let mut splits = BTreeMap::new();
    for (name, path) in &files {
        let wanted = options.split.as_ref().is_none_or(|split| split == name);
        let text = fs::read_to_string(path).map_err(DataError::io(path))?;
        let text = text.trim_start_matches('\u{feff}');
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
            root: root.into(),
            split: split.clone(),
            available: files
                .into_keys()
                .filter(|name| !name.contains('_'))
                .collect(),
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
    size: Option<(u32, u32)>,
    objects: Vec<Object>,
}

struct Object {
    name: Option<String>,
    bounds: Result<RawBounds, String>,
    extras: Extras,
}

impl Annotation {
    fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let text = text.trim_start_matches('\u{feff}');
        let document = Document::parse(text).map_err(|error| error.to_string())?;
        let root = document.root_element();
        if !root.has_tag_name("annotation") {
            return Err(format!("<{}> is not <annotation>", root.tag_name().name()));
        }
        let size = child(root, "size");
        let side = |name| text_of(size?, name)?.parse::<u32>().ok();
        let objects = root.children().filter(|node| node.has_tag_name("object"));
        Ok(Self {
            filename: text_of(root, "filename").map(String::from),
            // Some tools write 0 for what they don't know.
            size: side("width")
                .zip(side("height"))
                .filter(|size| *size != (0, 0)),
            objects: objects.map(Object::new).collect(),
        })
    }

    fn objects(&self, classes: &HashMap<&String, usize>, boxes_only: bool) -> Vec<RawObject> {
        let objects = self.objects.iter().zip(1..);
        let objects = objects.map(|(object, number)| RawObject {
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
            extras: match boxes_only {
                true => Extras::default(),
                false => object.extras.clone(),
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
            Ok(RawBounds::Pixels(edges))
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
