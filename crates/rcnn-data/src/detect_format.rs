//! Which format a folder's labels have, told from its layout.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
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
    /// The formats' names.
    pub const NAMES: [&str; 3] = ["coco", "voc", "yolo"];

    /// The name.
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

/// A name that is not one of [`Format::NAMES`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is none of {}", Format::NAMES.join(", "))]
pub struct UnknownFormat {
    /// The name.
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

/// Tells the format of a folder, or of a `.json` or `.yaml` file.
///
/// # Errors
/// When no format or several fit.
pub fn detect_format(root: &Path) -> Result<Format, DataError> {
    let meta = fs::metadata(root).map_err(DataError::io(root))?;
    let unknown = |reason: String| DataError::UnknownFormat {
        root: root.into(),
        reason,
    };
    if meta.is_file() {
        let extension = root.extension().map(|e| e.to_string_lossy().to_lowercase());
        return match extension.as_deref() {
            Some("json") => Ok(Format::Coco),
            Some("yaml" | "yml") => Ok(Format::Yolo),
            _ => Err(unknown("neither a folder nor a .json or .yaml file".into())),
        };
    }
    let fitting: Vec<Format> = [
        (Format::Voc, voc::fits(root)),
        (Format::Coco, coco::fits(root)),
        (Format::Yolo, yolo::fits(root)),
    ]
    .into_iter()
    .filter_map(|(format, fits)| fits.then_some(format))
    .collect();
    match fitting[..] {
        [format] => Ok(format),
        [] => Err(unknown("no labels of a known format".into())),
        _ => {
            let names: Vec<&str> = fitting.into_iter().map(Format::name).collect();
            let reason = format!("labels of several formats ({}); name one", names.join(", "));
            Err(unknown(reason))
        }
    }
}
