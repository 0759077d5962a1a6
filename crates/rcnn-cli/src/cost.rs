//! Costs of two models side by side: parameters, multiply-accumulates, bytes and time.

use std::fmt::Write;

use clap::Args;
use rcnn_burn::Size;
use rcnn_burn::cost::{Cost, Costs};

use crate::files::mebibytes;

/// The image that costs are counted for.
#[derive(Args)]
pub(crate) struct CostArgs {
    /// Size of the image that multiply-accumulates are counted for; the model resizes it first
    #[arg(long, value_name = "HEIGHTxWIDTH", default_value = "800x1088", value_parser = parse_size)]
    pub(crate) size: Size,
}

/// Height and width, as `800x1088`.
pub(crate) fn parse_size(text: &str) -> Result<Size, &'static str> {
    let side = |side: &str| side.parse().ok().filter(|&side| side > 0);
    let sides = text.split_once('x').map(|(h, w)| (side(h), side(w)));
    match sides {
        Some((Some(height), Some(width))) => Ok(Size::new(height, width)),
        _ => Err("expected height and width in pixels, as 800x1088"),
    }
}

/// Costs of one model and its file.
pub(crate) struct ModelCosts {
    pub(crate) costs: Costs,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Time of a detection, if it was measured.
    pub(crate) seconds: Option<f64>,
}

/// A table of two models, before and after, for images of a size.
pub(crate) fn compared([before, after]: &[ModelCosts; 2], size: Size) -> String {
    let Size { height, width } = size;
    let mut table = format!(
        "{:<10}  {:>12} {:>12}  {:>12} {:>12}\n",
        "", "parameters", "after", "MACs (M)", "after"
    );
    let mut row = |name: &str, [before, after]: [Cost; 2]| {
        let [a, b] = [before, after].map(|cost| millions(cost.macs));
        let [m, n] = [before, after].map(|cost| cost.parameters);
        let _ = writeln!(table, "{name:<10}  {m:>12} {n:>12}  {a:>12} {b:>12}");
    };
    let parts = [before, after].map(|model| model.costs.parts());
    let cost = |parts: &[(&str, Cost)], name: &str| {
        let found = parts.iter().find(|(part, _)| *part == name);
        found.map(|(_, cost)| *cost)
    };
    let [first, second] = &parts;
    let added = second
        .iter()
        .filter(|(name, _)| cost(first, name).is_none());
    for (name, _) in first.iter().chain(added) {
        let of = |parts| cost(parts, name).unwrap_or_default();
        row(name, [of(first), of(second)]);
    }
    row("all", [before, after].map(|model| model.costs.total()));
    let [a, b] = [before, after].map(|model| mebibytes(model.bytes));
    let _ = writeln!(table, "{:<10}  {a:>12} {b:>12}", "file");
    let mut times = "";
    if let (Some(a), Some(b)) = (before.seconds, after.seconds) {
        let [a, b] = [a, b].map(|s| format!("{:.0} ms", s * 1e3));
        let _ = writeln!(table, "{:<10}  {a:>12} {b:>12}", "detection");
        times = "; times are the best of three";
    }
    let _ = writeln!(
        table,
        "Image of {height}x{width}, {}{}{times}.",
        seen(&before.costs),
        match before.costs.rois == after.costs.rois {
            true => String::new(),
            false => format!(" (after: {})", seen(&after.costs)),
        }
    );
    table
}

/// Size of the network's input and number of proposals: `800x1088 after resizing and padding, with 1000
/// proposals`.
pub(crate) fn seen(costs: &Costs) -> String {
    let Size { height, width } = costs.padded_size;
    format!(
        "{height}x{width} after resizing and padding, with {} proposals",
        costs.rois
    )
}

/// Millions, rounded.
pub(crate) fn millions(macs: u64) -> String {
    format!("{:.0}", macs as f64 / 1e6)
}
