//! Progress as plain lines, where there is no terminal for the dashboard.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use burn_train::metric::{MetricDefinition, MetricId, NumericEntry};
use burn_train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};

use crate::metrics::TEACHER;

/// Time between two lines.
const PERIOD: Duration = Duration::from_secs(10);

/// Logs a line every ten seconds and one for every validation.
pub(crate) struct Lines {
    /// Losses that are shown, in their order.
    losses: Vec<&'static str>,
    /// Average precisions that are shown.
    precisions: Vec<&'static str>,
    names: HashMap<MetricId, String>,
    values: HashMap<String, f64>,
    start: Instant,
    printed: Option<Instant>,
    steps: usize,
    /// Whether the current step has a loss: it has none if it failed.
    has_loss: bool,
}

impl Lines {
    /// Shows losses and average precisions of these names.
    pub(crate) fn new(losses: Vec<&'static str>, precisions: Vec<&'static str>) -> Self {
        Self {
            losses,
            precisions,
            names: HashMap::new(),
            values: HashMap::new(),
            start: Instant::now(),
            printed: None,
            steps: 0,
            has_loss: false,
        }
    }

    fn update(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, number) = state
            && let Some(name) = self.names.get(&entry.metric_id)
            && !matches!(number, NumericEntry::Aggregated { count: 0, .. })
        {
            self.has_loss |= name == "loss";
            self.values.insert(name.clone(), number.current());
        }
    }

    fn listed(&self, names: &[&str]) -> String {
        let values = names.iter().filter_map(|name| {
            let value = self.values.get(*name)?;
            Some(match *name {
                "Learning Rate" => format!("lr {value:.5}"),
                TEACHER => format!("{TEACHER} {:.0} %", 100.0 * value),
                name => format!("{name} {value:.3}"),
            })
        });
        values.collect::<Vec<_>>().join("  ")
    }
}

impl MetricsRendererTraining for Lines {
    fn update_train(&mut self, state: MetricState) {
        self.update(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.update(state);
    }

    fn render_train(&mut self, item: TrainingProgress, _: Vec<ProgressType>) {
        self.steps += 1;
        let Some(epoch) = &item.progress else { return };
        let last = epoch.items_processed == epoch.items_total;
        let failed = !std::mem::take(&mut self.has_loss);
        if failed || !last && self.printed.is_some_and(|at| at.elapsed() < PERIOD) {
            return;
        }
        self.printed = Some(Instant::now());
        let per_step = self.start.elapsed().as_secs_f64() / self.steps as f64;
        let epochs = &item.global_progress;
        let left = epochs.items_total.saturating_sub(epochs.items_processed) * epoch.items_total
            + (epoch.items_total - epoch.items_processed);
        tracing::info!(
            "epoch {}/{}  step {}/{}  {}  {}  {per_step:.2} s/step  {} left",
            epochs.items_processed,
            epochs.items_total,
            epoch.items_processed,
            epoch.items_total,
            self.listed(&self.losses),
            self.listed(&["Learning Rate", TEACHER]),
            duration(left as f64 * per_step),
        );
    }

    fn render_valid(&mut self, item: TrainingProgress, _: Vec<ProgressType>) {
        let Some(progress) = &item.progress else {
            return;
        };
        if progress.items_processed == progress.items_total {
            let epochs = &item.global_progress;
            tracing::info!(
                "epoch {}/{}  validated on {} {}  {}",
                epochs.items_processed,
                epochs.items_total,
                progress.items_total,
                if progress.items_total == 1 {
                    "batch"
                } else {
                    "batches"
                },
                self.listed(&self.precisions),
            );
        }
    }
}

impl MetricsRendererEvaluation for Lines {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}

    fn render_test(&mut self, _: EvaluationProgress, _: Vec<ProgressType>) {}
}

impl MetricsRenderer for Lines {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name);
    }
}

fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        0 => format!("{seconds:.0} s"),
        1..60 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}
