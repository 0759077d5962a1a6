//! Patterns over torchvision's names: globs, regular expressions, parts, and the first N.

use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use rcnn_backbone::Stage;
use rcnn_backbone::tensorflow;
use regex::Regex;

use crate::FreezeError;

/// Selects parameters by their names:
///
/// - a glob such as `roi_heads.box_head.*` or `*.bias`, where `*` matches dots too. It may match a
///   parameter or a module around it, so that `roi_heads.box_head` is all of the box head, and
///   `backbone.`, `roi_heads.` and what stands before the backbone's stages may be left out: the parts are
///   `backbone`, `body`, `fpn`, `rpn`, `box_head` and `box_predictor`. It may match a stage of the backbone or a
///   block of one by its name in surgery, too: `layer4` or `layer3.1` of a ResNet, `stage4` or `stage4.1` of a
///   MobileNet, `conv5` or `conv5_2` of a VGG;
/// - `/.../`, a regular expression that is searched for in the full name;
/// - `tf:...`, one that is searched for in the name that TensorFlow's Object Detection API has for the parameter, as
///   `freeze_variables` of a `pipeline.config`: `tf:SecondStageBoxPredictor`, `tf:Mixed_5[abc]`;
/// - `first:10`, the first ten parameters in the order of `named_parameters()`.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Clone)]
enum Matcher {
    Glob(GlobMatcher),
    Regex(Regex),
    Variable(Regex),
    First(usize),
}

/// Names offered when nothing matches.
const NEAREST: usize = 3;

impl Pattern {
    /// Whether the pattern matches each of the names, of which a glob may leave out some prefixes. The stages are those
    /// of the backbone.
    ///
    /// # Errors
    /// When it matches none.
    pub(crate) fn matches(
        &self,
        names: &[&str],
        implied: &[String],
        stages: &[Stage],
    ) -> Result<Vec<bool>, FreezeError> {
        let found: Vec<bool> = (0..)
            .zip(names)
            .map(|(place, name)| match &self.matcher {
                Matcher::Glob(glob) => {
                    let mut forms = forms(name, implied).chain(stage_and_block(name, stages));
                    forms.any(|form| glob.is_match(form))
                }
                Matcher::Regex(regex) => regex.is_match(name),
                Matcher::Variable(regex) => {
                    tensorflow::variable(name).is_some_and(|variable| regex.is_match(&variable))
                }
                Matcher::First(count) => place < *count,
            })
            .collect();
        match found.contains(&true) {
            true => Ok(found),
            false => Err(FreezeError::NoMatch {
                pattern: self.text.clone(),
                nearest: self.nearest(names, stages),
            }),
        }
    }

    /// Modules and parameters whose names, or ends of names, are most like the pattern.
    fn nearest(&self, names: &[&str], stages: &[Stage]) -> Vec<String> {
        let is_literal = |c: &char| c.is_alphanumeric() || matches!(c, '.' | '_');
        let wanted: String = self.text.chars().filter(is_literal).collect();
        let wanted = wanted.trim_matches('.');
        let mut candidates: Vec<&str> = names.iter().flat_map(|name| around(name)).collect();
        candidates.extend(stages.iter().map(|stage| stage.name.as_str()));
        candidates.sort_by_key(|name| name.len());
        candidates.dedup();
        let ends = |name: &str| -> f64 {
            let starts = name.match_indices('.').map(|(dot, _)| dot + 1);
            [0].into_iter()
                .chain(starts)
                .map(|start| strsim::normalized_damerau_levenshtein(wanted, &name[start..]))
                .fold(0.0, f64::max)
        };
        let mut scored: Vec<(f64, &str)> = candidates.iter().map(|c| (ends(c), *c)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut nearest: Vec<String> = Vec::new();
        for (_, name) in scored {
            if nearest.len() < NEAREST && !nearest.iter().any(|known| known == name) {
                nearest.push(name.to_string());
            }
        }
        nearest
    }
}

/// A parameter's name and those of the modules around it.
fn around(name: &str) -> impl Iterator<Item = &str> {
    let modules = name.match_indices('.').map(|(dot, _)| &name[..dot]);
    modules.chain([name])
}

/// What a glob may call a parameter or a module around it.
fn forms<'a>(name: &'a str, implied: &[String]) -> impl Iterator<Item = &'a str> {
    implied
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix.as_str()))
        .flat_map(around)
}

