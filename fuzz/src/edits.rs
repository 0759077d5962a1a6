//! Configurations made of valid ones: some of their values are others, or gone, or there twice.

use std::sync::LazyLock;

use rcnn_core::FasterRcnnConfig;
use rcnn_train::TrainConfig;
use serde_json::Value;

/// Detectors that configurations are made of, by name.
const DETECTORS: [&str; 4] = [
    "fasterrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
];

/// JSON values that replace others.
const VALUES: [&str; 32] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "7",
    "64",
    "91",
    "256",
    "100000",
    "4294967296",
    "18446744073709551615",
    "-1",
    "0.5",
    "-0.5",
    "1e-9",
    "1e300",
    "\"\"",
    "\"resnet18\"",
    "\"pool\"",
    "\"cosine\"",
    "[]",
    "[1]",
    "[0.5, 1, 2]",
    "[[32], [64]]",
    "[[0.5, 1, 2], [0.5, 1, 2]]",
    "{}",
    "[1, 2, 3]",
];

/// More edits of an input than these are left out.
const MAX_EDITS: usize = 16;

/// Configurations to edit, and replacement values.
static PARTS: LazyLock<(Vec<Value>, Value, Vec<Value>)> = LazyLock::new(|| {
    let detectors = DETECTORS.map(|name| {
        let config = FasterRcnnConfig::named(name, 3).expect("a known name");
        serde_json::to_value(config).expect("JSON")
    });
    let run = serde_json::to_value(TrainConfig::default()).expect("JSON");
    let values = VALUES.map(|json| serde_json::from_str(json).expect("JSON"));
    (detectors.into(), run, values.into())
});

/// One of the detectors, which the first byte chooses, edited by the others.
pub(crate) fn detector(bytes: &[u8]) -> Value {
    let (detectors, ..) = &*PARTS;
    let (first, edits) = bytes.split_first().unwrap_or((&0, &[]));
    edited(
        detectors[usize::from(*first) % detectors.len()].clone(),
        edits,
    )
}

/// The default training run, edited.
pub(crate) fn training(bytes: &[u8]) -> Value {
    edited(PARTS.1.clone(), bytes)
}

/// Three bytes an edit: its place and what happens there.
fn edited(mut value: Value, bytes: &[u8]) -> Value {
    let values = &PARTS.2;
    for edit in bytes.as_chunks::<3>().0.iter().take(MAX_EDITS) {
        let mut places = Vec::new();
        list(&value, String::new(), &mut places);
        let place = usize::from(edit[0]) << 8 | usize::from(edit[1]);
        let Some(place) = places.get(place % places.len().max(1)) else {
            break;
        };
        let what = usize::from(edit[2]);
        match values.get(what % (values.len() + 2)) {
            Some(new) => drop(value.pointer_mut(place).map(|old| *old = new.clone())),
            None => alter(&mut value, place, what % (values.len() + 2) == values.len()),
        }
    }
    value
}

/// Takes a value away, or puts it behind its list once more.
fn alter(value: &mut Value, place: &str, remove: bool) {
    let Some((holder, name)) = place.rsplit_once('/') else {
        return;
    };
    match value.pointer_mut(holder) {
        Some(Value::Object(fields)) if remove => drop(fields.remove(name)),
        Some(Value::Array(items)) => {
            let at = name.parse().unwrap_or(0).min(items.len() - 1);
            match remove {
                true => drop(items.remove(at)),
                false => items.push(items[at].clone()),
            }
        }
        _ => {}
    }
}

/// Pointers to all values.
fn list(value: &Value, place: String, places: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| (at.to_string(), item))
            .collect(),
        _ => Vec::new(),
    };
    for (name, value) in below {
        list(value, format!("{place}/{name}"), places);
    }
    if !place.is_empty() {
        places.push(place);
    }
}
