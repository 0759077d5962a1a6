//! Folder layout of COCO data sets.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use rcnn_files::{Content, decode_text};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{ANNOTATIONS, foreign, quote_not_finite};
use crate::tree::{Tree, folder_of, is_called, is_split_name, name_of, split_of_folder};

/// Files that lie beside those of boxes and have none.
const OTHER_TASKS: [&str; 4] = ["captions_", "image_info_", "stuff_", "panoptic_"];

/// Prefixes of the split's name. Keypoint files list the people of the instance files.
const PREFIXES: [&str; 2] = ["instances_", "person_keypoints_"];

/// The file of Roboflow's exports.
const BESIDE_IMAGES: &str = "_annotations.coco.json";

/// The folders that files may be in.
const FOLDERS: [&str; 3] = [ANNOTATIONS, "annotation", "labels"];

/// Number of bytes of a file from which its format is inferred.
const HEAD: u64 = 1 << 20;

/// A folder of more JSON files has one for each picture, in another format.
const MOST_FILES: usize = 64;

/// JSON files by split.
pub(crate) struct Layout {
    pub(super) root: PathBuf,
    pub(super) files: BTreeMap<String, PathBuf>,
}

impl Layout {
    /// One file.
    pub(crate) fn from_file(path: &Path) -> Self {
        Self {
            root: path.into(),
            files: BTreeMap::from([(split_of(path), path.into())]),
        }
    }

    /// The files in a folder, in its `annotations`, and Roboflow's in the folders of splits; if there
    /// are none, those of any name in the folders of splits.
    pub(crate) fn find(tree: &Tree, keypoint_files: bool) -> Option<Self> {
        let root = tree.root();
        let mut files = BTreeMap::new();
        for path in chosen(folder_files(tree, root), keypoint_files) {
            files.entry(split_of(&path)).or_insert(path);
        }
        for child in tree.children(root) {
            if tree.has_file(child, BESIDE_IMAGES) {
                let path = child.join(BESIDE_IMAGES);
                files.entry(split_of_folder(child)).or_insert(path);
            }
        }
        if files.is_empty() {
            for child in tree
                .children(root)
                .filter(|child| !is_called(child, &FOLDERS))
            {
                let found = chosen(folder_files(tree, child), keypoint_files);
                let alone = found.len() == 1;
                for path in found {
                    let (folder, stem) = (split_of_folder(child), split_of(&path));
                    let name = match alone && !is_split_name(&stem) {
                        true => folder.clone(),
                        false => stem,
                    };
                    let name = match files.contains_key(&name) {
                        true => format!("{folder}_{name}"),
                        false => name,
                    };
                    files.entry(name).or_insert(path);
                }
            }
        }
        let root = root.into();
        (!files.is_empty()).then_some(Self { root, files })
    }

    /// The folder that pictures are below.
    pub(super) fn base(&self) -> &Path {
        match self.root.is_file() {
            true => folder_of(&self.root),
            false => &self.root,
        }
    }

    /// Folders that the pictures of a file may be in.
    pub(super) fn picture_folders(&self, split: &str, file: &Path) -> Vec<PathBuf> {
        let beside = folder_of(file);
        let above = folder_of(beside);
        let bases = match is_called(beside, &FOLDERS) {
            true => [self.root.as_path(), above, beside],
            false => [beside, self.root.as_path(), above],
        };
        let mut folders = Vec::new();
        for base in bases.into_iter().filter(|base| base.is_dir()) {
            let names = [
                &format!("images/{split}"),
                split,
                "images",
                "",
                "data",
                "JPEGImages",
            ];
            for folder in names.map(|name| base.join(name)) {
                if !folders.contains(&folder) {
                    folders.push(folder);
                }
            }
        }
        folders
    }
}

/// Why the JSON files of a folder are none of COCO's, if it has some.
pub(crate) fn why_not(tree: &Tree) -> Option<String> {
    let files = tree
        .folders()
        .flat_map(|folder| tree.files(folder, &["json"]));
    let files: Vec<PathBuf> = files.take(3).collect();
    let reasons = files.iter().map(|path| {
        let name = path.strip_prefix(tree.root()).unwrap_or(path).display();
        let head = head(path).unwrap_or_default();
        if let Some(format) = foreign::named(&String::from_utf8_lossy(&head)) {
            return format!("{name} is {format}");
        }
        match head.trim_ascii_start().first() {
            Some(b'{') => format!("{name} has no `images`"),
            Some(b'[') => format!("{name} is a list"),
            _ => match Content::sniff(&head) {
                Content::Empty => format!("{name} is empty"),
                Content::Image(format) => format!("{name} is a {format}"),
                Content::Other(content) => format!("{name} is {content}"),
            },
        }
    });
    (!files.is_empty()).then(|| reasons.collect::<Vec<_>>().join(", "))
}

fn split_of(path: &Path) -> String {
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let short = PREFIXES.iter().find_map(|prefix| stem.strip_prefix(prefix));
    short.map(String::from).unwrap_or(stem)
}

/// The files of COCO's shape in a folder and in its `annotations`.
fn folder_files(tree: &Tree, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in tree.named(folder, &FOLDERS).chain([folder]) {
        let files = tree.files(folder, &["json"]);
        if files.len() <= MOST_FILES {
            found.extend(files.into_iter().filter(|path| has_shape(path)));
        }
    }
    found
}

/// Files of boxes, or of keypoints if those are asked for; where there is only one kind, that one.
fn chosen(mut files: Vec<PathBuf>, keypoint_files: bool) -> Vec<PathBuf> {
    let starts = |path: &PathBuf, with: &[&str]| {
        let name = name_of(path);
        with.iter().any(|prefix| name.starts_with(prefix))
    };
    files.retain(|path| !starts(path, &OTHER_TASKS));
    let is_asked = |path: &PathBuf| starts(path, &PREFIXES[1..]) == keypoint_files;
    if files.iter().any(is_asked) {
        files.retain(is_asked);
    }
    files
}

fn head(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(HEAD)
        .read_to_end(&mut head)
        .ok()?;
    Some(head)
}

/// Whether a file is an object with a list of images, as far as its beginning tells.
fn has_shape(path: &Path) -> bool {
    let Some(head) = head(path) else { return false };
    let text = decode_text(head.clone());
    // A character may be cut in two at the end.
    let text = text.unwrap_or_else(|_| String::from_utf8_lossy(&head).into_owned());
    let text = quote_not_finite(&text);
    let mut keys = Keys::default();
    match serde_json::Deserializer::from_str(&text).deserialize_map(&mut keys) {
        Ok(()) => keys
            .0
            .iter()
            .any(|(key, is_list)| *is_list && key == "images"),
        // It goes on, or is damaged, which reading will tell of.
        Err(_) => {
            let known = ["images", ANNOTATIONS, "categories"];
            keys.0.iter().any(|(key, _)| known.contains(&key.as_str()))
        }
    }
}

/// The keys of an object, as far as it can be read, and whether their values are lists.
#[derive(Default)]
struct Keys(Vec<(String, bool)>);

impl<'de> Visitor<'de> for &mut Keys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key()? {
            self.0.push((key, false));
            let value: &RawValue = map.next_value()?;
            if let Some((_, is_list)) = self.0.last_mut() {
                *is_list = value.get().starts_with('[');
            }
        }
        Ok(())
    }
}
