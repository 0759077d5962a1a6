//! Stages of the MobileNets, as torchvision's `mobilenet_backbone` counts them.

use rcnn_ops::Activation;

use crate::sequential::{LayerSpec, StageSpec};

/// Describes a convolution by its output channels, the side of its kernel and its stride.
pub(crate) fn convolutions(activation: Activation) -> impl Fn(usize, usize, usize) -> LayerSpec {
    move |out, kernel, stride| LayerSpec::ConvNormActivation {
        out,
        kernel,
        stride,
        activation,
    }
}

/// Divides layers into `stage0`, `stage1`, ...: one begins with each layer that halves the resolution, and the last
/// layer is one by itself. A pyramid takes the output of a stage's first layer.
pub(crate) fn stages(layers: Vec<LayerSpec>) -> Vec<StageSpec> {
    let last = layers.len() - 1;
    let mut stages: Vec<StageSpec> = Vec::new();
    for (place, layer) in layers.into_iter().enumerate() {
        if layer.stride() > 1 || place == last {
            stages.push(StageSpec {
                name: format!("stage{}", stages.len()),
                layers: Vec::new(),
                map: 0,
                blocks: Vec::new(),
            });
        }
        let stage = stages
            .last_mut()
            .expect("the first layer halves the resolution");
        if let LayerSpec::InvertedResidual(_) = layer {
            let position = stage.layers.len();
            let name = format!("{}.{position}", stage.name);
            stage.blocks.push((position, name));
        }
        stage.layers.push(layer);
    }
    stages
}

/// A number of channels rounded to a multiple of eight, but not down by more than a tenth
/// (`torchvision.models._utils._make_divisible`).
pub(crate) fn divisible(channels: usize) -> usize {
    let rounded = ((channels + 4) / 8 * 8).max(8);
    match 10 * rounded < 9 * channels {
        true => rounded + 8,
        false => rounded,
    }
}
