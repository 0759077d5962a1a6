//! Writes detections for people and for programs.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use image::RgbImage;
use rcnn_image::draw::{Label, draw_labels, is_legible, legible};
use rcnn_types::{
    CocoResult, ImageRecord, Instance, Instances, Segmentation, Size, class_name, pad_to_columns,
    text_columns,
};
use serde::Serialize;

use crate::files;
use crate::overwrite::Guard;
use crate::video::Picture;

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
    /// Drawn frames, for ffmpeg -f yuv4mpegpipe; with --output -
    Y4m,
    /// Drawn frames as JPEGs one after the other, for ffmpeg -f mjpeg; with --output -
    Mjpeg,
}

/// How masks are printed in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MaskFormat {
    /// Corners x, y, x, y, ... of one or more polygons
    Polygon,
    /// COCO's compressed run lengths
    Rle,
    /// Not at all
    None,
}

impl From<MaskFormat> for rcnn_types::MaskFormat {
    fn from(format: MaskFormat) -> Self {
        match format {
            MaskFormat::Polygon => Self::Polygon,
            MaskFormat::Rle => Self::Rle,
            MaskFormat::None => Self::None,
        }
    }
}

/// How a report is printed.
#[cfg(any(feature = "data", feature = "models"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    Table,
    Json,
}

#[cfg(feature = "data")]
impl ReportFormat {
    /// Prints a report, whose JSON is given.
    pub(crate) fn print(self, report: &impl std::fmt::Display, json: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self {
            Self::Table => write!(out, "{report}"),
            Self::Json => writeln!(out, "{json}"),
        }
    }
}

#[derive(Serialize)]
struct CocoRecord<'a> {
    #[serde(flatten)]
    result: CocoResult,
    #[serde(skip_serializing_if = "Option::is_none")]
    segmentation: Option<Segmentation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    track_id: Option<u64>,
    file_name: &'a str,
}

/// Prints detections, image by image.
pub(crate) struct Printer {
    style: Style,
    items: usize,
}

/// Parts of detections that are printed and drawn.
pub(crate) struct Style {
    pub(crate) format: Format,
    pub(crate) masks: rcnn_types::MaskFormat,
    pub(crate) names: Vec<String>,
    /// Positions, from 0, of the keypoints that a line connects.
    pub(crate) skeleton: Vec<[usize; 2]>,
    /// Lowest score that is drawn.
    pub(crate) draw_thresh: f32,
}

