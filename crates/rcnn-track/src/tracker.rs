//! ByteTrack: association of detections with tracks, first those of high scores, then the others.

use std::collections::BTreeMap;

use rcnn_types::validate::{InvalidField, require_within};
use rcnn_types::{BBox, Instances};

use crate::assignment::assign;
use crate::kalman::Motion;

/// Detections up to this score are noise.
const LOW_SCORE: f32 = 0.1;
/// Margin above `track_thresh` that the score of a new track needs.
const NEW_TRACK: f64 = 0.1;
/// Highest cost of a match of the second association, `1 - IoU`.
const LOW_MATCH: f64 = 0.5;
/// Highest cost of the match that confirms a track.
const CONFIRM_MATCH: f64 = 0.7;
/// Distance `1 - IoU` below which a track and a lost one are the same object.
const DUPLICATE: f64 = 0.15;

/// Parameters of a [`Tracker`], by the names of the reference implementation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrackerConfig {
    /// Score above which detections are matched first, 0 to 1. Others above 0.1 only continue tracks; a track begins
    /// with a score 0.1 higher.
    pub track_thresh: f64,
    /// Highest cost `1 - IoU * score` of a match, 0 to 1.
    pub match_thresh: f64,
    /// Number of frames after which a lost object is forgotten. The reference has 30 at 30 frames a second.
    pub track_buffer: u32,
}

impl Default for TrackerConfig {
    /// The reference's.
    fn default() -> Self {
        Self {
            track_thresh: 0.5,
            match_thresh: 0.8,
            track_buffer: 30,
        }
    }
}

impl TrackerConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// Names the field that is invalid.
    pub fn validate(&self) -> Result<(), InvalidField> {
        require_within("track_thresh", self.track_thresh, 0.0..=1.0)?;
        require_within("match_thresh", self.match_thresh, 0.0..=1.0)
    }
}

/// ByteTrack over the detections of a video, frame by frame.
///
/// Objects are matched within their class only, and no two objects ever get the same id. Ids count from 1. Memory
/// is bounded by the objects of the last `track_buffer` frames.
#[derive(Debug, Clone)]
pub struct Tracker {
    config: TrackerConfig,
    /// Frames since the beginning.
    frame: u64,
    last_id: u64,
    classes: BTreeMap<usize, Tracks>,
}

impl Tracker {
    /// Creates a tracker that has seen nothing.
    ///
    /// # Errors
    /// If the configuration is invalid.
    pub fn new(config: TrackerConfig) -> Result<Self, InvalidField> {
        config.validate()?;
        Ok(Self {
            config,
            frame: 0,
            last_id: 0,
            classes: BTreeMap::new(),
        })
    }

    /// Takes the detections of the next frame, and returns those that belong to an object with its id, in their order.
    ///
    /// An object that appears after the first frame is reported from its second detection on. Boxes are
    /// the detected ones; the filtered ones serve for matching alone. Masks and keypoints stay with their objects.
    pub fn update(&mut self, found: &Instances) -> Instances {
        self.frame += 1;
        let mut detections: BTreeMap<usize, Vec<Detection>> = BTreeMap::new();
        for (index, object) in found.iter().enumerate() {
            let (bbox, score) = (object.bbox, object.score);
            let of_class = detections.entry(object.label).or_default();
            of_class.push(Detection { index, bbox, score });
        }
        for &label in detections.keys() {
            self.classes.entry(label).or_default();
        }
        let mut ids = BTreeMap::new();
        for (label, tracks) in &mut self.classes {
            let detections = detections.remove(label).unwrap_or_default();
            tracks.update(&self.config, self.frame, &detections, &mut self.last_id);
            let tracked = tracks.tracked.iter().filter(|track| track.is_confirmed);
            ids.extend(tracked.map(|track| (track.detection, track.id)));
        }
        self.classes
            .retain(|_, tracks| !tracks.tracked.is_empty() || !tracks.lost.is_empty());
        let indices: Vec<usize> = ids.keys().copied().collect();
        Instances {
            track_ids: Some(ids.into_values().collect()),
            ..found.select(&indices)
        }
    }

    /// Forgets all objects, for another video. Their ids are not given again.
    pub fn reset(&mut self) {
        self.frame = 0;
        self.classes.clear();
    }
}

/// A detection of one class.
#[derive(Debug, Clone, Copy)]
struct Detection {
    /// Its index among the frame's.
    index: usize,
    bbox: BBox,
    score: f32,
}

#[derive(Debug, Clone)]
struct Track {
    id: u64,
    motion: Motion,
    /// Whether it was seen in two frames, or began in the first.
    is_confirmed: bool,
    /// Whether it was once lost for too long.
    is_expired: bool,
    /// First frame and last frame in which it was seen, and its detection there.
    begin: u64,
    last: u64,
    detection: usize,
}

impl Track {
    fn see(&mut self, detection: &Detection, frame: u64) {
        self.motion.correct(&detection.bbox);
        self.is_confirmed = true;
        self.last = frame;
        self.detection = detection.index;
    }

    fn age(&self) -> u64 {
        self.last - self.begin
    }
}

/// The tracks of one class.
#[derive(Debug, Clone, Default)]
struct Tracks {
    /// Seen in the last frame.
    tracked: Vec<Track>,
    lost: Vec<Track>,
}

