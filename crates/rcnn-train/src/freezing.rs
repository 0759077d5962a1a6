//! Freezing of a run, epoch by epoch, and the learning rates of its parts.

use std::collections::{HashMap, HashSet};
use std::fmt;

use burn::module::{Module, ParamId};
use burn::tensor::backend::Backend;
use rcnn_core::FasterRcnn;
use rcnn_core::backbone::Backbone;
use rcnn_core::backbone::named_parameters;
use rcnn_core::freeze::{FreezeError, FreezePlan, FreezeState, Rule};

use crate::LearningRateFactor;

/// Rules and factors of a run, found to fit its model.
#[derive(Debug)]
pub(crate) struct Freezing {
    pub(crate) plan: FreezePlan,
    /// Factors of the parameters that have one, by name.
    factors: HashMap<String, f64>,
}

impl Freezing {
    pub(crate) fn new<B: Backend, N: Backbone<B>>(
        model: &FasterRcnn<B, N>,
        rules: &[Rule],
        factors: &[LearningRateFactor],
    ) -> Result<Self, FreezeError> {
        let start = FreezeState::from_model(model);
        let mut by_name = HashMap::new();
        for LearningRateFactor { pattern, factor } in factors {
            let names = start.matching(pattern)?.into_iter();
            by_name.extend(names.map(|name| (name.to_string(), *factor)));
        }
        Ok(Self {
            plan: FreezePlan::new(start, rules)?,
            factors: by_name,
        })
    }

    /// Whether a batch norm is trained in some epoch, and so counts statistics.
    pub(crate) fn trains_norms<B: Backend, M: Module<B>>(&self, model: &M) -> bool {
        let parameters = named_parameters(model);
        let weight = |name: &str| Some(format!("{}weight", name.strip_suffix("running_mean")?));
        let norms: HashSet<String> = parameters.iter().filter_map(|p| weight(&p.name)).collect();
        let is_trained = |name: &str| {
            let stages = self.plan.stages().iter();
            stages
                .into_iter()
                .any(|(_, state)| !state.frozen().names.contains(&name))
        };
        let mut weights = parameters
            .iter()
            .filter(|p| !p.is_buffer && norms.contains(&p.name));
        weights.any(|p| is_trained(&p.name))
    }

    /// Parameters of each factor, in a fixed order; those that have none are not among them.
    pub(crate) fn groups<B: Backend, M: Module<B>>(
        &self,
        model: &M,
    ) -> Vec<(f64, HashSet<ParamId>)> {
        let mut groups: Vec<(f64, HashSet<ParamId>)> = Vec::new();
        if self.factors.is_empty() {
            return groups;
        }
        for parameter in named_parameters(model) {
            let Some(&factor) = self.factors.get(&parameter.name) else {
                continue;
            };
            match groups.iter_mut().find(|(known, _)| *known == factor) {
                Some((_, ids)) => _ = ids.insert(parameter.id),
                None => groups.push((factor, [parameter.id].into())),
            }
        }
        groups
    }
}

impl fmt::Display for Freezing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, later) = self.plan.stages().split_first().expect("a first stage");
        write!(f, "{}", first.1)?;
        for (epoch, state) in later {
            let count = state.frozen().names.len();
            write!(f, "; {count} from epoch {epoch} on")?;
        }
        Ok(())
    }
}
