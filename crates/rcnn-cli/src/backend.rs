//! Runs a job on the device that the user named, on whichever backend that is.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use rcnn_burn::FloatDType;
use rcnn_burn::ops::{DetectionBackend, devices, probe};

/// A device as the command line names it: `flex`, `wgpu`, `cuda:1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceName {
    backend: &'static str,
    index: Option<usize>,
}

/// Backends that this binary was built with, the default first.
const BUILT: &[&str] = &[
    #[cfg(feature = "flex")]
    "flex",
    #[cfg(feature = "ndarray")]
    "ndarray",
    #[cfg(feature = "wgpu")]
    "wgpu",
    #[cfg(feature = "cuda")]
    "cuda",
];

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index)),
            None => (text, None),
        };
        let built = BUILT.join(", ");
        let Some(backend) = BUILT.iter().copied().find(|backend| *backend == name) else {
            return Err(match ["flex", "ndarray", "wgpu", "cuda"].contains(&name) {
                true => format!("this binary was built with {built}; build with --features {name}"),
                false => format!("no such device; there are {}", list()),
            });
        };
        let index = match index {
            Some(_) if matches!(backend, "flex" | "ndarray") => {
                return Err(format!(
                    "{backend} is the CPU, of which there is one; it takes no number"
                ));
            }
            Some(index) => Some(
                index
                    .parse()
                    .map_err(|_| format!("`{index}` is not a number"))?,
            ),
            None => None,
        };
        Ok(Self { backend, index })
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}:{index}", self.backend),
            None => f.write_str(self.backend),
        }
    }
}

/// The devices that there are, on one line.
fn list() -> String {
    let names = devices().into_iter().map(|device| match device.name {
        name if name.contains(':') => format!("{name} ({})", device.description),
        name => name,
    });
    names.collect::<Vec<_>>().join(", ")
}

/// Prints the devices that there are, as `rcnn devices` does.
pub(crate) fn print_devices() -> Result<()> {
    let mut out = std::io::stdout().lock();
    let devices = devices();
    for device in &devices {
        let memory = match device.memory {
            Some(bytes) => format!(", {:.1} GiB", bytes as f64 / f64::from(1 << 30)),
            None => String::new(),
        };
        writeln!(out, "{:10} {}{memory}", device.name, device.description)?;
    }
    for backend in BUILT {
        let of_backend = |name: &str| name.split(':').next() == Some(backend);
        if !devices.iter().any(|device| of_backend(&device.name)) {
            writeln!(
                out,
                "{backend:10} built in, but no device or driver is found"
            )?;
        }
    }
    Ok(())
}

/// The device that is used when none is named.
pub(crate) fn default_device() -> DeviceName {
    DeviceName {
        backend: BUILT.first().copied().unwrap_or("none"),
        index: None,
    }
}

/// Work that runs on any backend.
pub(crate) trait Job {
    /// What it gives.
    type Output;

    /// Does it, on the devices of `run_on`, in its order.
    fn run<B: DetectionBackend>(self, devices: Vec<B::Device>) -> Result<Self::Output>;
}

/// The precision that a model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    F32,
    F16,
    Bf16,
}

impl From<Precision> for FloatDType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Bf16 => Self::BF16,
        }
    }
}

/// Where and how a detector computes.
#[derive(Debug, Clone, Args)]
pub(crate) struct ComputeArgs {
    /// Device to compute on, if built in: flex, ndarray, wgpu or cuda; a number selects another GPU than
    /// the first, such as cuda:1
    #[arg(long, value_name = "D", default_value_t = default_device())]
    pub(crate) device: DeviceName,
    /// Precision to compute in, if the device supports it; half precision is faster on a GPU, and less exact
    #[arg(long, value_name = "T", value_enum, default_value_t = Precision::F32, hide_short_help = true)]
    pub(crate) dtype: Precision,
}

/// Runs a job on one device, or on several of one backend.
pub(crate) fn run_on<J: Job>(names: &[DeviceName], job: J) -> Result<J::Output> {
    let Some(first) = names.first() else {
        bail!("no device given");
    };
    if let Some(other) = names.iter().find(|name| name.backend != first.backend) {
        bail!("{first} and {other} are of different backends and cannot share work");
    }
    match first.backend {
        #[cfg(feature = "flex")]
        "flex" => job.run::<rcnn_burn::Flex>(vec![Default::default(); names.len()]),
        #[cfg(feature = "ndarray")]
        "ndarray" => job.run::<rcnn_burn::NdArray>(vec![Default::default(); names.len()]),
        #[cfg(feature = "wgpu")]
        "wgpu" => run_probed::<rcnn_burn::Wgpu, J>(names, job, |index| match index {
            Some(index) => rcnn_burn::ops::wgpu_device(index),
            None => Some(Default::default()),
        }),
        #[cfg(feature = "cuda")]
        "cuda" => run_probed::<rcnn_burn::Cuda, J>(names, job, |index| {
            let name = format!("cuda:{}", index.unwrap_or(0));
            let found = devices().iter().any(|device| device.name == name);
            found.then(|| rcnn_burn::CudaDevice::new(index.unwrap_or(0)))
        }),
        _ => bail!("this binary was built without any backend; build with --features flex"),
    }
}

/// GPU backends panic on first use where there is no driver or no such device: an error here.
#[cfg_attr(
    not(any(feature = "wgpu", feature = "cuda")),
    expect(dead_code, reason = "the CPU needs no trial")
)]
fn run_probed<B: DetectionBackend, J: Job>(
    names: &[DeviceName],
    job: J,
    device: impl Fn(Option<usize>) -> Option<B::Device>,
) -> Result<J::Output> {
    let mut devices = Vec::new();
    for name in names {
        let Some(device) = device(name.index) else {
            bail!(
                "no device {name}, or no driver for it; there are {}",
                list()
            );
        };
        if let Err(reason) = probe::<B>(&device) {
            bail!(
                "device {name} can't be used ({reason}); there are {}",
                list()
            );
        }
        devices.push(device);
    }
    job.run::<B>(devices)
}
