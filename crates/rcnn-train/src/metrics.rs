//! The numbers of steps and epochs, as burn-train's metrics.

use std::sync::Arc;

use burn_train::ItemLazy;
use burn_train::metric::state::{FormatOptions, NumericMetricState};
use burn_train::metric::{
    Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes,
    NumericEntry, SerializedEntry,
};
use rcnn_core::roi::RoiHeadsConfig;
use rcnn_eval::Evaluation;

/// What one step gives: losses of its batch and, at the end of a validation, the average precision.
#[derive(Debug, Clone, Default)]
pub(crate) struct StepValues {
    /// Losses by torchvision's names; none where the step failed.
    pub(crate) losses: Vec<(&'static str, f64)>,
    /// Average precisions, by their names in logs and curves.
    pub(crate) precisions: Precisions,
    /// The teacher's share of the time of forward and backward pass, from 0 to 1.
    pub(crate) teacher: Option<f64>,
}

/// Average precisions of a validation by their names; none outside of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Precisions(Vec<(&'static str, f64)>);

/// Names of AP and AP50 of boxes, of masks and of keypoints, in logs and curves.
const PRECISIONS: [[&str; 2]; 3] = [
    ["AP", "AP50"],
    ["segm_AP", "segm_AP50"],
    ["keypoints_AP", "keypoints_AP50"],
];

/// Names of the precisions of a model's branches.
pub(crate) fn precision_names(roi_heads: &RoiHeadsConfig) -> Vec<&'static str> {
    let branches = [true, roi_heads.mask.is_some(), roi_heads.keypoint.is_some()];
    let names = PRECISIONS.into_iter().zip(branches);
    let names = names.filter(|(_, is_there)| *is_there);
    names.flat_map(|(names, _)| names).collect()
}

/// The AP by which models are compared: of keypoints, else of masks, else of boxes, whichever `of` knows first.
pub(crate) fn decisive(of: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    PRECISIONS.iter().rev().find_map(|[ap, _]| of(ap))
}

/// AP and AP50 of what was evaluated.
pub(crate) fn precisions(evaluation: &Evaluation) -> Precisions {
    let boxes = &evaluation.summary;
    let segm = evaluation.segm.as_ref().map(|segm| &segm.summary);
    let keypoints = evaluation.keypoints.as_ref().map(|all| &all.summary);
    let values = [
        Some([boxes.ap, boxes.ap50]),
        segm.map(|s| [s.ap, s.ap50]),
        keypoints.map(|s| [s.ap, s.ap50]),
    ];
    let values = PRECISIONS.into_iter().zip(values);
    let values = values.filter_map(|(names, values)| Some(names.into_iter().zip(values?)));
    let values = values.flatten();
    Precisions(
        values
            .map(|(name, value)| (name, value.unwrap_or(0.0)))
            .collect(),
    )
}

impl Precisions {
    fn get(&self, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    }

    /// The AP by which models are compared.
    pub(crate) fn decisive(&self) -> f64 {
        decisive(|name| self.get(name)).unwrap_or(0.0)
    }
}

impl StepValues {
    pub(crate) fn total(&self) -> f64 {
        self.losses.iter().map(|(_, loss)| loss).sum()
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
        self.clone()
    }
}

/// Name of the teacher's share of a step. It is shown and not logged, as it is another one every time.
pub(crate) const TEACHER: &str = "teacher";

/// Name of the sum of the losses in logs and curves.
const TOTAL: &str = "loss";

/// Name of a loss in logs and curves: torchvision's without `loss_`.
fn logged(loss: &str) -> &str {
    loss.trim_start_matches("loss_")
}

/// Names in logs and curves of the losses' sum and of each loss.
pub(crate) fn logged_losses(losses: &[&'static str]) -> Vec<&'static str> {
    let each = losses.iter().copied().map(logged);
    [TOTAL].into_iter().chain(each).collect()
}

/// Which of the [`StepValues`] a metric shows.
#[derive(Clone, Copy)]
enum Pick {
    Total,
    Loss(&'static str),
    Precision(&'static str),
    Teacher,
}

impl Pick {
    fn value(self, values: &StepValues) -> Option<f64> {
        match self {
            Self::Total => (!values.losses.is_empty()).then(|| values.total()),
            Self::Loss(name) => {
                let loss = values.losses.iter().find(|(found, _)| *found == name);
                loss.map(|(_, loss)| *loss)
            }
            Self::Precision(name) => values.precisions.get(name),
            Self::Teacher => values.teacher,
        }
    }
}

/// One of the [`StepValues`].
#[derive(Clone)]
pub(crate) struct ValueMetric {
    name: MetricName,
    pick: Pick,
    higher_is_better: bool,
    state: NumericMetricState,
    last: f64,
}

impl ValueMetric {
    fn new(name: &str, higher_is_better: bool, pick: Pick) -> Self {
        Self {
            name: Arc::new(name.to_string()),
            pick,
            higher_is_better,
            state: NumericMetricState::new(),
            last: 0.0,
        }
    }

    /// The sum of the losses, and each.
    pub(crate) fn losses(names: &[&'static str]) -> Vec<Self> {
        let total = Self::new(TOTAL, false, Pick::Total);
        [total].into_iter().chain(Self::each_loss(names)).collect()
    }

    /// Losses without their sum.
    pub(crate) fn each_loss(names: &[&'static str]) -> impl Iterator<Item = Self> {
        let names = names.iter();
        names.map(|name| Self::new(logged(name), false, Pick::Loss(name)))
    }

    /// The teacher's share of a step.
    pub(crate) fn teacher() -> Self {
        Self::new(TEACHER, false, Pick::Teacher)
    }

    /// Average precisions.
    pub(crate) fn precisions(names: &[&'static str]) -> Vec<Self> {
        let names = names.iter();
        names
            .map(|name| Self::new(name, true, Pick::Precision(name)))
            .collect()
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
        match self.pick.value(values).filter(|value| !value.is_nan()) {
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
