//! Rules as text: what to freeze or thaw, and from which epoch on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{FreezeError, Pattern};

/// A line that freezes or thaws parameters:
///
/// - `freeze PATTERN`, or `PATTERN` alone;
/// - `thaw PATTERN`;
/// - `trainable_backbone_layers=N`, torchvision's rule: the last N stages of the backbone (of a ResNet the
///   stem, `layer1`, ... `layer4`) are trained and the others are frozen.
/// - `freeze_variables: "REGEX"`, as in the `pipeline.config` of TensorFlow's Object Detection API: `freeze tf:REGEX`.
///
/// Each may end with `from epoch N`. See [`Pattern`] for the patterns.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_freeze as freeze; }
/// use rcnn_burn::freeze::Rule;
///
/// let rule: Rule = "thaw layer4 from epoch 3".parse()?;
/// assert_eq!(rule.from_epoch, 3);
/// assert_eq!("freeze rpn".parse::<Rule>()?.to_string(), "freeze rpn");
/// # Ok::<(), rcnn_freeze::FreezeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    /// Change to the parameters.
    pub change: Change,
    /// First epoch that it holds in, from 1.
    pub from_epoch: usize,
}

/// Change that a [`Rule`] makes to the parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Leaves that many of the backbone's last stages trainable and freezes the others.
    TrainableBackboneLayers(usize),
    /// Freezes what matches.
    Freeze(Pattern),
    /// Makes trainable what matches.
    Thaw(Pattern),
}

const LAYERS: &str = "trainable_backbone_layers";
/// As a `pipeline.config` has it.
const VARIABLES: &str = "freeze_variables:";

/// Reads rules.
///
/// # Errors
/// Names the rule that cannot be read.
pub fn parse(rules: &[&str]) -> Result<Vec<Rule>, FreezeError> {
    rules.iter().map(|rule| rule.parse()).collect()
}

impl From<Change> for Rule {
    /// The change from the first epoch on.
    fn from(change: Change) -> Self {
        Self {
            change,
            from_epoch: 1,
        }
    }
}

impl FromStr for Rule {
    type Err = FreezeError;

    fn from_str(text: &str) -> Result<Self, FreezeError> {
        let wrong = || FreezeError::Rule {
            rule: text.to_string(),
        };
        let (change, from_epoch) = match text.trim().rsplit_once(" from epoch ") {
            Some((change, epoch)) => {
                let epoch = epoch.trim().parse().ok().filter(|epoch| *epoch > 0);
                (change.trim(), epoch.ok_or_else(wrong)?)
            }
            None => (text.trim(), 1),
        };
        let change = match change.split_once(char::is_whitespace) {
            None if matches!(change, "freeze" | "thaw") => return Err(wrong()),
            Some(("freeze", pattern)) => Change::Freeze(pattern.trim().parse()?),
            Some(("thaw", pattern)) => Change::Thaw(pattern.trim().parse()?),
            Some((VARIABLES, value)) => {
                let regex = variables(value).ok_or_else(wrong)?;
                Change::Freeze(format!("tf:{regex}").parse()?)
            }
            // An expression may hold spaces.
            Some(_) if !change.starts_with('/') && !change.starts_with(LAYERS) => {
                return Err(wrong());
            }
            _ => match change.strip_prefix(LAYERS) {
                Some(count) => {
                    let count = count.trim_start().strip_prefix('=').ok_or_else(wrong)?;
                    Change::TrainableBackboneLayers(count.trim().parse().map_err(|_| wrong())?)
                }
                None => Change::Freeze(change.parse()?),
            },
        };
        Ok(Self { change, from_epoch })
    }
}

/// The expression in the value of a field of a `pipeline.config`: a text, in quotes or not, or a list of texts of which any
/// may match.
fn variables(value: &str) -> Option<String> {
    let value = value.trim().trim_end_matches([',', ';']);
    let list = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
    let is_quoted = |text: &str| text.trim_start().starts_with(['"', '\'']);
    let mut rest = match list.filter(|list| is_quoted(list)) {
        Some(list) => list,
        None if is_quoted(value) => value,
        None => return Some(value.into()),
    };
    let mut texts = vec![];
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some(quote) = rest.chars().next() else {
            break;
        };
        let (text, after) = rest.strip_prefix(['"', '\''])?.split_once(quote)?;
        texts.push(text.replace(r"\\", r"\"));
        rest = after;
    }
    match &texts[..] {
        [one] => Some(one.clone()),
        several => Some(format!("(?:{})", several.join(")|(?:"))),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.change {
            Change::TrainableBackboneLayers(count) => write!(f, "{LAYERS}={count}")?,
            Change::Freeze(pattern) => write!(f, "freeze {pattern}")?,
            Change::Thaw(pattern) => write!(f, "thaw {pattern}")?,
        }
        match self.from_epoch {
            1 => Ok(()),
            epoch => write!(f, " from epoch {epoch}"),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = FreezeError;

    fn try_from(text: String) -> Result<Self, FreezeError> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written() {
        for (text, written) in [
            ("rpn", "freeze rpn"),
            ("freeze  rpn", "freeze rpn"),
            (
                "thaw roi_heads.box_head.fc7.*",
                "thaw roi_heads.box_head.fc7.*",
            ),
            ("first:10", "freeze first:10"),
            ("/a b/", "freeze /a b/"),
            (
                "trainable_backbone_layers = 3",
                "trainable_backbone_layers=3",
            ),
            ("thaw fc7 from epoch 5", "thaw fc7 from epoch 5"),
            ("rpn from epoch 1", "freeze rpn"),
            (
                "freeze_variables: \".*FirstStage.*\" from epoch 2",
                "freeze tf:.*FirstStage.* from epoch 2",
            ),
            (
                r#"freeze_variables: ["First.*", 'Mixed_5\\w'] from epoch 2"#,
                r"freeze tf:(?:First.*)|(?:Mixed_5\w) from epoch 2",
            ),
            ("freeze_variables: Conv/[bw]", "freeze tf:Conv/[bw]"),
            ("thaw tf:SecondStage", "thaw tf:SecondStage"),
        ] {
            let rule: Rule = text.parse().expect(text);
            assert_eq!(rule.to_string(), written);
            let json = serde_json::to_string(&rule).expect("a string");
            assert_eq!(serde_json::from_str::<Rule>(&json).expect(&json), rule);
        }
    }

    #[test]
    fn what_is_no_rule_says_what_is() {
        for (text, says) in [
            ("unfreeze rpn", "expected `trainable_backbone_layers=N`"),
            ("rpn from epoch 0", "epochs count from 1"),
            ("rpn from epoch x", "epochs count from 1"),
            (
                "trainable_backbone_layers 3",
                "`trainable_backbone_layers=N`",
            ),
            (
                "trainable_backbone_layers=-1",
                "`trainable_backbone_layers=N`",
            ),
            ("freeze ", "expected `trainable_backbone_layers=N`"),
            ("", "expected a name"),
            ("thaw /(/", "`/(/`"),
            (
                "freeze_variables: [\"a\", b]",
                "`freeze_variables: [\"a\", b]`",
            ),
            ("freeze_variables: \"a", "`freeze_variables: \"a`"),
        ] {
            let error = text.parse::<Rule>().expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
