//! The state of freezing in each epoch of a training.

use crate::{FreezeError, FreezeState, Rule};

/// States of freezing, each from some epoch on. The state of an epoch depends on its number alone: it is
/// the start with the rules applied that hold by then, in the order of their epochs and, in one epoch, in
/// the order given.
///
/// ```
/// # mod rcnn_burn { pub use burn; pub use rcnn_detector::*; pub use rcnn_freeze as freeze; pub use rcnn_ops::backend_types::*; }
/// use rcnn_burn::freeze::{FreezePlan, FreezeState, parse};
/// use rcnn_burn::{FasterRcnnConfig, Flex};
///
/// let config = FasterRcnnConfig::named("resnet18_fpn", 4)?;
/// # let config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
/// let model = config.init::<Flex>(&Default::default())?;
/// let rules = parse(&["roi_heads", "thaw box_predictor from epoch 2"])?;
/// let plan = FreezePlan::new(FreezeState::from_model(&model), &rules)?;
/// for (epoch, state) in plan.stages() {
///     println!("from epoch {epoch} on: {state}");
/// }
/// assert!(plan.at(7).frozen().names.iter().all(|name| name.starts_with("roi_heads.box_head")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FreezePlan {
    /// Ascending, the first from epoch 1.
    stages: Vec<(usize, FreezeState)>,
}

impl FreezePlan {
    /// Plans the states of a training, from that of a model at the start.
    ///
    /// # Errors
    /// When a rule of any epoch does not fit the model, or nothing is left to train.
    pub fn new(start: FreezeState, rules: &[Rule]) -> Result<Self, FreezeError> {
        let mut rules: Vec<&Rule> = rules.iter().collect();
        rules.sort_by_key(|rule| rule.from_epoch);
        let mut stages = vec![(1, start)];
        for rule in rules {
            let (epoch, mut state) = stages[stages.len() - 1].clone();
            state.change(&rule.change)?;
            if epoch == rule.from_epoch {
                stages.pop();
            }
            stages.push((rule.from_epoch, state));
        }
        match stages.iter().find(|(_, s)| s.trainable().names.is_empty()) {
            Some(&(epoch, _)) => Err(FreezeError::NothingTrainable { epoch }),
            None => Ok(Self { stages }),
        }
    }

    /// First epoch and state of each stage.
    pub fn stages(&self) -> &[(usize, FreezeState)] {
        &self.stages
    }

    /// Position among the stages of an epoch, counted from 1.
    pub fn stage(&self, epoch: usize) -> usize {
        let begun = self.stages.partition_point(|(first, _)| *first <= epoch);
        begun.saturating_sub(1)
    }

    /// State of freezing in an epoch, counted from 1.
    pub fn at(&self, epoch: usize) -> &FreezeState {
        &self.stages[self.stage(epoch)].1
    }
}