impl Tracks {
    fn update(
        &mut self,
        config: &TrackerConfig,
        frame: u64,
        detections: &[Detection],
        last_id: &mut u64,
    ) {
        let track_thresh = config.track_thresh as f32;
        let above = |d: &&Detection| d.score > track_thresh;
        let high: Vec<Detection> = detections.iter().filter(above).copied().collect();
        let below = |d: &&Detection| LOW_SCORE < d.score && d.score < track_thresh;
        let low: Vec<Detection> = detections.iter().filter(below).copied().collect();

        let tracked = self.tracked.drain(..);
        let (mut pool, unconfirmed): (Vec<_>, Vec<_>) = tracked.partition(|t| t.is_confirmed);
        let seen = pool.len();
        pool.append(&mut self.lost);
        for (i, track) in pool.iter_mut().enumerate() {
            track.motion.predict(i < seen);
        }

        // First association: high scores with all tracks, lost ones too.
        let mut hits = associate(&pool, &high, config.match_thresh, with_score);
        let rest = unmatched(&high, &hits);
        // Second association: low scores with the tracks that are left.
        let left: Vec<usize> = (0..seen).filter(|&i| hits[i].is_none()).collect();
        let left_tracks: Vec<Track> = left.iter().map(|&i| pool[i].clone()).collect();
        let low_hits = associate(&left_tracks, &low, LOW_MATCH, without_score);
        for (i, hit) in left.into_iter().zip(low_hits) {
            hits[i] = hit;
        }

        let mut found_again = Vec::new();
        for (i, (mut track, hit)) in pool.into_iter().zip(hits).enumerate() {
            let was_seen = i < seen;
            match hit {
                Some(detection) => {
                    track.see(&detection, frame);
                    match was_seen {
                        true => self.tracked.push(track),
                        false => found_again.push(track),
                    }
                }
                // The reference keeps an expired track for one frame more, and for none once it was expired.
                None if track.is_expired => {}
                None => {
                    let missed = frame - track.last;
                    track.is_expired = !was_seen && missed > u64::from(config.track_buffer);
                    self.lost.push(track);
                }
            }
        }

        // What was seen once is confirmed now, or was nothing.
        let hits = associate(&unconfirmed, &rest, CONFIRM_MATCH, with_score);
        let rest = unmatched(&rest, &hits);
        for (mut track, hit) in unconfirmed.into_iter().zip(hits) {
            if let Some(detection) = hit {
                track.see(&detection, frame);
                self.tracked.push(track);
            }
        }
        let new_thresh = (config.track_thresh + NEW_TRACK) as f32;
        for detection in rest.iter().filter(|d| d.score >= new_thresh) {
            *last_id += 1;
            self.tracked.push(Track {
                id: *last_id,
                motion: Motion::new(&detection.bbox),
                is_confirmed: frame == 1,
                is_expired: false,
                begin: frame,
                last: frame,
                detection: detection.index,
            });
        }
        self.tracked.append(&mut found_again);
        self.drop_duplicates();
    }

    /// Keeps the older of a track and a lost one in the same place.
    fn drop_duplicates(&mut self) {
        let mut tracked_stay = vec![true; self.tracked.len()];
        let mut lost_stay = vec![true; self.lost.len()];
        for (tracked, stays) in self.tracked.iter().zip(&mut tracked_stay) {
            let bbox = tracked.motion.bbox();
            for (lost, lost_stays) in self.lost.iter().zip(&mut lost_stay) {
                if 1.0 - iou(&bbox, &lost.motion.bbox()) < DUPLICATE {
                    match tracked.age() > lost.age() {
                        true => *lost_stays = false,
                        false => *stays = false,
                    }
                }
            }
        }
        let (mut tracked_stay, mut lost_stay) = (tracked_stay.into_iter(), lost_stay.into_iter());
        self.tracked.retain(|_| tracked_stay.next() == Some(true));
        self.lost.retain(|_| lost_stay.next() == Some(true));
    }
}

/// Cost of a match by IoU and score.
fn with_score(iou: f64, score: f32) -> f64 {
    1.0 - iou * f64::from(score)
}

/// Cost of a match by IoU alone.
fn without_score(iou: f64, _: f32) -> f64 {
    1.0 - iou
}

/// The detection of each track.
fn associate(
    tracks: &[Track],
    detections: &[Detection],
    limit: f64,
    cost: fn(f64, f32) -> f64,
) -> Vec<Option<Detection>> {
    if detections.is_empty() {
        return vec![None; tracks.len()];
    }
    let boxes: Vec<_> = detections.iter().map(|d| d.bbox.map(f64::from)).collect();
    let costs = tracks.iter().flat_map(|track| {
        let bbox = track.motion.bbox();
        let pairs = boxes.iter().zip(detections);
        pairs.map(move |(b, detection)| cost(iou(&bbox, b), detection.score))
    });
    let costs: Vec<f64> = costs.collect();
    let columns = assign(&costs, detections.len(), limit);
    let hits = columns.into_iter().map(|column| Some(detections[column?]));
    hits.collect()
}

fn unmatched(detections: &[Detection], hits: &[Option<Detection>]) -> Vec<Detection> {
    let is_free = |d: &&Detection| !hits.iter().flatten().any(|hit| hit.index == d.index);
    detections.iter().filter(is_free).copied().collect()
}

/// IoU of boxes whose last pixels count, as the reference computes it.
fn iou(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let width = a[2].min(b[2]) - a[0].max(b[0]) + 1.0;
    let height = a[3].min(b[3]) - a[1].max(b[1]) + 1.0;
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let area = |b: &[f64; 4]| (b[2] - b[0] + 1.0) * (b[3] - b[1] + 1.0);
    let shared = width * height;
    shared / (area(a) + area(b) - shared)
}
