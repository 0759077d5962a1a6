//! The devices that this build can compute on, and their names.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// A device of one of the backends built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its backend, with a number where there may be several: `flex`, `wgpu:0`, `cuda:1`.
    pub name: String,
    /// Description, such as the name of the card.
    pub description: String,
    /// Its memory in bytes, where the driver says.
    pub memory: Option<u64>,
}

/// Every device found; backends without one have none here.
#[allow(unused_mut, reason = "a build may have no backend")]
pub fn devices() -> Vec<DeviceInfo> {
    let mut devices = Vec::new();
    let _cpu = |name: &str, description: &str| DeviceInfo {
        name: name.into(),
        description: description.into(),
        memory: None,
    };
    #[cfg(feature = "flex")]
    devices.push(_cpu("flex", "CPU, native kernels"));
    #[cfg(feature = "ndarray")]
    devices.push(_cpu("ndarray", "CPU, Burn's older backend"));
    #[cfg(feature = "wgpu")]
    devices.extend(wgpu::devices());
    #[cfg(feature = "cuda")]
    devices.extend(cuda::devices());
    devices
}

/// Error for a device that cannot be used, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeviceError(String);

/// Checks that a device can be used: without a driver, backends panic on first use.
///
/// Meant for a program's start: while it runs, other threads' panics are silent.
///
/// # Errors
/// What the backend said.
pub fn probe<B: Backend>(device: &B::Device) -> Result<(), DeviceError> {
    // What a thread of the driver says comes first, and tells most.
    let first = Arc::new(Mutex::new(None));
    let hook = panic::take_hook();
    panic::set_hook(Box::new({
        let first = first.clone();
        move |info| {
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(
                info.payload_as_str()
                    .unwrap_or("no reason given")
                    .to_string(),
            );
        }
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let one = Tensor::<B, 1>::ones([1], device);
        B::sync(device).map(|()| one.into_data())
    }));
    panic::set_hook(hook);
    let said = first.lock().unwrap_or_else(PoisonError::into_inner).take();
    match result {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(DeviceError(error.to_string())),
        Err(_) => Err(DeviceError(said.unwrap_or_default())),
    }
}

#[cfg(feature = "wgpu")]
pub use self::wgpu::wgpu_device;

#[cfg(feature = "wgpu")]
mod wgpu {
    use burn_cubecl::cubecl::future::block_on;
    use burn_wgpu::WgpuDevice;
    use burn_wgpu::graphics::{AutoGraphicsApi, GraphicsApi};
    use wgpu::{AdapterInfo, DeviceType, Instance, InstanceDescriptor};

    use super::DeviceInfo;

    /// The adapters of the graphics interface that the backend takes, in the driver's order.
    fn adapters() -> Vec<AdapterInfo> {
        let backends = AutoGraphicsApi::backend().into();
        let instance = Instance::new(InstanceDescriptor {
            backends,
            ..InstanceDescriptor::new_without_display_handle()
        });
        let adapters = block_on(instance.enumerate_adapters(backends));
        adapters.iter().map(|adapter| adapter.get_info()).collect()
    }

    pub(super) fn devices() -> Vec<DeviceInfo> {
        let describe = |(index, info): (usize, AdapterInfo)| DeviceInfo {
            name: format!("wgpu:{index}"),
            description: format!("{}, {:?}, {:?}", info.name, info.device_type, info.backend),
            memory: None,
        };
        adapters().into_iter().enumerate().map(describe).collect()
    }

    /// The device that [`devices`](super::devices) lists as `wgpu:<index>`.
    pub fn wgpu_device(index: usize) -> Option<WgpuDevice> {
        let adapters = adapters();
        let kind = adapters.get(index)?.device_type;
        // Burn counts those of each kind by themselves.
        let same = |info: &&AdapterInfo| info.device_type == kind;
        let number = adapters[..index].iter().filter(same).count();
        Some(match kind {
            DeviceType::DiscreteGpu => WgpuDevice::DiscreteGpu(number),
            DeviceType::IntegratedGpu => WgpuDevice::IntegratedGpu(number),
            DeviceType::VirtualGpu => WgpuDevice::VirtualGpu(number),
            DeviceType::Cpu => WgpuDevice::Cpu,
            DeviceType::Other => WgpuDevice::DefaultDevice,
        })
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use cudarc::driver::{DriverError, result, sys};

    use super::DeviceInfo;

    pub(super) fn devices() -> Vec<DeviceInfo> {
        // SAFETY: looks for the library by name and loads it, as the backend does.
        if !unsafe { sys::is_culib_present() } {
            return Vec::new();
        }
        let count = result::init().and_then(|()| result::device::get_count());
        (0..count.unwrap_or(0)).flat_map(device).collect()
    }

    fn device(index: i32) -> Result<DeviceInfo, DriverError> {
        let device = result::device::get(index)?;
        Ok(DeviceInfo {
            name: format!("cuda:{index}"),
            description: result::device::get_name(device)?,
            // SAFETY: the driver gave the device.
            memory: unsafe { result::device::total_mem(device) }
                .ok()
                .map(|bytes| bytes as u64),
        })
    }
}
