//! Learning rates of parts: a factor for the parameters that a pattern matches.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use rcnn_core::freeze::Pattern;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Multiplies the learning rate of some parameters, as a parameter group of torch's optimizers with a
/// rate of its own. Written `PATTERN=FACTOR`: `backbone=0.1`.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_train as train; }
/// use rcnn_burn::train::LearningRateFactor;
///
/// let factor: LearningRateFactor = "backbone=0.1".parse()?;
/// assert_eq!(factor.factor, 0.1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LearningRateFactor {
    /// Pattern of the parameters.
    pub pattern: Pattern,
    /// The factor, positive.
    pub factor: f64,
}

impl FromStr for LearningRateFactor {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        let wrong = || {
            TrainError::Config(format!(
                "learning rate factor `{text}`: expected PATTERN=FACTOR with a positive factor"
            ))
        };
        let (pattern, factor) = text.rsplit_once('=').ok_or_else(wrong)?;
        let factor = factor.trim().parse().ok();
        let valid = factor.filter(|factor: &f64| *factor > 0.0 && factor.is_finite());
        Ok(Self {
            pattern: pattern.trim().parse()?,
            factor: valid.ok_or_else(wrong)?,
        })
    }
}

impl fmt::Display for LearningRateFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.factor)
    }
}

impl TryFrom<String> for LearningRateFactor {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self, TrainError> {
        text.parse()
    }
}

impl From<LearningRateFactor> for String {
    fn from(factor: LearningRateFactor) -> Self {
        factor.to_string()
    }
}

/// Takes the gradients of some parameters out of all.
pub(crate) fn take<B: AutodiffBackend, M: AutodiffModule<B>>(
    model: &M,
    gradients: &mut GradientsParams,
    ids: &HashSet<ParamId>,
) -> GradientsParams {
    let mut taken = GradientsParams::new();
    let (from, to) = (gradients, &mut taken);
    model.visit(&mut Take { from, to, ids });
    taken
}

struct Take<'a> {
    from: &'a mut GradientsParams,
    to: &'a mut GradientsParams,
    ids: &'a HashSet<ParamId>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Take<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        let id = parameter.id;
        if !self.ids.contains(&id) {
            return;
        }
        if let Some(gradient) = self.from.remove::<B::InnerBackend, D>(id) {
            self.to.register::<B::InnerBackend, D>(id, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_read_and_written() {
        let factor: LearningRateFactor = "backbone.*= 0.1".parse().expect("a factor");
        assert_eq!(factor.to_string(), "backbone.*=0.1");
        for text in ["backbone", "backbone=0", "backbone=-1", "backbone=x", "=2"] {
            let error = text.parse::<LearningRateFactor>().expect_err(text);
            assert!(error.to_string().contains("expected"), "{error}");
        }
    }
}
