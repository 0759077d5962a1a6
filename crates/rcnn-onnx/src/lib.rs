//! Two-stage detectors as ONNX files.
//!
//! By default one file for any batch and any size, of standard operators alone (opset 13; no `Loop`, `If` or
//! sequences), that is right when nothing is found. The networks come from a recorded forward pass, so
//! that models with layers removed and custom backbones are exported like any other. [`OnnxOptions`] has the
//! other kinds of file. Soft suppression has no form in ONNX, nor has RoIPool without its operator.
//!
//! # Inputs
//! - `images` `[batch, 3, height, width]`: RGB from 0 to 1, resized as the model expects; normalisation and
//!   padding are in the file
//! - `image_sizes` `[batch, 2]`, int64: height and width of each image, which lies in the upper left corner with
//!   anything around it; 0 for the height or width of `images`
//!
//! or, with [`OnnxInput::Image`], one `image` `[height, width, 3]` of RGB bytes, of any size.
//!
//! # Outputs
//! For the detections of all images together, image after image and best first:
//! - `boxes` `[detections, 4]`: xyxy in pixels of `images` or of `image`
//! - `labels` `[detections]`, from 1; `scores` `[detections]`; `image_index` `[detections]`, but for one `image`
//! - with a mask branch, `masks` `[detections, 1, 28, 28]`: probabilities over the box
//! - with a keypoint branch, `keypoints` `[detections, keypoints, 3]`: x, y and 1, in the pixels of the boxes, and
//!   `keypoint_scores` `[detections, keypoints]`
//!
//! With [fixed shapes](OnnxOptions::fixed) these are `[batch, most, ..]` with zeros after the last detection, and
//! `counts` `[batch]` says how many there are. A [body](OnnxPart::Body) has `features.<level>`,
//! `objectness.<level>` and `deltas.<level>` instead, and takes `images` alone, whose sizes the model's
//! `size_divisible` divides.
//!
//! The metadata has the class names (`classes`), the whole configuration (`config`) and the limits of the
//! images' sizes (`min_size`, `max_size`).
//!
//! Every file is read back and its types and shapes are checked before it stands under its name.

mod boxes;
mod builder;
#[cfg(feature = "ort")]
pub mod check;
#[cfg(any(test, feature = "ort"))]
mod compare;
mod constants;
mod detector;
mod error;
mod infer;
mod keypoints;
mod options;
mod pool;
mod proto;
mod read;
mod transform;
mod translate;

use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use rcnn_backbone::{AnyBackbone, Backbone, LevelSpec};
use rcnn_detector::{
    DetectError, FasterRcnn, FasterRcnnConfig, MAX_BATCH_PIXELS, StandardFasterRcnn,
};
use rcnn_files::WriteError;
use rcnn_ops::DetectionBackend;
use rcnn_ops::record::{Graph, Recorder};
use rcnn_types::Size;

use builder::Builder;
use constants::Parameters;
use detector::Detector;
use proto::Model;
use translate::Translator;

pub use error::OnnxError;
pub use options::{FixedShape, OnnxInput, OnnxOptions, OnnxPart, Pooling};

/// Exports a detector to an ONNX file, which is written whole or not at all.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_onnx as export; pub use rcnn_ops::backend_types::*; pub use rcnn_types::Size; }
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// use rcnn_burn::export::{FixedShape, OnnxOptions, onnx};
/// use rcnn_burn::{FasterRcnnConfig, Flex, Size};
///
/// let config = FasterRcnnConfig::named("resnet18_fpn", 4)?;
/// # let config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
/// let model = config.init::<Flex>(&Default::default())?;
/// onnx(&model, &OnnxOptions::default(), "any-size.onnx".as_ref())?;
/// let fixed = Some(FixedShape { batch: 1, size: Size::new(480, 640) });
/// onnx(&model, &OnnxOptions { fixed, ..Default::default() }, "one-size.onnx".as_ref())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When an operation or a setting has no form in ONNX, or the file cannot be written.
pub fn onnx<B: DetectionBackend>(
    model: &StandardFasterRcnn<B>,
    options: &OnnxOptions,
    path: &Path,
) -> Result<(), OnnxError> {
    let recorded: StandardFasterRcnn<Recorder> = (model.config())
        .init(&Default::default())
        .map_err(DetectError::from)?;
    onnx_as_recorded::<B, AnyBackbone<B>, _>(model, &recorded, options, path)
}

