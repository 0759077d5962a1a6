//! Validation of label files' content: boxes, classes, masks and keypoints.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use rayon::prelude::*;
use rcnn_image::{Header, ImageError, ImageErrorKind, open_rgb};
use rcnn_types::boxes::box_area;
use rcnn_types::{BBox, Instances, Keypoints, Mask, Size, Skeleton, UNUSED};

use crate::annotations::{AnnotatedImage, AnnotatedObject, Annotations, Bounds};
use crate::dataset::{BACKGROUND, Dataset, Fields, ReadOptions, Reading, Sample, Source};
use crate::detect_format::Format;
use crate::doubts;
use crate::error::DataError;
use crate::extras::Extras;
use crate::files::folded;
use crate::problems::{ProblemKind as Kind, Problems};
use crate::shapes;
use crate::turn::{self, Turn};

/// How far a box may reach beyond the image without being outside, in pixels: labels count from 0
/// or from 1, and relative ones are rounded.
const TOLERANCE: f64 = 1.0;

impl Annotations {
    /// Reads the sizes of the images and sorts out what is invalid.
    pub(crate) fn into_reading(
        self,
        root: &Path,
        format: Format,
        options: &ReadOptions,
    ) -> Result<Reading, DataError> {
        if let Some(file) = self.boxes_in_shares() {
            let reason =
                "all boxes lie between 0 and 1, as shares of the image do: expected pixels";
            return Err(DataError::malformed(file, reason));
        }
        let classes = Classes::new(root, &self, options)?;
        let images = self.images.par_iter();
        let headers: Vec<Result<Header, ImageError>> =
            images.map(|image| Header::read(&image.path)).collect();
        let read = self.images.iter().zip(&headers);
        let read = read.filter_map(|(image, header)| Some((header.as_ref().ok()?, image.stated)));
        let context = Context {
            classes: &classes,
            options,
            on_stored: turn::are_on_stored(read),
        };
        let images = self.images.par_iter().zip(headers);
        let validated: Vec<(Option<Sample>, Problems)> = images
            .enumerate()
            .map(|(index, (image, header))| {
                let mut problems = Problems::default();
                let sample = image.validate(index, header, &context, &mut problems);
                let sample = sample.filter(|_| !options.decode || image.decodes(&mut problems));
                (sample, problems)
            })
            .collect();

        let mut problems = self.problems;
        tell_similar(&self.class_names, root, &mut problems);
        let mut samples = Vec::new();
        let mut places = Vec::new();
        for (sample, found) in validated {
            problems.extend(found);
            places.push(sample.is_some().then_some(samples.len()));
            samples.extend(sample);
        }
        let place = |i: &usize| places.get(*i).copied().flatten();
        doubts::of_counts(&samples, &mut problems);
        let splits = self.splits.into_iter();
        let splits = splits.map(|(name, all)| (name, all.iter().filter_map(place).collect()));
        let category_extras = classes.extras(self.category_extras);
        let skeletons: Vec<Skeleton> = match options.fields.keypoints {
            true => category_extras.iter().map(shapes::skeleton).collect(),
            false => Vec::new(),
        };
        let dataset = Dataset {
            root: root.into(),
            format,
            skeletons,
            category_extras: kept(category_extras, options.fields),
            class_names: classes.names,
            category_ids: classes.ids,
            extras: self.extras,
            samples,
            renumbered: self.renumbered,
            splits: splits.collect(),
        };
        Ok(Reading {
            dataset,
            problems,
            own_classes: self.class_names,
        })
    }
}

/// Tells of classes that are one class spelt in several ways, by the looks of them.
fn tell_similar(names: &[String], root: &Path, problems: &mut Problems) {
    let mut alike: HashMap<String, &String> = HashMap::new();
    for name in names.iter().filter(|name| *name != UNUSED) {
        let mut key = folded(name);
        key.retain(|c| !c.is_whitespace() && !matches!(c, '_' | '-'));
        if let Some(first) = alike.insert(key, name) {
            let message = format!("`{first}` and `{name}`");
            problems.push(Kind::SimilarClasses, root, None, message);
        }
    }
}