impl Printer {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, items: 0 }
    }

    /// Prints what was found in one image, whose id COCO's format asks for.
    pub(crate) fn image(
        &mut self,
        picture: &Picture,
        image_id: u64,
        found: &Instances,
    ) -> Result<()> {
        let mut out = io::stdout().lock();
        let name = picture.name.as_str();
        match self.style.format {
            Format::Y4m | Format::Mjpeg => return Ok(()),
            Format::Table => self.table(&mut out, picture, found)?,
            Format::Json | Format::Jsonl => {
                let size = picture.pixels.size();
                let mut record =
                    ImageRecord::new(name, size, found, &self.style.names, self.style.masks);
                record.frame = picture.frame.map(|frame| frame.number);
                record.time = picture.frame.and_then(|frame| frame.time);
                self.item(&mut out, &record)?;
            }
            Format::Coco => {
                for object in found.iter() {
                    let mut segmentation = self.style.masks.segmentation(object.mask);
                    if let Some(Segmentation::Polygon(polygons)) = &mut segmentation
                        && polygons.is_empty()
                    {
                        // pycocotools cannot read an empty list; a point covers nothing.
                        let [x, y, ..] = object.bbox.map(f64::from);
                        polygons.push([x, y].repeat(3));
                    }
                    let record = CocoRecord {
                        result: CocoResult::new(
                            image_id,
                            &Instance {
                                mask: None,
                                ..object
                            },
                        ),
                        segmentation,
                        track_id: object.track_id,
                        file_name: name,
                    };
                    self.item(&mut out, &record)?;
                }
            }
        }
        Ok(out.flush()?)
    }

    fn item(&mut self, out: &mut impl Write, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value)?;
        match (self.style.format, self.items) {
            (Format::Jsonl, _) => writeln!(out, "{text}")?,
            (_, 0) => write!(out, "[{text}")?,
            _ => write!(out, ",\n {text}")?,
        }
        self.items += 1;
        Ok(())
    }

    fn table(&self, out: &mut impl Write, picture: &Picture, found: &Instances) -> io::Result<()> {
        let Size { height, width } = picture.pixels.size();
        let count = match found.len() {
            0 => "nothing found".to_string(),
            1 => "1 object".to_string(),
            n => format!("{n} objects"),
        };
        write!(out, "{}", picture.name)?;
        if let Some(frame) = picture.frame {
            write!(out, "  frame {}", frame.number)?;
            if let Some(time) = frame.time {
                write!(out, "  {time:.3} s")?;
            }
        }
        writeln!(out, "  {width}x{height}  {count}")?;
        if found.is_empty() {
            return Ok(());
        }
        let widest = found
            .labels
            .iter()
            .map(|&l| text_columns(&class_name(&self.style.names, l)))
            .max();
        let widest = widest.unwrap_or(0).max(5);
        if found.track_ids.is_some() {
            write!(out, "  {:>5}", "id")?;
        }
        writeln!(
            out,
            "  {:widest$}  {:>6}  {:>8}  {:>8}  {:>8}  {:>8}",
            "class", "score", "x1", "y1", "x2", "y2"
        )?;
        for object in found.iter() {
            let class = pad_to_columns(&class_name(&self.style.names, object.label), widest);
            let score = object.score;
            if let Some(id) = object.track_id {
                write!(out, "  {id:>5}")?;
            }
            write!(out, "  {class}  {score:>6.3}")?;
            object
                .bbox
                .iter()
                .try_for_each(|v| write!(out, "  {v:>8.1}"))?;
            writeln!(out)?;
        }
        Ok(())
    }

    /// Ends the output.
    pub(crate) fn finish(self) -> Result<()> {
        let mut out = io::stdout().lock();
        match (self.style.format, self.items) {
            (Format::Table | Format::Jsonl | Format::Y4m | Format::Mjpeg, _) => {}
            (_, 0) => writeln!(out, "[]")?,
            _ => writeln!(out, "]")?,
        }
        Ok(out.flush()?)
    }

    /// The picture with its detections drawn in: those of a score that is high enough, and those that are tracked, each
    /// track in a colour of its own.
    pub(crate) fn draw(&self, image: &mut RgbImage, found: &Instances) {
        let drawn = found
            .iter()
            .filter(|object| object.track_id.is_some() || object.score >= self.style.draw_thresh);
        let texts: Vec<String> = drawn
            .clone()
            .map(|object| {
                let name = class_name(&self.style.names, object.label);
                let text = format!("{} {:.2}", legible(&name, object.label), object.score);
                match object.track_id {
                    Some(id) => format!("#{id} {text}"),
                    None => text,
                }
            })
            .collect();
        let labels: Vec<Label> = drawn
            .zip(&texts)
            .map(|(object, text)| Label {
                bounds: object.bbox,
                text,
                colour: object.track_id.map_or(object.label, |id| id as usize),
                mask: object.mask,
                keypoints: object.keypoints,
                skeleton: &self.style.skeleton,
            })
            .collect();
        draw_labels(image, &labels);
    }
}

/// Says which class names will be numbers on pictures, as the font lacks their letters.
pub(crate) fn tell_illegible(names: &[String]) {
    let numbered = names
        .iter()
        .enumerate()
        .filter(|(_, name)| !is_legible(name));
    let numbered: Vec<String> = numbered
        .map(|(label, name)| format!("{label} {name}"))
        .collect();
    if !numbered.is_empty() {
        let numbered = numbered.join(", ");
        eprintln!(
            "the font lacks letters of these class names; pictures show their numbers: {numbered}"
        );
    }
}

/// Ids of images for COCO's format, no two the same. COCO's files are named after theirs; the others
/// get the lowest numbers that are left, in order.
pub(crate) fn image_ids(paths: &[PathBuf]) -> Vec<u64> {
    let mut used = HashSet::new();
    let named = paths.iter().map(|path| {
        let number = path.file_stem()?.to_str()?.parse().ok()?;
        used.insert(number).then_some(number)
    });
    let named: Vec<Option<u64>> = named.collect();
    let mut free = (1..).filter(|number| !used.contains(number));
    let id = |named: Option<u64>| {
        named
            .or_else(|| free.next())
            .expect("more numbers than images")
    };
    named.into_iter().map(id).collect()
}

