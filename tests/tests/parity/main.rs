//! Every operation and every stage of the detectors against torchvision's values and against the
//! reference bodies, on each backend that is built in.
//!
//! ```text
//! cargo test -p parity --features ndarray,wgpu
//! cargo test -p parity --features cuda -- --device cuda
//! ```
//!
//! Without `--device` (or `PARITY_DEVICES`, the same list), a backend that finds no device is
//! skipped, and says so; a device asked for must be there.

mod branches;
mod freeze;
#[cfg(any(feature = "ndarray", feature = "wgpu", feature = "cuda"))]
mod gradients;
mod half;
mod kernels;
mod models;
mod ops;
#[cfg(feature = "wgpu")]
mod readbacks;
#[cfg(any(feature = "ndarray", feature = "wgpu", feature = "cuda"))]
mod steps;
mod surgery;
mod tensorflow;
mod training;
mod training_ops;

use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use burn::tensor::backend::{Backend, BackendTypes};
use libtest_mimic::{Arguments, Failed, Trial};
use rcnn_burn::ops::backend_types as backends;
use rcnn_burn::ops::{DetectionBackend, probe};

type Device<B> = <B as BackendTypes>::Device;

/// A check's name and function.
pub(crate) type Named<B> = (&'static str, fn(&Device<B>));

type Run<B> = dyn Fn(&Device<B>) + Send;

/// A check on a backend's device.
pub(crate) struct Check<B: Backend> {
    name: &'static str,
    alone: bool,
    run: Box<Run<B>>,
}

impl<B: Backend> Check<B> {
    pub(crate) fn new(name: &'static str, run: impl Fn(&B::Device) + Send + 'static) -> Self {
        Self {
            name,
            alone: false,
            run: Box::new(run),
        }
    }

    /// A check that no other runs beside.
    #[cfg(feature = "wgpu")]
    pub(crate) fn alone(name: &'static str, run: impl Fn(&B::Device) + Send + 'static) -> Self {
        Self {
            alone: true,
            ..Self::new(name, run)
        }
    }

    fn trial(self, label: &str, module: &str, device: &B::Device) -> Trial {
        let device = device.clone();
        let name = format!("{label}::{module}::{}", self.name);
        let says = name.clone();
        let run = move || {
            let start = Instant::now();
            if self.alone {
                let _alone = RUNNING.write().unwrap_or_else(PoisonError::into_inner);
                (self.run)(&device);
            } else {
                let _beside = RUNNING.read().unwrap_or_else(PoisonError::into_inner);
                (self.run)(&device);
            }
            if start.elapsed() > SLOW {
                eprintln!("{says} took {:.0} s", start.elapsed().as_secs_f64());
            }
            Ok(())
        };
        Trial::test(name, run)
    }
}

/// How much of whole detectors a backend is checked with, so that it takes minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Extent {
    /// Detections of small ones and two training steps, `train_mask` and `train_keypoint`.
    #[cfg_attr(not(feature = "wgpu"), expect(dead_code))]
    Least,
    /// Every training step of small ones, too.
    Small,
    /// Every detection and every training step.
    All,
}

/// Modules of checks, by name.
type Modules<B> = Vec<(&'static str, Vec<Check<B>>)>;

/// A check that takes longer says so.
const SLOW: Duration = Duration::from_secs(10);

/// Held by every check for reading; by one that must run alone for writing.
static RUNNING: RwLock<()> = RwLock::new(());

/// The devices that were asked for, and the rest of the arguments.
fn arguments() -> (Vec<String>, Vec<String>) {
    let (mut devices, mut rest) = (Vec::new(), Vec::new());
    let mut arguments = std::env::args();
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--device") {
            Some("") => devices.extend(arguments.next()),
            Some(device) if device.starts_with('=') => devices.push(device[1..].to_string()),
            _ => rest.push(argument),
        }
    }
    if devices.is_empty() {
        devices.extend(std::env::var("PARITY_DEVICES"));
    }
    let devices = devices.iter().flat_map(|list| list.split(','));
    let devices = devices.filter(|name| !name.is_empty());
    (devices.map(str::to_string).collect(), rest)
}

/// The tests, and the devices that were asked for and have none yet.
struct Suite {
    every_backend: bool,
    wanted: Vec<String>,
    trials: Vec<Trial>,
}

