//! Memory that goes from one operation to the next.
//!
//! A layer needs tens of megabytes for a moment, and fresh pages from the system cost more than
//! filling them. Buffers come back here when what holds them is dropped, tensors included. A fresh one
//! has not been touched yet, so the threads that fill it share the cost of its pages.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

use crate::block::{BLOCK, ChannelBlock, floats, floats_mut};

/// Idle buffers, the longest idle first.
static IDLE: Mutex<Idle> = Mutex::new(Idle {
    buffers: Vec::new(),
    blocks: 0,
    limit: DEFAULT_LIMIT,
});

/// Bytes of idle memory that are kept at most, until [`set_limit`] changes that.
pub const DEFAULT_LIMIT: usize = 384 << 20;

/// Idle buffers kept at most.
const MAX_IDLE: usize = 256;

struct Idle {
    buffers: Vec<Buffer>,
    blocks: usize,
    /// Bytes kept at most; beyond, the longest idle buffers go.
    limit: usize,
}

/// Limits the idle memory that is kept for later operations, in bytes, and frees the excess.
/// With 0, every operation takes its memory from the system.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_cpu as cpu; }
/// use rcnn_burn::cpu::memory;
///
/// memory::set_limit(64 << 20); // 64 MiB
/// assert!(memory::idle_bytes() <= 64 << 20);
/// ```
pub fn set_limit(bytes: usize) {
    let mut idle = Idle::lock();
    idle.limit = bytes;
    idle.evict();
}

/// Frees all idle memory. What tensors and layers hold stays, and is idle once they are dropped.
pub fn clear() {
    let mut idle = Idle::lock();
    idle.blocks = 0;
    idle.buffers = Vec::new();
}

/// Bytes of idle memory that are kept for later operations.
pub fn idle_bytes() -> usize {
    Idle::lock().blocks * size_of::<ChannelBlock>()
}

/// Memory for blocks, zeroed by the system when it is first touched.
enum Buffer {
    /// Floats that hold whole blocks, from the first aligned one on: an allocator zeroes what asks for
    /// more alignment than its own by hand.
    Small(Vec<f32>),
    /// In huge pages where the system has them: fewer to look up, and to fault in.
    Large(MmapMut),
}

/// Bytes of a huge page, and of the smallest buffer that is made of them.
const HUGE_PAGE: usize = 2 << 20;

impl Buffer {
    fn empty() -> Self {
        Self::Small(Vec::new())
    }

    fn new(blocks: usize) -> Self {
        let bytes = blocks * size_of::<ChannelBlock>();
        if bytes >= HUGE_PAGE
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            // Without, it is only slower.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self::Large(map);
        }
        Self::Small(vec![0.0; (blocks + 1) * BLOCK])
    }

    fn blocks(&self) -> &[ChannelBlock] {
        match self {
            Self::Small(floats) => bytemuck::pod_align_to(floats).1,
            Self::Large(map) => bytemuck::cast_slice(&map[..]),
        }
    }

    fn blocks_mut(&mut self) -> &mut [ChannelBlock] {
        match self {
            Self::Small(floats) => bytemuck::pod_align_to_mut(floats).1,
            Self::Large(map) => bytemuck::cast_slice_mut(&mut map[..]),
        }
    }

    fn len(&self) -> usize {
        self.blocks().len()
    }
}

impl Idle {
    fn lock() -> MutexGuard<'static, Self> {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest buffer of at least `len` blocks, unless it is much too large.
    fn take(&mut self, len: usize) -> Option<Buffer> {
        let fits = |&i: &usize| (len..=2 * len).contains(&self.buffers[i].len());
        let fit = (0..self.buffers.len()).filter(fits);
        let buffer = fit.min_by_key(|&i| self.buffers[i].len())?;
        let buffer = self.buffers.remove(buffer);
        self.blocks -= buffer.len();
        Some(buffer)
    }

    fn put(&mut self, buffer: Buffer) {
        self.blocks += buffer.len();
        self.buffers.push(buffer);
        self.evict();
    }

    fn evict(&mut self) {
        let limit = self.limit / size_of::<ChannelBlock>();
        while self.buffers.len() > MAX_IDLE || self.blocks > limit {
            self.blocks -= self.buffers.remove(0).len();
        }
    }
}

/// Up to an eighth more, so that buffers serve layers of about the same size.
fn rounded(len: usize) -> usize {
    len.next_multiple_of((len.next_power_of_two() / 16).max(1))
}

/// A buffer of blocks with arbitrary, but initialised, contents.
pub(crate) struct Scratch {
    buffer: Buffer,
    len: usize,
}

impl Scratch {
    /// Holds nothing, for a place that may be filled later.
    pub(crate) fn empty() -> Self {
        Self {
            buffer: Buffer::empty(),
            len: 0,
        }
    }

    pub(crate) fn new(len: usize) -> Self {
        if len == 0 {
            return Self::empty();
        }
        let idle = Idle::lock().take(len);
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
            let buffer = std::mem::replace(&mut self.buffer, Buffer::empty());
            Idle::lock().put(buffer);
        }
    }
}

impl Deref for Scratch {
    type Target = [ChannelBlock];

    fn deref(&self) -> &[ChannelBlock] {
        &self.buffer.blocks()[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [ChannelBlock] {
        &mut self.buffer.blocks_mut()[..self.len]
    }
}

/// Floats in memory of the arena, which goes back there when this is dropped.
pub struct Floats {
    scratch: Scratch,
    len: usize,
}

impl Floats {
    /// Takes a buffer of `len` arbitrary values.
    pub fn new(len: usize) -> Self {
        Self {
            scratch: Scratch::new(len.div_ceil(BLOCK)),
            len,
        }
    }

    /// The blocks that hold these floats, the last one perhaps in part.
    pub fn blocks_mut(&mut self) -> &mut [ChannelBlock] {
        &mut self.scratch
    }

    pub(crate) fn zeros(len: usize) -> Self {
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
