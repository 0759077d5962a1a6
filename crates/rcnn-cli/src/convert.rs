//! `rcnn convert`: weights from one format to another.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::weights::{Precision, Weights};

use crate::Outcome;
use crate::backend::{Job, default_device, run_on};
use crate::files::mebibytes;
use crate::overwrite::{Guard, OverwriteArgs};
use crate::source::ModelArgs;

/// Convert weights between torchvision's formats and burnpack
///
/// Writes burnpack (.bpk), which includes the configuration and class names, or .safetensors, which
/// torchvision's load_state_dict(strict=True) accepts.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn convert fasterrcnn.pth --labels classes.txt -o model.bpk
  rcnn convert fasterrcnn.pth -o small.bpk --dtype f16
  rcnn convert model.bpk -o for_torchvision.safetensors")]
pub(crate) struct ConvertArgs {
    /// Weights to read: a file, or the name of published weights
    input: PathBuf,
    /// File to write: .bpk or .safetensors
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Precision of a burnpack
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
}

/// Precision of the weights of a burnpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    F32,
    F16,
}

/// A file of weights to write: its name says the format.
pub(crate) struct Target {
    path: PathBuf,
    /// Of a burnpack; `None` for safetensors.
    precision: Option<Precision>,
}

impl Target {
    /// # Errors
    /// When the name ends otherwise, or the format has no such precision.
    pub(crate) fn new(path: &Path, dtype: Dtype) -> Result<Self> {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let precision = match (extension.as_deref(), dtype) {
            (Some("bpk"), Dtype::F32) => Some(Precision::F32),
            (Some("bpk"), Dtype::F16) => Some(Precision::F16),
            (Some("safetensors"), Dtype::F32) => None,
            (Some("safetensors"), Dtype::F16) => bail!(
                "--dtype is for .bpk files; .safetensors keep the precision that the weights have"
            ),
            _ => bail!(
                "{}: expected a name that ends in .bpk or .safetensors",
                path.display()
            ),
        };
        Ok(Self {
            path: path.into(),
            precision,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn write(&self, weights: &Weights) -> Result<()> {
        match self.precision {
            Some(precision) => weights.write_burnpack(&self.path, precision)?,
            None => weights.write_safetensors(&self.path)?,
        }
        Ok(())
    }
}

pub(crate) fn run(args: ConvertArgs) -> Result<Outcome> {
    let target = Target::new(&args.output, args.dtype)?;
    let inputs = args.model.files().chain([args.input.as_path()]);
    Guard::new(args.overwrite, inputs).check_named(target.path())?;
    let weights = args.model.open(&args.input)?;
    let weights = run_on(
        &[default_device()],
        Fit {
            weights,
            model: args.model,
        },
    )?;
    target.write(&weights)?;
    let size = mebibytes(std::fs::metadata(&args.output)?.len());
    eprintln!(
        "{}: {} tensors, {size}",
        args.output.display(),
        weights.tensors.len()
    );
    Ok(Outcome::Done)
}

/// Makes sure that the weights fit their network, so that what is written can be opened.
struct Fit {
    weights: Weights,
    model: ModelArgs,
}

impl Job for Fit {
    type Output = Weights;

    fn run<B: DetectionBackend>(self, devices: Vec<B::Device>) -> Result<Weights> {
        let model = self.model.load::<B>(self.weights.clone(), &devices[0])?;
        // Strictly loaded weights are written as they are: bits, counters and all.
        Ok(if self.model.partial {
            Weights::from_model(&model)
        } else {
            self.weights
        })
    }
}
