//! Label files of pictures.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::LABELS;
use crate::files::{files_below, folded, stem};
use crate::text::read_text;
use crate::tree::{folder_of, is_called, name_of};

/// Folders of pictures, in small letters, for which the labels are in `labels`.
const IMAGE_FOLDERS: [&str; 3] = ["images", "jpegimages", "image"];

/// Where a picture's labels should be: the last `images` in its path is `labels`.
pub(super) fn expected(picture: &Path) -> PathBuf {
    let mut parts: Vec<Component> = picture.components().collect();
    let folders = parts.len().saturating_sub(1);
    let is_images = |part: &Component| is_called(Path::new(part), &IMAGE_FOLDERS);
    if let Some(place) = parts[..folders].iter().rposition(is_images) {
        parts[place] = Component::Normal(LABELS.as_ref());
    }
    parts.iter().collect::<PathBuf>().with_extension("txt")
}

/// Finds the label files of pictures: where they should be, in a folder `labels` beside, beside the
/// picture; else below or above, in folders of labels, where only one picture and one label file have
/// that stem or, without regard to capitals, one like it.
pub(super) fn find<'a>(
    pictures: impl Iterator<Item = &'a Path> + Clone,
    apart: Option<&Path>,
) -> Vec<Option<PathBuf>> {
    let mut found: Vec<Option<PathBuf>> = pictures.clone().map(direct).collect();
    let direct: HashSet<PathBuf> = found.iter().flatten().cloned().collect();
    let mut indices = Indices::default();
    let mut claims: HashMap<PathBuf, Vec<usize>> = HashMap::new();
    for (place, picture) in pictures
        .enumerate()
        .filter(|(place, _)| found[*place].is_none())
    {
        let label = elsewhere(picture, apart, &mut indices);
        if let Some(label) = label.filter(|label| !direct.contains(label)) {
            claims.entry(label).or_default().push(place);
        }
    }
    for (label, places) in claims {
        if let [place] = places[..] {
            found[place] = Some(label);
        }
    }
    found
}

fn direct(picture: &Path) -> Option<PathBuf> {
    let beside = picture.with_extension("txt");
    let folder = picture.parent().unwrap_or(Path::new(""));
    let name = beside.file_name().unwrap_or_default();
    let places = [
        expected(picture),
        folder.join(LABELS).join(name),
        beside.clone(),
    ];
    places.into_iter().find(|place| place.is_file())
}

/// Folders that have been looked into.
#[derive(Default)]
struct Indices {
    /// The labels below each by [folded] stem.
    stems: HashMap<PathBuf, HashMap<String, Vec<PathBuf>>>,
    /// Folders `labels` as they are spelt.
    spelt: HashMap<PathBuf, Option<PathBuf>>,
}

impl Indices {
    /// The folder of this path, or the one beside it whose name has other capitals.
    fn spelt(&mut self, labels: &Path) -> Option<PathBuf> {
        let find = || {
            if labels.is_dir() {
                return Some(labels.into());
            }
            let entries = fs::read_dir(folder_of(labels))
                .into_iter()
                .flatten()
                .flatten();
            let mut folders = entries.map(|entry| entry.path());
            folders.find(|path| is_called(path, &[LABELS]) && path.is_dir())
        };
        let found = self.spelt.entry(labels.into());
        found.or_insert_with(find).clone()
    }
}

/// A label file of that name in the folders around the place where it should be, or around the picture.
fn elsewhere(picture: &Path, apart: Option<&Path>, indices: &mut Indices) -> Option<PathBuf> {
    let usual = expected(picture);
    let mut around = usual.ancestors().skip(1);
    let labels = around.find(|folder| is_called(folder, &[LABELS]));
    let spelt = labels.and_then(|labels| indices.spelt(labels));
    let expected = match labels.zip(spelt.as_ref()) {
        Some((labels, spelt)) => spelt.join(usual.strip_prefix(labels).expect("it is below")),
        None => usual.clone(),
    };
    let mut below = |folder: &Path| {
        let index = indices
            .stems
            .entry(folder.into())
            .or_insert_with(|| index(folder));
        let alike = index.get(&folded(&stem(&expected)))?;
        let exact = || {
            alike
                .iter()
                .filter(|label| label.file_stem() == expected.file_stem())
        };
        match exact().count() {
            0 if alike.len() == 1 => alike.first().cloned(),
            1 => exact().next().cloned(),
            _ => None,
        }
    };
    let folder = expected.parent()?;
    let Some(labels) = spelt else {
        return below(apart.or(picture.parent())?);
    };
    let there = folder.ancestors().find(|folder| folder.is_dir())?;
    let above = || {
        let folders = there
            .ancestors()
            .skip(1)
            .take_while(|folder| folder.starts_with(&labels));
        let mut places =
            folders.map(|folder| folder.join(expected.file_name().unwrap_or_default()));
        places.find(|place| place.is_file())
    };
    below(there).or_else(above)
}

fn index(folder: &Path) -> HashMap<String, Vec<PathBuf>> {
    let mut index: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for label in files_below(folder, &["txt"]).unwrap_or_default() {
        index.entry(folded(&stem(&label))).or_default().push(label);
    }
    index
}

/// Lists of pictures and of classes may lie among labels; their lines are no boxes.
pub(super) fn is_label_file(file: &Path) -> bool {
    name_of(file) != "classes.txt"
        && read_text(file).is_ok_and(|text| {
            let first = text.split_whitespace().next();
            first.is_some_and(|word| word.parse::<f64>().is_ok())
        })
}
