//! A ResNet recognised by the names and shapes of its tensors.

use super::{ResNetArch, ResNetConfig, ResNetFpnConfig};
use crate::{FpnConfig, NormKind, Shapes};

/// The parts of the image classifier.
pub(crate) const CLASSIFIER_MODULES: [&str; 7] =
    ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"];

/// The name of the classifier whose tensors these are; `None` where they are not a ResNet's.
pub(crate) fn recognize_classifier(shapes: &Shapes) -> Option<Result<&'static str, String>> {
    let is_resnet = shapes.has("conv1.weight") && shapes.has("layer1.0.conv1.weight");
    is_resnet.then(|| Ok(recognize_arch(shapes)?.name()))
}

impl ResNetFpnConfig {
    /// The configuration of the backbone whose tensors these are; nothing where they are of no ResNet.
    pub(crate) fn recognize(shapes: &Shapes) -> Option<Result<Self, String>> {
        let body = shapes.within("body");
        body.has("conv1.weight").then(|| {
            let arch = recognize_arch(&body)?;
            let (norm, norm_eps) = body
                .norm("bn1")
                .or(usual_norm(shapes), Self::default().norm_eps);
            let whole = ResNetConfig {
                arch,
                norm,
                norm_eps,
                stages: 4,
                dropped_stages: Vec::new(),
                dropped_blocks: Vec::new(),
                channels: Default::default(),
            };
            let fpn = FpnConfig::recognize(&shapes.within("fpn"), arch.name(), &whole.stages())?;
            Ok(Self {
                arch,
                norm,
                norm_eps,
                returned_layers: fpn.returned_stages,
                out_channels: fpn.out_channels,
                inner_channels: fpn.inner_channels,
                fpn_norm: fpn.norm.map(|(kind, _)| kind),
                ..Default::default()
            })
        })
    }
}

/// The kind of the body's norms where nothing tells it: torchvision freezes them, but not under a pyramid with norms of
/// its own, whose counters are then left out too.
fn usual_norm(backbone: &Shapes) -> NormKind {
    let norm = "fpn.inner_blocks.0.1";
    match backbone.has(&format!("{norm}.weight")) && backbone.norm(norm).kind.is_none() {
        true => NormKind::BatchNorm2d,
        false => NormKind::FrozenBatchNorm2d,
    }
}

fn recognize_arch(body: &Shapes) -> Result<ResNetArch, String> {
    let blocks: Vec<usize> = (1..=4)
        .map(|stage| body.count(|i| format!("layer{stage}.{i}.conv1.weight")))
        .take_while(|&blocks| blocks > 0)
        .collect();
    let bottleneck = body.has("layer1.0.conv3.weight");
    let conv2 = "layer1.0.conv2.weight";
    let (width, groups) = match body.get(conv2) {
        Some(&[width, per_group, 3, 3]) if per_group > 0 => (width, width / per_group),
        _ => return Err(format!("{} is not a 3x3 convolution", body.path(conv2))),
    };
    let fits = |arch: &ResNetArch| {
        arch.bottleneck() == bottleneck
            && arch.groups() == groups
            && arch.stage_width(1) == width
            && !blocks.is_empty()
            && arch.blocks().starts_with(&blocks)
    };
    ResNetArch::ALL.into_iter().find(fits).ok_or_else(|| {
        let kind = if bottleneck { "bottleneck" } else { "basic" };
        let known = ResNetArch::ALL.map(ResNetArch::name).join(", ");
        format!(
            "a ResNet of {blocks:?} {kind} blocks of width {width} in {groups} group(s); \
             known are {known}"
        )
    })
}
