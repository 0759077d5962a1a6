//! The content of one of COCO's files, entry by entry, so that a bad one leaves the others whole.

use rayon::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::value::{Id, Value, quote_not_finite};
use crate::extras::Extras;
use crate::shapes;

/// The entries that can be read, and the others.
#[derive(Default)]
pub(super) struct File {
    pub(super) images: Vec<Image>,
    pub(super) annotations: Vec<Annotation>,
    pub(super) categories: Vec<Category>,
    pub(super) extras: Extras,
    /// The number of an annotation, and what is wrong with it or another entry.
    pub(super) refused: Vec<(Option<u64>, String)>,
}

pub(super) struct Image {
    pub(super) id: Id,
    pub(super) file_name: Result<String, String>,
    pub(super) width: Option<f64>,
    pub(super) height: Option<f64>,
    pub(super) extras: Extras,
}

pub(super) struct Annotation {
    /// Its id, or its place from 1.
    pub(super) number: u64,
    pub(super) image_id: Id,
    pub(super) category_id: Result<Id, String>,
    /// Left, top, width and height.
    pub(super) bbox: Result<[f64; 4], String>,
    pub(super) area: Option<f64>,
    pub(super) is_crowd: bool,
    pub(super) extras: Extras,
}

pub(super) struct Category {
    pub(super) id: Id,
    pub(super) name: String,
    pub(super) supercategory: Option<String>,
    pub(super) extras: Extras,
}

