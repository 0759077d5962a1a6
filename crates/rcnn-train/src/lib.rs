//! Trains Faster R-CNN detectors on burn-train: its learner, metrics, checkpoints and dashboard.
//!
//! A [`Run`] is a folder. [`TrainConfig`] describes it completely, and a run that was killed continues
//! from its last checkpoint as if nothing had happened: optimizer and schedule are saved, and all randomness
//! depends on the seed and the position of a batch alone. Messages are events of the `tracing` crate.
//!
//! ```no_run
//! # mod rcnn_burn { pub use rcnn_core::*; pub use rcnn_train as train; }
//! use rcnn_burn::Flex;
//! use rcnn_burn::train::{Progress, Run, TrainConfig};
//!
//! let config = TrainConfig::default().with_data("bccd").with_epochs(10);
//! let run = Run::create("runs/cells", config)?;
//! let report = run.train::<Flex>(&[Default::default()], Progress::Lines)?;
//! println!("AP {:.3} after epoch {}", report.best_ap, report.best_epoch);
//! # Ok::<(), rcnn_train::TrainError>(())
//! ```

mod average;
mod batches;
mod checkpoint;
mod clip;
mod config;
mod data;
mod distillation;
mod error;
mod factor;
mod fingerprint;
mod folder;
mod freezing;
mod log;
mod metrics;
mod optimizer;
mod renderer;
mod run;
mod schedule;
mod session;
mod start;
mod stop;
mod teacher;
mod tensorboard;
mod trainee;
mod training;

pub use config::{OptimizerConfig, OptimizerKind, TrainConfig};
pub use distillation::DistillationConfig;
pub use error::TrainError;
pub use factor::LearningRateFactor;
pub use run::{Progress, Report, Run};
pub use schedule::{Decay, ScheduleConfig};
