//! What the readers of all formats yield, and how it becomes a data set: boxes are judged here.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rcnn_image::{ImageErrorKind, upright_size};

use crate::dataset::{BACKGROUND, Crowd, Dataset, ReadOptions, Reading, Sample, Source};
use crate::detect_format::Format;
use crate::error::DataError;
use crate::extras::Extras;
use crate::problems::{ProblemKind as Kind, Problems};

/// How far a box may reach beyond the image without being outside, in pixels: labels count from 0
/// or from 1, and relative ones are rounded.
const TOLERANCE: f64 = 1.0;

/// The content of label files, unjudged.
#[derive(Default)]
pub(crate) struct Raw {
    /// Without the background.
    pub(crate) class_names: Vec<String>,
    /// As many as names, or empty for 1, 2, ...
    pub(crate) category_ids: Vec<u64>,
    /// As many as names, or empty.
    pub(crate) category_extras: Vec<Extras>,
    pub(crate) extras: Extras,
    pub(crate) images: Vec<RawImage>,
    /// Indices of images.
    pub(crate) splits: BTreeMap<String, Vec<usize>>,
    pub(crate) problems: Problems,
}

pub(crate) struct RawImage {
    pub(crate) path: PathBuf,
    /// Where the image is named, for messages.
    pub(crate) named_by: PathBuf,
    /// Where it was looked for, if it was not found.
    pub(crate) looked_in: Option<String>,
    pub(crate) id: Option<u64>,
    /// The size by the label file.
    pub(crate) stated: Option<(u32, u32)>,
    pub(crate) labels: Option<PathBuf>,
    pub(crate) extras: Extras,
    pub(crate) objects: Vec<RawObject>,
}

pub(crate) struct RawObject {
    pub(crate) number: u64,
    /// An index of `class_names`, or what stands there instead.
    pub(crate) class: Result<usize, String>,
    /// The edges, or what is wrong with them.
    pub(crate) bounds: Result<RawBounds, String>,
    pub(crate) crowd: bool,
    pub(crate) area: Option<f32>,
    /// The corners of its mask in shares of the image, `x, y, x, y, ...`; empty if it has none.
    pub(crate) polygon: Vec<f64>,
    pub(crate) extras: Extras,
}

/// Left, top, right and bottom.
#[derive(Clone, Copy)]
pub(crate) enum RawBounds {
    Pixels([f64; 4]),
    /// In shares of the image.
    Relative([f64; 4]),
}

impl Raw {
    /// Reads the sizes of the images and sorts out what is invalid.
    pub(crate) fn finish(
        self,
        root: &Path,
        format: Format,
        options: &ReadOptions,
    ) -> Result<Reading, DataError> {
        let classes = Classes::new(root, &self, options)?;
        let judged: Vec<(Option<Sample>, Problems)> = self
            .images
            .par_iter()
            .enumerate()
            .map(|(index, image)| {
                let mut problems = Problems::default();
                let sample = image.judge(index, &classes, options.clip, &mut problems);
                (sample, problems)
            })
            .collect();

        let mut problems = self.problems;
        let mut samples = Vec::new();
        let mut places = Vec::new();
        for (sample, found) in judged {
            problems.extend(found);
            places.push(sample.is_some().then_some(samples.len()));
            samples.extend(sample);
        }
        let place = |i: &usize| places.get(*i).copied().flatten();
        let splits = self.splits.into_iter();
        let splits = splits.map(|(name, all)| (name, all.iter().filter_map(place).collect()));
        let dataset = Dataset {
            root: root.into(),
            format,
            category_extras: classes.extras(self.category_extras),
            class_names: classes.names,
            category_ids: classes.ids,
            extras: self.extras,
            samples,
            splits: splits.collect(),
        };
        Ok(Reading { dataset, problems })
    }
}

/// The classes of the data set to be, and those of the data among them.
struct Classes {
    names: Vec<String>,
    ids: Vec<u64>,
    /// The names of the data.
    own: Vec<String>,
    /// The labels of the data's classes.
    labels: Vec<Option<usize>>,
}

