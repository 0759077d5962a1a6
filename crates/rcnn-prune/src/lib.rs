//! Structured channel pruning: a detector with fewer channels, which needs less time and memory on any machine.
//!
//! Which channels go together is found in the recorded forward pass ([`ChannelGroups`]), for any architecture:
//! through residual sums, norms, depthwise and grouped convolutions, squeeze and excitation, concatenations, the
//! pyramid, and from the pooled features to the heads. How much each matters is estimated by a first-order Taylor
//! expansion of the loss on labelled pictures, or by the norms of the weights ([`Importance`]). What matters least
//! for what it costs is removed until a budget is met ([`Order`]). The result is a detector like any other, with
//! other numbers of channels in its configuration; it must be trained again.
//!
//! ```
//! # mod rcnn_burn { pub use rcnn_core::*; pub use rcnn_prune as prune; }
//! # let folder = tempfile::tempdir()?;
//! # std::env::set_current_dir(&folder)?;
//! # std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../rcnn-core/assets/blood-cells.bpk"), "cells.bpk")?;
//! use rcnn_burn::prune::{Budget, ChannelGroups, Importance, Limits};
//! use rcnn_burn::weights::{Precision, Weights};
//!
//! let weights = Weights::open("cells.bpk")?;
//! let groups = ChannelGroups::new(&weights.config, (480, 640).into())?;
//! let importance = Importance::by_norm(&groups, &weights)?;
//! let order = groups.order(&importance, Budget::Macs, &Limits::default())?;
//! let (pruned, report) = groups.prune(&weights, &order.meet(0.5)?)?;
//! print!("{report}");
//! pruned.write_burnpack("half.bpk", Precision::F32)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod chart;
mod coupling;
mod error;
mod groups;
mod importance;
mod limits;
mod order;
mod report;
#[cfg(test)]
mod tests;
mod unify;

pub use chart::draw_chart;
pub use error::PruneError;
pub use groups::{ChannelGroups, Group};
pub use importance::{Importance, Sample};
pub use limits::{Keep, Limits};
pub use order::{Budget, Kept, Order};
pub use report::{LayerChange, PruneReport};
