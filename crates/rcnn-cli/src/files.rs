//! Files that are whole or absent: written beside their place and renamed when all is there.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use image::RgbImage;
use tempfile::{Builder, NamedTempFile};

/// Writes a file by way of a temporary one in the same folder.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut NamedTempFile>) -> Result<()>,
) -> Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let place = || path.display().to_string();
    let mut file = temporary(folder.unwrap_or(Path::new("."))).with_context(place)?;
    let mut writer = BufWriter::new(&mut file);
    write(&mut writer).with_context(place)?;
    writer.flush().with_context(place)?;
    drop(writer);
    file.persist(path).with_context(place)?;
    Ok(())
}

/// Writes a text file, whole or not at all.
#[cfg(feature = "train")]
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    write_whole(path, |file| Ok(file.write_all(text.as_bytes())?))
}

/// A temporary file that, unlike the usual ones, others may read once it has its name.
pub(crate) fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o644));
    }
    builder.tempfile_in(folder)
}

/// Writes a picture, as a JPEG where the name says so, else as a PNG.
pub(crate) fn write_picture(path: &Path, picture: &RgbImage) -> Result<()> {
    let bytes = rcnn_image::encode(path, picture)?;
    write_whole(path, |file| Ok(file.write_all(&bytes)?))
}
