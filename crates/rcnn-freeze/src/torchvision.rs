//! torchvision's rule for ResNets (`torchvision.models.detection.backbone_utils`): the last stages of
//! the body are trained, counted by `trainable_backbone_layers`.

use crate::{Change, FreezeError, Rule};

/// Where the rule is at work.
const BODY: &str = "backbone.body.";

/// Stages, last first (`resnet_fpn_backbone`).
const STAGES: [&str; 5] = ["layer4", "layer3", "layer2", "layer1", "conv1"];

/// torchvision's default with trained weights.
const DEFAULT: usize = 3;

/// Checks a number of trainable layers.
pub(crate) fn check(found: &str) -> Result<usize, FreezeError> {
    let count = found.parse().ok().filter(|n| *n <= STAGES.len());
    count.ok_or_else(|| FreezeError::TrainableLayers {
        found: found.to_string(),
    })
}

/// Whether a body's parameter is frozen with so many trainable layers; nothing for other parameters.
pub(crate) fn is_frozen(name: &str, trainable_layers: usize) -> Option<bool> {
    let name = name.strip_prefix(BODY)?;
    let mut trained = STAGES[..trainable_layers].iter();
    // A norm of its own kind freezes itself; one that can be trained thaws with the whole body
    // (torchvision #3394).
    let norm = trainable_layers == STAGES.len() && name.starts_with("bn1");
    Some(!norm && !trained.any(|stage| name.starts_with(stage)))
}

/// The rules with torchvision's default before them, and whether a `trainable_backbone_layers` among
/// them has no effect (`_validate_trainable_layers`): it stands for 3 in a detector whose weights or
/// backbone are `trained`, and is ignored in one that starts from nothing.
pub fn with_torchvision_default(mut rules: Vec<Rule>, trained: bool) -> (Vec<Rule>, bool) {
    let counts = |rule: &Rule| matches!(rule.change, Change::TrainableBackboneLayers(_));
    if !trained {
        let given = rules.len();
        rules.retain(|rule| !counts(rule));
        let ignored = rules.len() < given;
        return (rules, ignored);
    }
    if !rules
        .iter()
        .any(|rule| counts(rule) && rule.from_epoch == 1)
    {
        let default = Rule::from(Change::TrainableBackboneLayers(DEFAULT));
        rules.insert(0, default);
    }
    (rules, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn texts(rules: &[Rule]) -> Vec<String> {
        rules.iter().map(Rule::to_string).collect()
    }

    #[test]
    fn the_default_is_for_trained_weights() {
        let given = ["thaw conv1", "trainable_backbone_layers=5 from epoch 4"];
        let (rules, ignored) = with_torchvision_default(parse(&given).expect("rules"), true);
        assert_eq!(
            texts(&rules),
            ["trainable_backbone_layers=3", given[0], given[1]]
        );
        assert!(!ignored);
        let (rules, ignored) = with_torchvision_default(rules, false);
        assert_eq!(texts(&rules), ["thaw conv1"]);
        assert!(ignored, "as torchvision warns");
        let own = parse(&["trainable_backbone_layers=0"]).expect("a rule");
        assert_eq!(with_torchvision_default(own.clone(), true), (own, false));
        assert_eq!(with_torchvision_default(vec![], false), (vec![], false));
    }
}
