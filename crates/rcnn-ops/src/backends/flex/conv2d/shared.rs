//! What threads share: outputs that they write in disjoint places, and buffers that outlive calls.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use super::lanes::Lane;

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

/// A vector of `len` floats that `fill` writes: zeros first would take another pass.
///
/// # Safety
///
/// `fill` has to write every element, and to read none before.
pub(super) unsafe fn filled(len: usize, fill: impl FnOnce(&Shared<'_, f32>)) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    fill(&Shared {
        data: out.as_mut_ptr(),
        len,
        slice: PhantomData,
    });
    // SAFETY: the capacity is there, and written by contract.
    unsafe { out.set_len(len) };
    out
}

/// Idle buffers. A convolution needs megabytes for a moment, and fresh pages from the system
/// would cost it more than filling them. What was needed at once stays allocated.
static IDLE: Mutex<Vec<Vec<Lane>>> = Mutex::new(Vec::new());

/// Idle buffers kept at most; beyond, the smallest goes.
const MAX_IDLE: usize = 64;

/// A buffer of lanes with arbitrary contents.
pub(super) struct Scratch {
    lanes: Vec<Lane>,
    len: usize,
}

impl Scratch {
    pub(super) fn new(len: usize) -> Self {
        let mut idle = IDLE.lock().unwrap_or_else(|e| e.into_inner());
        let fit = (0..idle.len())
            .filter(|&i| idle[i].len() >= len)
            .min_by_key(|&i| idle[i].len());
        let lanes = fit.map(|i| idle.swap_remove(i));
        drop(idle);
        Self {
            lanes: lanes.unwrap_or_else(|| vec![Lane::ZERO; len]),
            len,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut idle = IDLE.lock().unwrap_or_else(|e| e.into_inner());
        idle.push(std::mem::take(&mut self.lanes));
        if idle.len() > MAX_IDLE {
            let smallest = (0..idle.len()).min_by_key(|&i| idle[i].len());
            smallest.map(|i| idle.swap_remove(i));
        }
    }
}

impl Deref for Scratch {
    type Target = [Lane];

    fn deref(&self) -> &[Lane] {
        &self.lanes[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [Lane] {
        &mut self.lanes[..self.len]
    }
}
