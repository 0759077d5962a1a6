//! Time that tracking takes for each frame, with 100 boxes that move about and hide each other.
//!
//!     cargo run --release -p rcnn-track --example time

use std::time::Instant;

use rcnn_track::{Tracker, TrackerConfig};
use rcnn_types::Instances;

const BOXES: usize = 100;
const FRAMES: usize = 2000;

fn main() {
    let mut tracker = Tracker::new(TrackerConfig::default()).expect("valid");
    // Boxes that go round in circles of their own, on a picture of 1280x720.
    let detections = |frame: usize| -> Instances {
        let object = |i: usize| {
            let turn = 0.02 * frame as f32 * (1.0 + (i % 7) as f32 / 7.0) + i as f32;
            let x = 100.0 + (i * 97 % 1000) as f32 + 60.0 * turn.cos();
            let y = 60.0 + (i * 61 % 540) as f32 + 60.0 * turn.sin();
            let (width, height) = (30.0 + (i % 5) as f32 * 10.0, 50.0 + (i % 3) as f32 * 20.0);
            let score = if (frame + 13 * i) % 50 < 5 { 0.3 } else { 0.9 };
            ([x, y, x + width, y + height], 1 + i % 2, score)
        };
        let seen = (0..BOXES).filter(|i| (frame + 29 * i) % 100 > 2);
        seen.map(object).collect()
    };
    let frames: Vec<_> = (0..FRAMES).map(detections).collect();
    let mut tracked = 0;
    let begin = Instant::now();
    for found in &frames {
        tracked += tracker.update(found).len();
    }
    let milliseconds = begin.elapsed().as_secs_f64() * 1e3 / FRAMES as f64;
    println!(
        "{milliseconds:.3} ms a frame of {BOXES} boxes, {:.1} of them tracked",
        tracked as f64 / FRAMES as f64
    );
}
