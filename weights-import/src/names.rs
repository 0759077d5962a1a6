//! Translation of the names in a checkpoint to those that torchvision's modules have today.

use indexmap::IndexMap;
use rcnn_backbone::{BackboneConfig, Shapes};

use crate::{Checkpoint, CheckpointError, StoredTensor, tensorflow};

/// The parts of a detector, which its tensors' names begin with.
const DETECTOR: &[&str] = &["backbone", "rpn", "roi_heads"];

/// The parts of image classifiers of other architectures than the project's, which are recognised too.
const OTHER_CLASSIFIERS: [&str; 2] = ["features", "classifier"];

/// What a module calls its tensors. Those of an optimizer's state have other names, behind the same prefixes.
const TENSORS: [&str; 5] = [
    "weight",
    "bias",
    "running_mean",
    "running_var",
    "num_batches_tracked",
];

/// What wrappers of a module put into the names of its tensors, at any place: `torch.compile`, FSDP and checkpointing of
/// activations may be applied to parts of a detector. No module of torchvision's has such a name.
const WRAPPERS: [&str; 3] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// The checkpoint's tensors under torchvision's present names: without what training scripts,
/// `DataParallel`, `torch.compile` and the like put before or into them (`model.`, `ema.module.`), and in the present
/// key layout of RPN head, FPN and mask head (torchvision's own `_load_from_state_dict` accepts both too). Those of
/// TensorFlow's files under the names, and in the layouts, that this project has for them.
///
/// # Errors
/// [`CheckpointError::SeveralModels`] when there are several such prefixes; [`Checkpoint::within`] chooses.
pub fn torchvision_names(
    checkpoint: &Checkpoint,
) -> Result<Vec<(String, StoredTensor)>, CheckpointError> {
    if checkpoint.format.is_tensorflow() {
        return tensorflow::parameters(checkpoint);
    }
    let models = models(checkpoint);
    let unwrapped = match models.as_slice() {
        [prefix] if !prefix.is_empty() => Some(checkpoint.within(prefix)?),
        [] | [_] => None,
        _ => {
            return Err(CheckpointError::SeveralModels {
                path: checkpoint.path.clone(),
                candidates: models,
            });
        }
    };
    let tensors = unwrapped.as_ref().unwrap_or(checkpoint).iter();
    Ok(tensors
        .map(|(name, tensor)| (present_name(&bare_name(name)), tensor.clone()))
        .collect())
}

/// Tensors of a detector whose backbone is a module around a bundled architecture, as `nn.Sequential(vgg16().features)`
/// or a class with an attribute `features` around it, under the names that the architecture's own have. Others stay as
/// they are.
pub(crate) fn without_wrapper(tensors: Vec<(String, StoredTensor)>) -> Vec<(String, StoredTensor)> {
    let shapes = tensors
        .iter()
        .map(|(name, t)| (name.clone(), t.shape.clone()));
    let backbone = shapes.collect::<Shapes>().within("backbone");
    let mut modules = backbone.names().map(|name| name.split_once('.'));
    let Some(Some((module, _))) = modules.next() else {
        return tensors;
    };
    let is_only = modules.all(|other| other.is_some_and(|(other, _)| other == module));
    let inner = || BackboneConfig::recognize(&backbone.within(module));
    if !is_only || BackboneConfig::recognize(&backbone).is_some() || inner().is_none() {
        return tensors;
    }
    let wrapped = format!("backbone.{module}.");
    let unwrapped = tensors.into_iter().map(|(name, tensor)| {
        let name = match name.strip_prefix(&wrapped) {
            Some(rest) => format!("backbone.{rest}"),
            None => name,
        };
        (name, tensor)
    });
    unwrapped.collect()
}

/// The prefixes, without their last dots, behind which there are the names of a model: of a detector, or else of an
/// image classifier; of those with the most of its parts. What has no prefix comes before all others.
pub(crate) fn models(checkpoint: &Checkpoint) -> Vec<String> {
    let mut models = with_parts(checkpoint, DETECTOR, 1);
    if models.is_empty() {
        let classifiers = [BackboneConfig::classifier_modules(), &OTHER_CLASSIFIERS].concat();
        models = with_parts(checkpoint, &classifiers, 2);
    }
    match models.iter().position(|prefix| prefix.is_empty()) {
        Some(bare) => vec![models.swap_remove(bare)],
        None => models,
    }
}

