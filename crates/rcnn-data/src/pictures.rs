//! Finding a picture by the name that a label file has for it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use rcnn_image::has_image_name;

use crate::files::{folded, pictures_below};
use crate::tree::{is_split_name, name_of};

/// Finds pictures: under the stated name in some folders, else by their base name below a folder.
///
/// Label files state `images\a.jpg`, `/home/me/set/a.jpg` and `a%20b.jpg` as they were on other
/// machines. A base name counts only if it tells pictures apart.
pub(crate) struct PictureFinder {
    /// The one that had the last picture comes first.
    folders: Vec<PathBuf>,
    below: PathBuf,
    /// The split whose pictures these are, so that those of another are not taken for them.
    split: String,
    /// The base names that several stated names have.
    shared: HashSet<String>,
    /// The base names that several stated names have when [folded].
    shared_when_folded: HashSet<String>,
    /// The pictures below by their [folded] base names, once they are asked for.
    index: Option<HashMap<String, Vec<PathBuf>>>,
}

impl PictureFinder {
    /// A finder for pictures of all the names that a label file states.
    pub(crate) fn new<'a>(
        folders: Vec<PathBuf>,
        below: &Path,
        split: &str,
        stated: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let stated: HashSet<Cow<str>> = stated.into_iter().map(decoded).collect();
        let names = || stated.iter().map(|name| name_of(Path::new(name.as_ref())));
        Self {
            folders,
            below: below.into(),
            split: split.into(),
            shared: repeated(names()),
            shared_when_folded: repeated(names().map(|name| folded(&name))),
            index: None,
        }
    }

    /// The file that a stated name means.
    pub(crate) fn find(&mut self, name: &str) -> Option<PathBuf> {
        let plain = decoded(name);
        for name in [name, &name.replace('\\', "/"), &plain] {
            let place = self
                .folders
                .iter()
                .position(|folder| folder.join(name).is_file());
            if let Some(place) = place {
                self.folders[..=place].rotate_right(1);
                return Some(self.folders[0].join(name));
            }
        }
        let stated = Path::new(plain.as_ref());
        let base = name_of(stated);
        let index = self
            .index
            .get_or_insert_with(|| index(&self.below, &self.split));
        // The longest common end decides, if it is one alone.
        let common = |path: &Path| {
            let parts = path.components().rev().zip(stated.components().rev());
            let key = |part: &Component| folded(&part.as_os_str().to_string_lossy());
            parts.take_while(|(a, b)| key(a) == key(b)).count()
        };
        let key = folded(&base);
        let alike = index.get(&key)?;
        let is_exact = alike.iter().any(|path| name_of(path) == base);
        let found = alike
            .iter()
            .filter(|path| !is_exact || name_of(path) == base);
        let mut found: Vec<_> = found.map(|path| (common(path), path)).collect();
        found.sort_by_key(|(parts, _)| std::cmp::Reverse(*parts));
        let is_shared = match is_exact {
            true => self.shared.contains(&base),
            false => self.shared_when_folded.contains(&key),
        };
        let least = if is_shared { 2 } else { 1 };
        match found[..] {
            [(parts, path)] if parts >= least => Some(path.clone()),
            [(parts, path), (second, _), ..] if parts >= least && parts > second => {
                Some(path.clone())
            }
            _ => None,
        }
    }

    /// Where a picture that is nowhere would best be.
    pub(crate) fn expected(&self, name: &str) -> PathBuf {
        let first = self.folders.first();
        first.map_or_else(|| name.into(), |folder| folder.join(name))
    }

    /// Where it is looked for, in words.
    pub(crate) fn tried(&self) -> String {
        let mut folders: Vec<String> = Vec::new();
        for folder in self.folders.iter().filter(|folder| folder.is_dir()) {
            let folder = folder.display().to_string();
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        let below = self.below.display();
        match folders.is_empty() {
            true => format!("looked for that name below {below}"),
            false => format!(
                "looked in {}, and for its base name below {below}",
                folders.join(", ")
            ),
        }
    }
}

/// A name with `/` between its parts and without `%20`, an address without its query.
fn decoded(name: &str) -> Cow<'_, str> {
    let name = match name.split_once('?') {
        Some((path, _)) if name.contains("://") && has_image_name(Path::new(path)) => path,
        _ => name,
    };
    let name = match name.contains('%') {
        true => percent_decode_str(name)
            .decode_utf8()
            .unwrap_or(Cow::Borrowed(name)),
        false => Cow::Borrowed(name),
    };
    match name.contains('\\') {
        true => Cow::Owned(name.replace('\\', "/")),
        false => name,
    }
}

/// The names that there are more than once.
fn repeated(names: impl Iterator<Item = String>) -> HashSet<String> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(name.clone())).collect()
}

/// The pictures below a folder by [folded] base name, without those in the folders of other splits.
fn index(below: &Path, split: &str) -> HashMap<String, Vec<PathBuf>> {
    let other =
        |name: &str| is_split_name(name) && is_split_name(split) && !split.starts_with(name);
    let mut index: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for picture in pictures_below(below).unwrap_or_default() {
        let inner = picture.strip_prefix(below).unwrap_or(&picture).parent();
        let mut folders = inner.into_iter().flat_map(Path::components);
        if !folders.any(|part| other(&part.as_os_str().to_string_lossy())) {
            let name = folded(&name_of(&picture));
            index.entry(name).or_default().push(picture);
        }
    }
    index
}
