//! The detector that weights of TensorFlow belong to: its layers by their shapes, and what no shape tells from the files
//! beside them.

use std::path::{Path, PathBuf};

use rcnn_backbone::Shapes;
use rcnn_detector::{ConfigError, FasterRcnnConfig};
use rcnn_ops::BoxRules;
use serde_json::{Map, Value};

use super::graph::CLIPS_FIRST;
use super::locate::{beside, read_text, with_extension};
use super::pipeline;
use crate::recognize::{Recognized, check_anchors, recognize as recognize_layers};
use crate::weights::overridden;
use crate::{Checkpoint, ConfigOrigin, WeightsError};

/// Recognises the detector of a graph's or a checkpoint's parameters.
///
/// # Errors
/// When they are another network's, or the files beside them are unreadable or say something else.
pub(crate) fn recognize(
    checkpoint: &Checkpoint,
    parameters: &Shapes,
    overrides: &Map<String, Value>,
) -> Result<(FasterRcnnConfig, ConfigOrigin), WeightsError> {
    let unrecognized = |saw: String| WeightsError::Unrecognized {
        path: checkpoint.path.clone(),
        saw,
    };
    let config = match recognize_layers(parameters) {
        Ok(Recognized::Detector(config)) => Ok(*config),
        _ if parameters.names().len() == 0 => Err(foreign(checkpoint)),
        Ok(Recognized::Classifier(name)) => Err(format!("the weights of a classifier ({name})")),
        Err(saw) => Err(saw),
    };
    let mut config = config.map_err(unrecognized)?;
    if let Some(first) = checkpoint.metadata.get(CLIPS_FIRST) {
        config.set_tensorflow_rules(match &first[..] {
            "true" => BoxRules::Tensorflow2018,
            _ => BoxRules::Tensorflow2019,
        });
    }
    let mut origin = ConfigOrigin::Recognized;
    if let Some(path) = pipeline_config(&checkpoint.path) {
        let weights = config.num_classes;
        let applied = read_text(&path).and_then(|text| pipeline::apply(&mut config, &text));
        let applied = applied.and_then(|()| match config.num_classes == weights {
            true => Ok(()),
            false => Err(format!(
                "num_classes = {}: expected {}, which the weights beside it have",
                config.num_classes - 1,
                weights - 1
            )),
        });
        applied.map_err(|reason| wrong(&path, reason))?;
        origin = ConfigOrigin::Pipeline;
    }
    let config_to_be = overridden(&checkpoint.path, &config, overrides)?;
    check_anchors(parameters, &config_to_be).map_err(|saw| match origin {
        ConfigOrigin::Pipeline => unrecognized(format!("{saw} (there is a pipeline.config)")),
        _ => unrecognized(format!(
            "{saw}, or put the model's pipeline.config beside the weights"
        )),
    })?;
    if let Some(path) = label_map(&checkpoint.path) {
        let names = read_text(&path);
        let names = names.and_then(|text| pipeline::class_names(&text, config.num_classes));
        config.class_names = names.map_err(|reason| wrong(&path, reason))?;
    }
    Ok((config, origin))
}

fn wrong(path: &Path, reason: String) -> WeightsError {
    WeightsError::Config {
        path: path.into(),
        source: ConfigError::Type(reason),
    }
}

fn pipeline_config(weights: &Path) -> Option<PathBuf> {
    beside(weights, |folder| {
        Some(folder.join("pipeline.config")).filter(|path| path.is_file())
    })
}

/// The only label map beside the weights: a folder may have those of several data sets.
fn label_map(weights: &Path) -> Option<PathBuf> {
    beside(weights, |folder| {
        let mut maps = with_extension(folder, "pbtxt");
        maps.retain(|path| path.to_string_lossy().contains("label"));
        maps.pop().filter(|_| maps.is_empty())
    })
}

/// Message for variables of another network.
fn foreign(checkpoint: &Checkpoint) -> String {
    let seen: Vec<&str> = checkpoint.names().take(3).collect();
    let extractor = checkpoint
        .names()
        .find(|name| name.contains("FeatureExtractor/"));
    let which = match extractor {
        Some(name) if name.starts_with("FirstStage") => "a Faster R-CNN over another network",
        Some(_) => "another detector, perhaps an SSD",
        None => "another network",
    };
    let example = extractor.map_or_else(|| seen.join(", "), str::to_string);
    format!(
        "{which}: {} tensors of TensorFlow such as {example}; read is the Object Detection API's Faster R-CNN over \
         Inception v2 (FirstStageFeatureExtractor/InceptionV2/...)",
        checkpoint.len()
    )
}
