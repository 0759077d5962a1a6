//! Input pictures: files, folders and patterns.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcnn_image::{EXTENSIONS, has_image_name, has_unread_image_name};

/// Expands files, folders (their pictures, in order of name; with `recursive` those of the folders in them
/// too) and glob patterns. Says which pictures of a folder are of formats that are not read.
///
/// # Errors
/// When an argument names nothing at all. A file that is named outright is taken whatever its name.
pub(crate) fn expand(arguments: &[String], recursive: bool) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for argument in arguments {
        let path = Path::new(argument);
        if path.is_dir() {
            let mut found = Found::default();
            found.look_in(path, recursive)?;
            let skipped = found.skipped();
            if found.pictures.is_empty() {
                let formats = EXTENSIONS.join(", ");
                let deeper = match found.folders {
                    0 => String::new(),
                    n => {
                        format!("; {n} folders in it were not looked in (rcnn detect --recursive)")
                    }
                };
                let skipped = skipped.map(|skipped| format!("; {skipped}"));
                let skipped = skipped.unwrap_or_default();
                bail!("{argument}: no pictures in this folder ({formats}){skipped}{deeper}");
            }
            if let Some(skipped) = skipped {
                eprintln!("note: {argument}: {skipped}");
            }
            images.extend(found.pictures);
        } else if path.exists() || !argument.contains(['*', '?', '[']) {
            images.push(path.into());
        } else {
            let matches =
                glob::glob(argument).with_context(|| format!("{argument}: no pattern"))?;
            let found: Vec<PathBuf> = matches
                .filter_map(Result::ok)
                .filter(|path| path.is_file())
                .collect();
            if found.is_empty() {
                bail!("{argument}: no file matches");
            }
            images.extend(found);
        }
    }
    Ok(images)
}

/// The entries of a folder.
#[derive(Default)]
struct Found {
    pictures: Vec<PathBuf>,
    /// Pictures by name, of formats that are not read.
    unread: Vec<PathBuf>,
    /// How many folders were not looked in.
    folders: usize,
}

impl Found {
    fn look_in(&mut self, folder: &Path, recursive: bool) -> Result<()> {
        let name = || folder.display().to_string();
        let entries = folder.read_dir().with_context(name)?;
        let entries: std::io::Result<Vec<_>> = entries.collect();
        let mut entries = entries.with_context(name)?;
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let path = entry.path();
            // A link to a folder above would lead around for ever.
            if entry.file_type().with_context(name)?.is_dir() {
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
