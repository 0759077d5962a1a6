//! Errors of reading and writing data sets.

use std::io;
use std::path::{Path, PathBuf};

use rcnn_image::ImageError;

use crate::problems::Problems;

/// Error of reading or writing a data set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is not what its format asks for.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line or key.
        reason: String,
    },
    /// The folder has the layout of no known format.
    #[error(
        "{}: {reason}; supported are COCO (a .json with `images`, here, in annotations or in the folder \
         of each split), Pascal VOC (.xml in Annotations or beside the pictures) and YOLO \
         (data.yaml, obj.data, or .txt in labels or beside the pictures)",
        root.display()
    )]
    UnknownFormat {
        /// The folder or file.
        root: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// There is no such split.
    #[error("{}: no split `{split}`{}", root.display(), among(available))]
    UnknownSplit {
        /// The data set.
        root: PathBuf,
        /// The split asked for.
        split: String,
        /// The splits there are.
        available: Vec<String>,
    },
    /// There are no images to use.
    #[error("{}: no images{}", root.display(), in_split(split))]
    NoImages {
        /// The data set.
        root: PathBuf,
        /// The split asked for, if any.
        split: Option<String>,
    },
    /// No picture has a label file, so that all would be background.
    #[error(
        "{}: none of {images} pictures has a label file (the first should have {}); found: {found}",
        root.display(), expected.display()
    )]
    NoLabels {
        /// The data set.
        root: PathBuf,
        /// The number of pictures.
        images: usize,
        /// Where the labels of the first picture should be.
        expected: PathBuf,
        /// The files that there are, by folder.
        found: String,
    },
    /// Nothing says how the classes are called.
    #[error(
        "{}: no class names; expected `names` or `nc` in data.yaml or in the only .yaml file (of several, \
         name one instead of the folder), or a classes.txt with one name per line",
        root.display()
    )]
    NoClassNames {
        /// The data set.
        root: PathBuf,
    },
    /// Boxes or images that cannot be used, and were not to be skipped.
    #[error("{problems}")]
    Invalid {
        /// The problems, of which some may be mere notes.
        problems: Problems,
    },
    /// A picture cannot be read, or a part of it not be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Something is where a data set was to be written.
    #[error("{}: not empty; choose a new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The numbers of a random split are not fractions.
    #[error("the fractions of a split must be from 0 to 1, with a sum of at most 1: {given}")]
    Fractions {
        /// The fractions as given.
        given: String,
    },
}

impl DataError {
    /// A mapper of I/O errors on one path.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self::Io { path, error }
    }

    pub(crate) fn malformed(path: &Path, reason: impl ToString) -> Self {
        Self::Malformed {
            path: path.into(),
            reason: reason.to_string(),
        }
    }
}

fn among(available: &[String]) -> String {
    match available {
        [] => "; the data have no splits, so omit it".into(),
        names => format!("; it has {}", names.join(", ")),
    }
}

fn in_split(split: &Option<String>) -> String {
    let split = split.as_ref();
    split.map_or_else(String::new, |split| format!(" in split `{split}`"))
}
