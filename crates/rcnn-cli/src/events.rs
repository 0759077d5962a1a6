//! Shows on standard error what the libraries have to say: their `tracing` events.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Prints the events of this project's crates, a line each, and nothing of others.
pub(crate) struct Lines;

/// How events are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serve", derive(clap::ValueEnum))]
pub(crate) enum LogFormat {
    /// A line for people
    Text,
    /// An object a line, for programs
    Json,
    /// Warnings and errors only, as lines
    Quiet,
}

static FORMAT: AtomicU8 = AtomicU8::new(LogFormat::Text as u8);

/// Chooses how events are printed from now on.
#[cfg(feature = "serve")]
pub(crate) fn set_format(format: LogFormat) {
    FORMAT.store(format as u8, Ordering::Relaxed);
}

fn is(format: LogFormat) -> bool {
    FORMAT.load(Ordering::Relaxed) == format as u8
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let krate = target.split("::").next().unwrap_or(target);
        let ours = krate == "rcnn" || krate == "weights_import" || krate.starts_with("rcnn_");
        ours && metadata.is_event() && *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let level = *event.metadata().level();
        if is(LogFormat::Quiet) && level == Level::INFO {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        match is(LogFormat::Json) {
            true => eprintln!("{}", fields.json(level)),
            false => eprintln!("{}", fields.text(level)),
        }
    }

    // There are no spans, as none is enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The message of an event and its other fields.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", value) => self.message = value.to_string(),
            (name, value) => self.others.push((name.to_string(), value)),
        }
    }

    fn text(&self, level: Level) -> String {
        let mut text = match level {
            Level::INFO => String::new(),
            Level::WARN => "warning: ".to_string(),
            _ => "error: ".to_string(),
        };
        text.push_str(&self.message);
        for (name, value) in &self.others {
            let plain = value.as_str().filter(|text| {
                let is_plain = |c: char| c.is_alphanumeric() || "/.:_-".contains(c);
                !text.is_empty() && text.chars().all(is_plain)
            });
            // Writing to a string cannot fail.
            let _ = match plain {
                Some(value) => write!(text, " {name}={value}"),
                None => write!(text, " {name}={value}"),
            };
        }
        text
    }

    /// With the time in seconds since 1970.
    fn json(self, level: Level) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let milliseconds = now.unwrap_or_default().as_millis() as f64;
        let mut line = Map::new();
        line.insert("time".into(), json!(milliseconds / 1e3));
        line.insert("level".into(), json!(level.as_str().to_lowercase()));
        line.insert("message".into(), json!(self.message));
        line.extend(self.others);
        Value::Object(line)
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.insert(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.insert(field, u64::try_from(value).unwrap_or(u64::MAX).into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }
}
