//! Memory that goes from one operation to the next.
//!
//! A layer needs tens of megabytes for a moment, and fresh pages from the system cost more than
//! filling them. Buffers come back here when what holds them is dropped, tensors included. A fresh one
//! has not been touched yet, so the threads that fill it share the cost of its pages.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use memmap2::MmapMut;

/// Floats in a [`Lane`].
pub(super) const LANES: usize = 16;

/// Sixteen floats, which fill a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Lane(pub(super) [f32; LANES]);

impl Lane {
    pub(super) const ZERO: Self = Self([0.0; LANES]);
}

/// Has memory brought into cache, where the processor can; any address does.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which does nothing else.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
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
const MAX_IDLE_LANES: usize = (384 << 20) / size_of::<Lane>();

struct Idle {
    buffers: Vec<Buffer>,
    lanes: usize,
}

/// Memory for lanes, zeroed by the system when it is first touched.
enum Buffer {
    /// Floats that hold whole lanes, from the first aligned one on.
    Small(Vec<f32>),
    /// In huge pages where the system has them: fewer to look up, and to fault in.
    Large(MmapMut),
}

/// Bytes of a huge page, and of the smallest buffer that is made of them.
const HUGE_PAGE: usize = 2 << 20;

impl Buffer {
    fn new(lanes: usize) -> Self {
        let bytes = lanes * size_of::<Lane>();
        if bytes >= HUGE_PAGE
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            // Without, it is only slower.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self::Large(map);
        }
        Self::Small(vec![0.0; (lanes + 1) * LANES])
    }

    fn lanes(&self) -> &[Lane] {
        // SAFETY: a lane is sixteen floats without padding, and any bytes are a float.
        unsafe {
            match self {
                Self::Small(floats) => floats.align_to().1,
                Self::Large(map) => map.align_to().1,
            }
        }
    }

    fn lanes_mut(&mut self) -> &mut [Lane] {
        // SAFETY: as in `lanes`.
        unsafe {
            match self {
                Self::Small(floats) => floats.align_to_mut().1,
                Self::Large(map) => map.align_to_mut().1,
            }
        }
    }

    fn len(&self) -> usize {
        self.lanes().len()
    }
}

impl Idle {
    /// The smallest buffer of at least `len` lanes, unless it is much too large.
    fn take(&mut self, len: usize) -> Option<Buffer> {
        let fits = |&i: &usize| (len..=2 * len).contains(&self.buffers[i].len());
        let fit = (0..self.buffers.len()).filter(fits);
        let buffer = fit.min_by_key(|&i| self.buffers[i].len())?;
        let buffer = self.buffers.remove(buffer);
        self.lanes -= buffer.len();
        Some(buffer)
    }

    fn put(&mut self, buffer: Buffer) {
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
    buffer: Buffer,
    len: usize,
}

impl Scratch {
    pub(super) fn new(len: usize) -> Self {
        let idle = IDLE.lock().unwrap_or_else(|e| e.into_inner()).take(len);
        Self {
            buffer: idle.unwrap_or_else(|| Buffer::new(rounded(len))),
            len,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // An empty one would serve nobody, and drive out those that do.
        if self.len > 0 {
            let buffer = std::mem::replace(&mut self.buffer, Buffer::Small(Vec::new()));
            IDLE.lock().unwrap_or_else(|e| e.into_inner()).put(buffer);
        }
    }
}

impl Deref for Scratch {
    type Target = [Lane];

    fn deref(&self) -> &[Lane] {
        &self.buffer.lanes()[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [Lane] {
        &mut self.buffer.lanes_mut()[..self.len]
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

    /// The lanes that hold these floats.
    pub(super) fn lanes_mut(&mut self) -> &mut [Lane] {
        &mut self.scratch
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
