//! Finding files: pictures by their extension, files by their stem.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::DataError;

pub(crate) use rcnn_image::EXTENSIONS as PICTURES;

pub(crate) fn is_one_of(extension: &OsStr, extensions: &[&str]) -> bool {
    let extension = extension.to_string_lossy().to_lowercase();
    extensions.contains(&extension.as_str())
}

/// The files of some extensions right in a folder.
pub(crate) fn files_by_stem(
    folder: &Path,
    extensions: &[&str],
) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let path = entry.map_err(DataError::io(folder))?.path();
        let fits = path.extension().is_some_and(|e| is_one_of(e, extensions));
        // macOS leaves `._name` beside `name` in archives.
        if let Some(stem) = path.file_stem().map(|stem| stem.to_string_lossy())
            && fits
            && !stem.starts_with("._")
        {
            files.insert(stem.into_owned(), path);
        }
    }
    Ok(files)
}

/// The pictures in a folder and the folders below it, in order of path.
pub(crate) fn pictures_below(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut pictures = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(DataError::io(&folder))? {
            let entry = entry.map_err(DataError::io(&folder))?;
            let path = entry.path();
            // Links to folders are not followed: they may lead in circles.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if rcnn_image::has_image_name(&path) {
                pictures.push(path);
            }
        }
    }
    pictures.sort();
    Ok(pictures)
}

/// The lines of a list of names, trimmed and without blank ones; `None` if there are none.
pub(crate) fn lines_of(file: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(file).ok()?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let lines: Vec<String> = lines
        .filter(|line| !line.is_empty())
        .map(String::from)
        .collect();
    (!lines.is_empty()).then_some(lines)
}
