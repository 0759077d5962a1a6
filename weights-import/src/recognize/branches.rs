//! The mask and the keypoint branch of a detector, by their tensors.

use rcnn_backbone::{NormKind, Shapes};
use rcnn_roi::{KeypointConfig, MaskConfig};

/// The mask branch, where there is one.
pub(super) fn mask(shapes: &Shapes) -> Result<Option<MaskConfig>, String> {
    let (head, predictor) = ("roi_heads.mask_head", "roi_heads.mask_predictor");
    if !shapes.any(&format!("{predictor}.")) {
        return match shapes.any(&format!("{head}.")) {
            true => Err(format!(
                "a mask head without a mask predictor ({predictor}.*)"
            )),
            false => Ok(None),
        };
    }
    let conv = |i: usize| format!("{head}.{i}.0.weight");
    let layers = (0..shapes.count(conv)).map(|i| shapes.outputs(&conv(i), 4));
    let norm = format!("{head}.0.1");
    let logits = format!("{predictor}.mask_fcn_logits.weight");
    Ok(Some(MaskConfig {
        layers: layers.collect::<Result<_, _>>()?,
        norm: shapes
            .has(&format!("{norm}.running_var"))
            .then(|| shapes.norm(&norm).or(NormKind::BatchNorm2d, NORM_EPS)),
        dim_reduced: match shapes.get(&logits) {
            Some(&[_, inputs, 1, 1]) => inputs,
            _ => return Err(format!("{logits} is not a 1x1 convolution")),
        },
        ..Default::default()
    }))
}

/// The keypoint branch, where there is one.
pub(super) fn keypoint(shapes: &Shapes) -> Result<Option<KeypointConfig>, String> {
    let (head, predictor) = ("roi_heads.keypoint_head", "roi_heads.keypoint_predictor");
    if !shapes.any(&format!("{predictor}.")) {
        return match shapes.any(&format!("{head}.")) {
            true => Err(format!(
                "a keypoint head without a keypoint predictor ({predictor}.*)"
            )),
            false => Ok(None),
        };
    }
    // A ReLU stands after each convolution.
    let conv = |i: usize| format!("{head}.{}.weight", 2 * i);
    let layers = (0..shapes.count(conv)).map(|i| shapes.outputs(&conv(i), 4));
    let heatmaps = format!("{predictor}.kps_score_lowres.weight");
    Ok(Some(KeypointConfig {
        layers: layers.collect::<Result<_, _>>()?,
        num_keypoints: match shapes.get(&heatmaps) {
            Some(&[_, keypoints, 4, 4]) => keypoints,
            _ => return Err(format!("{heatmaps} is not a 4x4 transposed convolution")),
        },
        ..Default::default()
    }))
}

/// Epsilon of the head's norms: torch's default.
const NORM_EPS: f64 = 1e-5;
