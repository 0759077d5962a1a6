//! The files of a data set's folder and of the folders in it, in which the formats look for their
//! layouts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::files::{is_hidden, is_one_of};

/// How many levels of folders are looked into, besides the root.
const DEPTH: usize = 2;

/// How much of it [`Tree::summary`] tells.
const FOLDERS_SHOWN: usize = 8;
const KINDS_SHOWN: usize = 4;

/// Folders with the names of their files. What is hidden is left out.
pub(crate) struct Tree {
    root: PathBuf,
    folders: BTreeMap<PathBuf, Vec<OsString>>,
}

impl Tree {
    pub(crate) fn scan(root: &Path) -> Result<Self, DataError> {
        let mut folders = BTreeMap::new();
        let mut level = vec![root.to_path_buf()];
        for _ in 0..=DEPTH {
            let mut below = Vec::new();
            for folder in level {
                let entries = match fs::read_dir(&folder) {
                    Ok(entries) => entries,
                    Err(error) if folder == root => return Err(DataError::io(root)(error)),
                    Err(_) => continue,
                };
                let mut files = Vec::new();
                for entry in entries
                    .flatten()
                    .filter(|entry| !is_hidden(&entry.file_name()))
                {
                    let kind = entry.file_type();
                    let is_link = kind.as_ref().is_ok_and(|kind| kind.is_symlink());
                    if kind.is_ok_and(|kind| kind.is_dir()) || is_link && entry.path().is_dir() {
                        below.push(entry.path());
                    } else {
                        files.push(entry.file_name());
                    }
                }
                files.sort();
                folders.insert(folder, files);
            }
            level = below;
        }
        let root = root.to_path_buf();
        Ok(Self { root, folders })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// All folders, the root first.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.keys().map(PathBuf::as_path)
    }

    /// The folders right in one.
    pub(crate) fn children<'a>(&'a self, of: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.folders()
            .filter(move |folder| folder.parent() == Some(of))
    }

    /// The folders right in one that have one of some names (in small letters, without regard to
    /// capitals), in order of the names.
    pub(crate) fn named<'a>(
        &'a self,
        of: &'a Path,
        names: &'a [&str],
    ) -> impl Iterator<Item = &'a Path> {
        let found = move |name| {
            self.children(of)
                .filter(move |folder| is_called(folder, &[name]))
        };
        names.iter().flat_map(move |name| found(*name))
    }

    /// The files of a folder that have one of some extensions.
    pub(crate) fn files(&self, folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
        let names = self.folders.get(folder).into_iter().flatten();
        let fitting = names.filter(|name| {
            let extension = Path::new(name).extension();
            extension.is_some_and(|extension| is_one_of(extension, extensions))
        });
        fitting.map(|name| folder.join(name)).collect()
    }

    pub(crate) fn has_file(&self, folder: &Path, name: &str) -> bool {
        let files = self.folders.get(folder);
        files.is_some_and(|files| files.iter().any(|file| file == name))
    }

    /// Files found: `2 .jpg, 1 .txt; in images 40 .png; in labels nothing`.
    pub(crate) fn summary(&self) -> String {
        let shown = self
            .folders
            .iter()
            .take(FOLDERS_SHOWN)
            .map(|(folder, files)| {
                let mut counts: BTreeMap<String, usize> = BTreeMap::new();
                for file in files {
                    let extension = Path::new(file).extension();
                    let kind = extension.map_or("without extension".into(), |extension| {
                        format!(".{}", extension.to_string_lossy().to_lowercase())
                    });
                    *counts.entry(kind).or_default() += 1;
                }
                let mut counts: Vec<_> = counts.into_iter().collect();
                counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
                let kinds = counts.iter().take(KINDS_SHOWN);
                let kinds: Vec<String> = kinds
                    .map(|(kind, count)| format!("{count} {kind}"))
                    .collect();
                let kinds = match kinds.is_empty() {
                    true => "nothing".into(),
                    false => kinds.join(", "),
                };
                match folder.strip_prefix(&self.root) {
                    Ok(below) if below != Path::new("") => {
                        format!("in {} {kinds}", below.display())
                    }
                    _ => kinds,
                }
            });
        let mut text = shown.collect::<Vec<String>>().join("; ");
        if let Some(more @ 1..) = self.folders.len().checked_sub(FOLDERS_SHOWN) {
            text += &format!("; and {more} more folders");
        }
        text
    }
}

/// Whether a folder has one of some names, without regard to capitals.
pub(crate) fn is_called(folder: &Path, names: &[&str]) -> bool {
    names.contains(&name_of(folder).to_lowercase().as_str())
}

/// The last part of a path.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Whether a folder or file has the name of a part of a data set, such as `train`, `valid` or
/// `val2017`.
pub(crate) fn is_split_name(name: &str) -> bool {
    let name = name.to_lowercase();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_' || c == '-');
    let names = [
        "train",
        "training",
        "trainval",
        "val",
        "valid",
        "validation",
        "dev",
        "minival",
        "test",
        "testing",
    ];
    names.contains(&name)
}

/// The split that a folder is. `Train` is `train`.
pub(crate) fn split_of_folder(folder: &Path) -> String {
    let name = name_of(folder);
    match is_split_name(&name) {
        true => name.to_lowercase(),
        false => name,
    }
}

/// The folder of a file, which `.` is for a mere name.
pub(crate) fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}
