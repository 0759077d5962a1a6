//! Format of a folder's labels, inferred from its layout.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::tree::Tree;
use crate::{coco, voc, yolo};

/// A format of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON file for many images, `[x, y, width, height]` in pixels.
    Coco,
    /// An XML file an image, edges in pixels.
    Voc,
    /// A text file an image, centre and size in shares of the image.
    Yolo,
}

impl Format {
    /// Names of all formats.
    pub const NAMES: [&str; 3] = ["coco", "voc", "yolo"];

    /// Name of the format, such as `coco`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coco => "coco",
            Self::Voc => "voc",
            Self::Yolo => "yolo",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Error for a name that is not one of [`Format::NAMES`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown format `{name}`; expected one of {}", Format::NAMES.join(", "))]
pub struct UnknownFormat {
    /// The name that was given.
    pub name: String,
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let formats = [Self::Coco, Self::Voc, Self::Yolo];
        let found = formats.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| UnknownFormat { name: name.into() })
    }
}

/// Infers the format of a folder, or of a `.json`, `.yaml` or `.data` file.
///
/// # Errors
/// When no format or several fit.
pub fn detect_format(root: &Path) -> Result<Format, DataError> {
    Ok(Layout::find(root, None, false)?.format())
}

/// How many levels of folders a data set may be deeper than the folder that is named.
const LEVELS: usize = 2;

/// In more folders, no data set is looked for.
const MOST_FOLDERS: usize = 32;

/// Place of the labels of a data set.
pub(crate) enum Layout {
    Coco(coco::Layout),
    Voc(voc::Layout),
    Yolo(yolo::Layout),
}

impl Layout {
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Coco(_) => Format::Coco,
            Self::Voc(_) => Format::Voc,
            Self::Yolo(_) => Format::Yolo,
        }
    }

    /// The layout of a file, of a folder, or of the one data set that lies in a folder.
    pub(crate) fn find(
        root: &Path,
        format: Option<Format>,
        keypoint_files: bool,
    ) -> Result<Self, DataError> {
        let unknown = |reason: String| DataError::UnknownFormat {
            root: root.into(),
            reason,
        };
        if !fs::metadata(root).map_err(DataError::io(root))?.is_dir() {
            let extension = root.extension().map(|e| e.to_string_lossy().to_lowercase());
            return match (format, extension.as_deref()) {
                (Some(Format::Coco), _) | (None, Some("json")) => {
                    Ok(Self::Coco(coco::Layout::from_file(root)))
                }
                (Some(Format::Yolo), _) | (None, Some("yaml" | "yml" | "data")) => {
                    Ok(Self::Yolo(yolo::Layout::from_file(root)))
                }
                (Some(Format::Voc), _) => Err(unknown("a file; name the folder".into())),
                _ => Err(unknown(
                    "neither a folder nor a .json, .yaml or .data file".into(),
                )),
            };
        }
        let tree = Tree::scan(root)?;
        if let Some(found) = Self::within(&tree, format, keypoint_files)? {
            return Ok(found);
        }
        let mut below = Self::below(&tree, format, keypoint_files, LEVELS)?;
        match below.len() {
            0 => {
                let what =
                    format.map_or("labels of a known format".into(), |f| format!("{f} labels"));
                let reasons = [coco::why_not(&tree), voc::why_not(&tree)];
                let reasons = reasons.into_iter().flatten().map(|why| format!("; {why}"));
                let reasons: String = reasons.collect();
                Err(unknown(format!(
                    "no {what}; found: {}{reasons}",
                    tree.summary()
                )))
            }
            1 => Ok(below.remove(0).1),
            _ => {
                let folders = below.iter().map(|(folder, _)| folder.display().to_string());
                let folders = folders.collect::<Vec<_>>().join(", ");
                Err(unknown(format!(
                    "several data sets below it; name one: {folders}"
                )))
            }
        }
    }

    /// The data sets in the folders of a folder.
    fn below(
        tree: &Tree,
        format: Option<Format>,
        keypoint_files: bool,
        levels: usize,
    ) -> Result<Vec<(PathBuf, Self)>, DataError> {
        let mut found = Vec::new();
        let children: Vec<&Path> = tree.children(tree.root()).collect();
        if levels == 0 || children.len() > MOST_FOLDERS {
            return Ok(found);
        }
        for child in children {
            let Ok(tree) = Tree::scan(child) else {
                continue;
            };
            match Self::within(&tree, format, keypoint_files)? {
                Some(layout) => found.push((child.into(), layout)),
                None => found.extend(Self::below(&tree, format, keypoint_files, levels - 1)?),
            }
        }
        Ok(found)
    }

    /// The layout of the labels right in a folder.
    fn within(
        tree: &Tree,
        format: Option<Format>,
        keypoint_files: bool,
    ) -> Result<Option<Self>, DataError> {
        let is_asked = |asked| format.is_none_or(|format| format == asked);
        let found = [
            voc::Layout::find(tree).map(Self::Voc),
            coco::Layout::find(tree, keypoint_files).map(Self::Coco),
            yolo::Layout::find(tree).map(Self::Yolo),
        ];
        let found = found.into_iter().flatten();
        let mut found: Vec<Self> = found.filter(|layout| is_asked(layout.format())).collect();
        match found.len() {
            0 => Ok(None),
            1 => Ok(found.pop()),
            _ => {
                let names: Vec<&str> = found.iter().map(|layout| layout.format().name()).collect();
                let names = names.join(", ");
                let reason =
                    format!("labels of several formats ({names}); name one (--data-format)");
                let root = tree.root().into();
                Err(DataError::UnknownFormat { root, reason })
            }
        }
    }
}
