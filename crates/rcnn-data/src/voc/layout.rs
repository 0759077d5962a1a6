//! Folder layout of Pascal VOC data sets.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{ANNOTATIONS, IMAGES, SPLITS};
use crate::files::{PICTURES, files_by_stem, pictures_below, stem};
use crate::text::decode_xml;
use crate::tree::{Tree, is_called, is_split_name, name_of, split_of_folder};

/// Names of folders of XML files, in lower case.
const FOLDERS: [&str; 6] = [
    "annotations",
    "annotation",
    "labels",
    "xml",
    "xmls",
    "annots",
];

/// Names of folders of pictures, in lower case.
const PICTURE_FOLDERS: [&str; 9] = [
    "jpegimages",
    "images",
    "image",
    "imgs",
    "img",
    "pictures",
    "photos",
    "jpegs",
    "data",
];

/// Number of bytes of an XML file from which its format is inferred.
const HEAD: u64 = 1 << 10;

/// How many XML files of a folder are looked at.
const TRIED: usize = 3;

/// A folder of XML files, and where their pictures are.
struct Unit {
    annotations: PathBuf,
    base: PathBuf,
    /// The split that it is.
    split: Option<String>,
}

/// XML files in one folder, or in one for each split.
pub(crate) struct Layout {
    pub(super) root: PathBuf,
    units: Vec<Unit>,
}

/// Files by name: stems, behind the name of the split where each has a folder.
#[derive(Default)]
pub(super) struct Files {
    pub(super) annotations: BTreeMap<String, PathBuf>,
    pub(super) pictures: BTreeMap<String, PathBuf>,
}

impl Layout {
    /// `Annotations`, also by split, or XML beside pictures; if there are none, either of them in the
    /// folders of splits.
    pub(crate) fn find(tree: &Tree) -> Option<Self> {
        let root = tree.root();
        let mut units = units(tree, root, false);
        if units.is_empty() {
            let children = tree.children(root);
            units = children
                .flat_map(|child| self::units(tree, child, true))
                .collect();
            // `VOC2007` in `VOCdevkit` is a data set, and `train` a part of one.
            let beside = |unit: &Unit| unit.annotations == unit.base;
            units.retain(|unit| beside(unit) || is_split_name(&name_of(&unit.base)));
        }
        let root = root.into();
        (!units.is_empty()).then_some(Self { root, units })
    }

    /// The folder of classes and of lists of splits.
    pub(super) fn base(&self) -> &Path {
        match &self.units[..] {
            [unit] => &unit.base,
            _ => &self.root,
        }
    }

    /// The folder of the lists of splits.
    pub(super) fn lists(&self) -> Option<PathBuf> {
        let folders = [SPLITS, "ImageSets"].map(|name| self.base().join(name));
        let mut folders = folders.into_iter();
        folders.find(|folder| files_by_stem(folder, &["txt"]).is_ok_and(|files| !files.is_empty()))
    }

    /// The folder that a missing picture should be in.
    pub(super) fn expected(&self) -> PathBuf {
        let folders = self.units.first().map(|unit| unit.picture_folders());
        let first = folders.and_then(|folders| folders.into_iter().next());
        first.unwrap_or_else(|| self.base().join(IMAGES))
    }

    /// The files of all splits or of one. Pictures may be in another folder of that layout.
    pub(super) fn files(&self, images: Option<&Path>) -> Files {
        let mut files = Files::default();
        let by_split = self.units.iter().any(|unit| unit.split.is_some());
        for unit in &self.units {
            let split = unit.split.as_ref();
            let named = |stem: String| match split {
                Some(split) => format!("{split}/{stem}"),
                None => stem,
            };
            let annotations = files_by_stem(&unit.annotations, &["xml"]).unwrap_or_default();
            let pictures = match images {
                Some(folder) => {
                    let part = split.map(|split| folder.join(split));
                    by_stem(&part.filter(|part| part.is_dir()).unwrap_or(folder.into()))
                }
                None => unit.pictures(by_split),
            };
            let all = |files: BTreeMap<String, PathBuf>| {
                let files = files.into_iter();
                files
                    .map(|(stem, path)| (named(stem), path))
                    .collect::<Vec<_>>()
            };
            files.annotations.extend(all(annotations));
            files.pictures.extend(all(pictures));
        }
        files
    }
}

