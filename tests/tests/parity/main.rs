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

mod freeze;
mod kernels;
mod models;
mod ops;
mod training;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use burn::tensor::{Tensor, backend::Backend};
use libtest_mimic::{Arguments, Failed, Trial};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::ops::backend_types as backends;

/// A check on a backend's device.
pub(crate) struct Check<B: Backend> {
    name: &'static str,
    run: Box<dyn Fn(&B::Device) + Send>,
}

impl<B: Backend> Check<B> {
    pub(crate) fn new(name: &'static str, run: impl Fn(&B::Device) + Send + 'static) -> Self {
        let run = Box::new(run);
        Self { name, run }
    }
}

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
    /// for. Of whole detectors it runs all, or small ones.
    fn add<B: DetectionBackend>(
        &mut self,
        name: &str,
        all: bool,
        device: impl Fn(usize) -> B::Device,
    ) {
        let number = |label: &str| match label.strip_prefix(name)? {
            "" => Some(0),
            number => number.strip_prefix(':')?.parse().ok(),
        };
        let asked = self.wanted.extract_if(.., |label| number(label).is_some());
        let mut labels: Vec<String> = asked.collect();
        if self.every_backend {
            labels.push(name.to_string());
        }
        for label in labels {
            let device = device(number(&label).unwrap_or(0));
            match usable::<B>(&device) {
                Ok(()) => self.trials.extend(trials::<B>(&label, &device, all)),
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

/// Whether a device can be computed on. Where there is no driver, backends panic.
fn usable<B: Backend>(device: &B::Device) -> Result<(), String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let probe = || Tensor::<B, 1>::ones([1], device).into_data();
    let result = panic::catch_unwind(AssertUnwindSafe(probe));
    panic::set_hook(hook);
    match result {
        Ok(_) => Ok(()),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or(payload.downcast_ref::<&str>().copied());
            Err(text.unwrap_or("no reason given").to_string())
        }
    }
}

fn trials<B: DetectionBackend>(label: &str, device: &B::Device, all: bool) -> Vec<Trial> {
    let simple = |module: &'static str, checks: Vec<(&'static str, fn(&B::Device))>| {
        let check = move |(name, run)| (module, Check::<B>::new(name, run));
        checks.into_iter().map(check)
    };
    let models = models::checks::<B>(all).into_iter();
    let training = training::checks::<B>(all).into_iter();
    simple("kernels", kernels::checks::<B>())
        .chain(simple("ops", ops::checks::<B>()))
        .chain(models.map(|check| ("models", check)))
        .chain(training.map(|check| ("training", check)))
        .map(|(module, check)| {
            let device = device.clone();
            let run = move || {
                let _running = RUNNING.read().unwrap_or_else(PoisonError::into_inner);
                (check.run)(&device);
                Ok(())
            };
            Trial::test(format!("{label}::{module}::{}", check.name), run)
        })
        .collect()
}

fn main() -> ExitCode {
    let (wanted, arguments) = arguments();
    let arguments = Arguments::from_iter(arguments);
    let mut suite = Suite {
        every_backend: wanted.is_empty(),
        wanted,
        trials: Vec::new(),
    };
    suite.add::<backends::Flex>("flex", true, |_| Default::default());
    #[cfg(feature = "ndarray")]
    suite.add::<backends::NdArray>("ndarray", false, |_| Default::default());
    #[cfg(feature = "wgpu")]
    suite.add::<backends::Wgpu>("wgpu", false, |number| match number {
        0 => backends::WgpuDevice::DefaultDevice,
        number => backends::WgpuDevice::DiscreteGpu(number),
    });
    #[cfg(feature = "cuda")]
    suite.add::<backends::Cuda>("cuda", true, backends::CudaDevice::new);
    for device in std::mem::take(&mut suite.wanted) {
        suite.fail(&device, "unknown, or not built in".to_string());
    }
    if suite.every_backend {
        suite.add_host(ops::host_checks());
        suite.add_host(models::host_checks());
        suite.add_host(training::host_checks());
        let freeze: fn() = freeze::trainable_backbone_layers;
        suite.add_host(vec![("trainable_backbone_layers", freeze)]);
    }
    libtest_mimic::run(&arguments, suite.trials).exit_code()
}
