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

impl Shared<'_, Lane> {
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

    pub(super) fn len(&self) -> usize {
        self.len
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
