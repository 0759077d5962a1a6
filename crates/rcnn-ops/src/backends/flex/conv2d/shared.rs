//! What threads share: outputs that they write in disjoint places.

use std::marker::PhantomData;

use super::pool::{LANES, Lane};

/// A slice that several threads write, each its own elements.
///
/// The regions of an image that a thread computes are rows of many planes, which no splitting
/// into subslices expresses.
pub(super) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: elements are only reached through `slice`, whose callers keep to disjoint ranges.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

/// Bytes of outputs that would drive everything else out of the cache, themselves at last.
const STREAMED_BYTES: usize = 24 << 20;

impl Shared<'_, Lane> {
    /// Whether these are so many that writing them should bypass the cache.
    pub(super) fn streams(&self) -> bool {
        cfg!(target_arch = "x86_64") && self.len * size_of::<Lane>() >= STREAMED_BYTES
    }

    /// As [`write`](Self::write) of one lane, but past the cache. [`fence`] has to follow.
    ///
    /// # Safety
    ///
    /// As for [`write`](Self::write).
    #[inline(always)]
    pub(super) unsafe fn stream(&self, at: usize, lane: &Lane) {
        let to = self.range(at, 1).cast::<f32>();
        // SAFETY: lanes are aligned, and this one is the caller's.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            use std::arch::x86_64::{_mm_load_ps, _mm_stream_ps};
            for (i, four) in lane.0.as_chunks::<4>().0.iter().enumerate() {
                _mm_stream_ps(to.add(4 * i), _mm_load_ps(four.as_ptr()));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        unsafe {
            to.cast::<Lane>().write(*lane)
        };
    }

    /// The floats of these lanes.
    pub(super) fn floats(&self) -> Shared<'_, f32> {
        Shared {
            data: self.data.cast(),
            len: self.len * LANES,
            slice: PhantomData,
        }
    }
}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self {
            data: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// A range of the elements; panics if they are not all there.
    ///
    /// # Safety
    ///
    /// While the result lives nothing else may touch the range.
    #[expect(clippy::mut_from_ref, reason = "the caller answers for exclusiveness")]
    #[inline(always)]
    pub(super) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: within the slice, and exclusive by contract.
        unsafe { std::slice::from_raw_parts_mut(self.range(start, len), len) }
    }

    /// Copies `values` to element `start` and on; panics if they do not fit.
    ///
    /// # Safety
    ///
    /// Nothing else may touch these elements at the same time.
    #[inline(always)]
    pub(super) unsafe fn write(&self, start: usize, values: &[T])
    where
        T: Copy,
    {
        let to = self.range(start, values.len());
        // SAFETY: within the slice, and exclusive by contract, so not `values` either.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len()) };
    }

    /// Where a range of the elements starts; panics if they are not all there.
    #[inline(always)]
    pub(super) fn range(&self, start: usize, len: usize) -> *mut T {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: within the slice, as just checked.
        unsafe { self.data.add(start) }
    }
}

/// Orders what was streamed before what other threads wait for.
pub(super) fn fence() {
    // SAFETY: every processor of this kind has it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}
