//! Limits of how much of a network may go.

use std::fmt;
use std::str::FromStr;

use rcnn_core::freeze::{FreezeError, Pattern};
use rcnn_core::ops::module_of;
use rcnn_core::types::validate::{require_some, require_within};

use crate::{ChannelGroups, PruneError};

/// How many channels of each group stay at least.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Channels are left in multiples of this, where any are removed: 16 is what the CPU kernels like.
    pub round_to: usize,
    /// Channels of a group that stay at least, or all of fewer.
    pub min_channels: usize,
    /// Share of the channels of a group that stays at least, 0 to 1.
    pub keep: f64,
    /// Other shares for some layers; of those whose patterns match a layer of a group the last counts.
    pub keep_of: Vec<Keep>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            round_to: 16,
            min_channels: 8,
            keep: 0.2,
            keep_of: Vec::new(),
        }
    }
}

/// Share of the channels of some layers that stays at least. Written `PATTERN=SHARE`: `layer4=0.5`, `rpn=1`.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_prune as prune; }
/// use rcnn_burn::prune::{Keep, Limits};
///
/// let keep: Keep = "layer4=0.5".parse()?;
/// let limits = Limits { keep_of: vec![keep], round_to: 8, ..Limits::default() };
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone)]
pub struct Keep {
    /// Pattern of the layers' parameters, as in rules of freezing.
    pub pattern: Pattern,
    /// The share, 0 to 1.
    pub share: f64,
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}`: expected PATTERN=SHARE with a share from 0 to 1, as layer4=0.5");
        let (pattern, share) = text.rsplit_once('=').ok_or_else(wrong)?;
        let share = share.trim().parse().ok();
        let share = share.filter(|share| (0.0..=1.0).contains(share));
        let pattern = pattern.trim().parse();
        Ok(Self {
            pattern: pattern.map_err(|error: FreezeError| error.to_string())?,
            share: share.ok_or_else(wrong)?,
        })
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.share)
    }
}

impl Limits {
    /// Units of each group after each step that may be taken, from all down to the fewest.
    ///
    /// # Errors
    /// When a number is out of range or a pattern matches nothing.
    pub(crate) fn steps(&self, groups: &ChannelGroups) -> Result<Vec<Vec<usize>>, PruneError> {
        require_some("round_to", self.round_to)?;
        require_some("min_channels", self.min_channels)?;
        require_within("keep", self.keep, 0.0..=1.0)?;
        let mut shares = vec![self.keep; groups.groups().len()];
        for Keep { pattern, share } in &self.keep_of {
            let names = groups.names.matching(pattern)?;
            for (group, kept) in groups.groups().iter().zip(&mut shares) {
                let of_group =
                    |name: &&str| group.layers.iter().any(|layer| layer == module_of(name));
                if names.iter().any(of_group) {
                    *kept = *share;
                }
            }
        }
        let shares = groups.original.iter().zip(shares);
        let shares = shares.map(|(channels, share)| *channels as f64 * share);
        let groups = groups.groups().iter().zip(shares);
        Ok(groups
            .map(|(group, least)| {
                let per_unit = group.channels_per_unit.max(1);
                let least = (least - 1e-9).ceil().max(0.0) as usize;
                let least = least.max(self.min_channels).div_ceil(per_unit);
                // The fewest units whose channels are a multiple.
                let step = self.round_to / gcd(self.round_to, per_unit);
                let rounded = (1..=group.units / step).rev().map(|n| n * step);
                let rounded = rounded.filter(|&units| units < group.units && units >= least);
                std::iter::once(group.units).chain(rounded).collect()
            })
            .collect())
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
