//! What became of each layer.

use std::fmt;

use rcnn_core::cost::Cost;
use serde::Serialize;

use crate::ChannelGroups;

/// Layers before and after. `Display` writes a table for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PruneReport {
    /// Every layer with a weight, in the order of the pass.
    pub layers: Vec<LayerChange>,
    /// Numbers in parameters and buffers, before and after.
    pub parameters: [usize; 2],
    /// Multiply-accumulates of a detection, before and after.
    pub macs: [u64; 2],
}

/// A layer before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerChange {
    /// Its path.
    pub layer: String,
    /// Output channels.
    pub channels: [usize; 2],
    /// Multiply-accumulates.
    pub macs: [u64; 2],
}

impl ChannelGroups {
    /// Channels of each layer in `original` and in this network, which was pruned from it.
    pub fn change_from(&self, original: &Self) -> PruneReport {
        let now = self.report(&self.whole());
        let then = original.report(&original.whole());
        let layers = now.layers.into_iter().map(|layer| {
            let mut before = then.layers.iter();
            let before = before.find(|before| before.layer == layer.layer);
            let before = before.cloned().unwrap_or_else(|| layer.clone());
            LayerChange {
                channels: [before.channels[0], layer.channels[1]],
                macs: [before.macs[0], layer.macs[1]],
                layer: layer.layer,
            }
        });
        PruneReport {
            layers: layers.collect(),
            parameters: [then.parameters[0], now.parameters[1]],
            macs: [then.macs[0], now.macs[1]],
        }
    }

    /// Channels of each layer with `kept` units of each group.
    pub(crate) fn report(&self, kept: &[usize]) -> PruneReport {
        let both = [&self.whole()[..], kept];
        let [before, after] = both.map(|kept| self.layer_macs(kept));
        let layers = self.layers.iter().zip(before.into_iter().zip(after));
        let layers = layers.map(|(layer, (before, after))| LayerChange {
            layer: layer.path.clone(),
            channels: both.map(|kept| self.outputs(layer, kept)),
            macs: [before, after],
        });
        let costs = both.map(|kept| self.cost(kept));
        PruneReport {
            layers: layers.collect(),
            parameters: costs.map(|cost: Cost| cost.parameters),
            macs: costs.map(|cost| cost.macs),
        }
    }
}

impl fmt::Display for PruneReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.layers.iter().map(|layer| layer.layer.len());
        let width = names.max().unwrap_or(0).max(5);
        let row = |f: &mut fmt::Formatter<'_>, name: &str, cells: [String; 5]| {
            let [a, b, c, d, e] = cells;
            writeln!(f, "{name:width$} {a:>10} {b:>10} {c:>10} {d:>10} {e:>6}")
        };
        let titles = ["channels", "after", "MACs (M)", "after", "left"];
        row(f, "layer", titles.map(String::from))?;
        let share = |[before, after]: [u64; 2]| {
            format!("{:.0} %", 100.0 * after as f64 / before.max(1) as f64)
        };
        let millions = |macs: [u64; 2]| macs.map(|macs| format!("{:.1}", macs as f64 / 1e6));
        for layer in &self.layers {
            let [a, b] = layer.channels.map(|channels| channels.to_string());
            let [c, d] = millions(layer.macs);
            row(f, &layer.layer, [a, b, c, d, share(layer.macs)])?;
        }
        let [c, d] = millions(self.macs);
        let empty = String::new();
        row(f, "all", [empty.clone(), empty, c, d, share(self.macs)])?;
        let [before, after] = self.parameters;
        let left = share(self.parameters.map(|count| count as u64));
        writeln!(f, "{before} parameters, {after} after ({left})")
    }
}
