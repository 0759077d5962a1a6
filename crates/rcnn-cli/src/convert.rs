//! `rcnn convert`: weights from one format to another.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::weights::{Precision, Weights};

use crate::Outcome;
use crate::backend::{Job, default_device, run_on};
use crate::source::ModelArgs;

/// Convert weights: torchvision's to this project's and back
///
/// Writes burnpack (.bpk), which carries configuration and class names and so opens by itself, or
/// .safetensors, which torchvision's load_state_dict(strict=True) accepts.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn convert fasterrcnn.pth --labels classes.txt -o model.bpk
  rcnn convert fasterrcnn.pth -o small.bpk --dtype f16
  rcnn convert model.bpk -o for_torchvision.safetensors")]
pub(crate) struct ConvertArgs {
    /// Weights to read: a file, or the name of published ones
    input: String,
    /// File to write: .bpk or .safetensors
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Precision of a burnpack
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    F32,
    F16,
}

pub(crate) fn run(args: ConvertArgs) -> Result<Outcome> {
    let extension = args
        .output
        .extension()
        .map(|e| e.to_string_lossy().to_lowercase());
    let burnpack = match extension.as_deref() {
        Some("bpk") => true,
        Some("safetensors") => false,
        _ => bail!(
            "{}: expected a name that ends in .bpk or .safetensors",
            args.output.display()
        ),
    };
    if !burnpack && args.dtype == Dtype::F16 {
        bail!("--dtype is for .bpk files; .safetensors keep the precision that the weights have");
    }
    let weights = args.model.open(&args.input)?;
    let weights = run_on(
        &[default_device()],
        Fit {
            weights,
            model: args.model,
        },
    )?;
    let precision = match args.dtype {
        Dtype::F32 => Precision::F32,
        Dtype::F16 => Precision::F16,
    };
    match burnpack {
        true => weights.write_burnpack(&args.output, precision)?,
        false => weights.write_safetensors(&args.output)?,
    }
    let size = std::fs::metadata(&args.output)?.len() as f64 / (1 << 20) as f64;
    eprintln!(
        "{}: {} tensors, {size:.1} MiB",
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
        let model = self.model.load::<B>(&self.weights, &devices[0])?;
        // Strictly loaded weights are written as they are: bits, counters and all.
        Ok(if self.model.partial {
            Weights::of_model(&model)
        } else {
            self.weights
        })
    }
}
