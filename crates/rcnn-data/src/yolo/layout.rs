//! Folder layout of YOLO data sets.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::config::Config;
use super::labels::{expected, is_label_file};
use super::{IMAGES, LABELS, is_list};
use crate::error::DataError;
use crate::files::{PICTURES, files_by_stem, folded, lines_of, pictures_below, stem};
use crate::text::read_text;
use crate::tree::{Tree, folder_of, is_called, is_split_name, name_of, split_of_folder};

/// Files of a class a line, in folders of labels, of splits, or of all.
const NAMES: [&str; 4] = [
    "classes.txt",
    "obj.names",
    "classes.names",
    "_darknet.labels",
];

/// Label Studio's file of classes.
const NOTES: &str = "notes.json";

/// How many files beside pictures are looked at to tell whether they are labels.
const TRIED: usize = 5;

/// A file that says where all is, or folders.
pub(crate) enum Layout {
    /// `data.yaml`.
    Yaml(PathBuf),
    /// Darknet's `obj.data`.
    Darknet(PathBuf),
    /// Neither.
    Folders(PathBuf),
}

impl Layout {
    /// A folder with a `data.yaml` or `obj.data`, or with labels in `labels` or beside pictures.
    pub(crate) fn find(tree: &Tree) -> Option<Self> {
        let root = tree.root();
        if let Some(yaml) = yaml(tree) {
            return Some(Self::Yaml(yaml));
        }
        let mut data = tree.files(root, &["data"]).into_iter();
        let names = |file: &PathBuf| {
            let text = read_text(file).unwrap_or_default();
            let mut keys = text.lines().filter_map(|line| line.split_once('='));
            keys.any(|(key, _)| ["names", "train"].contains(&key.trim()))
        };
        if let Some(file) = data.find(names) {
            return Some(Self::Darknet(file));
        }
        // What lies in a folder with a file of its own is a data set of its own.
        let is_described = |folder: &Path| folder != root && tree.has_file(folder, "data.yaml");
        let is_above = tree.folders().any(is_described);
        (!is_above && has_labels(tree)).then(|| Self::Folders(root.into()))
    }

    pub(crate) fn from_file(path: &Path) -> Self {
        match path
            .extension()
            .is_some_and(|extension| extension == "data")
        {
            true => Self::Darknet(path.into()),
            false => Self::Yaml(path.into()),
        }
    }

    /// What the file says, or the folders. Pictures may be apart from the labels.
    pub(super) fn config(&self, images: Option<&Path>) -> Result<Config, DataError> {
        let config = match self {
            Self::Yaml(file) => Config::read_yaml(file, images.is_some())?,
            Self::Darknet(file) => Config::read_darknet(file)?,
            Self::Folders(root) => Config {
                base: root.clone(),
                ..Config::default()
            },
        };
        let config = match config.splits.is_empty() {
            true => {
                let (splits, unsplit) = folders(&Tree::scan(&config.base)?)?;
                Config {
                    splits,
                    unsplit,
                    ..config
                }
            }
            false => config,
        };
        match images {
            Some(images) => Ok(elsewhere(config, images)),
            None => Ok(config),
        }
    }
}

/// The YAML file of a data set: `data.yaml`, or the only one that has `names`.
fn yaml(tree: &Tree) -> Option<PathBuf> {
    let files = tree.files(tree.root(), &["yaml", "yml"]);
    let data = files
        .iter()
        .find(|file| file.file_stem().is_some_and(|stem| stem == "data"));
    if let Some(file) = data {
        return Some(file.clone());
    }
    let named = |file: &PathBuf| {
        let text = read_text(file).unwrap_or_default();
        let key = |line: &str| line.trim_start_matches(['"', '\'']).starts_with("names");
        text.lines().any(key)
    };
    let mut fitting = files.into_iter().filter(named);
    let first = fitting.next();
    first.filter(|_| fitting.next().is_none())
}

/// Whether there are label files: in `labels`, or beside pictures of their names.
fn has_labels(tree: &Tree) -> bool {
    tree.folders().any(|folder| {
        let texts = tree.files(folder, &["txt"]);
        let of_labels = is_called(folder, &[LABELS]) && folder != tree.root();
        if of_labels && tree.files(folder, &["xml", "json"]).is_empty() {
            return !texts.is_empty() || tree.children(folder).next().is_some();
        }
        if texts.is_empty() {
            return false;
        }
        let stem = |path: &PathBuf| folded(&stem(path));
        let pictures = tree.files(folder, &PICTURES);
        let stems: HashSet<String> = pictures.iter().map(stem).collect();
        let mut beside = texts.iter().filter(|text| stems.contains(&stem(text)));
        beside.by_ref().take(TRIED).any(|text| is_label_file(text))
    })
}

type Splits = BTreeMap<String, Vec<PathBuf>>;

