//! What a model costs: parameters, bytes, multiply-accumulates and time, side by side.

use std::fmt::Write;

use anyhow::Result;
use clap::Args;
use rcnn_burn::weights::Weights;
use rcnn_burn::{Macs, Part, Size};

/// The image that costs are told for.
#[derive(Args)]
pub(crate) struct CostArgs {
    /// Size of the image that multiply-accumulates are counted for; the model resizes it first
    #[arg(long, value_name = "HEIGHTxWIDTH", default_value = "800x1088", value_parser = parse_size)]
    pub(crate) size: Size,
}

/// Height and width, as `800x1088`.
fn parse_size(text: &str) -> Result<Size, &'static str> {
    let side = |side: &str| side.parse().ok().filter(|&side| side > 0);
    let sides = text.split_once('x').map(|(h, w)| (side(h), side(w)));
    match sides {
        Some((Some(height), Some(width))) => Ok(Size::new(height, width)),
        _ => Err("expected height and width in pixels, as 800x1088"),
    }
}

/// What one model costs.
pub(crate) struct Costs {
    parameters: Vec<(Part, usize)>,
    macs: Macs,
    bytes: u64,
    seconds: Option<f64>,
}

impl Costs {
    /// Of weights in a file of so many bytes, for an image of this size.
    pub(crate) fn of(
        weights: &Weights,
        bytes: u64,
        seconds: Option<f64>,
        size: Size,
    ) -> Result<Self> {
        let count = |part: Part| {
            let tensors = weights.tensors.iter();
            let own = tensors.filter(|(name, _)| Part::of(name) == Some(part));
            own.map(|(_, tensor)| tensor.shape.num_elements()).sum()
        };
        Ok(Self {
            parameters: Part::ALL.map(|part| (part, count(part))).into(),
            macs: weights.config.macs(size)?,
            bytes,
            seconds,
        })
    }

    fn parameters(&self) -> usize {
        self.parameters.iter().map(|(_, count)| count).sum()
    }
}

/// A table of two models: before and after.
pub(crate) fn compared([before, after]: &[Costs; 2], size: Size) -> String {
    let Size { height, width } = size;
    let mut table = format!(
        "{:<10}  {:>12} {:>12}  {:>12} {:>12}\n",
        "", "parameters", "after", "MACs (M)", "after"
    );
    let mut row = |name: &str, counts: [usize; 2], macs: [u64; 2]| {
        let [a, b] = macs.map(millions);
        let [m, n] = counts;
        let _ = writeln!(table, "{name:<10}  {m:>12} {n:>12}  {a:>12} {b:>12}");
    };
    for (&(part, m), &(_, n)) in before.parameters.iter().zip(&after.parameters) {
        if m + n > 0 {
            let macs = [before.macs.of(part), after.macs.of(part)];
            row(&part.to_string(), [m, n], macs);
        }
    }
    row(
        "all",
        [before.parameters(), after.parameters()],
        [before.macs.total(), after.macs.total()],
    );
    let [a, b] = [before, after].map(|c| format!("{:.1} MiB", c.bytes as f64 / 1_048_576.0));
    let _ = writeln!(table, "{:<10}  {a:>12} {b:>12}", "file");
    if let (Some(a), Some(b)) = (before.seconds, after.seconds) {
        let [a, b] = [a, b].map(|s| format!("{:.0} ms", s * 1e3));
        let _ = writeln!(table, "{:<10}  {a:>12} {b:>12}", "detection");
    }
    let _ = writeln!(
        table,
        "Image of {height}x{width}, {}{}; times are the best of three.",
        seen(&before.macs),
        match before.macs.rois == after.macs.rois {
            true => String::new(),
            false => format!(" (after: {})", seen(&after.macs)),
        }
    );
    table
}

/// `total, 800x1088 as the network sees it, 1000 proposals`.
pub(crate) fn seen(macs: &Macs) -> String {
    let Size { height, width } = macs.padded_size;
    format!(
        "{height}x{width} as the network sees it, with {} proposals",
        macs.rois
    )
}

/// Millions, rounded.
pub(crate) fn millions(macs: u64) -> String {
    format!("{:.0}", macs as f64 / 1e6)
}
