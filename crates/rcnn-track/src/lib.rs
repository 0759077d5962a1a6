//! Multi-object tracking: ids that stay with objects from frame to frame.
//!
//! [`Tracker`] is ByteTrack (Zhang et al. 2022), which needs nothing but boxes and scores. It gives the ids
//! that the reference implementation gives, class by class. None of the crates that were tried does:
//! they match greedily, or leave out unconfirmed tracks and duplicates.
//!
//! ```
//! # mod rcnn_burn { pub use rcnn_track as track; pub use rcnn_types::*; }
//! use rcnn_burn::Instances;
//! use rcnn_burn::track::{Tracker, TrackerConfig};
//!
//! let mut tracker = Tracker::new(TrackerConfig::default())?;
//! for frame in 0..10 {
//!     let x = 4.0 * frame as f32;
//!     // Detections: a cat that walks to the right, and something improbable.
//!     let found: Instances =
//!         [([x, 20.0, x + 50.0, 60.0], 1, 0.9), ([5.0, 5.0, 9.0, 9.0], 1, 0.2)].into_iter().collect();
//!     let tracked = tracker.update(&found);
//!     assert_eq!(tracked.track_ids, Some(vec![1]));
//!     assert_eq!(tracked.boxes, [found.boxes[0]]);
//! }
//! # Ok::<(), rcnn_types::validate::InvalidField>(())
//! ```

mod assignment;
mod kalman;
mod tracker;

pub use tracker::{Tracker, TrackerConfig};