fn with_parts(checkpoint: &Checkpoint, parts: &[&str], at_least: u32) -> Vec<String> {
    let mut found: IndexMap<&str, u32> = IndexMap::new();
    for name in checkpoint.names() {
        let (_, last) = name.rsplit_once('.').unwrap_or(("", name));
        if !TENSORS.contains(&last) {
            continue;
        }
        let mut at = 0;
        for component in name.split('.') {
            if let Some(part) = parts.iter().position(|part| *part == component) {
                let prefix = name[..at].trim_end_matches('.');
                *found.entry(prefix).or_default() |= 1 << part;
                break;
            }
            at += component.len() + 1;
        }
    }
    let count = |parts: &u32| parts.count_ones();
    let most = found.values().map(count).max().unwrap_or(0);
    let best = found.iter().filter(|(_, parts)| count(parts) == most);
    let best: Vec<String> = best.map(|(prefix, _)| prefix.to_string()).collect();
    // One part of several places is no model.
    match most >= at_least && (most > 1 || best.len() == 1) {
        true => best,
        false => vec![],
    }
}

/// A name without [`WRAPPERS`].
fn bare_name(name: &str) -> String {
    let parts: Vec<&str> = name
        .split('.')
        .filter(|part| !WRAPPERS.contains(part))
        .collect();
    parts.join(".")
}

/// `rpn.head.conv.weight` -> `rpn.head.conv.0.0.weight`,
/// `fpn.inner_blocks.1.bias` -> `fpn.inner_blocks.1.0.bias`,
/// `mask_head.mask_fcn1.weight` -> `mask_head.0.0.weight`.
fn present_name(name: &str) -> String {
    let Some((module, parameter @ ("weight" | "bias"))) = name.rsplit_once('.') else {
        return name.to_string();
    };
    if module == "rpn.head.conv" {
        return format!("{module}.0.0.{parameter}");
    }
    if let Some((head, number)) = module.split_once("mask_head.mask_fcn")
        && let Some(index) = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1))
    {
        return format!("{head}mask_head.{index}.0.{parameter}");
    }
    match module.rsplit_once('.') {
        Some((blocks, index))
            if (blocks.ends_with("fpn.inner_blocks") || blocks.ends_with("fpn.layer_blocks"))
                && index.parse::<usize>().is_ok() =>
        {
            format!("{module}.0.{parameter}")
        }
        _ => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::present_name;

    #[test]
    fn old_layouts_get_their_present_names() {
        for (old, present) in [
            ("rpn.head.conv.weight", "rpn.head.conv.0.0.weight"),
            ("rpn.head.conv.0.0.bias", "rpn.head.conv.0.0.bias"),
            ("rpn.head.conv.1.0.bias", "rpn.head.conv.1.0.bias"),
            (
                "backbone.fpn.inner_blocks.3.bias",
                "backbone.fpn.inner_blocks.3.0.bias",
            ),
            (
                "backbone.fpn.layer_blocks.0.0.weight",
                "backbone.fpn.layer_blocks.0.0.weight",
            ),
            (
                "backbone.fpn.layer_blocks.0.1.weight",
                "backbone.fpn.layer_blocks.0.1.weight",
            ),
            ("backbone.body.conv1.weight", "backbone.body.conv1.weight"),
            (
                "roi_heads.mask_head.mask_fcn1.weight",
                "roi_heads.mask_head.0.0.weight",
            ),
            (
                "roi_heads.mask_head.mask_fcn4.bias",
                "roi_heads.mask_head.3.0.bias",
            ),
            (
                "roi_heads.mask_predictor.mask_fcn_logits.bias",
                "roi_heads.mask_predictor.mask_fcn_logits.bias",
            ),
        ] {
            assert_eq!(present_name(old), present);
        }
    }
}
