//! Input pictures: files, folders and patterns.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcnn_image::{EXTENSIONS, has_image_name, has_unread_image_name};

/// Order of the pictures that one argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Byte by byte.
    ByName,
    /// 9 before 10, for frames.
    Natural,
}

/// Expands files, folders (their pictures; with `recursive` those of the folders in them too), glob patterns, and those of
/// numbered files, such as `%05d.png`. Says which pictures of a folder are of formats that are not read.
///
/// # Errors
/// When an argument names nothing at all. A file that is named outright is taken whatever its name.
pub(crate) fn expand(arguments: &[PathBuf], recursive: bool, order: Order) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for argument in arguments {
        let mut found = expand_one(argument, recursive)?;
        if order == Order::Natural {
            alphanumeric_sort::sort_path_slice(&mut found);
        }
        images.append(&mut found);
    }
    Ok(images)
}

fn expand_one(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        return expand_folder(path, recursive);
    }
    // Patterns are texts.
    let pattern = path.to_str().filter(|_| !path.exists());
    if pattern == Some("-") {
        bail!(
            "-: no such file; standard input is /dev/stdin for a picture, --stdin FORMAT for a video"
        );
    }
    if let Some(numbered) = pattern.and_then(Numbered::parse) {
        return numbered.find();
    }
    let Some(pattern) = pattern.filter(|pattern| pattern.contains(['*', '?', '['])) else {
        return Ok(vec![path.into()]);
    };
    let matches = glob::glob(pattern).with_context(|| format!("{pattern}: not a valid pattern"))?;
    let files = matches.filter_map(Result::ok).filter(|path| path.is_file());
    let mut found: Vec<PathBuf> = files.collect();
    found.extend(passed_over(path));
    if found.is_empty() {
        bail!("{pattern}: no file matches");
    }
    found.sort();
    Ok(found)
}

/// The files in a folder that match the pattern of a name, and that `glob` passes over: their names are not UTF-8.
fn passed_over(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy();
    let Ok(names) = glob::Pattern::new(&name) else {
        return Vec::new();
    };
    let folder = pattern.parent().filter(|path| *path != Path::new(""));
    let entries = folder.unwrap_or(Path::new(".")).read_dir();
    let odd = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    odd.filter(|name| name.to_str().is_none() && names.matches(&name.to_string_lossy()))
        .map(|name| pattern.with_file_name(name))
        .filter(|path| path.is_file())
        .collect()
}

fn expand_folder(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let mut found = Found::default();
    found.look_in(path, recursive)?;
    let (skipped, folder) = (found.skipped(), path.display());
    if found.pictures.is_empty() {
        let formats = EXTENSIONS.join(", ");
        let deeper = match found.folders {
            0 => String::new(),
            n => format!("; its subfolders ({n}) are searched with rcnn detect --recursive"),
        };
        let skipped = skipped.map(|skipped| format!("; {skipped}"));
        let skipped = skipped.unwrap_or_default();
        bail!("{folder}: no pictures in this folder ({formats}){skipped}{deeper}");
    }
    if let Some(skipped) = skipped {
        eprintln!("note: {folder}: {skipped}");
    }
    Ok(found.pictures)
}

/// A pattern of numbered files, as ffmpeg and printf have it: `frames/%05d.png`.
struct Numbered<'a> {
    pattern: &'a str,
    /// Least number of digits.
    digits: usize,
    before: &'a str,
    after: &'a str,
}

impl<'a> Numbered<'a> {
    fn parse(pattern: &'a str) -> Option<Self> {
        let name = Path::new(pattern).file_name()?.to_str()?;
        let (before, rest) = name.split_once('%')?;
        let (digits, after) = rest.split_once('d')?;
        let is_width = digits.is_empty() || digits.starts_with('0');
        Some(Self {
            pattern,
            digits: format!("0{digits}").parse().ok().filter(|_| is_width)?,
            before,
            after,
        })
    }

    /// The files that exist, by number.
    fn find(&self) -> Result<Vec<PathBuf>> {
        let folder = Path::new(self.pattern).parent();
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let entries = folder.unwrap_or(Path::new(".")).read_dir();
        let entries = entries.with_context(|| self.pattern.to_string())?;
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| self.pattern.to_string())?.file_name();
            if let Some(number) = name.to_str().and_then(|name| self.number(name)) {
                found.push((number, Path::new(self.pattern).with_file_name(name)));
            }
        }
        if found.is_empty() {
            bail!("{}: no file matches", self.pattern);
        }
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    /// The number of a file that the pattern stands for.
    fn number(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(self.before)?.strip_suffix(self.after)?;
        let padded = digits.len() == self.digits || !digits.starts_with('0') || digits == "0";
        let valid = padded && digits.len() >= self.digits;
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| valid && all_digits)
    }
}

