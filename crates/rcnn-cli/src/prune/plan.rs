//! What a pruning is to do, as the file that it is resumed by.

use std::path::Path;

use anyhow::{Context, Result, bail};
use rcnn_burn::Size;
use rcnn_prune::{Keep, Limits};
use rcnn_train::TrainConfig;
use serde::{Deserialize, Serialize};

use crate::files::read_text;

/// Its name in the folder.
pub(super) const FILE: &str = "prune.toml";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    pub(super) budget: BudgetKind,
    /// Share of the whole model that may be left.
    pub(super) share: f64,
    pub(super) steps: usize,
    /// Epochs after each step but the last.
    pub(super) epochs: usize,
    pub(super) final_epochs: usize,
    /// Pictures to estimate importance on.
    pub(super) count: usize,
    /// Image that costs are counted for.
    pub(super) size: Size,
    pub(super) round_to: usize,
    pub(super) min_channels: usize,
    pub(super) keep: f64,
    pub(super) keep_of: Vec<String>,
    /// Data, and the training of a step without its weights and epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) train: Option<TrainConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BudgetKind {
    Macs,
    Params,
    Time,
}

impl Plan {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        if !path.exists() {
            bail!(
                "{}: holds no pruning to resume ({FILE} is missing)",
                folder.display()
            );
        }
        let text = read_text(&path)?;
        toml::from_str(&text).with_context(|| format!("{}: damaged", path.display()))
    }

    pub(super) fn to_text(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    /// Epochs of training after a step, from 1.
    pub(super) fn epochs_after(&self, step: usize) -> usize {
        match step == self.steps {
            true => self.final_epochs,
            false => self.epochs,
        }
    }

    pub(super) fn trains(&self) -> bool {
        (1..=self.steps).any(|step| self.epochs_after(step) > 0)
    }

    /// Share of the whole model that may be left after a step.
    pub(super) fn share_after(&self, step: usize) -> f64 {
        self.share.powf(step as f64 / self.steps as f64)
    }

    pub(super) fn limits(&self) -> Result<Limits> {
        let keep_of = self.keep_of.iter().map(|text| text.parse::<Keep>());
        Ok(Limits {
            round_to: self.round_to,
            min_channels: self.min_channels,
            keep: self.keep,
            keep_of: keep_of
                .collect::<Result<_, _>>()
                .map_err(anyhow::Error::msg)?,
        })
    }
}
