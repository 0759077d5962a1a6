//! YOLO's `data.yaml`: the names of the classes and where the splits are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

use super::{IMAGES, pictures_below};
use crate::error::DataError;
use crate::files::files_by_stem;

/// More is no `data.yaml`.
const MAX_BYTES: usize = 1 << 18;

/// The parser goes a level down for each of these.
const MAX_NESTING: usize = 64;

/// Each may stand for many more, so that a few lines could fill the memory.
const MAX_ALIASES: usize = 10;

pub(super) struct Config {
    /// The folder that paths are relative to.
    pub(super) base: PathBuf,
    pub(super) names: Option<Vec<String>>,
    /// Folders of pictures, or text files that list some.
    pub(super) splits: BTreeMap<String, Vec<PathBuf>>,
    /// Whether the one split is just everything.
    pub(super) unsplit: bool,
}

impl Config {
    /// The YAML file of a data set: itself, `data.yaml`, or the only one that has `names`.
    pub(super) fn find(root: &Path) -> Option<PathBuf> {
        if root.is_file() {
            return Some(root.into());
        }
        let files = files_by_stem(root, &["yaml", "yml"]).ok()?;
        if let Some(file) = files.get("data") {
            return Some(file.clone());
        }
        let named = |file: &PathBuf| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().any(|line| line.starts_with("names"))
        };
        let mut fitting = files.into_values().filter(named);
        let first = fitting.next();
        first.filter(|_| fitting.next().is_none())
    }

    pub(super) fn read(file: &Path) -> Result<Self, DataError> {
        let malformed = |reason: &str| DataError::malformed(file, reason);
        let text = fs::read_to_string(file).map_err(DataError::io(file))?;
        let aliases = text.matches('*').count();
        if text.len() > MAX_BYTES || nesting(&text) > MAX_NESTING || aliases > MAX_ALIASES {
            return Err(malformed("too large or too deeply nested for a data.yaml"));
        }
        let text = text.trim_start_matches('\u{feff}');
        let documents = YamlLoader::load_from_str(text);
        let documents = documents.map_err(|error| malformed(&error.to_string()))?;
        let yaml = documents.first().unwrap_or(&Yaml::BadValue);
        let Some(entries) = yaml.as_hash() else {
            return Err(malformed("no `key: value` lines"));
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        let base = match yaml["path"].as_str().map(|path| folder.join(path)) {
            Some(base) if base.is_dir() => base,
            // Many a file keeps the path it had on its author's machine.
            _ => folder.to_path_buf(),
        };
        let mut splits = BTreeMap::new();
        // Beside the usual ones, whatever names a list of pictures is a split.
        let list = |value: &Yaml| value.as_str().is_some_and(|entry| entry.ends_with(".txt"));
        let lists = entries.iter().filter(|(_, value)| list(value));
        let named = lists.filter_map(|(key, _)| key.as_str());
        for split in BTreeSet::from_iter(["train", "val", "test"].into_iter().chain(named)) {
            let entries = match &yaml[split] {
                Yaml::String(entry) => vec![entry.as_str()],
                Yaml::Array(entries) => entries.iter().filter_map(Yaml::as_str).collect(),
                Yaml::BadValue | Yaml::Null => continue,
                _ => return Err(malformed(&format!("`{split}` is no path"))),
            };
            let places = entries.into_iter().map(|entry| place(&base, entry));
            let places = places.map(|place| match place {
                Some(place) => Ok(place),
                None => Err(malformed(&format!(
                    "`{split}` names a path that is not there"
                ))),
            });
            match places.collect::<Result<Vec<_>, _>>() {
                Ok(places) if places.is_empty() => {}
                Ok(places) => drop(splits.insert(split.to_string(), places)),
                // Most are delivered without the test set that they name.
                Err(_) if split == "test" => {}
                Err(error) => return Err(error),
            }
        }
        let names = match &yaml["names"] {
            Yaml::BadValue | Yaml::Null => None,
            names => Some(class_names(names).map_err(|reason| malformed(&reason))?),
        };
        if splits.is_empty() {
            let layout = Self::of_layout(&base)?;
            return Ok(Self { names, ..layout });
        }
        Ok(Self {
            base,
            names,
            splits,
            unsplit: false,
        })
    }

    /// The splits of a folder without a YAML file: the folders in `images`, or all.
    pub(super) fn of_layout(base: &Path) -> Result<Self, DataError> {
        let images = base.join(IMAGES);
        let mut splits = BTreeMap::new();
        for entry in fs::read_dir(&images).map_err(DataError::io(&images))? {
            let path = entry.map_err(DataError::io(&images))?.path();
            if let Some(name) = path.file_name()
                && path.is_dir()
                && !pictures_below(&path)?.is_empty()
            {
                splits.insert(name.to_string_lossy().into_owned(), vec![path]);
            }
        }
        let unsplit = splits.is_empty();
        if unsplit {
            splits.insert("all".into(), vec![images]);
        }
        Ok(Self {
            base: base.into(),
            names: None,
            splits,
            unsplit,
        })
    }
}

/// A path of the YAML file. Exports are common whose `../train/images` means `train/images`.
fn place(base: &Path, entry: &str) -> Option<PathBuf> {
    let stripped = entry.trim_start_matches("../");
    let entry = entry.strip_prefix("./").unwrap_or(entry);
    let places = [base.join(entry), base.join(stripped)];
    places.into_iter().find(|place| place.exists())
}

/// Names in a list, or by number from 0.
fn class_names(yaml: &Yaml) -> Result<Vec<String>, String> {
    let text = |name: &Yaml| match name {
        Yaml::String(name) | Yaml::Real(name) => Ok(name.clone()),
        Yaml::Integer(name) => Ok(name.to_string()),
        Yaml::Boolean(name) => Ok(name.to_string()),
        _ => Err("`names` has an entry that is no name".to_string()),
    };
    match yaml {
        Yaml::Array(names) => names.iter().map(text).collect(),
        Yaml::Hash(names) => {
            let by_number = names.iter().map(|(number, name)| match number.as_i64() {
                Some(number) => Ok((number, text(name)?)),
                None => Err("`names` has a key that is no number".into()),
            });
            let by_number = by_number.collect::<Result<BTreeMap<i64, String>, String>>()?;
            match by_number.keys().copied().eq(0..names.len() as i64) {
                true => Ok(by_number.into_values().collect()),
                false => Err("the numbers of `names` are not 0, 1, 2, ...".into()),
            }
        }
        _ => Err("`names` is neither a list nor names by number".into()),
    }
}

/// A bound on how deeply values are nested.
fn nesting(text: &str) -> usize {
    let flow = text.bytes().scan(0_usize, |depth, byte| {
        *depth = match byte {
            b'[' | b'{' => *depth + 1,
            b']' | b'}' => depth.saturating_sub(1),
            _ => *depth,
        };
        Some(*depth)
    });
    let opening = |line: &str| line.chars().take_while(|c| " \t-?:".contains(*c)).count();
    let block = text.lines().map(opening);
    flow.max().unwrap_or(0).max(block.max().unwrap_or(0))
}
