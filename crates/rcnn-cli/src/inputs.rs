//! Which pictures the user means: files, folders and patterns.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcnn_image::{EXTENSIONS, has_image_name};

/// Expands files, folders (their pictures, in order of name) and glob patterns.
///
/// # Errors
/// When an argument names nothing at all. A file that is named outright is taken whatever its name.
pub(crate) fn expand(arguments: &[String]) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for argument in arguments {
        let path = Path::new(argument);
        if path.is_dir() {
            let found = pictures_in(path)?;
            if found.is_empty() {
                bail!(
                    "{argument}: no pictures in this folder ({})",
                    EXTENSIONS.join(", ")
                );
            }
            images.extend(found);
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

fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = folder
        .read_dir()
        .with_context(|| folder.display().to_string())?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.is_file() && has_image_name(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