/// The entries of a folder.
#[derive(Default)]
struct Found {
    pictures: Vec<PathBuf>,
    /// Pictures by name, of formats that are not read.
    unread: Vec<PathBuf>,
    /// How many folders were not looked in.
    folders: usize,
    /// The others, without links, each of which is looked into once: links may lead in circles.
    seen: HashSet<PathBuf>,
}

impl Found {
    fn look_in(&mut self, folder: &Path, recursive: bool) -> Result<()> {
        let name = || folder.display().to_string();
        if !self.seen.insert(folder.canonicalize().with_context(name)?) {
            return Ok(());
        }
        let entries = folder.read_dir().with_context(name)?;
        let entries: std::io::Result<Vec<_>> = entries.collect();
        let mut entries = entries.with_context(name)?;
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let path = entry.path();
            if path.is_dir() {
                let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                match recursive {
                    _ if is_hidden => {}
                    true => self.look_in(&path, recursive)?,
                    false => self.folders += 1,
                }
            } else if !path.is_file() {
            } else if has_image_name(&path) {
                self.pictures.push(path);
            } else if has_unread_image_name(&path) {
                self.unread.push(path);
            }
        }
        Ok(())
    }

    /// The message about pictures that are left out.
    fn skipped(&self) -> Option<String> {
        let first = self.unread.first()?.display();
        Some(match self.unread.len() {
            1 => format!("{first} is of a format that is not read"),
            n => format!("{n} pictures are of formats that are not read, such as {first}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Folders behind symbolic links used to be skipped without a word.
    #[cfg(unix)]
    #[test]
    fn folders_behind_links_are_looked_in_once() {
        use std::os::unix::fs::symlink;
        let [root, elsewhere] = [0; 2].map(|_| tempfile::tempdir().expect("a folder"));
        for folder in [root.path(), elsewhere.path()] {
            std::fs::write(folder.join("a.png"), "").expect("a file");
        }
        symlink(elsewhere.path(), root.path().join("day")).expect("a link");
        symlink(root.path(), elsewhere.path().join("back")).expect("a link");
        let argument = [root.path().to_path_buf()];
        let found = expand(&argument, true, Order::ByName).expect("files");
        assert_eq!(
            found,
            ["a.png", "day/a.png"].map(|name| root.path().join(name))
        );
        std::fs::remove_file(root.path().join("a.png")).expect("a file");
        let message = expand(&argument, false, Order::ByName)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("its subfolders (1) are searched"),
            "{message}"
        );
    }

    /// Frames 10 to 19 came before frame 2.
    #[test]
    fn frames_are_in_natural_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = [
            "f1.png",
            "f10.png",
            "f2.png",
            "f002.png",
            "f.png",
            "g3.png",
            "f12.png.png",
        ];
        for name in names {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        let found = |argument: &str, order| {
            let found = expand(&[folder.path().join(argument)], false, order).expect("files");
            let names = found
                .iter()
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_string());
            names.collect::<Vec<_>>()
        };
        assert_eq!(found("f?.png", Order::Natural), ["f1.png", "f2.png"]);
        assert_eq!(
            found("f1*.png", Order::ByName),
            ["f1.png", "f10.png", "f12.png.png"]
        );
        assert_eq!(
            found("f[12]*.png", Order::Natural)[..3],
            ["f1.png", "f2.png", "f10.png"]
        );
        for order in [Order::ByName, Order::Natural] {
            assert_eq!(found("f%d.png", order), ["f1.png", "f2.png", "f10.png"]);
        }
        assert_eq!(found("f%03d.png", Order::ByName), ["f002.png"]);
        std::fs::write(folder.path().join("f%d.png"), "").expect("a file");
        assert_eq!(found("f%d.png", Order::ByName), ["f%d.png"]);
        let none = expand(&["nowhere/%d.png".into()], false, Order::ByName);
        assert!(none.unwrap_err().to_string().starts_with("nowhere/%d.png"));
    }
}
