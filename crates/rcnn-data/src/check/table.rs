//! The report of a check as tables.

use std::fmt;

use rcnn_types::{pad_to_columns, text_columns};

use super::{AnchorFit, Coverage, Report, Spread};
use crate::problems::ProblemKind;

/// How many sizes of images are listed.
const SIZES_SHOWN: usize = 5;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (images, background) = (count(self.images, "image"), self.background_images);
        let kinds = |kind| self.problem_counts.get(&kind).copied().unwrap_or(0);
        write!(f, "{images} ({background} without boxes")?;
        match kinds(ProblemKind::UnlabelledImage) {
            0 => {}
            unlabelled => write!(f, ", {unlabelled} of them without a label file")?,
        }
        write!(f, "), {}", count(self.boxes, "box"))?;
        if self.masks > 0 {
            write!(f, ", {} with masks", self.masks)?;
        }
        if self.keypoints > 0 {
            write!(f, ", {} with keypoints", self.keypoints)?;
        }
        let unusable = [
            ProblemKind::BrokenLabels,
            ProblemKind::MissingImage,
            ProblemKind::BrokenImage,
        ];
        match unusable.map(kinds).iter().sum() {
            0 => {}
            unusable => write!(f, ", {} can't be used", count(unusable, "more image"))?,
        }
        if self.crowds > 0 {
            write!(f, ", {} (ignored)", count(self.crowds, "crowd"))?;
        }
        writeln!(f)?;
        for (i, (name, images)) in self.splits.iter().enumerate() {
            let lead = if i == 0 { "splits: " } else { ", " };
            write!(f, "{lead}{name} {images}")?;
        }
        if !self.splits.is_empty() {
            writeln!(f)?;
        }
        let sizes: Vec<String> = self
            .image_sizes
            .iter()
            .take(SIZES_SHOWN)
            .map(|([w, h], count)| format!("{w}x{h} ({count})"))
            .collect();
        let more = self.image_sizes.len().saturating_sub(SIZES_SHOWN);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        writeln!(f, "image sizes: {}{more}", sizes.join(", "))?;

        let widest = self.classes.iter().map(|class| text_columns(&class.name));
        let widest = widest.max().unwrap_or(0).max(5);
        writeln!(
            f,
            "\n{:widest$}  {:>8}  {:>6}  {:>8}",
            "class", "boxes", "share", "images"
        )?;
        for class in &self.classes {
            let share = 100.0 * class.boxes as f64 / self.boxes.max(1) as f64;
            writeln!(
                f,
                "{}  {:>8}  {share:>5.1}%  {:>8}",
                pad_to_columns(&class.name, widest),
                class.boxes,
                class.images
            )?;
        }

        writeln!(
            f,
            "\n{:17}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}",
            "", "least", "10%", "median", "90%", "most"
        )?;
        spread(f, "boxes an image", &self.boxes_per_image)?;
        spread(f, "box width", &self.box_widths)?;
        spread(f, "box height", &self.box_heights)?;
        spread(f, "box height/width", &self.box_shapes)?;
        let [small, medium, large] = self.box_areas;
        writeln!(
            f,
            "boxes by area: {small} small (below 32x32), {medium} medium, {large} large (96x96 on)"
        )?;

        write!(f, "\n{}", self.anchors)?;
        match &self.suggestion {
            Some(better) => write!(f, "\nsuggested {better}")?,
            None if self.boxes > 0 => writeln!(f, "no other set of as many anchors fits better")?,
            None => {}
        }
        for shared in &self.shared_by_splits {
            let [a, b] = &shared.splits;
            writeln!(f, "\n{} images are both in {a} and in {b}", shared.images)?;
        }
        match self.problems.is_empty() {
            true => writeln!(f, "\nno problems"),
            false => writeln!(f, "\n{}", self.problems),
        }
    }
}

/// A number of things.
fn count(number: usize, what: &str) -> String {
    match (number, what) {
        (1, _) => format!("1 {what}"),
        (_, "box") => format!("{number} boxes"),
        _ => format!("{number} {what}s"),
    }
}

fn spread(f: &mut fmt::Formatter, name: &str, s: &Spread) -> fmt::Result {
    write!(f, "{name:17}")?;
    for value in [s.min, s.p10, s.median, s.p90, s.max] {
        let digits = if value.fract() == 0.0 { 0 } else { 2 };
        write!(f, "  {value:>8.digits$}")?;
    }
    writeln!(f)
}

impl fmt::Display for AnchorFit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let anchors = &self.anchors;
        writeln!(
            f,
            "anchors: sizes {:?}, height/width {:?}, images resized to {} (at most {})",
            anchors.sizes, anchors.aspect_ratios, anchors.min_size, anchors.max_size
        )?;
        let widest = self.classes.keys().map(|name| text_columns(name));
        let widest = widest.max().unwrap_or(0).max(5);
        writeln!(
            f,
            "{:widest$}  {:>8}  {:>10}  {:>10}  {:>9}",
            "class", "boxes", "IoU >= 0.5", "IoU >= 0.7", "mean best"
        )?;
        let all = ("all", &self.all);
        let classes = self.classes.iter().map(|(name, c)| (name.as_str(), c));
        for (name, coverage) in std::iter::once(all).chain(classes) {
            let Coverage {
                boxes,
                at_50,
                at_70,
                mean_iou,
            } = coverage;
            let name = pad_to_columns(name, widest);
            let (at_50, at_70) = (100.0 * at_50, 100.0 * at_70);
            writeln!(
                f,
                "{name}  {boxes:>8}  {at_50:>9.1}%  {at_70:>9.1}%  {mean_iou:>9.3}"
            )?;
        }
        Ok(())
    }
}