impl Suite {
    /// Adds the tests of a backend, on those of its devices (`name` or `name:N`) that were asked
    /// for.
    fn add<B: DetectionBackend>(
        &mut self,
        name: &str,
        extent: Extent,
        device: impl Fn(Option<usize>) -> B::Device,
        further: fn() -> Modules<B>,
    ) {
        let number = |label: &str| match label.strip_prefix(name)? {
            "" => Some(None),
            number => Some(Some(number.strip_prefix(':')?.parse().ok()?)),
        };
        let asked = self.wanted.extract_if(.., |label| number(label).is_some());
        let mut labels: Vec<String> = asked.collect();
        if self.every_backend {
            labels.push(name.to_string());
        }
        for label in labels {
            let device = device(number(&label).flatten());
            match probe::<B>(&device) {
                Ok(()) => {
                    let modules = modules::<B>(extent).into_iter().chain(further());
                    for (module, checks) in modules {
                        let trials = checks.into_iter();
                        let trials = trials.map(|check| check.trial(&label, module, &device));
                        self.trials.extend(trials);
                    }
                }
                Err(reason) if self.every_backend => {
                    eprintln!("parity: SKIPPED {label}, for it has no device: {reason}");
                }
                Err(reason) => self.fail(&label, format!("no device: {reason}")),
            }
        }
    }

    fn add_host(&mut self, checks: Vec<(&'static str, fn())>) {
        for (name, check) in checks {
            let run = move || {
                check();
                Ok(())
            };
            self.trials.push(Trial::test(format!("host::{name}"), run));
        }
    }

    fn fail(&mut self, device: &str, reason: String) {
        let name = format!("{device}::device");
        self.trials
            .push(Trial::test(name, || Err(Failed::from(reason))));
    }
}

/// What every backend is checked for.
fn modules<B: DetectionBackend>(extent: Extent) -> Modules<B> {
    let simple = |checks: Vec<Named<B>>| -> Vec<Check<B>> {
        let check = |(name, run)| Check::new(name, run);
        checks.into_iter().map(check).collect()
    };
    vec![
        ("kernels", simple(kernels::checks::<B>())),
        ("ops", simple(ops::checks::<B>())),
        ("models", models::checks::<B>(extent)),
        ("tensorflow", simple(tensorflow::checks::<B>(extent))),
        ("surgery", surgery::checks::<B>()),
        ("half", half::checks::<B>()),
        ("branches", simple(branches::checks::<B>())),
        ("training_ops", simple(training_ops::checks::<B>())),
        ("training", training::checks::<B>(extent)),
    ]
}

/// What a backend other than the reference is checked for.
#[cfg(any(feature = "ndarray", feature = "wgpu", feature = "cuda"))]
fn others<B: DetectionBackend>() -> Modules<B> {
    let gradients = gradients::checks::<B>().into_iter();
    let gradients = gradients.map(|(name, run)| Check::new(name, run));
    vec![
        ("gradients", gradients.collect()),
        ("steps", steps::checks::<B>()),
    ]
}

fn main() -> ExitCode {
    let (wanted, arguments) = arguments();
    let arguments = Arguments::from_iter(arguments);
    let mut suite = Suite {
        every_backend: wanted.is_empty(),
        wanted,
        trials: Vec::new(),
    };
    suite.add::<backends::Flex>("flex", Extent::All, |_| Default::default(), Vec::new);
    #[cfg(feature = "ndarray")]
    suite.add::<backends::NdArray>("ndarray", Extent::Small, |_| Default::default(), others);
    #[cfg(feature = "wgpu")]
    let wgpu_device = |number: Option<usize>| match number {
        Some(number) => rcnn_burn::ops::wgpu_device(number).unwrap_or_default(),
        None => Default::default(),
    };
    #[cfg(feature = "wgpu")]
    suite.add::<backends::Wgpu>("wgpu", Extent::Least, wgpu_device, || {
        let mut modules = others();
        modules.push(("readbacks", readbacks::checks()));
        modules
    });
    #[cfg(feature = "cuda")]
    let cuda_device = |number: Option<usize>| backends::CudaDevice::new(number.unwrap_or(0));
    #[cfg(feature = "cuda")]
    suite.add::<backends::Cuda>("cuda", Extent::All, cuda_device, others);
    for device in std::mem::take(&mut suite.wanted) {
        suite.fail(&device, "unknown, or not built in".to_string());
    }
    if suite.every_backend {
        suite.add_host(ops::host_checks());
        suite.add_host(models::host_checks());
        suite.add_host(training_ops::host_checks());
        suite.add_host(branches::host_checks());
        let freeze: fn() = freeze::trainable_backbone_layers;
        suite.add_host(vec![("trainable_backbone_layers", freeze)]);
    }
    libtest_mimic::run(&arguments, suite.trials).exit_code()
}
