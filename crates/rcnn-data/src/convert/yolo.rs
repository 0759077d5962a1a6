//! Writes YOLO: a text file an image, lists of the splits, and `data.yaml`.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Output;
use crate::dataset::Sample;
use crate::error::DataError;
use crate::yolo::{IMAGES, LABELS};

pub(super) fn write(output: &Output) -> Result<PathBuf, DataError> {
    output.create_folder(LABELS)?;
    for (sample, (stem, _)) in output.samples() {
        let path = format!("{LABELS}/{stem}.txt");
        output.write(path, |file| lines(file, sample))?;
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
        Ok(())
    })?;
    output.create_folder(IMAGES)
}

/// In quotes as JSON has them, which YAML reads the same.
fn quoted(text: &str) -> io::Result<String> {
    Ok(serde_json::to_string(text)?)
}

fn lines(file: &mut dyn Write, sample: &Sample) -> io::Result<()> {
    let share = |pixels: f64, side: usize| (pixels / side as f64 * 1e10).round() / 1e10;
    for object in sample.objects() {
        let [x1, y1, x2, y2] = object.bbox.map(f64::from);
        let (w, h) = (sample.size.width, sample.size.height);
        writeln!(
            file,
            "{} {} {} {} {}",
            object.label.saturating_sub(1),
            share((x1 + x2) / 2.0, w),
            share((y1 + y2) / 2.0, h),
            share(x2 - x1, w),
            share(y2 - y1, h)
        )?;
    }
    Ok(())
}