impl Classes {
    fn new(root: &Path, raw: &Raw, options: &ReadOptions) -> Result<Self, DataError> {
        let own = raw.class_names.clone();
        let given = options.class_names.as_ref().map(|names| {
            let names = names.iter().filter(|name| *name != BACKGROUND);
            names.cloned().collect::<Vec<String>>()
        });
        let used = given.unwrap_or_else(|| own.clone());
        let mut by_name = HashMap::new();
        for (i, name) in used.iter().enumerate() {
            if by_name.insert(name.as_str(), i + 1).is_some() {
                let reason = format!("two classes are called `{name}`");
                return Err(DataError::malformed(root, reason));
            }
        }
        let labels: Vec<Option<usize>> = own
            .iter()
            .map(|name| by_name.get(name.as_str()).copied())
            .collect();
        let mut ids: Vec<u64> = (0..=used.len() as u64).collect();
        if options.class_names.is_none() && raw.category_ids.len() == own.len() {
            ids.splice(1.., raw.category_ids.iter().copied());
        }
        let background = BACKGROUND.to_string();
        let names = std::iter::once(background).chain(used).collect();
        Ok(Self {
            names,
            ids,
            own,
            labels,
        })
    }

    /// Those of the data's classes, by label.
    fn extras(&self, own: Vec<Extras>) -> Vec<Extras> {
        if own.is_empty() {
            return own;
        }
        let mut extras = vec![Extras::default(); self.names.len()];
        for (label, own) in self.labels.iter().zip(own) {
            if let Some(label) = label {
                extras[*label] = own;
            }
        }
        extras
    }

    fn label(&self, class: &Result<usize, String>) -> Result<usize, String> {
        let index = *class.as_ref().map_err(Clone::clone)?;
        let label = self.labels.get(index).copied().flatten();
        label.ok_or_else(|| match self.own.get(index) {
            Some(name) => format!("class `{name}` is not among the classes to use"),
            None => format!("class {index} has no name"),
        })
    }
}

impl RawImage {
    fn judge(
        &self,
        index: usize,
        classes: &Classes,
        clip: bool,
        problems: &mut Problems,
    ) -> Option<Sample> {
        let (width, height) = match upright_size(&self.path) {
            Ok(size) => size,
            Err(error) if is_missing(&error.kind) => {
                let mut message = format!("no such file; {} names it", self.named_by.display());
                if let Some(tried) = &self.looked_in {
                    message += &format!("; {tried}");
                }
                problems.push(Kind::MissingImage, &self.path, None, message);
                return None;
            }
            Err(error) => {
                let message = error.kind.to_string();
                problems.push(Kind::BrokenImage, &self.path, None, message);
                return None;
            }
        };
        let labels = self.labels.as_deref().unwrap_or(&self.path);
        if self.labels.is_none() {
            problems.push(Kind::UnlabelledImage, &self.path, None, "no label file");
        }
        if let Some((w, h)) = self.stated
            && (w, h) != (width, height)
        {
            let message = format!(
                "{} is {width}x{height}, not {w}x{h} as stated",
                self.path.display()
            );
            problems.push(Kind::SizeMismatch, labels, None, message);
        }
        let mut sample = Sample {
            image: self.path.clone(),
            image_id: self.id.unwrap_or(index as u64 + 1),
            width,
            height,
            boxes: Vec::with_capacity(self.objects.len()),
            labels: Vec::with_capacity(self.objects.len()),
            areas: Vec::with_capacity(self.objects.len()),
            object_extras: Vec::new(),
            extras: self.extras.clone(),
            crowds: Vec::new(),
            source: Source {
                file: self.labels.clone(),
                objects: Vec::with_capacity(self.objects.len()),
            },
        };
        let mut seen = HashMap::new();
        for object in &self.objects {
            let number = Some(object.number);
            let mut tell = |(kind, message)| problems.push(kind, labels, number, message);
            let judged = judge_bounds(&object.bounds, (width, height), clip);
            let label = classes.label(&object.class);
            let (bounds, was_cut) = match judged {
                // A crowd is not trained on, so it need not be in order.
                Err(_) if object.crowd => continue,
                Err(problem) => {
                    tell(problem);
                    continue;
                }
                Ok(bounds) => bounds,
            };
            let label = match label {
                Ok(label) => label,
                Err(_) if object.crowd => continue,
                Err(message) => {
                    tell((Kind::UnknownLabel, message));
                    continue;
                }
            };
            let area = object.area.filter(|area| area.is_finite());
            let area = area.unwrap_or_else(|| crate::geometry::area(&bounds));
            let extras = object.extras((width, height));
            if object.crowd {
                sample.crowds.push(Crowd {
                    bounds,
                    label,
                    area,
                    extras,
                });
                continue;
            }
            if was_cut {
                let message = format!("cut to {}", text(bounds.map(f64::from)));
                tell((Kind::Clipped, message));
            }
            let key = (label, bounds.map(f32::to_bits));
            if let Some(first) = seen.get(&key) {
                tell((Kind::DuplicateBox, format!("the same as box {first}")));
            } else {
                seen.insert(key, object.number);
            }
            sample.boxes.push(bounds);
            sample.labels.push(label);
            sample.areas.push(area);
            sample.object_extras.push(extras);
            sample.source.objects.push(object.number);
        }
        if sample.object_extras.iter().all(Extras::is_empty) {
            sample.object_extras = Vec::new();
        }
        Some(sample)
    }
}

