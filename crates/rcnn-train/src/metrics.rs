//! The numbers of steps and epochs, as burn-train's metrics.

use std::sync::Arc;

use burn_train::ItemLazy;
use burn_train::metric::state::{FormatOptions, NumericMetricState};
use burn_train::metric::{
    Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes,
    NumericEntry, SerializedEntry,
};

/// What one step gives: losses of its batch and, at the end of a validation, the average precision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepValues {
    pub(crate) classifier: f64,
    pub(crate) box_reg: f64,
    pub(crate) objectness: f64,
    pub(crate) rpn_box_reg: f64,
    /// AP and AP50.
    pub(crate) precision: Option<[f64; 2]>,
}

impl Default for StepValues {
    /// Those of a step that failed: none.
    fn default() -> Self {
        Self {
            classifier: f64::NAN,
            box_reg: f64::NAN,
            objectness: f64::NAN,
            rpn_box_reg: f64::NAN,
            precision: None,
        }
    }
}

impl StepValues {
    pub(crate) fn total(&self) -> f64 {
        self.classifier + self.box_reg + self.objectness + self.rpn_box_reg
    }
}

impl ItemLazy for StepValues {
    type ItemSync = Self;

    fn sync(self) -> Self {
        self
    }
}

impl Adaptor<StepValues> for StepValues {
    fn adapt(&self) -> StepValues {
        *self
    }
}

/// One of the [`StepValues`].
#[derive(Clone)]
pub(crate) struct ValueMetric {
    name: MetricName,
    pick: fn(&StepValues) -> Option<f64>,
    higher_is_better: bool,
    state: NumericMetricState,
    last: f64,
}

impl ValueMetric {
    fn new(name: &str, higher_is_better: bool, pick: fn(&StepValues) -> Option<f64>) -> Self {
        Self {
            name: Arc::new(name.to_string()),
            pick,
            higher_is_better,
            state: NumericMetricState::new(),
            last: 0.0,
        }
    }

    /// The sum of the losses, and each.
    pub(crate) fn losses() -> [Self; 5] {
        [
            Self::new("loss", false, |v| Some(v.total())),
            Self::new("classifier", false, |v| Some(v.classifier)),
            Self::new("box_reg", false, |v| Some(v.box_reg)),
            Self::new("objectness", false, |v| Some(v.objectness)),
            Self::new("rpn_box_reg", false, |v| Some(v.rpn_box_reg)),
        ]
    }

    /// AP and AP50.
    pub(crate) fn precisions() -> [Self; 2] {
        [
            Self::new("AP", true, |v| v.precision.map(|p| p[0])),
            Self::new("AP50", true, |v| v.precision.map(|p| p[1])),
        ]
    }

    /// A value that counts for nothing, for steps that have none.
    fn nothing(&self) -> NumericEntry {
        NumericEntry::Aggregated {
            aggregated_value: self.last,
            count: 0,
        }
    }
}

impl Metric for ValueMetric {
    type Input = StepValues;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: self.higher_is_better,
        }
        .into()
    }

    fn update(&mut self, values: &StepValues, _: &MetricMetadata) -> SerializedEntry {
        match (self.pick)(values).filter(|value| !value.is_nan()) {
            Some(value) => {
                self.last = value;
                let format = FormatOptions::new(self.name()).precision(4);
                self.state.update(value, 1, format)
            }
            None => {
                // Else the state goes on giving the value of an earlier step.
                self.state.reset();
                SerializedEntry::new("none".into(), self.nothing().serialize())
            }
        }
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for ValueMetric {
    fn value(&self) -> NumericEntry {
        let value = self.state.current_value();
        match value.current().is_nan() {
            true => self.nothing(),
            false => value,
        }
    }

    fn running_value(&self) -> NumericEntry {
        let value = self.state.running_value();
        match value.current().is_nan() {
            true => self.nothing(),
            false => value,
        }
    }
}
