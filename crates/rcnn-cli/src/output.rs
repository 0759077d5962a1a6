//! Writes detections for people and for programs.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use image::RgbImage;
use rcnn_burn::roi::Detections;
use rcnn_types::CocoResult;
use serde::Serialize;

use crate::draw::{self, Label};
use crate::files;

/// How detections are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One array, an object an image
    Json,
    /// An object a line, as soon as an image is done
    Jsonl,
    /// COCO's array of results, as pycocotools reads it
    Coco,
}

/// Names of classes; a number where there is no name.
pub(crate) struct ClassNames(pub(crate) Vec<String>);

impl ClassNames {
    fn get(&self, label: usize) -> String {
        match self.0.get(label) {
            Some(name) => name.clone(),
            None => label.to_string(),
        }
    }
}

#[derive(Serialize)]
struct ImageRecord<'a> {
    image: &'a str,
    width: u32,
    height: u32,
    detections: Vec<Detection>,
}

#[derive(Serialize)]
struct Detection {
    #[serde(rename = "box")]
    bounds: [f32; 4],
    label: usize,
    name: String,
    score: f32,
}

#[derive(Serialize)]
struct CocoRecord<'a> {
    #[serde(flatten)]
    result: CocoResult,
    file_name: &'a str,
}

/// Prints detections, image by image.
pub(crate) struct Printer {
    format: Format,
    names: ClassNames,
    items: usize,
    images: usize,
}

impl Printer {
    pub(crate) fn new(format: Format, names: ClassNames) -> Self {
        Self {
            format,
            names,
            items: 0,
            images: 0,
        }
    }

    /// Prints what was found in one image.
    pub(crate) fn image(
        &mut self,
        path: &Path,
        image: &RgbImage,
        found: &Detections,
    ) -> Result<()> {
        let mut out = io::stdout().lock();
        let name = path.to_string_lossy();
        let (width, height) = image.dimensions();
        self.images += 1;
        match self.format {
            Format::Table => self.table(&mut out, &name, (width, height), found)?,
            Format::Json | Format::Jsonl => {
                let detections = found.iter().map(|(bounds, label, score)| Detection {
                    bounds,
                    label,
                    name: self.names.get(label),
                    score,
                });
                let detections = detections.collect();
                let record = ImageRecord {
                    image: &name,
                    width,
                    height,
                    detections,
                };
                self.item(&mut out, &record)?;
            }
            Format::Coco => {
                let image_id = image_id(path, self.images);
                for (bounds, label, score) in found.iter() {
                    let result = CocoResult::new(image_id, bounds, label, score);
                    let file_name = &name;
                    self.item(&mut out, &CocoRecord { result, file_name })?;
                }
            }
        }
        Ok(out.flush()?)
    }

    fn item(&mut self, out: &mut impl Write, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value)?;
        match (self.format, self.items) {
            (Format::Jsonl, _) => writeln!(out, "{text}")?,
            (_, 0) => write!(out, "[{text}")?,
            _ => write!(out, ",\n {text}")?,
        }
        self.items += 1;
        Ok(())
    }

    fn table(
        &self,
        out: &mut impl Write,
        name: &str,
        (width, height): (u32, u32),
        found: &Detections,
    ) -> io::Result<()> {
        let count = match found.len() {
            0 => "nothing found".to_string(),
            1 => "1 object".to_string(),
            n => format!("{n} objects"),
        };
        writeln!(out, "{name}  {width}x{height}  {count}")?;
        if found.is_empty() {
            return Ok(());
        }
        let widest = found
            .labels
            .iter()
            .map(|&l| self.names.get(l).chars().count())
            .max();
        let widest = widest.unwrap_or(0).max(5);
        writeln!(
            out,
            "  {:widest$}  {:>6}  {:>8}  {:>8}  {:>8}  {:>8}",
            "class", "score", "x1", "y1", "x2", "y2"
        )?;
        for (b, label, score) in found.iter() {
            let class = self.names.get(label);
            write!(out, "  {class:widest$}  {score:>6.3}")?;
            b.iter().try_for_each(|v| write!(out, "  {v:>8.1}"))?;
            writeln!(out)?;
        }
        Ok(())
    }

    /// Ends the output.
    pub(crate) fn finish(self) -> Result<()> {
        let mut out = io::stdout().lock();
        match (self.format, self.items) {
            (Format::Table | Format::Jsonl, _) => {}
            (_, 0) => writeln!(out, "[]")?,
            _ => writeln!(out, "]")?,
        }
        Ok(out.flush()?)
    }

    /// The picture with its detections drawn in.
    pub(crate) fn draw(&self, image: &mut RgbImage, found: &Detections) {
        let texts: Vec<String> = found
            .iter()
            .map(|(_, label, score)| format!("{} {score:.2}", self.names.get(label)))
            .collect();
        let labels: Vec<Label> = found
            .iter()
            .zip(&texts)
            .map(|((bounds, class, _), text)| Label {
                bounds,
                text,
                class,
            })
            .collect();
        draw::draw(image, &labels);
    }
}

/// COCO's files are named after their image id; others are numbered in order.
fn image_id(path: &Path, position: usize) -> u64 {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy());
    stem.and_then(|stem| stem.parse().ok())
        .unwrap_or(position as u64)
}

/// A folder that pictures are written to; existing ones of the same name are replaced.
pub(crate) struct PictureFolder {
    folder: PathBuf,
    used: Vec<String>,
}

impl PictureFolder {
    /// Makes the folder, and makes sure that it can be written to before any work is done.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let unwritable = || format!("{}: can't write pictures here", folder.display());
        fs::create_dir_all(folder).with_context(unwritable)?;
        files::temporary(folder).with_context(unwritable)?;
        Ok(Self {
            folder: folder.into(),
            used: Vec::new(),
        })
    }

    /// Writes a picture under the name of the one it was made from: JPEG stays JPEG, the rest
    /// becomes PNG.
    pub(crate) fn write(&mut self, source: &Path, image: &RgbImage) -> Result<()> {
        let extension = source
            .extension()
            .map(|e| e.to_string_lossy().to_lowercase());
        let extension = match extension.as_deref() {
            Some("jpg" | "jpeg" | "jfif") => "jpg",
            _ => "png",
        };
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        let name = (1..)
            .map(|n| match n {
                1 => format!("{stem}.{extension}"),
                // Two folders may have pictures of the same name.
                n => format!("{stem}_{n}.{extension}"),
            })
            .find(|name| !self.used.contains(name))
            .expect("an unused number");
        let path = self.folder.join(&name);
        self.used.push(name);
        files::write_picture(&path, image)
    }
}
