//! `rcnn export`: a model for other runtimes.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
#[cfg(feature = "ort")]
use rcnn_burn::export::check::{Comparison, check as compare};
use rcnn_burn::export::{FixedShape, OnnxInput, OnnxOptions, OnnxPart, Pooling, onnx};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::weights::Weights;
use rcnn_burn::{Size, StandardFasterRcnn};

use crate::Outcome;
use crate::backend::{Job, default_device, run_on};
use crate::convert::Dtype;
use crate::cost::parse_size;
use crate::files::mebibytes;
use crate::overwrite::{Guard, OverwriteArgs};
use crate::source::ModelArgs;

/// Export a model to ONNX
///
/// Writes one file of standard operators, for any number of images of any size. It takes
/// `images [batch, 3, height, width]`, RGB from 0 to 1 and resized as the model's min_size and
/// max_size say, and `image_sizes [batch, 2]` (height, width), zeros where an image fills its place.
/// It gives `boxes [n, 4]` in pixels of `images`, `labels [n]`, `scores [n]` and `image_index [n]`,
/// and `masks [n, 1, 28, 28]`, or `keypoints` and `keypoint_scores`, where the model has them.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn export model.bpk -o model.onnx
  rcnn export fasterrcnn_resnet50_fpn -o small.onnx --dtype f16
  rcnn export model.bpk -o picture.onnx --input image
  rcnn export model.bpk -o fixed.onnx --batch 1 --size 800x1088
  rcnn export model.bpk -o tract.onnx --size 800x1088 --pooling gather

In Python:
  session = onnxruntime.InferenceSession(\"model.onnx\")
  sizes = numpy.zeros((len(images), 2), numpy.int64)
  found = session.run(None, {\"images\": images, \"image_sizes\": sizes})
  boxes, labels, scores, image_index = found[:4]")]
pub(crate) struct ExportArgs {
    /// Weights to read: a file, or the name of published weights
    input: PathBuf,
    /// File to write: .onnx
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Precision to store the weights in; f16 halves the file, computation stays in f32
    #[arg(long, value_enum, default_value_t = Dtype::F32, hide_short_help = true)]
    dtype: Dtype,
    /// Height and width of the images, for a file with fixed shapes: `boxes [batch, most, 4]` and so on, and
    /// `counts [batch]`
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = parse_size)]
    size: Option<Size>,
    /// Batch size, with --size
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "size",
        hide_short_help = true
    )]
    batch: usize,
    /// Input of the file
    #[arg(long = "input", value_enum, default_value_t = Input::Tensor)]
    takes: Input,
    /// Export only feature maps, objectness and deltas, for runtimes without non-maximum suppression
    #[arg(long, conflicts_with_all = ["pooling", "takes"])]
    body: bool,
    /// How to pool the features of boxes
    #[arg(long, value_enum, default_value_t = PoolingKind::RoiAlign)]
    pooling: PoolingKind,
    /// Version of the ONNX operators (opset), 13 to 21; most runtimes read 13
    #[arg(long, value_name = "N", hide_short_help = true)]
    opset: Option<i64>,
    /// Compare the written file, in ONNX Runtime, with the model on these pictures: boxes, scores, masks and
    /// keypoints. Needs a build with --features ort, and ORT_DYLIB_PATH with the path of ONNX Runtime's library
    #[arg(long, value_name = "IMAGE", num_args = 1.., conflicts_with = "body", hide_short_help = true)]
    check: Vec<PathBuf>,
}

/// Form of an exported file's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Input {
    /// Images [batch, 3, height, width] of floats, resized
    Tensor,
    /// A picture [height, width, 3] of bytes, of any size; boxes are in its pixels
    Image,
}

/// How an exported file pools features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PoolingKind {
    /// The operator RoiAlign
    RoiAlign,
    /// Gather and arithmetic, for runtimes without RoiAlign (tract); slower
    Gather,
}

impl ExportArgs {
    fn options(&self) -> OnnxOptions {
        let default = OnnxOptions::default();
        OnnxOptions {
            half_weights: self.dtype == Dtype::F16,
            opset: self.opset.unwrap_or(default.opset),
            fixed: self.size.map(|size| FixedShape {
                batch: self.batch,
                size,
            }),
            input: match self.takes {
                Input::Tensor => OnnxInput::Tensor,
                Input::Image => OnnxInput::Image,
            },
            part: match self.body {
                true => OnnxPart::Body,
                false => OnnxPart::Detector,
            },
            pooling: match self.pooling {
                PoolingKind::RoiAlign => Pooling::RoiAlign,
                PoolingKind::Gather => Pooling::Gather,
            },
        }
    }
}

pub(crate) fn run(args: ExportArgs) -> Result<Outcome> {
    let extension = args.output.extension();
    if !extension.is_some_and(|extension| extension.eq_ignore_ascii_case("onnx")) {
        bail!(
            "{}: expected a name that ends in .onnx",
            args.output.display()
        );
    }
    if !args.check.is_empty() && !cfg!(feature = "ort") {
        bail!("--check: this binary was built without ONNX Runtime; build with --features ort");
    }
    let inputs = args.model.files().chain([args.input.as_path()]);
    Guard::new(args.overwrite, inputs).check_named(&args.output)?;
    let weights = args.model.open(&args.input)?;
    let output = args.output.clone();
    run_on(&[default_device()], Export { weights, args })?;
    let size = mebibytes(std::fs::metadata(&output)?.len());
    eprintln!("{}: {size}", output.display());
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
        let options = args.options();
        onnx(&model, &options, &args.output).with_context(|| args.input.display().to_string())?;
        match args.check.is_empty() {
            true => Ok(()),
            false => check(&model, &options, &args, &devices[0]),
        }
    }
}

#[cfg(not(feature = "ort"))]
fn check<B: DetectionBackend>(
    _: &StandardFasterRcnn<B>,
    _: &OnnxOptions,
    _: &ExportArgs,
    _: &B::Device,
) -> Result<()> {
    unreachable!("rejected at the beginning")
}

/// Compares the file in ONNX Runtime with the model.
#[cfg(feature = "ort")]
fn check<B: DetectionBackend>(
    model: &StandardFasterRcnn<B>,
    options: &OnnxOptions,
    args: &ExportArgs,
    device: &B::Device,
) -> Result<()> {
    let library = std::env::var_os("ORT_DYLIB_PATH").unwrap_or_else(|| "libonnxruntime.so".into());
    let images = (args.check.iter())
        .map(|path| {
            Ok(rcnn_burn::image::to_tensor(
                &rcnn_burn::image::open_rgb(path)?,
                device,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let found = compare(model, options, &args.output, library.as_ref(), &images)?;
    let Comparison {
        detections,
        unmatched,
        boxes,
        scores,
        masks,
        keypoints,
        ..
    } = found;
    let mut text = format!(
        "{detections} detections, {unmatched} unmatched, boxes within {boxes:.4} px, scores within {scores:.1e}"
    );
    if let Some(masks) = masks {
        text += &format!(", masks within {masks:.1e}");
    }
    if let Some(keypoints) = keypoints {
        text += &format!(", keypoints within {keypoints:.4} px");
    }
    eprintln!("ONNX Runtime: {text}");
    if !found.is_same() && args.dtype == Dtype::F32 {
        bail!(
            "{}: does not detect what the model does",
            args.output.display()
        );
    }
    Ok(())
}
