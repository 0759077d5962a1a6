//! Sixteen floats: the unit that channels are stored, loaded and computed in.

use bytemuck::{Pod, Zeroable};

/// Floats in a [`ChannelBlock`].
pub const BLOCK: usize = 16;

/// Sixteen consecutive channels of one pixel, which fill a cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct ChannelBlock(pub [f32; BLOCK]);

impl ChannelBlock {
    pub(crate) const ZERO: Self = Self([0.0; BLOCK]);
}

/// Blocks as the floats that they hold.
pub(crate) fn floats(blocks: &[ChannelBlock]) -> &[f32] {
    bytemuck::cast_slice(blocks)
}

/// As [`floats`], to write.
pub(crate) fn floats_mut(blocks: &mut [ChannelBlock]) -> &mut [f32] {
    bytemuck::cast_slice_mut(blocks)
}

/// Has the cache line at an address brought into cache, where the processor can; any address does.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// A guard of writes that bypass the cache: for outputs so large that they would drive everything
/// else out of it, themselves at last.
///
/// Other threads see what has been written once this has been dropped; until then the writer must not
/// read it either.
pub(crate) struct Streaming(());

impl Streaming {
    /// Bytes of an output from which on it is written so.
    const MIN_BYTES: usize = 24 << 20;

    /// Whether an output of this many blocks bypasses the cache.
    pub(crate) fn pays(blocks: usize) -> bool {
        cfg!(target_arch = "x86_64") && blocks * size_of::<ChannelBlock>() >= Self::MIN_BYTES
    }

    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Writes a block without any special instructions.
    #[inline(always)]
    pub(crate) fn write(&self, to: &mut ChannelBlock, value: &[f32; BLOCK]) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_mm_loadu_ps, _mm_stream_ps};
            let (to, value) = (to.0.as_chunks_mut::<4>().0, value.as_chunks::<4>().0);
            for (to, value) in to.iter_mut().zip(value) {
                // SAFETY: SSE is part of x86-64, both are four floats, and those of a block start at
                // multiples of 16 bytes. The fence follows when `self` is dropped.
                unsafe { _mm_stream_ps(to.as_mut_ptr(), _mm_loadu_ps(value.as_ptr())) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            to.0 = *value;
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // SAFETY: SSE is part of x86-64.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::x86_64::_mm_sfence()
        };
    }
}
