//! `metrics.jsonl`: a line for every step and for every validation, and the curves drawn of them; the same for
//! TensorBoard.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn_train::logger::MetricLogger;
use burn_train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn_train::metric::{MetricDefinition, MetricId, NumericEntry};
use rcnn_eval::Plot;
use serde_json::{Map, Value, json};

use crate::TrainError;
use crate::checkpoint::write_whole;
use crate::metrics::{TEACHER, decisive};
use crate::session::Session;
use crate::tensorboard::EventFile;

/// Writes the metrics of a run, and draws `curves.png` after each epoch.
pub(crate) struct JsonLines {
    session: Arc<Session>,
    path: PathBuf,
    /// Losses that are drawn, in their order.
    losses: Vec<&'static str>,
    /// Precisions that are drawn.
    precisions: Vec<&'static str>,
    /// TensorBoard's file, if it is asked for.
    events: Option<EventFile>,
    /// Steps of an epoch, which TensorBoard counts through.
    steps_per_epoch: usize,
    names: HashMap<MetricId, String>,
    epoch: usize,
    step: usize,
    /// Sum and weight of each value in the current validation.
    sums: Vec<(String, f64, usize)>,
}

impl JsonLines {
    /// Logs from some epoch on: burn-train's own count begins at 1 again when a run is resumed.
    pub(crate) fn new(
        session: Arc<Session>,
        first_epoch: usize,
        losses: Vec<&'static str>,
        precisions: Vec<&'static str>,
        steps_per_epoch: usize,
    ) -> Result<Self, TrainError> {
        let first_step = (first_epoch - 1) * steps_per_epoch + 1;
        let folder = &session.folder;
        let events = session
            .config
            .tensorboard
            .then(|| EventFile::create(folder, first_step as u64).map_err(TrainError::io(folder)));
        Ok(Self {
            losses,
            precisions,
            events: events.transpose()?,
            steps_per_epoch,
            epoch: first_epoch,
            path: session.folder.join("metrics.jsonl"),
            session,
            names: HashMap::new(),
            step: 0,
            sums: Vec::new(),
        })
    }

    fn append(&mut self, split: &Split, values: Map<String, Value>) {
        if let Err(error) = self.append_events(split, &values) {
            self.session
                .fail(TrainError::io(&self.session.folder)(error));
        }
        let mut line = json!({ "split": split.to_string(), "epoch": self.epoch });
        line.as_object_mut().expect("made above").extend(values);
        let write = || {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)?;
            writeln!(file, "{line}")
        };
        if let Err(error) = write() {
            self.session.fail(TrainError::io(&self.path)(error));
        }
    }
}

impl JsonLines {
    fn append_events(&mut self, split: &Split, values: &Map<String, Value>) -> io::Result<()> {
        let Some(events) = &mut self.events else {
            return Ok(());
        };
        let step = match split {
            Split::Train => (self.epoch - 1) * self.steps_per_epoch + self.step,
            _ => self.epoch * self.steps_per_epoch,
        };
        let values = values.iter().filter(|(name, _)| *name != "step");
        let values =
            values.filter_map(|(name, value)| Some((format!("{split}/{name}"), value.as_f64()?)));
        let values: Vec<_> = values.collect();
        events.scalars(
            step as u64,
            values.iter().map(|(tag, value)| (tag.as_str(), *value)),
        )
    }
}

impl MetricLogger for JsonLines {
    fn log(&mut self, update: MetricsUpdate, _: usize, split: &Split) {
        let values = update.entries_numeric.iter().filter_map(|update| {
            let name = self.names.get(&update.entry.metric_id)?.clone();
            let (value, count) = match update.numeric_entry {
                NumericEntry::Value(value) => (value, 1),
                NumericEntry::Aggregated {
                    aggregated_value,
                    count,
                } => (aggregated_value, count),
            };
            (count > 0 && name != TEACHER).then_some((name, value, count))
        });
        let values: Vec<_> = values.collect();
        if *split == Split::Train {
            self.step += 1;
            // Of a step that failed there is only the learning rate.
            if !values.iter().any(|(name, ..)| name == "loss") {
                return;
            }
            let step = ("step".to_string(), json!(self.step));
            let values = values
                .into_iter()
                .map(|(name, value, _)| (name, json!(value)));
            self.append(split, [step].into_iter().chain(values).collect());
            return;
        }
        for (name, value, count) in values {
            match self.sums.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, sum, weight)) => {
                    *sum += value * count as f64;
                    *weight += count;
                }
                None => self.sums.push((name, value * count as f64, count)),
            }
        }
    }

    fn read_numeric(&mut self, _: &str, _: usize, _: &Split) -> Result<Vec<NumericEntry>, String> {
        // Only burn-train's own summaries ask, which a run does not use.
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name);
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        if summary.split == Split::Train {
            self.step = 0;
            return;
        }
        let means = std::mem::take(&mut self.sums).into_iter();
        let means = means.map(|(name, sum, weight)| (name, json!(sum / weight as f64)));
        let means: Map<String, Value> = means.collect();
        // A validation that failed or was stopped has no AP, and its means are of some images only.
        if means.contains_key("AP") {
            self.append(&summary.split, means);
        }
        self.epoch += 1;
        if let Err(error) = draw(&self.session.folder, &self.losses, &self.precisions) {
            self.session.fail(error);
        }
    }
}

