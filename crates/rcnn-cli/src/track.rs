//! Options of tracking.

use anyhow::Result;
use clap::Args;
use rcnn_track::{Tracker, TrackerConfig};

use crate::thresholds::unit;

/// How objects are followed from frame to frame.
#[derive(Args)]
#[command(next_help_heading = "Tracking")]
pub(crate) struct TrackArgs {
    /// Follow objects from frame to frame and give each an id (ByteTrack)
    ///
    /// Only tracked objects are reported, and all of them are drawn. Leave --score-thresh low: detections with low
    /// scores help to follow an object while it is partly hidden.
    #[arg(long)]
    pub(crate) track: bool,
    /// Score above which detections are matched first; a new track needs 0.1 more
    #[arg(long, value_name = "F", default_value = "0.5", value_parser = unit::<f64>, requires = "track", hide_short_help = true)]
    track_thresh: f64,
    /// Highest cost of a match, 1 - IoU * score
    #[arg(long, value_name = "F", default_value = "0.8", value_parser = unit::<f64>, requires = "track", hide_short_help = true)]
    track_match_thresh: f64,
    /// Frames after which an object that is no longer detected is forgotten
    #[arg(
        long,
        value_name = "N",
        default_value = "30",
        requires = "track",
        hide_short_help = true
    )]
    track_buffer: u32,
}

impl TrackArgs {
    /// A tracker, if objects are to be followed.
    pub(crate) fn tracker(&self) -> Result<Option<Tracker>> {
        if !self.track {
            return Ok(None);
        }
        let config = TrackerConfig {
            track_thresh: self.track_thresh,
            match_thresh: self.track_match_thresh,
            track_buffer: self.track_buffer,
        };
        Ok(Some(Tracker::new(config)?))
    }
}
