//! Errors of a run.

use std::io;
use std::path::{Path, PathBuf};

use rcnn_core::freeze::FreezeError;
use rcnn_core::weights::WeightsError;
use rcnn_core::{ConfigError, DetectError};
use rcnn_data::{DataError, LoadError, Problems};
use rcnn_eval::EvalError;
use rcnn_files::LockError;
use rcnn_types::ClassNamesError;
use rcnn_types::validate::InvalidField;

/// Error of a run. What was saved before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The run's configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// A field of the run's configuration has an invalid value.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// The augmentation makes no sense.
    #[error("augmentation: {0}")]
    Augmentation(InvalidField),
    /// The detector's configuration makes no sense.
    #[error("model: {0}")]
    Model(#[from] ConfigError),
    /// A rule of freezing or the pattern of a learning rate does not fit the model.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The weights cannot be read, do not fit or cannot be written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An image cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] DetectError),
    /// The detections cannot be evaluated.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A file or folder cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The disk has no room for the run's checkpoints.
    #[error(
        "{}: {free} MB are free, but the checkpoints of this model need {needed} MB",
        path.display()
    )]
    DiskSpace {
        /// Folder of the run.
        path: PathBuf,
        /// Megabytes free.
        free: u64,
        /// Megabytes needed.
        needed: u64,
    },
    /// The folder holds another run.
    #[error("{}: already holds a run ({file}); resume it or choose another folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// File there that a run has or would replace.
        file: &'static str,
    },
    /// The folder holds no run to resume.
    #[error("{}: holds no run to resume ({missing} is missing)", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// File that a run would have.
        missing: &'static str,
    },
    /// Another process trains in the folder, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data are not those that the run began with.
    #[error("{}: changed since the run began: {}", path.display(), changes.join("; "))]
    DataChanged {
        /// The data.
        path: PathBuf,
        /// The differences, in words.
        changes: Vec<String>,
    },
    /// There is nothing to learn.
    #[error(
        "{}: none of the {images} images to train on has a box\n{problems}",
        path.display()
    )]
    NoObjects {
        /// The data.
        path: PathBuf,
        /// Images to train on.
        images: usize,
        /// What is wrong with the data, such as labels that were not found.
        problems: Problems,
    },
    /// The names of the classes do not fit the weights.
    #[error("{}: {error}", path.display())]
    ClassNames {
        /// The file of names.
        path: PathBuf,
        /// The problem.
        error: ClassNamesError,
    },
    /// A file of the run or a checkpoint is damaged.
    #[error("{}: damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// Loss or gradient is infinite or no number.
    #[error(
        "epoch {epoch}, step {step}: {what}; the images of the step are {}. {}. A lower learning \
         rate or a longer warm-up often helps",
        names(images),
        kept(checkpoint)
    )]
    NotFinite {
        /// From 1.
        epoch: u64,
        /// Step in the epoch, from 1.
        step: usize,
        /// Values of the losses, or that of the gradient's norm.
        what: String,
        /// Files of the batch.
        images: Vec<PathBuf>,
        /// Epoch of the last checkpoint, if there is one.
        checkpoint: Option<usize>,
    },
    /// Something panicked: a backend without memory, or a defect.
    #[error("epoch {epoch}, step {step}: {what}. {}", kept(checkpoint))]
    Panicked {
        /// From 1.
        epoch: u64,
        /// Step in the epoch, from 1; the last one during a validation.
        step: usize,
        /// The panic's message.
        what: String,
        /// Epoch of the last checkpoint, if there is one.
        checkpoint: Option<usize>,
    },
    /// A resumed run stopped where it had stopped before.
    #[error(
        "{error}. The run has stopped here before (epoch {epoch}, step {step}): a run \
         does the same every time, so start another one with other settings or data"
    )]
    Again {
        /// From 1.
        epoch: u64,
        /// Step in the epoch, from 1; the last one during a validation.
        step: usize,
        /// Why it stopped this time.
        error: Box<TrainError>,
    },
    /// The run was told to stop, or burn-train could not save a checkpoint.
    #[error("the run stopped: {0}")]
    Interrupted(String),
}

fn kept(checkpoint: &Option<usize>) -> String {
    match checkpoint {
        Some(epoch) => format!("The checkpoint of epoch {epoch} is kept"),
        None => "There is no checkpoint yet".into(),
    }
}

fn names(images: &[PathBuf]) -> String {
    let names: Vec<String> = images.iter().map(|i| i.display().to_string()).collect();
    names.join(", ")
}

impl TrainError {
    /// For `map_err` on what happened to a file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self::Io { path, error }
    }
}