/// Names of the backbone's stage that a parameter belongs to, and of the block in it.
fn stage_and_block<'a>(name: &str, stages: &'a [Stage]) -> impl Iterator<Item = &'a str> {
    let inner = name.strip_prefix("backbone.").unwrap_or("");
    let stage = stages.iter().find(|stage| stage.owns(inner));
    stage.into_iter().flat_map(move |stage| {
        let block = stage.blocks.iter().find(|block| block.owns(inner));
        let block = block.map(|block| block.name.as_str());
        [stage.name.as_str()].into_iter().chain(block)
    })
}

impl FromStr for Pattern {
    type Err = FreezeError;

    fn from_str(text: &str) -> Result<Self, FreezeError> {
        let wrong = |reason: String| FreezeError::Pattern {
            pattern: text.to_string(),
            reason,
        };
        let regex = text.strip_prefix('/').and_then(|t| t.strip_suffix('/'));
        let matcher = if let Some(regex) = regex {
            Matcher::Regex(Regex::new(regex).map_err(|error| wrong(error.to_string()))?)
        } else if let Some(regex) = text.strip_prefix("tf:") {
            Matcher::Variable(Regex::new(regex).map_err(|error| wrong(error.to_string()))?)
        } else if let Some(count) = text.strip_prefix("first:") {
            let count = count.parse().ok().filter(|count| *count > 0);
            Matcher::First(count.ok_or_else(|| wrong("expected a number from 1".to_string()))?)
        } else if text.is_empty() {
            return Err(wrong("expected a name".to_string()));
        } else {
            let glob = GlobBuilder::new(text).build();
            let glob = glob.map_err(|error| wrong(error.kind().to_string()))?;
            Matcher::Glob(glob.compile_matcher())
        };
        Ok(Self {
            text: text.to_string(),
            matcher,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    /// The text alone: an expression's automaton is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[cfg(test)]
mod tests {
    use rcnn_backbone::{Block, BlockState};

    use super::*;

    const NAMES: [&str; 8] = [
        "backbone.body.conv1.weight",
        "backbone.body.layer4.0.conv1.weight",
        "backbone.fpn.inner_blocks.0.0.weight",
        "rpn.head.conv.0.0.weight",
        "roi_heads.box_head.fc6.weight",
        "roi_heads.box_head.fc6.bias",
        "roi_heads.box_head.fc7.weight",
        "roi_heads.box_predictor.cls_score.weight",
    ];

    fn implied() -> Vec<String> {
        ["", "backbone.", "backbone.body.", "roi_heads."]
            .map(String::from)
            .into()
    }

    /// As of an architecture whose modules have other names than its stages.
    fn stages() -> Vec<Stage> {
        let block = Block {
            name: "stem_1".into(),
            modules: vec!["body.conv1".into()],
            state: BlockState::ShapeChanging,
        };
        vec![Stage {
            modules: vec!["body.conv1".into()],
            blocks: vec![block],
            ..Stage::new("stem", 64, 2)
        }]
    }

    fn matched(pattern: &str) -> Vec<usize> {
        let found = pattern.parse::<Pattern>();
        let found = found.and_then(|pattern| pattern.matches(&NAMES, &implied(), &stages()));
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        (0..NAMES.len()).filter(|i| found[*i]).collect()
    }

    #[test]
    fn globs_parts_stages_expressions_and_counts() {
        for (pattern, expected) in [
            ("roi_heads.box_head.*", vec![4, 5, 6]),
            ("roi_heads.box_head", vec![4, 5, 6]),
            ("box_head", vec![4, 5, 6]),
            ("box_head.fc7", vec![6]),
            ("box_predictor", vec![7]),
            ("backbone", vec![0, 1, 2]),
            ("body", vec![0, 1]),
            ("fpn", vec![2]),
            ("rpn", vec![3]),
            ("conv1", vec![0]),
            ("layer4", vec![1]),
            ("stem", vec![0]),
            ("stem_1", vec![0]),
            ("{stem,rpn}", vec![0, 3]),
            ("layer[34]", vec![1]),
            ("{rpn,fpn}", vec![2, 3]),
            ("*.bias", vec![5]),
            ("*.conv1", vec![0, 1]),
            ("*", (0..8).collect()),
            (r"/fc\d/", vec![4, 5, 6]),
            (r"/^rpn/", vec![3]),
            ("first:2", vec![0, 1]),
            ("first:100", (0..8).collect()),
        ] {
            assert_eq!(matched(pattern), expected, "{pattern}");
        }
    }

    /// As `freeze_variables` of a `pipeline.config`, which TensorFlow 1 searches for in the names of variables.
    #[test]
    fn expressions_over_tensorflows_scopes() {
        let names = [
            "backbone.conv2d_1a_7x7.depthwise.weight",
            "backbone.mixed_4e.branch_3.conv2d_0b_1x1.1.weight",
            "rpn.head.conv.0.0.weight",
            "rpn.head.cls_logits.bias",
            "roi_heads.box_head.mixed_5c.branch_0.conv2d_0a_1x1.0.weight",
            "roi_heads.box_predictor.cls_score.weight",
            "roi_heads.mask_head.0.0.weight",
        ];
        for (pattern, expected) in [
            ("tf:FirstStageFeatureExtractor", vec![0, 1]),
            ("tf:.*SecondStage.*", vec![4, 5]),
            ("tf:SecondStageBoxPredictor", vec![5]),
            ("tf:Mixed_4e|Mixed_5c", vec![1, 4]),
            ("tf:^Conv/", vec![2]),
            ("tf:BatchNorm/gamma$", vec![1]),
            ("tf:biases", vec![3]),
            ("mixed_4e", vec![1]),
            ("box_head", vec![4]),
        ] {
            let pattern: Pattern = pattern.parse().expect(pattern);
            let found = pattern.matches(&names, &implied(), &[]).expect("matches");
            let found: Vec<usize> = (0..names.len()).filter(|i| found[*i]).collect();
            assert_eq!(found, expected, "{pattern}");
        }
    }

    #[test]
    fn nothing_matched_names_the_nearest() {
        for (pattern, first) in [
            ("box_haed", "roi_heads.box_head"),
            ("fc7", "roi_heads.box_head.fc7"),
            ("layer5", "backbone.body.layer4"),
            ("roi_head.box_head.*", "roi_heads.box_head"),
            ("/clas_score/", "roi_heads.box_predictor.cls_score"),
        ] {
            let error = pattern.parse::<Pattern>().expect("a pattern").matches(
                &NAMES,
                &implied(),
                &stages(),
            );
            let Err(FreezeError::NoMatch { nearest, .. }) = error else {
                panic!("{pattern}: {error:?}");
            };
            assert_eq!(nearest[0], first, "{pattern}: {nearest:?}");
            assert_eq!(nearest.len(), NEAREST);
        }
    }

    #[test]
    fn wrong_patterns_say_what_is_wrong() {
        for pattern in ["", "/(/", "first:0", "first:ten", "layer[1"] {
            let error = pattern.parse::<Pattern>().expect_err(pattern).to_string();
            assert!(error.starts_with(&format!("`{pattern}`: ")), "{error}");
        }
    }
}
