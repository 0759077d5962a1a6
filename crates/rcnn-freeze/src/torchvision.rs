//! torchvision's rule (`torchvision.models.detection.backbone_utils`): the last stages of the backbone are
//! trained, counted by `trainable_backbone_layers`.

use rcnn_backbone::Stage;

use crate::{Change, FreezeError, Rule};

/// torchvision's default with trained weights.
const DEFAULT: usize = 3;

/// Checks that a backbone has that many stages.
pub(crate) fn validate(count: usize, stages: &[Stage]) -> Result<(), FreezeError> {
    match (stages.len(), count) {
        (0, _) => Err(FreezeError::NoStages),
        (known, count) if count > known => Err(FreezeError::TrainableLayers {
            found: count,
            stages: stages.iter().map(|stage| stage.name.clone()).collect(),
        }),
        _ => Ok(()),
    }
}

/// Whether a parameter is frozen with that many trainable stages; nothing outside the stages.
pub(crate) fn is_frozen(parameter: &str, count: usize, stages: &[Stage]) -> Option<bool> {
    let name = parameter.strip_prefix("backbone.")?;
    let stage = stages.iter().position(|stage| stage.owns(name))?;
    Some(stage + count < stages.len())
}

/// Puts torchvision's default before the rules (`_validate_trainable_layers`): three trainable stages in a
/// detector whose weights or backbone are `trained`. In one that starts from nothing,
/// `trainable_backbone_layers` has no effect; the second value says whether a rule was ignored for this.
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
