//! Writes YOLO: a text file an image, lists of the splits, and `data.yaml`. Lines are poses where there are
//! keypoints, else polygons where there are masks, else boxes.

use std::io::{self, Write};
use std::path::PathBuf;

use rcnn_types::decimal;

use super::Output;
use crate::dataset::{Dataset, Sample};
use crate::error::DataError;
use crate::shapes;
use crate::yolo::{IMAGES, LABELS};

/// The content of a line.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Lines {
    Boxes,
    Polygons,
    /// That many keypoints after the box.
    Poses(usize),
}

impl Lines {
    /// What says the most of a data set's objects.
    pub(super) fn of(dataset: &Dataset) -> Self {
        let mut lines = Self::Boxes;
        for sample in &dataset.samples {
            for index in
                (0..sample.instances.len()).filter(|&index| !sample.instances.is_crowd(index))
            {
                let points = keypoints(sample, index).len();
                lines = match lines {
                    Self::Poses(most) => Self::Poses(most.max(points)),
                    _ if points > 0 => Self::Poses(points),
                    Self::Boxes if !polygons(sample, index).is_empty() => Self::Polygons,
                    lines => lines,
                };
            }
        }
        lines
    }

    /// Members of an object's extras that lines say.
    pub(super) fn kept(self) -> &'static [&'static str] {
        match self {
            Self::Boxes => &[],
            Self::Polygons => &["segmentation"],
            Self::Poses(_) => &["keypoints"],
        }
    }
}

/// The text that an object was read from, if any.
fn text<'a>(sample: &'a Sample, index: usize, name: &str) -> Option<&'a str> {
    sample.object_extras.get(index)?.get(name)
}

fn polygons(sample: &Sample, index: usize) -> Vec<Vec<f64>> {
    let mask = sample.instances.get(index).mask;
    let read = text(sample, index, "segmentation").and_then(|json| shapes::polygons(json).ok());
    let mut polygons = read
        .or_else(|| mask.map(|mask| mask.to_polygons()))
        .unwrap_or_default();
    polygons.retain(|polygon| polygon.len() >= 6 && polygon.len() % 2 == 0);
    polygons
}

fn keypoints(sample: &Sample, index: usize) -> Vec<[f32; 3]> {
    let points = sample.instances.get(index).keypoints.cloned();
    let read = text(sample, index, "keypoints").and_then(|json| shapes::keypoints(json).ok());
    read.or(points).unwrap_or_default().0
}

pub(super) fn write(output: &Output) -> Result<PathBuf, DataError> {
    let kind = Lines::of(output.dataset);
    output.create_folder(LABELS)?;
    for (sample, (stem, _)) in output.samples() {
        let path = format!("{LABELS}/{stem}.txt");
        output.write(path, |file| lines(file, sample, kind))?;
    }
    for (split, indices) in &output.splits {
        let pictures = indices.iter().map(|&index| &output.names[index].1);
        let pictures = pictures.map(|name| format!("./{IMAGES}/{name}"));
        output.write_lines(format!("{split}.txt"), pictures)?;
    }
    output.write("data.yaml", |file| {
        if output.splits.is_empty() {
            writeln!(file, "train: {IMAGES}")?;
        }
        for split in output.splits.keys() {
            let (key, list) = (quoted(split)?, quoted(&format!("{split}.txt"))?);
            writeln!(file, "{key}: {list}")?;
        }
        writeln!(file, "names:")?;
        for (number, name) in output.classes().iter().enumerate() {
            writeln!(file, "  {number}: {}", quoted(name)?)?;
        }
        if let Lines::Poses(points) = kind {
            writeln!(file, "kpt_shape: [{points}, 3]")?;
            describe_keypoints(file, output.dataset, points)?;
        }
        Ok(())
    })?;
    output.create_folder(IMAGES)
}

/// In quotes as JSON has them, which YAML reads the same.
fn quoted(text: &str) -> io::Result<String> {
    Ok(serde_json::to_string(text)?)
}

/// Names of the keypoints, and which is which in a mirror, where the classes agree on the latter.
fn describe_keypoints(file: &mut dyn Write, dataset: &Dataset, points: usize) -> io::Result<()> {
    let read = dataset.category_extras.iter().map(shapes::skeleton);
    let skeletons: Vec<_> = match dataset.skeletons.is_empty() {
        true => read.collect(),
        false => dataset.skeletons.clone(),
    };
    let known = skeletons.iter().zip(0..).skip(1);
    let known: Vec<_> = known
        .filter(|(skeleton, _)| skeleton.names.len() == points)
        .collect();
    let Some((first, _)) = known.first() else {
        return Ok(());
    };
    let mirrored = first.mirrored();
    if known
        .iter()
        .all(|(skeleton, _)| skeleton.mirrored() == mirrored)
    {
        writeln!(file, "flip_idx: {mirrored:?}")?;
    }
    writeln!(file, "kpt_names:")?;
    for (skeleton, label) in known {
        writeln!(
            file,
            "  {}: {}",
            label - 1,
            serde_json::json!(skeleton.names)
        )?;
    }
    Ok(())
}

fn lines(file: &mut dyn Write, sample: &Sample, kind: Lines) -> io::Result<()> {
    let share = |pixels: f64, side: usize| (pixels / side as f64 * 1e10).round() / 1e10;
    let (w, h) = (sample.size.width, sample.size.height);
    for index in sample.instances.objects() {
        let object = sample.instances.get(index);
        let [x1, y1, x2, y2] = object.bbox.map(f64::from);
        write!(file, "{}", object.label.saturating_sub(1))?;
        if kind == Lines::Polygons {
            let corners = one_polygon(polygons(sample, index));
            // A line of a box would be taken for two corners.
            let corners = corners.unwrap_or_else(|| vec![x1, y1, x2, y1, x2, y2, x1, y2]);
            for corner in corners.as_chunks::<2>().0 {
                write!(file, " {} {}", share(corner[0], w), share(corner[1], h))?;
            }
            writeln!(file)?;
            continue;
        }
        write!(
            file,
            " {} {} {} {}",
            share((x1 + x2) / 2.0, w),
            share((y1 + y2) / 2.0, h),
            share(x2 - x1, w),
            share(y2 - y1, h)
        )?;
        if let Lines::Poses(points) = kind {
            let mut keypoints = keypoints(sample, index);
            keypoints.resize(points, [0.0; 3]);
            for [x, y, visibility] in keypoints {
                let (x, y) = (share(decimal(x), w), share(decimal(y), h));
                write!(file, " {x} {y} {visibility}")?;
            }
        }
        writeln!(file)?;
    }
    Ok(())
}

/// One polygon that covers what several do: an edge leads from the first to each other, and back.
fn one_polygon(polygons: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let mut polygons = polygons.into_iter();
    let mut all = polygons.next()?;
    let start = [all[0], all[1]];
    for (place, polygon) in polygons.enumerate() {
        if place == 0 {
            all.extend(start);
        }
        let first = [polygon[0], polygon[1]];
        all.extend(polygon);
        all.extend(first);
        all.extend(start);
    }
    Some(all)
}
