//! The steps of a pruning: each makes a smaller model and trains it, and is done once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcnn_burn::freeze::{Change, Rule};
use rcnn_burn::image::open_rgb;
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::weights::{Precision, Weights};
use rcnn_prune::{Budget, ChannelGroups, Importance, Kept, Order, PruneReport, Sample, draw_chart};
use rcnn_train::{Progress, Report, Run, TrainConfig};
use serde::{Deserialize, Serialize};

use super::open;
use super::plan::{BudgetKind, Plan};
use crate::backend::Job;
use crate::data::evenly;
use crate::files;
use crate::progress::progress_bar;
use crate::surgery::measured;

pub(super) struct Steps<'a> {
    pub(super) plan: &'a Plan,
    pub(super) folder: &'a Path,
}

pub(super) struct Done {
    pub(super) start: Weights,
    pub(super) pruned: Weights,
    /// From the first model to the last.
    pub(super) report: PruneReport,
    pub(super) trained: Vec<Trained>,
    /// Seconds of a detection before and after pruning.
    pub(super) seconds: [f64; 2],
}

/// The training after a step: `trained.json` in the step's folder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Trained {
    pub(super) epochs: usize,
    pub(super) best_epoch: usize,
    pub(super) best_ap: f64,
}

impl Job for Steps<'_> {
    type Output = Done;

    fn run<B: DetectionBackend>(self, devices: Vec<B::Device>) -> Result<Done> {
        let (plan, device) = (self.plan, &devices[0]);
        let start = open(self.folder, "start.bpk")?;
        let original = ChannelGroups::new(&start.config, plan.size)?;
        let (mut current, mut report, mut trained) = (start.clone(), None, Vec::new());
        for step in 1..=plan.steps {
            let folder = self.folder.join(format!("step-{step}"));
            files::create_folder(&folder)?;
            let file = folder.join("pruned.bpk");
            if !file.exists() {
                let pruned = self.prune::<B>(step, &original, &current, device)?;
                write_report(&folder, &pruned.1)?;
                // Last, as it says that the step was taken.
                pruned.0.write_burnpack(&file, Precision::F32)?;
            }
            current = Weights::open(&file)?;
            let change = ChannelGroups::new(&current.config, plan.size)?.change_from(&original);
            eprintln!(
                "step {step} of {}: {:.0} % of the multiply-accumulates, {:.0} % of the parameters left",
                plan.steps,
                100.0 * change.macs[1] as f64 / change.macs[0].max(1) as f64,
                100.0 * change.parameters[1] as f64 / change.parameters[0].max(1) as f64,
            );
            report = Some(change);
            if let (epochs @ 1.., Some(config)) = (plan.epochs_after(step), &plan.train) {
                let result = train::<B>(config, epochs, &folder, &file, &devices)?;
                trained.push(result);
                current = open(&folder.join("train"), "best.bpk")?;
            }
        }
        let report = report.context("at least one step")?;
        write_report(self.folder, &report)?;
        current.write_burnpack(self.folder.join("pruned.bpk"), Precision::F32)?;
        let pruned = open(self.folder, "pruned.bpk")?;
        let models = [start.load::<B>(device)?, pruned.load::<B>(device)?];
        let seconds = measured(models.each_ref(), plan.size, device)?;
        Ok(Done {
            start,
            pruned,
            report,
            trained,
            seconds,
        })
    }
}

