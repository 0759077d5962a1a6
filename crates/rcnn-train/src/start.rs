//! What a run starts from: as much of some weights as fits its detector.

use burn::tensor::backend::Backend;
use rcnn_core::weights::Weights;
use rcnn_core::{FasterRcnnConfig, StandardFasterRcnn};

use crate::TrainError;

/// Classes that are named in a message.
const NAMED: usize = 20;

/// Keeps of the weights what fits; the predictor only if the classes are the same.
pub(crate) fn start_from<B: Backend>(
    mut weights: Weights,
    config: FasterRcnnConfig,
    device: &B::Device,
) -> Result<StandardFasterRcnn<B>, TrainError> {
    let known = &weights.config.class_names;
    let names = |of: &[String]| match of.get(1..).unwrap_or_default() {
        names if names.len() > NAMED => {
            let first = names[..NAMED].join(", ");
            format!("{first}, ... ({})", names.len())
        }
        names => names.join(", "),
    };
    let (file, now) = (weights.path.display(), names(&config.class_names));
    if known.is_empty() && weights.config.num_classes == config.num_classes {
        tracing::warn!(
            "{file}: the weights carry no class names; their classes are taken for the data's, in this \
             order: {now} (`labels` gives others)"
        );
    }
    if !known.is_empty() && *known != config.class_names {
        let before = names(known);
        tracing::warn!(
            "{file}: the classes are {before}, those of the data {now}: the predictor is initialised at random"
        );
        // What is predicted for each class.
        const PREDICTORS: [&str; 2] = [
            "roi_heads.box_predictor.",
            "roi_heads.mask_predictor.mask_fcn_logits.",
        ];
        let kept = |name: &String| !PREDICTORS.iter().any(|start| name.starts_with(start));
        weights.tensors.retain(|name, _| kept(name));
    }
    weights.config = config;
    let (model, report) = weights.load_partial(device)?;
    let (file, loaded) = (weights.path.display(), report.loaded.len());
    let lines = format!("{file}: {loaded} tensors loaded\n{report}");
    tracing::info!("{}", lines.trim_end());
    Ok(model)
}