/// The extras, if they are wanted for themselves.
fn kept(extras: Vec<Extras>, fields: Fields) -> Vec<Extras> {
    match fields.extras && !extras.iter().all(Extras::is_empty) {
        true => extras,
        false => Vec::new(),
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
    fn new(
        root: &Path,
        annotations: &Annotations,
        options: &ReadOptions,
    ) -> Result<Self, DataError> {
        let own = annotations.class_names.clone();
        let given = options.class_names.as_ref().map(|names| {
            let names = names.iter().filter(|name| *name != BACKGROUND);
            names.cloned().collect::<Vec<String>>()
        });
        let used = given.unwrap_or_else(|| own.clone());
        let mut by_name = HashMap::new();
        for (i, name) in used.iter().enumerate() {
            if name != UNUSED && by_name.insert(name.as_str(), i + 1).is_some() {
                let reason = format!("two classes are called `{name}`");
                return Err(DataError::malformed(root, reason));
            }
        }
        let labels: Vec<Option<usize>> = own
            .iter()
            .map(|name| by_name.get(name.as_str()).copied())
            .collect();
        let mut ids: Vec<u64> = (0..=used.len() as u64).collect();
        if let Some(highest) = annotations.category_ids.iter().max() {
            let own_ids = labels.iter().zip(&annotations.category_ids);
            let own_ids = own_ids.filter_map(|(label, id)| Some(((*label)?, *id)));
            let own_ids: HashMap<usize, u64> = own_ids.collect();
            let mut free = highest.saturating_add(1)..;
            for (label, id) in ids.iter_mut().enumerate().skip(1) {
                let own = own_ids.get(&label).copied();
                *id = own.or_else(|| free.next()).unwrap_or(*id);
            }
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

    /// Extras of the data's classes, by label.
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

/// Facts about the data set that validating an image needs.
struct Context<'a> {
    classes: &'a Classes,
    options: &'a ReadOptions,
    /// Whether labels were made on the pictures as they are stored.
    on_stored: bool,
}

impl AnnotatedImage {
    /// Whether the pixels can be read too.
    fn decodes(&self, problems: &mut Problems) -> bool {
        match open_rgb(&self.path) {
            Ok(_) => true,
            Err(error) => {
                let message = error.kind.to_string();
                problems.push(Kind::BrokenImage, &self.path, None, message);
                false
            }
        }
    }

    fn validate(
        &self,
        index: usize,
        header: Result<Header, ImageError>,
        context: &Context,
        problems: &mut Problems,
    ) -> Option<Sample> {
        let Context {
            classes, options, ..
        } = context;
        let header = match header {
            Ok(header) => header,
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
        let size = header.upright_size();
        let labels = self.labels.as_deref().unwrap_or(&self.path);
        if self.labels.is_none() {
            let message = match &self.expected_labels {
                Some(file) => format!("no label file {}", file.display()),
                None => "no label file".into(),
            };
            problems.push(Kind::UnlabelledImage, &self.path, None, message);
        }
        let turn = Turn::new(&header, self.stated, context.on_stored);
        if turn.is_some() {
            let message = format!("labelled as {} is stored", self.path.display());
            problems.push(Kind::TurnedLabels, labels, None, message);
        } else if turn::is_unclear(&header, self.stated) && !self.objects.is_empty() {
            let message = format!(
                "{} is stored with orientation {}; its labels are taken for those of the upright picture",
                self.path.display(),
                header.orientation.to_exif()
            );
            problems.push(Kind::UnclearOrientation, labels, None, message);
        } else if let Some(stated) = self.stated.filter(|stated| *stated != size) {
            let message = format!(
                "{} is {}x{}, not {}x{} as stated",
                self.path.display(),
                size.width,
                size.height,
                stated.width,
                stated.height
            );
            problems.push(Kind::SizeMismatch, labels, None, message);
        }
        let mut objects = Objects::default();
        let mut seen = HashMap::new();
        for object in &self.objects {
            let object = &match &turn {
                Some(turn) => Cow::Owned(turn.object(object)),
                None => Cow::Borrowed(object),
            };
            let number = Some(object.number);
            let mut tell = |(kind, message)| problems.push(kind, labels, number, message);
            let bounds = validate_bounds(&object.bounds, size, options.clip);
            let label = classes.label(&object.class);
            let ((bbox, was_cut), label) = match (bounds, label) {
                (Ok(bounds), Ok(label)) => (bounds, label),
                // A crowd is not trained on, so it need not be in order.
                _ if object.crowd => continue,
                (Err(problem), _) => {
                    tell(problem);
                    continue;
                }
                (_, Err(message)) => {
                    tell((Kind::UnknownLabel, message));
                    continue;
                }
            };
            if was_cut && !object.crowd {
                let message = format!("cut to {}", text(bbox.map(f64::from)));
                tell((Kind::Clipped, message));
            }
            let key = (label, bbox.map(f32::to_bits));
            if object.crowd {
                // It may well have the box of an object.
            } else if let Some(first) = seen.get(&key) {
                tell((Kind::DuplicateBox, format!("the same as box {first}")));
            } else {
                seen.insert(key, object.number);
            }
            objects.push(object, bbox, label, size, options.fields, tell);
        }
        let (instances, object_extras, numbers) = objects.finish(options.fields);
        Some(Sample {
            image: self.path.clone(),
            image_id: self.id.unwrap_or(index as u64 + 1),
            size,
            instances,
            object_extras,
            extras: self.extras.clone(),
            source: Source {
                file: self.labels.clone(),
                objects: numbers,
            },
        })
    }
}

/// The objects of an image that are valid.
#[derive(Default)]
struct Objects {
    boxes: Vec<BBox>,
    labels: Vec<usize>,
    areas: Vec<f32>,
    crowd: Vec<bool>,
    masks: Vec<Mask>,
    keypoints: Vec<Keypoints>,
    extras: Vec<Extras>,
    numbers: Vec<u64>,
}

impl Objects {
    fn push(
        &mut self,
        object: &AnnotatedObject,
        bbox: BBox,
        label: usize,
        size: Size,
        fields: Fields,
        mut tell: impl FnMut((Kind, String)),
    ) {
        let extras = object.extras_in_pixels(size);
        let mut area = object.area.filter(|area| area.is_finite());
        if fields.masks {
            let read = extras
                .get("segmentation")
                .map(|json| (json, shapes::mask(json, size)));
            let doubt = match &read {
                Some((json, Ok(mask))) => doubts::of_mask(json, mask, &bbox, size),
                Some((_, Err(message))) => Some((Kind::BadMask, message.clone())),
                None => None,
            };
            doubt
                .filter(|_| !object.crowd)
                .into_iter()
                .for_each(&mut tell);
            let mask = read.and_then(|(_, mask)| mask.ok());
            let mask = mask.unwrap_or_else(|| Mask::empty(size));
            // As COCO annotates it.
            area = area.or(Some(mask.area() as f32).filter(|area| *area > 0.0));
            self.masks.push(mask);
        }
        if fields.keypoints {
            let read = extras.get("keypoints").map(shapes::keypoints);
            let doubt = match &read {
                Some(Ok(keypoints)) => doubts::of_keypoints(keypoints, &bbox, size),
                Some(Err(message)) => Some((Kind::BadKeypoints, message.clone())),
                None => None,
            };
            doubt
                .filter(|_| !object.crowd)
                .into_iter()
                .for_each(&mut tell);
            let keypoints = read.and_then(Result::ok).unwrap_or_default();
            self.keypoints.push(keypoints);
        }
        self.areas.push(area.unwrap_or_else(|| box_area(&bbox)));
        self.boxes.push(bbox);
        self.labels.push(label);
        self.crowd.push(object.crowd);
        self.extras.push(extras);
        self.numbers.push(object.number);
    }

    /// The objects, their extras and their numbers; fields that none has are left out.
    fn finish(self, fields: Fields) -> (Instances, Vec<Extras>, Vec<u64>) {
        let masks = Some(self.masks).filter(|masks| masks.iter().any(|mask| mask.area() > 0));
        let keypoints = Some(self.keypoints).filter(|all| all.iter().any(|k| !k.0.is_empty()));
        let instances = Instances {
            areas: Some(self.areas),
            crowd: Some(self.crowd).filter(|crowd| crowd.contains(&true)),
            masks,
            keypoints,
            ..Instances::new(self.boxes, self.labels)
        };
        (instances, kept(self.extras, fields), self.numbers)
    }
}

fn is_missing(kind: &ImageErrorKind) -> bool {
    matches!(kind, ImageErrorKind::Io(error) if error.kind() == io::ErrorKind::NotFound)
}

/// A box within the image, and whether it had to be cut for that.
fn validate_bounds(
    bounds: &Result<Bounds, String>,
    size: Size,
    clip: bool,
) -> Result<(BBox, bool), (Kind, String)> {
    let Size { height, width } = size;
    let (w, h) = (width as f64, height as f64);
    let b = match bounds {
        Ok(Bounds::Pixels(b)) => *b,
        Ok(Bounds::Relative([x1, y1, x2, y2])) => [x1 * w, y1 * h, x2 * w, y2 * h],
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

    fn validate(b: [f64; 4], clip: bool) -> Result<(BBox, bool), Kind> {
        let bounds = Ok(Bounds::Pixels(b));
        validate_bounds(&bounds, Size::new(50, 100), clip).map_err(|(kind, _)| kind)
    }

    #[test]
    fn boxes_are_validated() {
        assert_eq!(
            validate([1.5, 2.0, 3.0, 4.0], false),
            Ok(([1.5, 2.0, 3.0, 4.0], false))
        );
        assert_eq!(
            validate([-1.0, 0.0, 101.0, 50.4], false),
            Ok(([0.0, 0.0, 100.0, 50.0], false))
        );
        assert_eq!(validate([5.0, 5.0, 5.0, 9.0], false), Err(Kind::NoArea));
        assert_eq!(validate([9.0, 5.0, 5.0, 9.0], true), Err(Kind::NoArea));
        assert_eq!(
            validate([90.0, 0.0, 120.0, 9.0], false),
            Err(Kind::OutsideImage)
        );
        assert_eq!(
            validate([90.0, 0.0, 120.0, 9.0], true),
            Ok(([90.0, 0.0, 100.0, 9.0], true))
        );
        assert_eq!(
            validate([110.0, 0.0, 120.0, 9.0], true),
            Err(Kind::OutsideImage)
        );
        assert_eq!(validate([-0.9, 0.0, -0.1, 9.0], false), Err(Kind::NoArea));
        assert_eq!(
            validate([f64::NAN, 0.0, 1.0, 1.0], false),
            Err(Kind::BadBox)
        );
    }
}