/// The splits of a folder without a file that names them, and whether they are just everything: the
/// folders in `images`, lists such as `train.txt`, folders with their own pictures and labels, or
/// all.
fn folders(tree: &Tree) -> Result<(Splits, bool), DataError> {
    let root = tree.root();
    let has_pictures = |folder: &Path| pictures_below(folder).is_ok_and(|all| !all.is_empty());
    let mut splits = Splits::new();
    let images = tree.named(root, &[IMAGES, "jpegimages"]).next();
    let parts = images.into_iter().flat_map(|images| tree.children(images));
    for part in parts.filter(|part| has_pictures(part)) {
        splits.insert(split_of_folder(part), vec![part.into()]);
    }
    if !splits.is_empty() {
        return Ok((splits, false));
    }
    for (stem, file) in files_by_stem(root, &["txt"])? {
        if is_split_name(&stem) && is_list(&file) {
            splits.insert(stem, vec![file]);
        }
    }
    if !splits.is_empty() {
        return Ok((splits, false));
    }
    for child in tree.children(root) {
        let inner = tree.named(child, &[IMAGES]).next().unwrap_or(child);
        let name = name_of(child);
        // CVAT's `obj_train_data`.
        let short = name
            .strip_prefix("obj_")
            .and_then(|name| name.strip_suffix("_data"));
        let is_split = short.is_some() || is_split_name(&name) || inner != child;
        let of_all = is_called(child, &[IMAGES, LABELS, "jpegimages"]);
        if is_split && !of_all && has_pictures(inner) {
            let split = short.map_or_else(|| split_of_folder(child), str::to_lowercase);
            splits.insert(split, vec![inner.into()]);
        }
    }
    if !splits.is_empty() {
        return Ok((splits, false));
    }
    // Labels alone: their pictures are elsewhere.
    let labels = tree.named(root, &[LABELS]).next();
    let parts = labels.into_iter().flat_map(|labels| tree.children(labels));
    if images.is_none() {
        for part in parts {
            let pictures = root.join(IMAGES).join(name_of(part));
            splits.insert(split_of_folder(part), vec![pictures]);
        }
        if !splits.is_empty() && !has_pictures(root) {
            return Ok((splits, false));
        }
    }
    let all = match images {
        Some(images) => images.to_path_buf(),
        None if labels.is_some() && !has_pictures(root) => root.join(IMAGES),
        None => root.to_path_buf(),
    };
    Ok((Splits::from([("all".into(), vec![all])]), true))
}

/// The same splits with pictures in another folder: in that of the split's name if there is one.
fn elsewhere(mut config: Config, images: &Path) -> Config {
    for (split, sources) in &mut config.splits {
        let part = images.join(split);
        for source in sources.iter_mut().filter(|source| !source.is_file()) {
            *source = if part.is_dir() {
                part.clone()
            } else {
                images.into()
            };
        }
    }
    config
}

/// The names of the classes by the files that may lie about.
pub(super) fn class_names(config: &Config) -> Result<Option<Vec<String>>, DataError> {
    let mut folders = vec![config.base.clone(), config.base.join(LABELS)];
    for source in config.splits.values().flatten() {
        let folder = if source.is_dir() {
            source
        } else {
            folder_of(source)
        };
        let labels = expected(&folder.join("a.txt"));
        folders.extend([folder, folder_of(folder), folder_of(&labels)].map(Path::to_path_buf));
        folders.push(folder_of(folder).join(LABELS));
    }
    for folder in folders {
        for name in NAMES {
            if let Some(names) = lines_of(&folder.join(name))? {
                return Ok(Some(names));
            }
        }
        let notes = folder.join(NOTES);
        if notes.is_file() {
            return names_of_notes(&notes).map(Some);
        }
    }
    Ok(None)
}

/// The `categories` of a `notes.json`, whose ids may be text.
fn names_of_notes(file: &Path) -> Result<Vec<String>, DataError> {
    let malformed = |reason: String| DataError::malformed(file, reason);
    let notes: serde_json::Value =
        serde_json::from_str(&read_text(file)?).map_err(|error| malformed(error.to_string()))?;
    let categories = notes["categories"].as_array().into_iter().flatten();
    let by_id = categories.filter_map(|category| {
        let id = &category["id"];
        let id = id.as_u64().or_else(|| id.as_str()?.trim().parse().ok())?;
        Some((id, category["name"].as_str()?.to_string()))
    });
    let by_id: BTreeMap<u64, String> = by_id.collect();
    match !by_id.is_empty() && by_id.keys().copied().eq(0..by_id.len() as u64) {
        true => Ok(by_id.into_values().collect()),
        false => Err(malformed(
            "`categories` has no names for the ids 0, 1, 2, ...".into(),
        )),
    }
}