/// Exports a detector over a custom backbone, given the same detector for the [`Recorder`], whose weights do
/// not matter: it is made by
/// [`init_with_backbone`](FasterRcnnConfig::init_with_backbone) of the same configuration.
///
/// # Errors
/// As [`onnx`].
pub fn onnx_as_recorded<B: DetectionBackend, N: Backbone<B>, R: Backbone<Recorder>>(
    model: &FasterRcnn<B, N>,
    recorded: &FasterRcnn<Recorder, R>,
    options: &OnnxOptions,
    path: &Path,
) -> Result<(), OnnxError> {
    options.validate()?;
    let graphs = recordings(recorded, options)?;
    let parameters = Parameters::of::<B, _>(model);
    let (config, levels) = (model.config(), model.backbone.levels());
    let mut detector = Detector {
        config: &config,
        options,
        levels: &levels,
        networks: Translator::new([&graphs[0], &graphs[graphs.len() - 1]], &parameters)?,
        b: Builder::new(options.opset, options.half_weights),
    };
    detector.build()?;
    let (graph, initializers) = detector.b.finish()?;
    let model = Model {
        opset: options.opset,
        graph: proto::Message::default().text(2, "detector").then(graph),
        initializers,
        metadata: metadata(&config),
    };
    rcnn_files::write_whole(path, |file| {
        let mut to = BufWriter::new(file.as_file_mut());
        model.write(&mut to)?;
        to.flush()?;
        drop(to);
        read::validate(&mut BufReader::new(file.as_file_mut()))
    })
    .map_err(|WriteError { path, source }| match source.downcast() {
        Ok(fault) => fault,
        Err(source) => WriteError { path, source }.into(),
    })
}

/// The check of a file that was just written, for the fuzz targets.
#[doc(hidden)]
pub fn validate(file: &[u8]) -> std::io::Result<()> {
    read::validate(&mut std::io::Cursor::new(file))
}

/// The networks on a batch of fixed sizes, or on two that differ in what is free.
fn recordings<R: Backbone<Recorder>>(
    recorded: &FasterRcnn<Recorder, R>,
    options: &OnnxOptions,
) -> Result<Vec<Graph>, OnnxError> {
    let config = recorded.config();
    let batches = match options.fixed {
        Some(fixed) => vec![fixed_batch(&config, options.input, fixed)?],
        None => free_batches(&config, &recorded.backbone.levels()).into(),
    };
    let batches = batches.into_iter();
    batches
        .map(|(batch, padded)| Ok(recorded.record_batch(batch, padded)?))
        .collect()
}

/// Two batches that have no size in common, so that what differs is what is free.
fn free_batches(config: &FasterRcnnConfig, levels: &[LevelSpec]) -> [(usize, Size); 2] {
    let coarsest = levels.iter().map(|level| level.stride).max().unwrap_or(1);
    let unit = coarsest.next_multiple_of(config.transform.size_divisible);
    [(1, [4, 5]), (2, [6, 7])]
        .map(|(batch, [height, width])| (batch, Size::new(height * unit, width * unit)))
}

/// A batch of images of one size, and what they are padded to.
fn fixed_batch(
    config: &FasterRcnnConfig,
    input: OnnxInput,
    FixedShape { batch, size }: FixedShape,
) -> Result<(usize, Size), OnnxError> {
    let transform = &config.transform;
    let padded = transform.pad(match input {
        OnnxInput::Tensor => size,
        OnnxInput::Image => transform.resized(size),
    });
    if padded.pixels().saturating_mul(batch) <= MAX_BATCH_PIXELS {
        return Ok((batch, padded));
    }
    let Size { height, width } = padded;
    Err(OnnxError::Options(format!(
        "{batch} image(s) padded to {height}x{width} pixels: expected at most {MAX_BATCH_PIXELS} pixels in a batch"
    )))
}

fn metadata(config: &FasterRcnnConfig) -> Vec<(&'static str, String)> {
    let transform = &config.transform;
    let json = serde_json::to_string(config);
    vec![
        ("classes", serde_json::json!(config.class_names).to_string()),
        ("min_size", format!("{:?}", transform.min_size)),
        ("max_size", transform.max_size.to_string()),
        ("config", json.expect("numbers, texts and lists")),
        ("origin", env!("CARGO_PKG_REPOSITORY").to_string()),
    ]
}
