//! Tensors in memory of the engine's arena.

use std::mem::MaybeUninit;

use burn::tensor::{AllocationProperty, Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use burn_std::AllocationController;
use rcnn_cpu::{ChannelBlock, Floats};

/// The memory of a tensor. It goes back to the arena when the tensor is dropped.
struct Memory(Floats);

impl AllocationController for Memory {
    fn alloc_align(&self) -> usize {
        align_of::<ChannelBlock>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let floats: &mut [f32] = &mut self.0;
        let len = size_of_val(floats);
        // SAFETY: floats are bytes, and the caller writes none that is not initialised.
        unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), len) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        let floats: &[f32] = &self.0;
        // SAFETY: floats are bytes.
        unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
    }
}

/// A contiguous tensor of these values.
pub(super) fn tensor<const D: usize>(values: Floats, shape: [usize; D]) -> FlexTensor {
    with_layout(values, Layout::contiguous(Shape::from(shape)))
}

/// As [`tensor`], of another layout.
pub(super) fn with_layout(values: Floats, layout: Layout) -> FlexTensor {
    let len = size_of_val::<[f32]>(&values);
    // SAFETY: the memory is `len` bytes of floats, all initialised.
    let bytes = unsafe { Bytes::from_controller(Box::new(Memory(values)), len) };
    FlexTensor::new(bytes, layout, DType::F32)
}
