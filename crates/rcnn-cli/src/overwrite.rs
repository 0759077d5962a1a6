//! The files that a command may overwrite: nothing that it reads from, and in its output folder nothing but
//! what an earlier run left there.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;

/// Whether files in the way are replaced.
#[derive(Args, Clone, Copy)]
pub(crate) struct OverwriteArgs {
    /// Overwrite existing files, input files included
    #[arg(long, hide_short_help = true)]
    overwrite: bool,
}

/// The files that a command reads, and whether it was told to overwrite.
pub(crate) struct Guard {
    inputs: Vec<PathBuf>,
    /// Found by what they are on disk: a path can be spelt in many ways, and a file have many names.
    by_identity: OnceCell<HashMap<Identity, usize>>,
    overwrite: bool,
}

impl Guard {
    /// Inputs that are not files, such as names of published weights, are ignored.
    pub(crate) fn new<P: Into<PathBuf>>(
        args: OverwriteArgs,
        inputs: impl IntoIterator<Item = P>,
    ) -> Self {
        Self {
            inputs: inputs.into_iter().map(Into::into).collect(),
            by_identity: OnceCell::new(),
            overwrite: args.overwrite,
        }
    }

    /// # Errors
    /// If the output is an input, by whatever name.
    pub(crate) fn check_named(&self, output: &Path) -> Result<()> {
        self.check(output, |_| true)
    }

    /// For an output whose name the user did not give.
    ///
    /// # Errors
    /// If the output is an input, or another file that `is_ours` does not know as an earlier output.
    pub(crate) fn check(&self, output: &Path, is_ours: impl Fn(&Path) -> bool) -> Result<()> {
        let output = &settled(output);
        // A link that leads nowhere is in the way too.
        if self.overwrite || fs::symlink_metadata(output).is_err() {
            return Ok(());
        }
        if let Some(input) = self.input(output) {
            bail!(
                "{}: this would replace the input {}; choose another --output, or give --overwrite",
                output.display(),
                input.display()
            );
        }
        if !is_ours(output) {
            bail!(
                "{}: this file is in the way, and rcnn did not write it; choose another --output, \
                 or give --overwrite",
                output.display()
            );
        }
        Ok(())
    }

    /// The input that a file is.
    fn input(&self, output: &Path) -> Option<&Path> {
        let by_identity = self.by_identity.get_or_init(|| {
            let inputs = self.inputs.iter().zip(0..);
            let identified = inputs.filter_map(|(path, i)| Some((identity(path).ok()?, i)));
            identified.collect()
        });
        let index = by_identity.get(&identity(output).ok()?)?;
        Some(&self.inputs[*index])
    }
}

/// A path as it will be once the folders on it have been made: `new/..` is the folder that `new` will be in.
fn settled(path: &Path) -> PathBuf {
    let mut settled = PathBuf::new();
    for part in path.components() {
        let is_new = settled.file_name().is_some() && fs::symlink_metadata(&settled).is_err();
        match part {
            Component::ParentDir if is_new => drop(settled.pop()),
            part => settled.push(part),
        }
    }
    settled
}

/// Checks the files of a report. Its texts, which do not say who wrote them, are taken for our own
/// where its first picture is.
#[cfg(feature = "data")]
pub(crate) fn check_report(
    folder: &Path,
    pictures: &[&str],
    texts: &[&str],
    guard: &Guard,
) -> Result<()> {
    let path = |name: &&str| folder.join(name);
    let mut pictures = pictures.iter().map(path);
    let is_report = pictures
        .clone()
        .next()
        .is_some_and(|path| rcnn_image::is_ours(&path));
    pictures.try_for_each(|path| guard.check(&path, rcnn_image::is_ours))?;
    let mut texts = texts.iter().map(path);
    texts.try_for_each(|path| guard.check(&path, |_| is_report))
}

/// Device and number of a file, which hard links share.
#[cfg(unix)]
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// The one path of a file without links.
#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
    fs::canonicalize(path)
}

/// Whether two paths lead to one file.
#[cfg(feature = "train")]
pub(crate) fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}