impl Steps<'_> {
    /// The model after a step, before its training.
    fn prune<B: DetectionBackend>(
        &self,
        step: usize,
        original: &ChannelGroups,
        current: &Weights,
        device: &B::Device,
    ) -> Result<(Weights, PruneReport)> {
        let plan = self.plan;
        let groups = ChannelGroups::new(&current.config, plan.size)?.pruned_from(original);
        let importance = match &plan.train {
            Some(config) => {
                let samples = samples(config, current, plan.count)?;
                let progress = progress_bar(samples.len(), "pictures");
                let tick = &mut |done, _| progress.set_position(done as u64);
                let found = Importance::by_taylor::<B>(&groups, current, &samples, device, tick);
                progress.finish_and_clear();
                found?
            }
            None => Importance::by_norm(&groups, current)?,
        };
        let budget = match plan.budget {
            BudgetKind::Macs | BudgetKind::Time => Budget::Macs,
            BudgetKind::Params => Budget::Parameters,
        };
        let order = groups.order(&importance, budget, &plan.limits()?)?;
        let kept = self.kept::<B>(step, &groups, original, current, &order, device)?;
        Ok(groups.prune(current, &kept)?)
    }

    /// Share of the model that remains after a step.
    fn kept<B: DetectionBackend>(
        &self,
        step: usize,
        groups: &ChannelGroups,
        original: &ChannelGroups,
        current: &Weights,
        order: &Order,
        device: &B::Device,
    ) -> Result<Kept> {
        let plan = self.plan;
        let (whole, now) = (original.total(), groups.total());
        // Shares of the first model as shares of the present one.
        let relative = match plan.budget {
            BudgetKind::Macs => whole.macs as f64 / now.macs.max(1) as f64,
            BudgetKind::Params => whole.parameters as f64 / now.parameters.max(1) as f64,
            BudgetKind::Time => {
                // Side by side, so that what else the machine does slows both.
                let whole = current.load::<B>(device)?;
                let share = plan.share_after(1);
                return order.meet_time(share, &mut |kept| {
                    let (model, _) = groups.prune(current, kept)?;
                    let model = model.load::<B>(device)?;
                    let [before, after] = measured([&whole, &model], plan.size, device)?;
                    Ok(after / before)
                });
            }
        };
        if step == 1 {
            // Whether the end can be reached, before any training.
            order.meet(plan.share * relative)?;
        }
        Ok(order.meet(plan.share_after(step) * relative)?)
    }
}

/// Pictures spread evenly over the training data.
fn samples(config: &TrainConfig, weights: &Weights, count: usize) -> Result<Vec<Sample>> {
    let data = config.training_data(&weights.config)?;
    let (known, classes) = (&weights.config.class_names, data.class_names.len());
    if weights.config.num_classes != classes || !known.is_empty() && *known != data.class_names {
        bail!(
            "the model has {} classes ({}), the data {classes} ({}): the loss of a model is that of its own classes",
            weights.config.num_classes,
            known.join(", "),
            data.class_names.join(", ")
        );
    }
    let chosen = evenly(&data.samples, count).into_iter();
    let sample = |sample: &rcnn_data::Sample| {
        Ok(Sample {
            image: open_rgb(&sample.image)?,
            objects: sample.instances.clone(),
        })
    };
    chosen.map(sample).collect()
}

/// Trains the model of a step, or goes on with it.
fn train<B: DetectionBackend>(
    config: &TrainConfig,
    epochs: usize,
    folder: &Path,
    weights: &Path,
    devices: &[B::Device],
) -> Result<Trained> {
    let done = folder.join("trained.json");
    if done.exists() {
        let text = files::read_text(&done)?;
        return serde_json::from_str(&text).with_context(|| format!("{}: damaged", done.display()));
    }
    let path: PathBuf = folder.join("train");
    let run = match path.join("run.toml").exists() {
        true => Run::resume(&path)?,
        false => Run::create(&path, step_config(config, epochs, weights)?)?,
    };
    let Report {
        epochs,
        best_epoch,
        best_ap,
    } = run.train::<B>(devices, Progress::Lines)?;
    let trained = Trained {
        epochs,
        best_epoch,
        best_ap,
    };
    files::write_text(&done, &serde_json::to_string_pretty(&trained)?)?;
    Ok(trained)
}

/// The training of a step.
fn step_config(config: &TrainConfig, epochs: usize, weights: &Path) -> Result<TrainConfig> {
    let mut config = config.clone();
    config.epochs = epochs;
    config.weights = Some(weights.into());
    if config.freeze.is_empty() {
        // Every layer has lost some of its inputs.
        let opened = Weights::open(weights)?.config;
        let stages = opened
            .backbone
            .architecture()
            .map(|network| network.stages());
        let stages = stages.map_or(0, |stages| stages.len());
        config.freeze = vec![Rule::from(Change::TrainableBackboneLayers(stages))];
    }
    Ok(config)
}

fn write_report(folder: &Path, report: &PruneReport) -> Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    files::write_text(&folder.join("pruning.json"), &json)?;
    files::write_picture(&folder.join("pruning.png"), &draw_chart(report))
}
