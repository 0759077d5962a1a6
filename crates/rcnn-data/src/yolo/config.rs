//! YOLO's `data.yaml`: the names of the classes and where the splits are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

use crate::error::DataError;
use crate::files::lines_of;
use crate::shapes::is_flip;
use crate::text::read_text;
use crate::tree::folder_of;

/// More is no `data.yaml`.
const MAX_BYTES: usize = 1 << 18;

/// The parser goes a level down for each of these.
const MAX_NESTING: usize = 64;

/// Far more than any data have.
const MAX_CLASSES: usize = 100_000;

/// Each may stand for many more, so that a few lines could fill the memory.
const MAX_ALIASES: usize = 10;

/// The splits that a file may name folders of.
const USUAL_SPLITS: [&str; 5] = ["train", "val", "valid", "validation", "test"];

/// Where the pictures are and what the classes are called.
#[derive(Default)]
pub(super) struct Config {
    /// The folder that paths are relative to.
    pub(super) base: PathBuf,
    pub(super) names: Option<Vec<String>>,
    /// The number of classes, where it is stated.
    pub(super) classes: Option<usize>,
    /// How many keypoints are behind a box, and the numbers of each; zeros if none are.
    pub(super) keypoint_shape: [usize; 2],
    /// Position of the keypoint that each becomes in a mirrored picture; empty if not told.
    pub(super) flip_idx: Vec<usize>,
    /// Names of the keypoints of each class, or one list for all; empty if not told.
    pub(super) keypoint_names: Vec<Vec<String>>,
    /// Folders of pictures, or text files that list some.
    pub(super) splits: BTreeMap<String, Vec<PathBuf>>,
    /// Whether the one split is just everything.
    pub(super) unsplit: bool,
}

impl Config {
    /// Reads a `data.yaml`. If the pictures are elsewhere, it may name folders that are not there.
    pub(super) fn read_yaml(file: &Path, apart: bool) -> Result<Self, DataError> {
        let malformed = |reason: &str| DataError::malformed(file, reason);
        let text = read_text(file)?;
        // Scripts for downloads, which many a file has, are full of stars.
        let aliases = match marks(&text, '&') {
            0 => 0,
            _ => marks(&text, '*'),
        };
        if text.len() > MAX_BYTES || nesting(&text) > MAX_NESTING || aliases > MAX_ALIASES {
            return Err(malformed("too large or too deeply nested for a data.yaml"));
        }
        let documents = YamlLoader::load_from_str(&text);
        let documents = documents.map_err(|error| malformed(&error.to_string()))?;
        let yaml = documents.first().unwrap_or(&Yaml::BadValue);
        let Some(entries) = yaml.as_hash() else {
            return Err(malformed("no `key: value` lines"));
        };
        let folder = folder_of(file);
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
        for split in BTreeSet::from_iter(USUAL_SPLITS.into_iter().chain(named)) {
            let entries = match &yaml[split] {
                Yaml::String(entry) => vec![entry.as_str()],
                Yaml::Array(entries) => entries.iter().filter_map(Yaml::as_str).collect(),
                Yaml::BadValue | Yaml::Null => continue,
                _ => return Err(malformed(&format!("`{split}` is not a path"))),
            };
            // As ultralytics does.
            let name = if split == "validation" { "val" } else { split };
            let places = entries.iter().map(|entry| {
                place(&base, entry).ok_or_else(|| {
                    let base = base.display();
                    malformed(&format!(
                        "`{split}`: {entry} is not there, looked for in {base}"
                    ))
                })
            });
            match places.collect::<Result<Vec<_>, _>>() {
                Ok(places) if places.is_empty() => {}
                Ok(places) => drop(splits.entry(name.to_string()).or_insert(places)),
                // Most are delivered without the test set that they name.
                Err(_) if split == "test" => {}
                // The pictures are elsewhere, the labels are below.
                Err(_) if apart => drop(splits.insert(name.into(), vec![base.join(entries[0])])),
                Err(error) => return Err(error),
            }
        }
        let names = match &yaml["names"] {
            Yaml::BadValue | Yaml::Null => None,
            names => Some(class_names(names).map_err(|reason| malformed(&reason))?),
        };
        let classes = class_count(count(&yaml["nc"])).map_err(|e| malformed(&e))?;
        if let (Some(names), Some(classes)) = (&names, classes)
            && names.len() != classes
        {
            let reason = format!("`nc` is {classes}, but `names` has {}", names.len());
            return Err(malformed(&reason));
        }
        let keypoint_shape = keypoint_shape(&yaml["kpt_shape"]).map_err(|e| malformed(&e))?;
        let points = keypoint_shape[0];
        Ok(Self {
            base,
            names,
            classes,
            keypoint_shape,
            flip_idx: flip_idx(&yaml["flip_idx"], points).map_err(|e| malformed(&e))?,
            keypoint_names: keypoint_names(&yaml["kpt_names"], points),
            splits,
            unsplit: false,
        })
    }

