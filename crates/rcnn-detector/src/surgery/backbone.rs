//! Stages, blocks and feature maps of a backbone removed, and what follows from that: anchors and pooling.

use rcnn_backbone::{Architecture, BlockState, LevelSpec, Stage};
use rcnn_rpn::AnchorGenerator;

use super::{Level, SurgeryError};
use crate::{ConfigError, FasterRcnnConfig};

/// Name of the level that is the last map, subsampled.
const POOL: &str = "pool";

/// Keeps only these levels.
pub(super) fn choose_levels(
    network: &mut dyn Architecture,
    levels: &[Level],
) -> Result<(), SurgeryError> {
    let (stages, returned) = (network.stages(), network.level_stages());
    let mut chosen = Vec::new();
    for level in levels {
        match level {
            Level::Map(map) => chosen.push(*returned.get(*map).ok_or_else(|| {
                let maps = returned.iter().enumerate();
                let maps = maps.map(|(map, &stage)| format!("{map} ({})", stages[stage].name));
                let pool = has_pool(network).then(|| POOL.to_string());
                let known: Vec<String> = maps.chain(pool).collect();
                SurgeryError::NoSuchLevel {
                    level: map.to_string(),
                    known: known.join(", "),
                }
            })?),
            Level::Stage(name) => chosen.push(find(&stages, name)?),
            Level::Pool => {}
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    if chosen.is_empty() {
        return Err(SurgeryError::NoStageLevel);
    }
    set_levels(network, &chosen, levels.contains(&Level::Pool))
}

/// Ends the body after a stage.
pub(super) fn cut_after(network: &mut dyn Architecture, stage: &str) -> Result<(), SurgeryError> {
    let stages = network.stages();
    let last = find(&stages, stage)?;
    let follows = |stage: &usize| stages[*stage].is_built;
    let Some(first) = (last + 1..stages.len()).find(follows) else {
        return Err(SurgeryError::NothingToCut(stage.to_string()));
    };
    without_levels(network, &stages, first, true)
}

/// Makes a stage the identity.
pub(super) fn drop_stage(network: &mut dyn Architecture, stage: &str) -> Result<(), SurgeryError> {
    let stages = network.stages();
    let dropped = find(&stages, stage)?;
    without_levels(network, &stages, dropped, false)?;
    network.drop_stage(dropped);
    Ok(())
}

/// Makes a block the identity.
pub(super) fn drop_block(network: &mut dyn Architecture, name: &str) -> Result<(), SurgeryError> {
    let stages = network.stages();
    for (position, stage) in stages.iter().enumerate() {
        let mut blocks = stage.blocks.iter();
        let Some(block) = blocks.position(|block| goes_by(&block.name, name)) else {
            continue;
        };
        if stage.blocks[block].state == BlockState::Dropped {
            return Err(SurgeryError::DroppedAlready(name.to_string()));
        }
        network.drop_block(position, block);
        return Ok(());
    }
    let ends = |stage: &Stage| match &stage.blocks[..] {
        [] => None,
        [only] => Some(only.name.clone()),
        [first, .., last] => Some(format!("{} to {}", first.name, last.name)),
    };
    Err(SurgeryError::NoSuchBlock {
        block: name.to_string(),
        known: stages.iter().filter_map(ends).collect(),
    })
}

/// Makes no feature map of a stage any more or, where the body is cut, of those after it too.
fn without_levels(
    network: &mut dyn Architecture,
    stages: &[Stage],
    first: usize,
    cut: bool,
) -> Result<(), SurgeryError> {
    let stays = |stage: &usize| if cut { *stage < first } else { *stage != first };
    let returned = network.level_stages();
    let left: Vec<usize> = returned.iter().copied().filter(stays).collect();
    if !left.is_empty() {
        let pool = has_pool(network);
        return set_levels(network, &left, pool);
    }
    let name = |stage: usize| stages[stage].name.clone();
    let could_be = |stage: &usize| stages[*stage].is_returnable;
    let mut others = (0..stages.len()).rev().filter(could_be);
    let instead = others
        .clone()
        .find(|stage| stages[*stage].is_built && stays(stage));
    Err(SurgeryError::NoLevelLeft {
        stage: name(first),
        cut,
        returned: returned.into_iter().map(name).collect(),
        instead: instead.or(others.next_back()).map_or(String::new(), name),
    })
}

fn set_levels(
    network: &mut dyn Architecture,
    stages: &[usize],
    pool: bool,
) -> Result<(), SurgeryError> {
    let set = network.set_levels(stages, pool);
    set.map_err(|error| ConfigError::from(error).into())
}

fn has_pool(network: &dyn Architecture) -> bool {
    network.levels().iter().any(|level| level.name == POOL)
}

/// Whether a stage or block is meant, by its name or by the numbers in it: `layer4.1` or `4.1`, `conv5_2` or `5_2`.
fn goes_by(name: &str, given: &str) -> bool {
    name == given || name.trim_start_matches(|c: char| c.is_alphabetic()) == given
}

/// Position of a stage that is built and could have a feature map.
fn find(stages: &[Stage], name: &str) -> Result<usize, SurgeryError> {
    let known = |stage: &&Stage| stage.is_built && stage.is_returnable;
    let found = stages
        .iter()
        .position(|stage| goes_by(&stage.name, name) && known(&stage));
    found.ok_or_else(|| SurgeryError::NoSuchStage {
        stage: name.to_string(),
        built: (stages.iter().filter(known))
            .map(|stage| stage.name.clone())
            .collect(),
    })
}

impl FasterRcnnConfig {
    /// Changes the backbone: anchors stay with their strides, pooling with its stages.
    pub(super) fn change_backbone(
        &mut self,
        change: impl FnOnce(&mut dyn Architecture) -> Result<(), SurgeryError>,
    ) -> Result<(), SurgeryError> {
        let network = self.backbone.architecture_mut();
        let network = network.ok_or(SurgeryError::CustomBackbone)?;
        let (levels, stages) = (network.levels(), network.level_stages());
        change(network)?;
        if network.levels() == levels && network.level_stages() == stages {
            return Ok(());
        }
        let anchors = &mut self.rpn.anchor_generator;
        *anchors = anchors_at(anchors, &levels, &network.levels());
        let heads = &mut self.roi_heads;
        let mask = heads.mask.iter_mut().map(|mask| &mut mask.roi_pool);
        let keypoint = heads
            .keypoint
            .iter_mut()
            .map(|keypoint| &mut keypoint.roi_pool);
        for pool in mask.chain(keypoint).chain([&mut heads.box_roi_pool]) {
            let names = &mut pool.featmap_names;
            *names = pooled_maps(names, &stages, network);
        }
        Ok(())
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
        strides: anchors.strides.as_ref().map(|_| to.clone()),
    }
}

/// Names of the maps that proposals are pooled from: those of the same stages, and of new ones; of all
/// stages where none is left. `before` has the stage of each map as it was.
fn pooled_maps(names: &[String], before: &[usize], network: &dyn Architecture) -> Vec<String> {
    let was_pooled = |stage: &usize| match before.iter().position(|other| other == stage) {
        Some(map) => names.contains(&map.to_string()),
        None => true,
    };
    let stages = network.level_stages();
    let maps = || stages.iter().enumerate();
    let mut pooled: Vec<String> = maps()
        .filter(|(_, stage)| was_pooled(stage))
        .map(|(map, _)| map.to_string())
        .collect();
    if has_pool(network) && names.iter().any(|name| name == POOL) {
        pooled.push(POOL.to_string());
    }
    match pooled.is_empty() {
        true => maps().map(|(map, _)| map.to_string()).collect(),
        false => pooled,
    }
}