/// The entries as text.
#[derive(Deserialize)]
struct Entries<'a> {
    #[serde(borrow)]
    images: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    annotations: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    categories: Vec<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ImageFields {
    id: Value,
    file_name: Value,
    /// LVIS has no other name.
    coco_url: Value,
    width: Value,
    height: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AnnotationFields {
    id: Value,
    image_id: Value,
    category_id: Value,
    bbox: Value,
    area: Value,
    iscrowd: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CategoryFields {
    id: Value,
    name: Value,
    supercategory: Value,
}

impl File {
    /// Reads a file, with or without the extras of its entries.
    pub(super) fn parse(json: &str, with_extras: bool) -> serde_json::Result<Self> {
        let error = match Self::parse_finite(json, with_extras) {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        match quote_not_finite(json) {
            std::borrow::Cow::Owned(json) => Self::parse_finite(&json, with_extras),
            std::borrow::Cow::Borrowed(_) => Err(error),
        }
    }

    fn parse_finite(json: &str, with_extras: bool) -> serde_json::Result<Self> {
        let entries: Entries = serde_json::from_str(json)?;
        let mut file = Self::default();
        if with_extras {
            let known = ["images", "annotations", "categories"];
            file.extras = Extras::without(serde_json::from_str(json)?, &known)?;
        }
        let images = parsed(&entries.images, |json| Image::parse(json, with_extras));
        for (image, place) in images.into_iter().zip(1..) {
            match image {
                Ok(image) => file.images.push(image),
                Err(reason) => file
                    .refused
                    .push((None, format!("image {place}: {reason}"))),
            }
        }
        let categories = parsed(&entries.categories, |json| {
            Category::parse(json, with_extras)
        });
        for (category, place) in categories.into_iter().zip(1..) {
            match category {
                Ok(category) => file.categories.push(category),
                Err(reason) => file
                    .refused
                    .push((None, format!("category {place}: {reason}"))),
            }
        }
        let annotations = entries.annotations.unwrap_or_default();
        let annotations = parsed(&annotations, |json| Annotation::parse(json, with_extras));
        for (annotation, place) in annotations.into_iter().zip(1..) {
            match annotation {
                Ok((number, annotation)) => file.annotations.push(Annotation {
                    number: number.unwrap_or(place),
                    ..annotation
                }),
                Err(reason) => file.refused.push((Some(place), reason)),
            }
        }
        Ok(file)
    }
}

/// Reads entries on all cores.
fn parsed<T: Send>(
    entries: &[&RawValue],
    parse: impl Fn(&RawValue) -> Result<T, String> + Sync,
) -> Vec<Result<T, String>> {
    entries.par_iter().map(|json| parse(json)).collect()
}

/// The fields of an entry.
fn fields<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Result<T, String> {
    // A list would be taken for the fields in their order.
    if !json.get().starts_with('{') {
        return Err("not an object".into());
    }
    serde_json::from_str(json.get()).map_err(|error| error.to_string())
}

fn extras(json: &RawValue, with_extras: bool, known: &[&str]) -> Result<Extras, String> {
    match with_extras {
        true => Extras::without(json, known).map_err(|error| error.to_string()),
        false => Ok(Extras::default()),
    }
}

impl Image {
    fn parse(json: &RawValue, with_extras: bool) -> Result<Self, String> {
        let fields: ImageFields = fields(json)?;
        let id = fields
            .id
            .id()
            .ok_or_else(|| format!("its id is {}", fields.id))?;
        let names = [&fields.file_name, &fields.coco_url].into_iter();
        let name = names.filter_map(Value::text).find(|name| !name.is_empty());
        let no_name = || format!("image {id}: its file_name is {}", fields.file_name);
        Ok(Self {
            file_name: name.ok_or_else(no_name),
            id,
            width: fields.width.number(),
            height: fields.height.number(),
            extras: extras(json, with_extras, &["id", "file_name", "width", "height"])?,
        })
    }
}

impl Annotation {
    /// Its id, if it is a number, and the rest.
    fn parse(json: &RawValue, with_extras: bool) -> Result<(Option<u64>, Self), String> {
        let fields: AnnotationFields = fields(json)?;
        let image_id = fields.image_id.id();
        let category_id = fields.category_id.id();
        let is_crowd = fields.iscrowd.flag();
        let known = ["id", "image_id", "category_id", "bbox", "area", "iscrowd"];
        let number = fields.id.id().and_then(|id| id.number());
        let annotation = Self {
            number: 0,
            image_id: image_id.ok_or_else(|| format!("its image_id is {}", fields.image_id))?,
            category_id: category_id
                .ok_or_else(|| format!("its category_id is {}", fields.category_id)),
            bbox: bbox(&fields.bbox, json),
            // One that is no area is the box's.
            area: fields.area.number().filter(|area| *area >= 0.0),
            is_crowd: is_crowd.ok_or_else(|| format!("its iscrowd is {}", fields.iscrowd))?,
            extras: extras(json, with_extras, &known)?,
        };
        Ok((number, annotation))
    }
}

impl Category {
    fn parse(json: &RawValue, with_extras: bool) -> Result<Self, String> {
        let fields: CategoryFields = fields(json)?;
        let id = fields
            .id
            .id()
            .ok_or_else(|| format!("its id is {}", fields.id))?;
        Ok(Self {
            name: fields
                .name
                .text()
                .filter(|name| !name.trim().is_empty())
                .unwrap_or_else(|| id.to_string()),
            supercategory: fields.supercategory.text(),
            id,
            extras: extras(json, with_extras, &["id", "name"])?,
        })
    }
}

/// The `bbox` of an annotation, or the box around its mask where it has none.
fn bbox(value: &Value, annotation: &RawValue) -> Result<[f64; 4], String> {
    let values = match value {
        Value::List(values) if !values.is_empty() => values,
        Value::Null | Value::List(_) => return around_mask(annotation).ok_or("no bbox".into()),
        _ => return Err("bbox is not a list of numbers".into()),
    };
    let numbers: Option<Vec<f64>> = values.iter().map(Value::number).collect();
    match numbers.as_deref() {
        Some(&[x, y, w, h]) => Ok([x, y, w, h]),
        Some(numbers) => Err(format!("bbox has {} numbers", numbers.len())),
        None => Err("bbox is not a list of numbers".into()),
    }
}

/// Left, top, width and height of what the polygons or run lengths of an annotation cover.
fn around_mask(annotation: &RawValue) -> Option<[f64; 4]> {
    #[derive(Deserialize)]
    struct Shape<'a> {
        #[serde(borrow)]
        segmentation: &'a RawValue,
    }
    let shape: Shape = fields(annotation).ok()?;
    let json = shape.segmentation.get();
    let Value::List(polygons) = serde_json::from_str(json).ok()? else {
        let mask = shapes::run_lengths(json).ok()?;
        let [x1, y1, x2, y2] = mask.bounds().map(f64::from);
        return (mask.area() > 0).then_some([x1, y1, x2 - x1, y2 - y1]);
    };
    let [mut low, mut high] = [[f64::INFINITY; 2], [f64::NEG_INFINITY; 2]];
    for polygon in &polygons {
        let Value::List(numbers) = polygon else {
            return None;
        };
        let numbers: Vec<f64> = numbers.iter().map(Value::number).collect::<Option<_>>()?;
        for (number, axis) in numbers.iter().zip([0, 1].into_iter().cycle()) {
            low[axis] = low[axis].min(*number);
            high[axis] = high[axis].max(*number);
        }
    }
    let is_there = low.iter().chain(&high).all(|edge| edge.is_finite());
    is_there.then(|| [low[0], low[1], high[0] - low[0], high[1] - low[1]])
}