impl RawObject {
    /// The extras, a polygon among them as a mask in pixels.
    fn extras(&self, (width, height): (u32, u32)) -> Extras {
        let mut extras = self.extras.clone();
        if !self.polygon.is_empty() {
            let sides = [width, height].into_iter().cycle();
            let corners = self.polygon.iter().zip(sides);
            // Without the noise of binary fractions.
            let pixels = |(share, side): (&f64, u32)| (share * f64::from(side) * 1e6).round() / 1e6;
            let corners: Vec<String> = corners.map(|c| pixels(c).to_string()).collect();
            extras.push("segmentation", format!("[[{}]]", corners.join(", ")));
        }
        extras
    }
}

fn is_missing(kind: &ImageErrorKind) -> bool {
    matches!(kind, ImageErrorKind::Io(error) if error.kind() == io::ErrorKind::NotFound)
}

/// A box within the image, and whether it had to be cut for that.
fn judge_bounds(
    bounds: &Result<RawBounds, String>,
    (width, height): (u32, u32),
    clip: bool,
) -> Result<([f32; 4], bool), (Kind, String)> {
    let (w, h) = (f64::from(width), f64::from(height));
    let b = match bounds {
        Ok(RawBounds::Pixels(b)) => *b,
        Ok(RawBounds::Relative([x1, y1, x2, y2])) => [x1 * w, y1 * h, x2 * w, y2 * h],
        Err(reason) => return Err((Kind::BadBox, reason.clone())),
    };
    if !b.iter().all(|v| v.is_finite()) {
        return Err((Kind::BadBox, format!("{} is not finite", text(b))));
    }
    if b[0] >= b[2] || b[1] >= b[3] {
        return Err((Kind::NoArea, text(b)));
    }
    let beyond = [-b[0], -b[1], b[2] - w, b[3] - h];
    let outside = beyond.iter().any(|&by| by > TOLERANCE);
    let cut = [
        b[0].clamp(0.0, w) as f32,
        b[1].clamp(0.0, h) as f32,
        b[2].clamp(0.0, w) as f32,
        b[3].clamp(0.0, h) as f32,
    ];
    let empty = cut[0] >= cut[2] || cut[1] >= cut[3];
    if outside && (!clip || empty) {
        return Err((
            Kind::OutsideImage,
            format!("{} of {width}x{height}", text(b)),
        ));
    }
    if empty {
        return Err((Kind::NoArea, format!("{} of {width}x{height}", text(b))));
    }
    Ok((cut, outside))
}

fn text(b: [f64; 4]) -> String {
    // Two decimals at most, without trailing zeros.
    let [x1, y1, x2, y2] = b.map(|v| (v * 100.0).round() / 100.0);
    format!("[{x1}, {y1}, {x2}, {y2}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(b: [f64; 4], clip: bool) -> Result<([f32; 4], bool), Kind> {
        judge_bounds(&Ok(RawBounds::Pixels(b)), (100, 50), clip).map_err(|(kind, _)| kind)
    }

    #[test]
    fn boxes_are_judged() {
        assert_eq!(
            judge([1.5, 2.0, 3.0, 4.0], false),
            Ok(([1.5, 2.0, 3.0, 4.0], false))
        );
        assert_eq!(
            judge([-1.0, 0.0, 101.0, 50.4], false),
            Ok(([0.0, 0.0, 100.0, 50.0], false))
        );
        assert_eq!(judge([5.0, 5.0, 5.0, 9.0], false), Err(Kind::NoArea));
        assert_eq!(judge([9.0, 5.0, 5.0, 9.0], true), Err(Kind::NoArea));
        assert_eq!(
            judge([90.0, 0.0, 120.0, 9.0], false),
            Err(Kind::OutsideImage)
        );
        assert_eq!(
            judge([90.0, 0.0, 120.0, 9.0], true),
            Ok(([90.0, 0.0, 100.0, 9.0], true))
        );
        assert_eq!(
            judge([110.0, 0.0, 120.0, 9.0], true),
            Err(Kind::OutsideImage)
        );
        assert_eq!(judge([-0.9, 0.0, -0.1, 9.0], false), Err(Kind::NoArea));
        assert_eq!(judge([f64::NAN, 0.0, 1.0, 1.0], false), Err(Kind::BadBox));
    }
}
