//! How often the device is read back. wgpu logs every mapping of a buffer for reading, the one way
//! that values come back to the host, whoever asked for them.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Tensor;
use parity::Fixture;
use rcnn_burn::ops::backend_types::{Wgpu, WgpuDevice};
use serde_json::json;

use crate::{Check, models};

/// Two for a batch: proposals, detections.
const READBACKS: usize = 2;

static COUNT: AtomicUsize = AtomicUsize::new(0);

struct Counter;

impl log::Log for Counter {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.target().starts_with("wgpu_core")
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            let text = record.args().to_string();
            if text.starts_with("Buffer::map_async") && text.contains("host: Read") {
                COUNT.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    fn flush(&self) {}
}

fn count(action: impl FnOnce()) -> usize {
    static START: Once = Once::new();
    START.call_once(|| log::set_logger(&Counter).expect("the only logger"));
    log::set_max_level(log::LevelFilter::Trace);
    COUNT.store(0, Ordering::SeqCst);
    action();
    log::set_max_level(log::LevelFilter::Off);
    COUNT.load(Ordering::SeqCst)
}

pub(crate) fn checks() -> Vec<Check<Wgpu>> {
    vec![Check::alone("of_a_batch", of_a_batch)]
}

fn of_a_batch(device: &WgpuDevice) {
    let read_once = || drop(Tensor::<Wgpu, 1>::ones([3], device).into_data());
    assert_eq!(count(read_once), 1, "the counter does not count");

    // Levels, classes and images: two maps and three classes, five and four, of images whose numbers
    // of proposals differ.
    for (name, images) in [("resnet34_layers23", 1), ("resnet18_shapes", 2)] {
        let fixture = Fixture::open(name);
        let mut case = fixture.settings.clone();
        case["options"]["box_score_thresh"] = json!(0.0);
        let model = models::config(&case).init::<Wgpu>(device).expect("a model");
        let model = models::with_weights(&case, model, str::to_string);
        let pictures = models::images::<Wgpu>(&case, device);
        let batch = &pictures[..images.min(pictures.len())];
        let detect = || model.detect(batch).expect("images");
        // The first time kernels are chosen by trying them.
        let expected = detect();
        assert!(
            expected.iter().all(|found| !found.is_empty()),
            "{name}: no second stage"
        );
        let found = count(|| assert_eq!(detect(), expected, "{name}"));
        assert_eq!(found, READBACKS, "{name}");
    }
}
