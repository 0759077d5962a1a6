//! CubeCL kernels, one source for WGPU, CUDA, Metal and Vulkan, with fusion or without.
//!
//! They compute in f32 whatever the precision of the features, add in a fixed order (WGSL has no
//! atomic addition of floats, and every run should give the same bits), and read nothing back.

use burn::tensor::DType;
use burn::tensor::Shape;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};

use crate::roi_align::{gather_levels, select_rows};
use crate::{DetectionBackend, RoiAlignOptions, RoiLevel, RoiPoolOptions};

mod boxes;
mod fusion;
mod nms;
mod roi;
mod roi_align;
mod roi_pool;
mod top_k;

impl<R, F, I, BT> DetectionBackend for CubeBackend<R, F, I, BT>
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    fn roi_align(levels: Vec<RoiLevel<Self>>) -> FloatTensor<Self> {
        gather_levels(levels, roi_align::forward)
    }

    fn roi_align_backward(
        features: [usize; 4],
        rois: FloatTensor<Self>,
        rows: &[usize],
        grad: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        let grad = select_rows::<Self>(grad, rows);
        roi_align::backward(features, rois, grad, options)
    }

    fn roi_pool(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiPoolOptions,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        roi_pool::forward(features, rois, options, I::dtype())
    }

    fn roi_pool_backward(
        features: [usize; 4],
        rois: FloatTensor<Self>,
        positions: IntTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        roi_pool::backward(features, rois, positions, grad)
    }

    fn top_k(values: FloatTensor<Self>, k: usize) -> (FloatTensor<Self>, IntTensor<Self>) {
        top_k::top_k(values, k, I::dtype())
    }

    fn decode_boxes(
        deltas: FloatTensor<Self>,
        references: FloatTensor<Self>,
        sizes: FloatTensor<Self>,
        weights: [f32; 4],
    ) -> FloatTensor<Self> {
        boxes::decode(deltas, references, sizes, weights)
    }

    fn box_iou(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        boxes::iou(a, b)
    }

    fn nms(
        boxes: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        iou_threshold: f64,
    ) -> IntTensor<Self> {
        nms::nms(boxes, scores, iou_threshold, I::dtype())
    }
}

/// An uninitialised tensor beside another, rows without padding.
fn empty<R: CubeRuntime, S: Into<Shape>>(
    beside: &CubeTensor<R>,
    shape: S,
    dtype: DType,
) -> CubeTensor<R> {
    let (client, device) = (beside.client.clone(), beside.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), dtype)
}

/// The tensors with rows one after the other, as kernels that index by hand want them.
fn contiguous<R: CubeRuntime, const N: usize>(tensors: [CubeTensor<R>; N]) -> [CubeTensor<R>; N] {
    tensors.map(into_contiguous)
}

fn dims<R: CubeRuntime, const D: usize>(tensor: &CubeTensor<R>) -> [usize; D] {
    tensor.meta.shape().dims()
}
