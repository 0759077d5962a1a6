//! Two-stage detectors as ONNX files.
//!
//! One file for any batch and any size, of standard operators alone (opset 13; no `Loop`, `If` or
//! sequences), that is right when nothing is found. The networks come from a recorded forward pass, so
//! that models with layers removed and custom backbones are exported like any other.
//!
//! # Inputs
//! - `images` `[batch, 3, height, width]`: RGB from 0 to 1, resized as the model wants it; normalisation and
//!   padding are in the file
//! - `image_sizes` `[batch, 2]`, optional: height and width of each image where a batch has several sizes,
//!   each image in the upper left corner and anything around it
//!
//! # Outputs
//! For the detections of all images together, image after image and best first:
//! - `boxes` `[detections, 4]`: xyxy in pixels of `images`
//! - `labels` `[detections]`, from 1; `scores` `[detections]`; `image_index` `[detections]`
//! - with a mask branch, `masks` `[detections, 1, 28, 28]`: probabilities over the box
//! - with a keypoint branch, `keypoint_logits` `[detections, keypoints, 56, 56]`: heat maps over the box
//!
//! The metadata has the class names (`classes`), the whole configuration (`config`) and the limits of the
//! images' sizes (`min_size`, `max_size`).

mod boxes;
mod builder;
mod constants;
mod detector;
mod error;
mod proto;
mod translate;

use std::io::{BufWriter, Write};
use std::path::Path;

use rcnn_backbone::{AnyBackbone, Backbone};
use rcnn_detector::{DetectError, FasterRcnn, FasterRcnnConfig, StandardFasterRcnn};
use rcnn_ops::DetectionBackend;
use rcnn_ops::record::Recorder;
use rcnn_types::Size;

use builder::Builder;
use constants::Parameters;
use detector::Detector;
use proto::Model;
use translate::Translator;

pub use error::OnnxError;

/// The version of ONNX's operators: the newest in which all runtimes have the same RoIAlign.
const OPSET: i64 = 13;

/// How a model is exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Store weights in half precision: half the size, and computed in single precision.
    pub half_weights: bool,
}

/// Exports a detector to an ONNX file, which is written whole or not at all.
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
    let model = graph(model, recorded, options)?;
    rcnn_files::write_whole(path, |file| {
        let mut to = BufWriter::new(file);
        model.write(&mut to)?;
        to.flush()
    })?;
    Ok(())
}

fn graph<B: DetectionBackend, N: Backbone<B>, R: Backbone<Recorder>>(
    model: &FasterRcnn<B, N>,
    recorded: &FasterRcnn<Recorder, R>,
    options: &OnnxOptions,
) -> Result<Model, OnnxError> {
    let config = model.config();
    let levels = model.backbone.levels();
    let coarsest = levels.iter().map(|level| level.stride).max().unwrap_or(1);
    let divisible = config.transform.size_divisible;
    let unit = coarsest.next_multiple_of(divisible);
    // Batches that have no size in common.
    let sizes = [(1, [4, 5]), (2, [6, 7])];
    let [first, second] = sizes.map(|(batch, [height, width])| {
        recorded.record_batch(batch, Size::new(height * unit, width * unit))
    });
    let graphs = [&first?, &second?];
    let parameters = Parameters::of::<B, _>(model);
    let mut detector = Detector {
        config: &config,
        levels: &levels,
        networks: Translator::new(graphs, &parameters)?,
        b: Builder::new(options.half_weights),
    };
    let ends = detector.build()?;
    let Builder {
        nodes,
        initializers,
        ..
    } = detector.b;
    Ok(Model {
        opset: OPSET,
        graph: proto::Message([nodes.0, ends.0].concat()),
        initializers,
        metadata: metadata(&config),
    })
}

fn metadata(config: &FasterRcnnConfig) -> Vec<(&'static str, String)> {
    let transform = &config.transform;
    let json = serde_json::to_string(config);
    vec![
        ("classes", serde_json::json!(config.class_names).to_string()),
        ("min_size", format!("{:?}", transform.min_size)),
        ("max_size", transform.max_size.to_string()),
        ("config", json.expect("numbers, texts and lists")),
        (
            "origin",
            "https://github.com/rcnn-burn/rcnn-burn".to_string(),
        ),
    ]
}