    /// Reads darknet's `obj.data`: lines such as `train = data/train.txt`. The files that it names
    /// were in a folder above it.
    pub(super) fn read_darknet(file: &Path) -> Result<Self, DataError> {
        let base = folder_of(file);
        let text = read_text(file)?;
        let mut config = Self {
            base: base.into(),
            ..Self::default()
        };
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let (key, value) = (key.trim(), value.trim());
            let found = place(base, value);
            match key {
                "classes" => {
                    let found = class_count(value.parse().ok());
                    config.classes = found.map_err(|reason| DataError::malformed(file, reason))?;
                }
                "names" => {
                    let names = found.map(|file| lines_of(&file)).transpose()?;
                    config.names = names.flatten();
                }
                "train" | "valid" | "val" | "validation" | "test" => {
                    let found = found.ok_or_else(|| {
                        let reason = format!("`{key}`: {value} is not there");
                        DataError::malformed(file, reason)
                    });
                    match found {
                        Ok(list) => drop(config.splits.insert(key.into(), vec![list])),
                        Err(_) if key != "train" => {}
                        Err(error) => return Err(error),
                    }
                }
                _ => {}
            }
        }
        Ok(config)
    }
}

/// A path of the file, which may be from another machine: as it stands, or an end of it. Exports are
/// common whose `../train/images` means `train/images`.
fn place(base: &Path, entry: &str) -> Option<PathBuf> {
    let entry = entry.replace('\\', "/");
    let whole = base.join(entry.strip_prefix("./").unwrap_or(&entry));
    let parts: Vec<&str> = entry.split('/').filter(|part| !part.is_empty()).collect();
    let ends = (1..parts.len()).map(|start| base.join(parts[start..].join("/")));
    std::iter::once(whole)
        .chain(ends)
        .find(|place| place.exists())
}

fn count(yaml: &Yaml) -> Option<usize> {
    let text = yaml.as_str().and_then(|text| text.trim().parse().ok());
    let number = yaml.as_i64().and_then(|number| number.try_into().ok());
    number.or(text)
}

/// The number of classes, which names are made for where the data have none.
fn class_count(found: Option<usize>) -> Result<Option<usize>, String> {
    match found {
        Some(count) if count > MAX_CLASSES => {
            Err(format!("{count} classes: expected at most {MAX_CLASSES}"))
        }
        found => Ok(found),
    }
}

/// `[points, 2]` or `[points, 3]`.
fn keypoint_shape(yaml: &Yaml) -> Result<[usize; 2], String> {
    if yaml.is_badvalue() || yaml.is_null() {
        return Ok([0, 0]);
    }
    let shape: Option<Vec<usize>> = yaml
        .as_vec()
        .and_then(|all| all.iter().map(count).collect());
    match shape.as_deref() {
        Some(&[points @ 1..=1000, each @ 2..=3]) => Ok([points, each]),
        _ => Err("`kpt_shape` is not [points, 2] or [points, 3]".into()),
    }
}

/// For each keypoint, the number of the one that it becomes in the mirrored image.
fn flip_idx(yaml: &Yaml, points: usize) -> Result<Vec<usize>, String> {
    // Empty, as many templates have it, it tells nothing.
    if points == 0
        || yaml.is_badvalue()
        || yaml.is_null()
        || yaml.as_vec().is_some_and(Vec::is_empty)
    {
        return Ok(Vec::new());
    }
    let numbers: Option<Vec<usize>> = yaml
        .as_vec()
        .and_then(|all| all.iter().map(count).collect());
    let numbers = numbers.filter(|all| is_flip(all, points));
    numbers.ok_or_else(|| {
        let last = points - 1;
        format!(
            "`flip_idx` is not the numbers from 0 to {last}, one for each keypoint of `kpt_shape`, with some \
             pairs swapped"
        )
    })
}

/// Names of keypoints, in a list or a list for each number of a class; none where they are not as many.
fn keypoint_names(yaml: &Yaml, points: usize) -> Vec<Vec<String>> {
    let list = |names: &Yaml| {
        class_names(names)
            .ok()
            .filter(|names| names.len() == points)
    };
    let found: Option<Vec<Vec<String>>> = match yaml {
        Yaml::Array(_) => list(yaml).map(|names| vec![names]),
        Yaml::Hash(classes) => classes.values().map(list).collect(),
        _ => None,
    };
    found.filter(|_| points > 0).unwrap_or_default()
}

/// Names in a list, or by number from 0.
fn class_names(yaml: &Yaml) -> Result<Vec<String>, String> {
    let text = |name: &Yaml| match name {
        Yaml::String(name) | Yaml::Real(name) => Ok(name.clone()),
        Yaml::Integer(name) => Ok(name.to_string()),
        Yaml::Boolean(name) => Ok(name.to_string()),
        _ => Err("`names` has an entry that is not a name".to_string()),
    };
    match yaml {
        Yaml::Array(names) => names.iter().map(text).collect(),
        Yaml::Hash(names) => {
            let by_number = names.iter().map(|(number, name)| match count(number) {
                Some(number) => Ok((number, text(name)?)),
                None => Err("`names` has a key that is not a number".into()),
            });
            let by_number = by_number.collect::<Result<BTreeMap<usize, String>, String>>()?;
            match by_number.keys().copied().eq(0..names.len()) {
                true => Ok(by_number.into_values().collect()),
                false => Err("the numbers of `names` are not 0, 1, 2, ...".into()),
            }
        }
        _ => Err("`names` is neither a list nor names by number".into()),
    }
}

/// A bound on how many anchors or aliases a text has, which begin with `&` or `*`.
fn marks(text: &str, mark: char) -> usize {
    let before = std::iter::once('\n').chain(text.chars());
    let places = before.zip(text.chars()).zip(text.chars().skip(1));
    let is_mark = |((before, this), after): &((char, char), char)| {
        let begins = before.is_whitespace() || "[{,:".contains(*before);
        *this == mark && begins && !after.is_whitespace() && !",[]{}".contains(*after)
    };
    places.filter(is_mark).count()
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
