//! From a file or a published name to a detector.

use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use rcnn_detector::StandardFasterRcnn;
use weights_import::published::{self, UnknownName};
use weights_import::{Weights, WeightsError};

/// Errors of [`load`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read, or holds no detector.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// There is no such file, and no published weights have this name.
    #[error("{}: no such file, and {unknown}", path.display())]
    Unknown {
        /// What was asked for.
        path: PathBuf,
        /// The published names.
        unknown: UnknownName,
    },
    /// Published weights could not be downloaded.
    #[cfg(feature = "download")]
    #[error(transparent)]
    Download(#[from] weights_import::download::DownloadError),
    /// Published weights, in a build without the feature `download`.
    #[cfg(not(feature = "download"))]
    #[error(
        "{name} can't be downloaded without the feature `download`; get {url} and give its path"
    )]
    NoDownload {
        /// The weights.
        name: String,
        /// Their address.
        url: &'static str,
    },
}

/// Makes the detector that a file describes (`.pth`, `.safetensors`, `.bpk`), or that published weights are
/// for: `fasterrcnn_resnet50_fpn`, `COCO_V1`, any of [`published::all`], downloaded once and checked. With the
/// feature `bundled`, `blood-cells` is the bundled detector.
///
/// Its architecture, depth, norms and number of classes are recognised. To see or change the configuration
/// first, open the file as [`Weights`].
///
/// ```
/// # #[cfg(all(feature = "bundled", feature = "flex"))] {
/// # mod rcnn_burn { pub use rcnn_core::*; }
/// use rcnn_burn::Flex;
///
/// let device = Default::default();
/// let model = rcnn_burn::load::<Flex>("blood-cells", &device)?;
/// assert_eq!(model.class_names[1..], ["Platelets", "RBC", "WBC"]);
/// let unknown = rcnn_burn::load::<Flex>("fasterrcnn_resnet51_fpn", &device);
/// assert!(unknown.is_err_and(|error| error.to_string().contains("not the name of published weights")));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// See [`LoadError`].
pub fn load<B: Backend>(
    source: &str,
    device: &B::Device,
) -> Result<StandardFasterRcnn<B>, LoadError> {
    Ok(open(source)?.load(device)?)
}

fn open(source: &str) -> Result<Weights, LoadError> {
    let path = Path::new(source);
    if weights_import::exists(path) {
        return Ok(Weights::open(path)?);
    }
    #[cfg(feature = "bundled")]
    if source == crate::bundled::BLOOD_CELLS {
        return Ok(crate::bundled::blood_cells()?);
    }
    let published = published::find(source).map_err(|unknown| LoadError::Unknown {
        path: path.into(),
        unknown,
    })?;
    #[cfg(feature = "download")]
    return Ok(Weights::open(weights_import::download::fetch(
        published,
        &Default::default(),
    )?)?);
    #[cfg(not(feature = "download"))]
    Err(LoadError::NoDownload {
        name: published.full_name(),
        url: published.url,
    })
}