/// The lines of a run's metrics up to some epoch. A last line that was cut off is left out.
fn read(path: &Path, epochs: usize) -> Result<Vec<(String, Value)>, TrainError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.map_err(TrainError::io(path))?,
    };
    let mut lines = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(TrainError::io(path))?;
        let Ok(value) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if value["epoch"]
            .as_u64()
            .is_some_and(|epoch| epoch as usize <= epochs)
        {
            lines.push((line, value));
        }
    }
    Ok(lines)
}

/// The epochs whose validation was logged.
pub(crate) fn validated(folder: &Path) -> Result<Vec<usize>, TrainError> {
    let lines = read(&folder.join("metrics.jsonl"), usize::MAX)?;
    Ok(precisions(&lines).map(|(epoch, _)| epoch).collect())
}

/// The AP of each epoch by which models are compared.
fn precisions(lines: &[(String, Value)]) -> impl Iterator<Item = (usize, f64)> {
    lines.iter().filter_map(|(_, line)| {
        let ap = decisive(|name| line[name].as_f64())?;
        Some((line["epoch"].as_u64()? as usize, ap))
    })
}

/// Cuts the metrics off after the epoch that a run is resumed from, and returns the AP of each.
pub(crate) fn rewind(folder: &Path, epoch: usize) -> Result<Vec<(usize, f64)>, TrainError> {
    let path = folder.join("metrics.jsonl");
    let lines = read(&path, epoch)?;
    let text: String = lines.iter().map(|(text, _)| format!("{text}\n")).collect();
    write_whole(&path, text.as_bytes())?;
    Ok(precisions(&lines).collect())
}

/// Draws the losses (means of each epoch) and the average precision.
fn draw(folder: &Path, losses: &[&str], precisions: &[&str]) -> Result<(), TrainError> {
    let lines = read(&folder.join("metrics.jsonl"), usize::MAX)?;
    let series = |split: &str, name: &str| {
        let mut epochs: Vec<(f64, f64, f64)> = Vec::new();
        for (_, line) in lines.iter().filter(|(_, line)| line["split"] == split) {
            let (Some(epoch), Some(value)) = (line["epoch"].as_f64(), line[name].as_f64()) else {
                continue;
            };
            match epochs.last_mut() {
                Some((last, sum, count)) if *last == epoch => {
                    *sum += value;
                    *count += 1.0;
                }
                _ => epochs.push((epoch, value, 1.0)),
            }
        }
        let means = epochs
            .into_iter()
            .map(|(epoch, sum, count)| [epoch, sum / count]);
        means.collect::<Vec<_>>()
    };
    let of = |title: &str, names: &[(&str, &str)]| Plot {
        title: title.into(),
        x: "epoch".into(),
        series: names
            .iter()
            .map(|(split, name)| {
                let label = if *name == title { *split } else { *name };
                (label.to_string(), series(split, name))
            })
            // Only training learns of a teacher.
            .filter(|(_, points)| !points.is_empty())
            .collect(),
    };
    let precisions: Vec<_> = precisions.iter().map(|name| ("valid", *name)).collect();
    let mut plots = vec![of("average precision", &precisions)];
    for loss in losses {
        plots.push(of(loss, &[("train", loss), ("valid", loss)]));
    }
    let path = folder.join("curves.png");
    let bytes = rcnn_image::encode(&path, &rcnn_eval::draw_plots(&plots));
    let bytes = bytes.map_err(|error| TrainError::io(&path)(std::io::Error::other(error.kind)))?;
    write_whole(&path, &bytes)
}
