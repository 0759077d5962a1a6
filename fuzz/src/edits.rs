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
        let places = count(&value) - 1;
        if places == 0 {
            break;
        }
        let mut place = (usize::from(edit[0]) << 8 | usize::from(edit[1])) % places;
        let change = match usize::from(edit[2]) % (values.len() + 2) {
            what if what < values.len() => Change::Replace(&values[what]),
            what if what == values.len() => Change::Remove,
            _ => Change::Repeat,
        };
        apply(&mut value, &mut place, change);
    }
    value
}

/// A change to a value.
#[derive(Clone, Copy)]
enum Change {
    Replace(&'static Value),
    Remove,
    /// Puts it behind its list once more.
    Repeat,
}

/// The number of values in a value, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

/// Changes the value of a place, counted from 0 among all within `value`, and returns whether it was there. Else `place` is
/// what is left to count.
fn apply(value: &mut Value, place: &mut usize, change: Change) -> bool {
    match value {
        Value::Object(fields) => {
            let (mut is_done, mut removed) = (false, None);
            for (name, field) in fields.iter_mut() {
                if *place > 0 {
                    *place -= 1;
                    is_done = apply(field, place, change);
                } else {
                    is_done = true;
                    match change {
                        Change::Replace(new) => *field = new.clone(),
                        Change::Remove => removed = Some(name.clone()),
                        Change::Repeat => {}
                    }
                }
                if is_done {
                    break;
                }
            }
            if let Some(name) = removed {
                fields.remove(&name);
            }
            is_done
        }
        Value::Array(items) => {
            for at in 0..items.len() {
                if *place == 0 {
                    match change {
                        Change::Replace(new) => items[at] = new.clone(),
                        Change::Remove => drop(items.remove(at)),
                        Change::Repeat => items.push(items[at].clone()),
                    }
                    return true;
                }
                *place -= 1;
                if apply(&mut items[at], place, change) {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}