impl Unit {
    /// The folders that have its pictures, the best first.
    fn picture_folders(&self) -> Vec<PathBuf> {
        let mut bases = vec![self.base.clone()];
        // `Annotations/train` goes with `JPEGImages/train`.
        let inner = self.annotations.parent() != Some(&self.base) && self.annotations != self.base;
        let part = name_of(&self.annotations);
        let mut folders = Vec::new();
        let entries = fs::read_dir(&self.base).into_iter().flatten().flatten();
        let mut children: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        children.retain(|path| path.is_dir());
        children.sort();
        for name in PICTURE_FOLDERS {
            let named = children.iter().filter(|folder| is_called(folder, &[name]));
            for folder in named {
                if inner {
                    folders.push(folder.join(&part));
                }
                folders.push(folder.clone());
            }
        }
        if inner {
            bases.insert(0, self.base.join(&part));
        }
        folders.extend(bases);
        folders.push(self.annotations.clone());
        folders
    }

    fn pictures(&self, by_split: bool) -> BTreeMap<String, PathBuf> {
        let beside = self.annotations == self.base;
        if beside {
            let pictures = files_by_stem(&self.base, &PICTURES).unwrap_or_default();
            if !pictures.is_empty() {
                return pictures;
            }
        }
        for folder in self.picture_folders() {
            let pictures = match folder == self.base || folder == self.annotations {
                true => files_by_stem(&folder, &PICTURES).unwrap_or_default(),
                false => by_stem(&folder),
            };
            if !pictures.is_empty() {
                return pictures;
            }
        }
        // A folder of whatever name, if there is but one with pictures.
        let entries = fs::read_dir(&self.base).into_iter().flatten().flatten();
        let folders = entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir() && !by_split);
        let mut filled = folders
            .map(|folder| by_stem(&folder))
            .filter(|all| !all.is_empty());
        match (filled.next(), filled.next()) {
            (Some(pictures), None) => pictures,
            _ => BTreeMap::new(),
        }
    }
}

/// The pictures below a folder whose stems are theirs alone.
fn by_stem(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for picture in pictures_below(folder).unwrap_or_default() {
        found.entry(stem(&picture)).or_default().push(picture);
    }
    let alone = found.into_iter().filter_map(|(stem, mut paths)| {
        // The first level has the last word, as if there were no others.
        let right_here = paths.iter().rposition(|path| path.parent() == Some(folder));
        match (right_here, paths.len()) {
            (Some(place), _) => Some((stem, paths.swap_remove(place))),
            (None, 1) => Some((stem, paths.swap_remove(0))),
            _ => None,
        }
    });
    alone.collect()
}

/// The folders of XML files of a base: `Annotations`, its folders, or the base.
fn units(tree: &Tree, base: &Path, is_split: bool) -> Vec<Unit> {
    let split = is_split.then(|| split_of_folder(base));
    let unit = |annotations: &Path, split: Option<String>| Unit {
        annotations: annotations.into(),
        base: base.into(),
        split,
    };
    let mut units = Vec::new();
    for folder in tree.named(base, &FOLDERS) {
        // In `Annotations`, whatever its content, XML is labels.
        let sure = name_of(folder) == ANNOTATIONS;
        let is_full = |folder: &Path| {
            let files = tree.files(folder, &["xml"]);
            !files.is_empty() && (sure || files.iter().take(TRIED).any(|file| is_annotation(file)))
        };
        if is_full(folder) {
            units.push(unit(folder, split.clone()));
            break;
        }
        let parts = tree
            .children(folder)
            .filter(|part| !is_split && is_full(part));
        units.extend(parts.map(|part| unit(part, Some(split_of_folder(part)))));
        if !units.is_empty() {
            break;
        }
    }
    let files = tree.files(base, &["xml"]);
    if units.is_empty() && files.iter().take(TRIED).any(|file| is_annotation(file)) {
        units.push(unit(base, split));
    }
    units
}

/// Whether an XML file is one of VOC's, and not of CVAT's `<annotations>`.
fn is_annotation(file: &Path) -> bool {
    let text = head(file).unwrap_or_default();
    let mut tags = text.split("<annotation").skip(1);
    tags.any(|rest| rest.starts_with(|c: char| c == '>' || c.is_whitespace()))
}

/// The first characters of a file.
fn head(file: &Path) -> Option<String> {
    let mut head = Vec::new();
    let file = fs::File::open(file).ok()?;
    file.take(HEAD).read_to_end(&mut head).ok()?;
    let text = decode_xml(head.clone());
    Some(text.unwrap_or_else(|_| String::from_utf8_lossy(&head).into_owned()))
}

/// Why the XML files of a folder are none of VOC's, if one is CVAT's.
pub(crate) fn why_not(tree: &Tree) -> Option<String> {
    let mut files = tree
        .folders()
        .flat_map(|folder| tree.files(folder, &["xml"]));
    let is_cvats = |file: &PathBuf| head(file).is_some_and(|text| text.contains("<annotations>"));
    let file = files.by_ref().take(TRIED).find(is_cvats)?;
    let name = file.strip_prefix(tree.root()).unwrap_or(&file).display();
    Some(format!(
        "{name} is CVAT's own format: export COCO, VOC or YOLO"
    ))
}