/// A folder that pictures are written to, each under the name of the one it was made from.
pub(crate) struct PictureFolder {
    paths: Vec<PathBuf>,
}

impl PictureFolder {
    /// Makes the folder for pictures made from `sources`, and makes sure that it can be written to
    /// before any work is done.
    ///
    /// # Errors
    /// If it cannot be, or if there are files in the way that the guard protects.
    pub(crate) fn create<'a>(
        folder: &Path,
        sources: impl IntoIterator<Item = &'a Path>,
        guard: &Guard,
    ) -> Result<Self> {
        let names = file_names(sources);
        let paths: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
        paths
            .iter()
            .try_for_each(|path| guard.check(path, rcnn_image::is_ours))?;
        let unwritable = || format!("{}: can't write pictures here", folder.display());
        fs::create_dir_all(folder).with_context(unwritable)?;
        tempfile::tempfile_in(folder).with_context(unwritable)?;
        Ok(Self { paths })
    }

    /// Writes the picture made from the source of this index.
    pub(crate) fn write(&self, source: usize, image: &RgbImage) -> Result<()> {
        files::write_picture(&self.paths[source], image)
    }

    /// Writes one of the frames of a source, with its number behind the name.
    ///
    /// # Errors
    /// Also if there is a file in the way that the guard protects.
    pub(crate) fn write_frame(
        &self,
        source: usize,
        number: u64,
        image: &RgbImage,
        guard: &Guard,
    ) -> Result<()> {
        let path = &self.paths[source];
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let path = path.with_file_name(format!("{stem}_{number:06}.{extension}"));
        guard.check(&path, rcnn_image::is_ours)?;
        files::write_picture(&path, image)
    }
}

/// Names for pictures made from others, no two the same: JPEG stays JPEG, the rest becomes PNG.
fn file_names<'a>(sources: impl IntoIterator<Item = &'a Path>) -> Vec<String> {
    // Some file systems do not tell small letters from capitals.
    let mut used = HashSet::new();
    let mut last: HashMap<String, usize> = HashMap::new();
    let name = |source: &Path| {
        let extension = source.extension().map(|e| e.to_ascii_lowercase());
        let is_jpeg = |e: &OsString| e == "jpg" || e == "jpeg" || e == "jfif";
        let extension = match extension.is_some_and(|e| is_jpeg(&e)) {
            true => "jpg",
            false => "png",
        };
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        // Two folders may have pictures of the same name.
        let number = last.entry(format!("{stem}.{extension}")).or_default();
        loop {
            *number += 1;
            let name = match *number {
                1 => format!("{stem}.{extension}"),
                n => format!("{stem}_{n}.{extension}"),
            };
            if used.insert(name.to_lowercase()) {
                return name;
            }
        }
    };
    sources.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    /// A file without a number for a name takes its position, which must not be the number of another.
    #[test]
    fn ids_of_images_do_not_collide() {
        let ids = |names: &[&str]| image_ids(&paths(names));
        assert_eq!(ids(&["a.jpg", "1.jpg"]), [2, 1]);
        assert_eq!(ids(&["a.jpg", "b.jpg", "c.jpg"]), [1, 2, 3]);
        assert_eq!(ids(&["000000000139.jpg", "cat.jpg"]), [139, 1]);
        assert_eq!(ids(&["x/1.jpg", "y/1.jpg", "y/01.png"]), [1, 2, 3]);
        let huge = "99999999999999999999.jpg";
        assert_eq!(ids(&["2.jpg", huge, "-3.jpg", "b.jpg"]), [2, 1, 3, 4]);
    }

    #[test]
    fn names_of_pictures_do_not_collide() {
        let paths = paths(&[
            "x/a.JPEG", "y/a.jpg", "a_2.jfif", "a.webp", "y/A.png", "x/a.jpg",
        ]);
        let names = file_names(paths.iter().map(PathBuf::as_path));
        let expected = [
            "a.jpg",
            "a_2.jpg",
            "a_2_2.jpg",
            "a.png",
            "A_2.png",
            "a_3.jpg",
        ];
        assert_eq!(names, expected);
    }
}
