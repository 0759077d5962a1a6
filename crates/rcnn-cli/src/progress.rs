//! A progress bar for long work, where somebody watches.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over several images, or passes or whatever else, on a terminal; else nothing.
pub(crate) fn progress_bar(count: usize, of: &str) -> ProgressBar {
    let target = match count > 1 && stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style =
        ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {of}, {{eta}} left"));
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(count as u64), target).with_style(style)
}
