//! Finding files: pictures by their extension, files by their stem.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::Utf8Chunk;

use unicode_normalization::UnicodeNormalization;

use crate::error::DataError;
use crate::text::read_text;

pub(crate) use rcnn_image::EXTENSIONS as PICTURES;

pub(crate) fn is_one_of(extension: &OsStr, extensions: &[&str]) -> bool {
    let extension = extension.to_string_lossy().to_lowercase();
    extensions.contains(&extension.as_str())
}

/// Whether a name is that of what systems and tools leave among data, such as macOS's `._a.jpg`
/// in archives and the copies in `.ipynb_checkpoints`.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') || name == "__MACOSX" || name == "@eaDir"
}

/// A name as Windows and macOS compare it: without regard to capitals, and with `é` for `e` and an accent, which macOS
/// makes of it.
pub(crate) fn folded(name: &str) -> String {
    name.to_lowercase().nfc().collect()
}

/// The stem of a file's name. Bytes that are not UTF-8 are written `\xff`, so that no two stems are one text.
pub(crate) fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().as_encoded_bytes();
    let text =
        |chunk: Utf8Chunk<'_>| format!("{}{}", chunk.valid(), chunk.invalid().escape_ascii());
    stem.utf8_chunks().map(text).collect()
}

/// The files of some extensions right in a folder; of several with one stem, the last by name.
pub(crate) fn files_by_stem(
    folder: &Path,
    extensions: &[&str],
) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let entries = fs::read_dir(folder).map_err(DataError::io(folder))?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(DataError::io(folder))?;
    paths.sort();
    let mut files = BTreeMap::new();
    for path in paths {
        let fits = path.extension().is_some_and(|e| is_one_of(e, extensions));
        if fits && !is_hidden(path.file_name().unwrap_or_default()) {
            files.insert(stem(&path), path);
        }
    }
    Ok(files)
}

/// The pictures in a folder and the folders below it, in order of path.
pub(crate) fn pictures_below(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    files_below(folder, &PICTURES)
}

/// The files of some extensions in a folder and the folders below it, in order of path.
pub(crate) fn files_below(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, DataError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    // Folders that links lead to come last: by its own path each is looked into once, wherever else a link to it is.
    let mut links = BTreeSet::new();
    let mut seen = HashSet::new();
    while let Some(folder) = folders.pop().or_else(|| links.pop_first()) {
        let known = fs::canonicalize(&folder).map_err(DataError::io(&folder))?;
        if !seen.insert(known) {
            continue;
        }
        for entry in fs::read_dir(&folder).map_err(DataError::io(&folder))? {
            let entry = entry.map_err(DataError::io(&folder))?;
            let path = entry.path();
            if is_hidden(&entry.file_name()) {
                continue;
            }
            let kind = entry.file_type().map_err(DataError::io(&path))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_symlink() && path.is_dir() {
                links.insert(path);
            } else if path.extension().is_some_and(|e| is_one_of(e, extensions)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The lines of a list of names, trimmed and without blank ones; `None` if there are none.
///
/// # Errors
/// When there is such a file and it cannot be read.
pub(crate) fn lines_of(file: &Path) -> Result<Option<Vec<String>>, DataError> {
    if !file.is_file() {
        return Ok(None);
    }
    let text = read_text(file)?;
    let lines = text.lines().map(str::trim);
    let lines: Vec<String> = lines
        .filter(|line| !line.is_empty())
        .map(String::from)
        .collect();
    Ok((!lines.is_empty()).then_some(lines))
}
