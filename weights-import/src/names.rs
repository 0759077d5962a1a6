//! From the names in a checkpoint to those that torchvision's modules have today.

use crate::{Checkpoint, StoredTensor};

/// What training scripts, `DataParallel` and `torch.compile` put before a state dict's names.
const WRAPPERS: [&str; 5] = [
    "model.",
    "state_dict.",
    "model_state_dict.",
    "module.",
    "_orig_mod.",
];

/// The checkpoint's tensors under torchvision's present names: unwrapped, and in the present key
/// layout of RPN head and FPN (torchvision's own `_load_from_state_dict` accepts both too).
pub fn torchvision_names(checkpoint: &Checkpoint) -> Vec<(String, StoredTensor)> {
    let mut tensors: Vec<(String, StoredTensor)> = checkpoint
        .iter()
        .map(|(name, tensor)| (name.to_string(), tensor.clone()))
        .collect();
    while let Some(prefix) = wrapper(&tensors) {
        // Other entries are the optimizer's or the training script's.
        tensors = tensors
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor)))
            .collect();
    }
    for (name, _) in &mut tensors {
        *name = present_name(name);
    }
    tensors
}

fn wrapper(tensors: &[(String, StoredTensor)]) -> Option<&'static str> {
    let any = |prefix: &str| tensors.iter().any(|(name, _)| name.starts_with(prefix));
    let bare = any("backbone.") || any("rpn.") || any("conv1.");
    WRAPPERS.into_iter().find(|prefix| !bare && any(prefix))
}

/// `rpn.head.conv.weight` -> `rpn.head.conv.0.0.weight`,
/// `fpn.inner_blocks.1.bias` -> `fpn.inner_blocks.1.0.bias`.
fn present_name(name: &str) -> String {
    let Some((module, parameter @ ("weight" | "bias"))) = name.rsplit_once('.') else {
        return name.to_string();
    };
    if module == "rpn.head.conv" {
        return format!("{module}.0.0.{parameter}");
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
        ] {
            assert_eq!(present_name(old), present);
        }
    }
}
