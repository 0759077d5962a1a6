//! Memory that goes from one operation to the next.
//!
//! A layer needs tens of megabytes for a moment, and fresh pages from the system cost more than
//! filling them. Buffers come back here when what holds them is dropped, tensors included.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// Floats in a [`Lane`].
pub(super) const LANES: usize = 16;

/// Sixteen floats, which fill a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Lane(pub(super) [f32; LANES]);

impl Lane {
    pub(super) const ZERO: Self = Self([0.0; LANES]);
}

/// Lanes as the floats that they hold.
pub(super) fn floats(lanes: &[Lane]) -> &[f32] {
    // SAFETY: a lane is sixteen floats without padding, and no less aligned than one.
    unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
}

/// As [`floats`], to write.
pub(super) fn floats_mut(lanes: &mut [Lane]) -> &mut [f32] {
    // SAFETY: as in `floats`; any float is valid in a lane.
    unsafe { std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), lanes.len() * LANES) }
}

/// Idle buffers, the longest idle first.
static IDLE: Mutex<Idle> = Mutex::new(Idle {
    buffers: Vec::new(),
    lanes: 0,
});

/// Idle buffers, and lanes in them, kept at most; beyond, the longest idle go.
const MAX_IDLE: usize = 256;
const MAX_IDLE_LANES: usize = (256 << 20) / size_of::<Lane>();

struct Idle {
    buffers: Vec<Vec<Lane>>,
    lanes: usize,
}

impl Idle {
    /// The smallest buffer of at least `len` lanes, unless it is much too large.
    fn take(&mut self, len: usize) -> Option<Vec<Lane>> {
        let fits = |&i: &usize| (len..=2 * len).contains(&self.buffers[i].len());
        let fit = (0..self.buffers.len()).filter(fits);
        let buffer = fit.min_by_key(|&i| self.buffers[i].len())?;
        let buffer = self.buffers.remove(buffer);
        self.lanes -= buffer.len();
        Some(buffer)
    }

    fn put(&mut self, buffer: Vec<Lane>) {
        self.lanes += buffer.len();
        self.buffers.push(buffer);
        while self.buffers.len() > MAX_IDLE || self.lanes > MAX_IDLE_LANES {
            self.lanes -= self.buffers.remove(0).len();
        }
    }
}

/// Up to an eighth more, so that buffers serve layers of about the same size.
fn rounded(len: usize) -> usize {
    len.next_multiple_of((len.next_power_of_two() / 16).max(1))
}

/// A buffer of lanes with arbitrary contents.
pub(super) struct Scratch {
    lanes: Vec<Lane>,
    len: usize,
}

impl Scratch {
    pub(super) fn new(len: usize) -> Self {
        let idle = IDLE.lock().unwrap_or_else(|e| e.into_inner()).take(len);
        Self {
            lanes: idle.unwrap_or_else(|| vec![Lane::ZERO; rounded(len)]),
            len,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lanes = std::mem::take(&mut self.lanes);
        if !lanes.is_empty() {
            IDLE.lock().unwrap_or_else(|e| e.into_inner()).put(lanes);
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

/// Floats of a [`Scratch`], any number of them.
pub(super) struct Floats {
    scratch: Scratch,
    len: usize,
}

impl Floats {
    /// Arbitrary values.
    pub(super) fn new(len: usize) -> Self {
        Self {
            scratch: Scratch::new(len.div_ceil(LANES)),
            len,
        }
    }

    pub(super) fn zeros(len: usize) -> Self {
        let mut floats = Self::new(len);
        floats.fill(0.0);
        floats
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &floats(&self.scratch)[..self.len]
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut floats_mut(&mut self.scratch)[..self.len]
    }
}
