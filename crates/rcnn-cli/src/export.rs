//! `rcnn export`: a model for other runtimes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use rcnn_burn::export::{OnnxOptions, onnx};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::weights::Weights;

use crate::Outcome;
use crate::backend::{Job, default_device, run_on};
use crate::convert::Dtype;
use crate::overwrite::{Guard, OverwriteArgs};
use crate::source::ModelArgs;

/// Export a model to ONNX
///
/// One file for any number of images and any size, of standard operators (opset 13). It takes
/// `images [batch, 3, height, width]`, RGB from 0 to 1 and resized as the model's min_size and
/// max_size say; `image_sizes [batch, 2]` (height, width) is for batches of several sizes and may be
/// left out. It gives `boxes [n, 4]` in pixels of `images`, `labels [n]`, `scores [n]` and
/// `image_index [n]`, and `masks [n, 1, 28, 28]` or `keypoint_logits` where the model has them.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn export model.bpk -o model.onnx
  rcnn export fasterrcnn_resnet50_fpn -o small.onnx --dtype f16

In Python:
  session = onnxruntime.InferenceSession(\"model.onnx\")
  boxes, labels, scores, image_index = session.run(None, {\"images\": images})[:4]")]
pub(crate) struct ExportArgs {
    /// Weights to read: a file, or the name of published ones
    input: String,
    /// File to write: .onnx
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Precision that the weights are stored in; f16 halves the file, and is computed in f32
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
}

pub(crate) fn run(args: ExportArgs) -> Result<Outcome> {
    let extension = args.output.extension();
    if !extension.is_some_and(|extension| extension.eq_ignore_ascii_case("onnx")) {
        bail!(
            "{}: expected a name that ends in .onnx",
            args.output.display()
        );
    }
    let inputs = args.model.files().chain([Path::new(&args.input)]);
    Guard::new(args.overwrite, inputs).check_named(&args.output)?;
    let weights = args.model.open(&args.input)?;
    let output = args.output.clone();
    run_on(&[default_device()], Export { weights, args })?;
    let size = std::fs::metadata(&output)?.len() as f64 / (1 << 20) as f64;
    eprintln!("{}: {size:.1} MiB", output.display());
    Ok(Outcome::Done)
}

struct Export {
    weights: Weights,
    args: ExportArgs,
}

impl Job for Export {
    type Output = ();

    fn run<B: DetectionBackend>(self, devices: Vec<B::Device>) -> Result<()> {
        let Self { weights, args } = self;
        let model = args.model.load::<B>(weights, &devices[0])?;
        let options = OnnxOptions {
            half_weights: args.dtype == Dtype::F16,
        };
        onnx(&model, &options, &args.output).with_context(|| args.input.clone())
    }
}
