//! Which feature maps there are, and what follows from a change of them: anchors and pooling.

use rcnn_backbone::{BackboneConfig, LevelSpec, ResNetFpnConfig};
use rcnn_rpn::AnchorGenerator;

use super::{Level, SurgeryError, built, forget_unbuilt, require_built};
use crate::FasterRcnnConfig;

/// The backbone with only these levels.
pub(super) fn chosen(
    backbone: &ResNetFpnConfig,
    levels: &[Level],
) -> Result<ResNetFpnConfig, SurgeryError> {
    let returned = &backbone.returned_layers;
    let no_such = |level: String| {
        let mut known: Vec<String> = (returned.iter().enumerate())
            .map(|(map, stage)| format!("{map} (layer{stage})"))
            .collect();
        if backbone.max_pool_level {
            known.push("pool".to_string());
        }
        let known = known.join(", ");
        SurgeryError::NoSuchLevel { level, known }
    };
    let mut chosen = Vec::new();
    for level in levels {
        match *level {
            Level::Map(map) => {
                chosen.push(*returned.get(map).ok_or_else(|| no_such(map.to_string()))?)
            }
            Level::Stage(stage) => {
                require_built(backbone, stage)?;
                chosen.push(stage);
            }
            Level::Pool => {}
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    if chosen.is_empty() {
        return Err(SurgeryError::NoStageLevel);
    }
    let mut changed = ResNetFpnConfig {
        returned_layers: chosen,
        max_pool_level: levels.contains(&Level::Pool),
        ..backbone.clone()
    };
    forget_unbuilt(&mut changed);
    debug_assert!(!built(&changed).is_empty());
    Ok(changed)
}

impl FasterRcnnConfig {
    /// Takes another backbone of the ResNet-FPN kind: anchors stay with their strides, pooling with
    /// its stages.
    pub(super) fn replace_backbone(&mut self, backbone: ResNetFpnConfig) {
        if let BackboneConfig::ResnetFpn(before) = &self.backbone {
            let (from, to) = (before.levels(), backbone.levels());
            self.rpn.anchor_generator = anchors_at(&self.rpn.anchor_generator, &from, &to);
            let pool = &mut self.roi_heads.box_roi_pool.featmap_names;
            *pool = pooled_maps(pool, before, &backbone);
        }
        self.backbone = BackboneConfig::ResnetFpn(backbone);
    }
}

/// The anchors for feature maps of other strides.
fn anchors_at(anchors: &AnchorGenerator, from: &[LevelSpec], to: &[LevelSpec]) -> AnchorGenerator {
    // A generator that does not fit its own levels is refused as it is.
    if anchors.validate().is_err() || anchors.validate_levels(from).is_err() {
        return anchors.clone();
    }
    let [from, to] = [from, to].map(|levels| levels.iter().map(|l| l.stride).collect::<Vec<_>>());
    let nearest = |stride: usize| {
        let octaves = |other: usize| (stride as f32 / other as f32).log2().abs();
        let order = |a: &usize, b: &usize| octaves(from[*a]).total_cmp(&octaves(from[*b]));
        (0..from.len()).min_by(order).expect("at least one level")
    };
    let sizes = to.iter().map(|&stride| {
        let level = nearest(stride);
        let scale = stride as f32 / from[level] as f32;
        let sizes = anchors.sizes[level].iter();
        sizes.map(|size| size * scale).collect()
    });
    let ratios = to
        .iter()
        .map(|&stride| anchors.aspect_ratios[nearest(stride)].clone());
    AnchorGenerator {
        sizes: sizes.collect(),
        aspect_ratios: ratios.collect(),
    }
}

/// Names of the maps that proposals are cut from: those of the same stages, and of new ones; of all
/// stages where none is left.
fn pooled_maps(names: &[String], before: &ResNetFpnConfig, after: &ResNetFpnConfig) -> Vec<String> {
    let was_pooled = |stage: &usize| match before.returned_layers.iter().position(|s| s == stage) {
        Some(map) => names.contains(&map.to_string()),
        None => true,
    };
    let maps = || after.returned_layers.iter().enumerate();
    let mut pooled: Vec<String> = maps()
        .filter(|(_, stage)| was_pooled(stage))
        .map(|(map, _)| map.to_string())
        .collect();
    if after.max_pool_level && names.iter().any(|name| name == "pool") {
        pooled.push("pool".to_string());
    }
    match pooled.is_empty() {
        true => maps().map(|(map, _)| map.to_string()).collect(),
        false => pooled,
    }
}
