//! The learning rate of every step: linear warm-up, then constant, by steps or by a half cosine.

use burn::config::Config;
use burn::lr_scheduler::LrScheduler;
use burn::tensor::backend::Backend;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

/// Schedule of the learning rate over a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(prefix = "with_")]
pub struct ScheduleConfig {
    /// Steps over which the rate rises linearly, as `torch.optim.lr_scheduler.LinearLR` does.
    pub warmup_steps: usize,
    /// Part of the rate that the warm-up starts from.
    pub warmup_factor: f64,
    /// Decay over the whole run.
    pub decay: Decay,
    /// Epochs after which the rate is multiplied by `gamma`, for `decay = "step"`.
    pub milestones: Vec<usize>,
    /// Factor of the rate at each milestone.
    pub gamma: f64,
}

impl Config for ScheduleConfig {}

/// Decay of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Stays.
    Constant,
    /// Falls at each milestone (`MultiStepLR`).
    Step,
    /// Falls to zero along half a cosine (`CosineAnnealingLR`).
    Cosine,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            warmup_steps: 100,
            warmup_factor: 1e-3,
            decay: Decay::Cosine,
            milestones: vec![16, 22],
            gamma: 0.1,
        }
    }
}

/// A [`ScheduleConfig`] at some step of a run.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) config: ScheduleConfig,
    pub(crate) learning_rate: f64,
    pub(crate) steps_per_epoch: usize,
    pub(crate) epochs: usize,
    /// Steps taken.
    pub(crate) step: usize,
}

impl Schedule {
    /// A warning if the warm-up takes the whole run, as it does with few images.
    pub(crate) fn warmup_fault(&self) -> Option<String> {
        let (steps, warmup) = (self.steps_per_epoch * self.epochs, self.config.warmup_steps);
        (steps <= warmup).then(|| {
            format!(
                "the run has {steps} steps, all within the warm-up (warmup_steps = {warmup}): the learning rate never \
                 reaches {}; choose more epochs or fewer warm-up steps",
                self.learning_rate
            )
        })
    }

    /// Factor of the learning rate at the current step.
    fn factor(&self) -> f64 {
        let ScheduleConfig {
            warmup_steps,
            warmup_factor,
            gamma,
            ..
        } = self.config;
        let done = |steps: usize| self.step as f64 / steps.max(1) as f64;
        let warmup = match self.step < warmup_steps {
            true => warmup_factor + (1.0 - warmup_factor) * done(warmup_steps),
            false => 1.0,
        };
        let decay = match self.config.decay {
            Decay::Constant => 1.0,
            Decay::Step => {
                let epoch = self.step / self.steps_per_epoch.max(1);
                let passed = self.config.milestones.iter().filter(|m| **m <= epoch);
                gamma.powi(passed.count() as i32)
            }
            Decay::Cosine => {
                let part = done(self.steps_per_epoch * self.epochs).min(1.0);
                (1.0 + (std::f64::consts::PI * part).cos()) / 2.0
            }
        };
        warmup * decay
    }
}

impl LrScheduler for Schedule {
    type Record<B: Backend> = usize;

    fn step(&mut self) -> f64 {
        let rate = self.learning_rate * self.factor();
        self.step += 1;
        rate
    }

    fn to_record<B: Backend>(&self) -> usize {
        self.step
    }

    fn load_record<B: Backend>(mut self, step: usize) -> Self {
        self.step = step;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(decay: Decay) -> Vec<f64> {
        let config = ScheduleConfig {
            warmup_steps: 4,
            warmup_factor: 0.2,
            decay,
            milestones: vec![1],
            gamma: 0.1,
        };
        let mut schedule = Schedule {
            config,
            learning_rate: 2.0,
            steps_per_epoch: 5,
            epochs: 2,
            step: 0,
        };
        (0..10).map(|_| schedule.step()).collect()
    }

    #[test]
    fn rates_are_torchs() {
        // ChainedScheduler([LinearLR(sgd, 0.2, 1.0, 4), decay]) of torch, where decay is
        // MultiStepLR(sgd, [5], 0.1) or CosineAnnealingLR(sgd, 10).
        let close = |found: Vec<f64>, expected: [f64; 10]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-8, "{found} {expected}");
            }
        };
        let step = [0.4, 0.8, 1.2, 1.6, 2.0, 0.2, 0.2, 0.2, 0.2, 0.2];
        close(rates(Decay::Step), step);
        let cosine = [
            0.4,
            0.780422607,
            1.085410197,
            1.270228202,
            1.309016994,
            1.0,
            0.690983006,
            0.412214748,
            0.190983006,
            0.048943484,
        ];
        close(rates(Decay::Cosine), cosine);
    }

    #[test]
    fn a_run_of_few_images_that_ends_within_its_warm_up_is_a_fault() {
        let schedule = |epochs| Schedule {
            config: ScheduleConfig::default(),
            learning_rate: 0.01,
            steps_per_epoch: 2,
            epochs,
            step: 0,
        };
        let fault = schedule(20).warmup_fault().expect("40 steps of 100");
        assert!(
            fault.contains("40 steps") && fault.contains("warmup_steps = 100"),
            "{fault}"
        );
        assert_eq!(schedule(60).warmup_fault(), None);
    }
}
