//! Memory that pasted masks take, counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use rcnn_types::{Instances, MaskProbabilities, Size};

/// The system's allocator, with a count of the bytes in use and of the most there were.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// torchvision makes an f32 image of each: 4.8 GB.
#[test]
fn a_hundred_masks_of_a_large_image_take_megabytes() {
    let image = Size::new(3000, 4000);
    // Blobs in boxes as large as the image, so that every column has several runs.
    let probability =
        |i: usize, cell: usize| ((cell % 28 * 5 + cell / 28 * 3 + i) % 23) as f32 / 22.0;
    let masks: Vec<_> = (0..100)
        .map(|i| MaskProbabilities {
            bbox: [i as f32, 0.5 * i as f32, 4000.0, 3000.0 - i as f32],
            side: 28,
            values: (0..28 * 28).map(|cell| probability(i, cell)).collect(),
        })
        .collect();
    let alone: Vec<_> = masks[..3].iter().map(|m| m.paste(image, 0.5)).collect();
    let mut found = Instances {
        mask_probabilities: Some(masks),
        ..Default::default()
    };

    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    found.paste_masks(image, 0.5);
    let peak = PEAK.load(Ordering::Relaxed) - before;

    let pasted = found.masks.expect("masks");
    assert_eq!((pasted.len(), &pasted[..3]), (100, &alone[..]));
    println!("{:.1} MB at most", peak as f64 / 1e6);
    let torchvision = 100 * image.pixels() * size_of::<f32>();
    assert!(peak < torchvision / 50, "{peak} bytes");
}
