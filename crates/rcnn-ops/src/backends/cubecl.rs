//! The CubeCL backends (WGPU, CUDA, Metal, Vulkan) run the reference bodies, with fusion or without.

use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_fusion::{Fusion, FusionBackend};

use crate::DetectionBackend;

impl<R, F, I, BT> DetectionBackend for CubeBackend<R, F, I, BT>
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
}

impl<B: FusionBackend + DetectionBackend> DetectionBackend for Fusion<B> {}
