//! The order in which units are removed, and where it stops.

use rcnn_core::cost::Cost;

use crate::{ChannelGroups, Importance, Limits, PruneError};

/// Quantity that a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Multiply-accumulates of a detection.
    Macs,
    /// Numbers in parameters and buffers.
    Parameters,
}

impl Budget {
    fn of(self, cost: Cost) -> f64 {
        match self {
            Self::Macs => cost.macs as f64,
            Self::Parameters => cost.parameters as f64,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Macs => "multiply-accumulates",
            Self::Parameters => "parameters",
        }
    }
}

/// Steps of pruning one after another, until every group is at its limit.
#[derive(Debug, Clone)]
pub struct Order {
    budget: Budget,
    /// Units of each group, the least important first.
    ranking: Vec<Vec<usize>>,
    /// Units of each group that are kept, and the cost, after each step; first the whole network.
    steps: Vec<(Vec<usize>, Cost)>,
}

/// Units of each group that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// By group, ascending.
    pub(crate) units: Vec<Vec<usize>>,
    /// Cost of what is left.
    pub cost: Cost,
}

impl Kept {
    /// Number of units of each group.
    pub(crate) fn counts(&self) -> Vec<usize> {
        self.units.iter().map(Vec::len).collect()
    }
}

impl ChannelGroups {
    /// Orders the channels for removal: always those of the least importance for what they save or, where importance
    /// has no common scale, of the least importance in their group.
    ///
    /// # Errors
    /// When the limits make no sense.
    pub fn order(
        &self,
        importance: &Importance,
        budget: Budget,
        limits: &Limits,
    ) -> Result<Order, PruneError> {
        let mut open = limits.steps(self)?;
        // Taken from the end, the first step is the next one.
        for steps in &mut open {
            steps.reverse();
            steps.pop();
        }
        let ranking: Vec<Vec<usize>> = importance.units.iter().map(|units| ranked(units)).collect();
        let mut kept = self.whole();
        let mut steps = vec![(kept.clone(), self.cost(&kept))];
        loop {
            let mut best: Option<(f64, usize, usize)> = None;
            for (group, open) in open.iter().enumerate() {
                let Some(&after) = open.last() else { continue };
                let removed = self.groups()[group].units - kept[group];
                let next = &ranking[group][removed..removed + kept[group] - after];
                let sum: f64 = next.iter().map(|&unit| importance.units[group][unit]).sum();
                let score = match importance.is_global {
                    true => sum / budget.of(self.saved(group, &mut kept, after)).max(1.0),
                    // Means of groups, each of which has a mean of one.
                    false => sum / next.len() as f64,
                };
                if best.is_none_or(|(least, ..)| score < least) {
                    best = Some((score, group, after));
                }
            }
            let Some((_, group, after)) = best else {
                break;
            };
            open[group].pop();
            kept[group] = after;
            steps.push((kept.clone(), self.cost(&kept)));
        }
        Ok(Order {
            budget,
            ranking,
            steps,
        })
    }
}

/// Positions of values in ascending order.
fn ranked(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}

impl Order {
    /// Removes as few channels as possible so that at most this share, 0 to 1, of the whole network's cost
    /// remains.
    ///
    /// # Errors
    /// When that cannot be met within the limits, with the least share that can.
    pub fn meet(&self, share: f64) -> Result<Kept, PruneError> {
        let of = |(_, cost): &(Vec<usize>, Cost)| self.budget.of(*cost);
        let whole = of(&self.steps[0]);
        // Rounding of the share itself costs nothing.
        let limit = share * whole * (1.0 + 1e-9);
        let found = self.steps.iter().position(|step| of(step) <= limit);
        let step = found.ok_or_else(|| PruneError::Budget {
            what: self.budget.name(),
            asked: share,
            least: self.steps.last().map_or(1.0, of) / whole,
        })?;
        Ok(self.kept(step))
    }

    /// Removes as few channels as possible so that at most this share of the whole network's time remains. It
    /// tries them out: `measure` builds the network and returns the time of a detection, in any unit.
    ///
    /// # Errors
    /// When that cannot be met within the limits, or measuring fails.
    pub fn meet_time<E: From<PruneError>>(
        &self,
        share: f64,
        measure: &mut dyn FnMut(&Kept) -> Result<f64, E>,
    ) -> Result<Kept, E> {
        let last = self.steps.len() - 1;
        let whole = measure(&self.kept(0))?;
        let least = measure(&self.kept(last))?;
        if least > share * whole {
            return Err(E::from(PruneError::Budget {
                what: "time of a detection",
                asked: share,
                least: least / whole,
            }));
        }
        // The first step that is fast enough lies after `slow` and is not after `fast`.
        let (mut slow, mut fast) = (0, last);
        while fast - slow > 1 {
            let middle = slow.midpoint(fast);
            match measure(&self.kept(middle))? <= share * whole {
                true => fast = middle,
                false => slow = middle,
            }
        }
        Ok(self.kept(fast))
    }

    fn kept(&self, step: usize) -> Kept {
        let (counts, cost) = &self.steps[step];
        let units = self.ranking.iter().zip(counts).map(|(ranking, &count)| {
            let mut kept = ranking[ranking.len() - count..].to_vec();
            kept.sort_unstable();
            kept
        });
        Kept {
            units: units.collect(),
            cost: *cost,
        }
    }
}
