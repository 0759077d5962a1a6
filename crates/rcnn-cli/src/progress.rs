//! A progress bar for long work, where somebody watches.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over several images, or passes or whatever else, on a terminal; else nothing.
pub(crate) fn progress_bar(count: usize, of: &str) -> ProgressBar {
    bar(count, of, count > 1)
}

/// A bar over images that are computed in parts: of a single one too, whose parts [`tell_part`] tells.
pub(crate) fn progress_bar_in_parts(count: usize, of: &str) -> ProgressBar {
    bar(count, of, true)
}

/// Shows how many parts of an image are done.
pub(crate) fn tell_part(bar: &ProgressBar, done: usize, all: usize) {
    bar.set_message(match done < all {
        true => format!(", {done}/{all} tiles of the next"),
        false => String::new(),
    });
}

fn bar(count: usize, of: &str, wanted: bool) -> ProgressBar {
    let target = match wanted && stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template(&format!(
        "{{bar:30}} {{pos}}/{{len}} {of}{{msg}}, {{eta}} left"
    ));
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(count as u64), target).with_style(style)
}
