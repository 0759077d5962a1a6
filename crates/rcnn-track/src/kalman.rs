//! The motion of one box: a Kalman filter with constant velocity over centre x, centre y, aspect ratio and
//! height, in pixels and frames.
//!
//! The reference keeps a mean of 8 and a covariance of 8x8. As its noise is independent for each
//! coordinate and motion couples a coordinate with its own velocity alone, everything else in that matrix stays
//! zero: it is four filters of two states.

use rcnn_types::BBox;

/// Standard deviations relative to the height.
const POSITION: f64 = 1.0 / 20.0;
const VELOCITY: f64 = 1.0 / 160.0;

/// Standard deviations of the aspect ratio: as a state, of its velocity, and as it is measured.
const ASPECT: f64 = 1e-2;
const ASPECT_VELOCITY: f64 = 1e-5;
const ASPECT_MEASURED: f64 = 1e-1;

/// Heights of boxes from here on, in pixels: the aspect ratio divides by them.
const LEAST_HEIGHT: f64 = 1e-3;

/// A coordinate, its velocity, and their covariance.
#[derive(Debug, Clone, Copy)]
struct Axis {
    position: f64,
    velocity: f64,
    /// Variance of the position, covariance, variance of the velocity.
    covariance: [f64; 3],
}

impl Axis {
    fn new(position: f64, deviations: [f64; 2]) -> Self {
        let [of_position, of_velocity] = deviations.map(|d| d * d);
        Self {
            position,
            velocity: 0.0,
            covariance: [of_position, 0.0, of_velocity],
        }
    }

    fn predict(&mut self, deviations: [f64; 2]) {
        let [pp, pv, vv] = self.covariance;
        let [of_position, of_velocity] = deviations.map(|d| d * d);
        self.position += self.velocity;
        self.covariance = [pp + 2.0 * pv + vv + of_position, pv + vv, vv + of_velocity];
    }

    fn correct(&mut self, measured: f64, deviation: f64) {
        let [pp, pv, vv] = self.covariance;
        let variance = pp + deviation * deviation;
        let gains = [pp / variance, pv / variance];
        let innovation = measured - self.position;
        self.position += gains[0] * innovation;
        self.velocity += gains[1] * innovation;
        self.covariance = [pp - gains[0] * pp, pv - gains[0] * pv, vv - gains[1] * pv];
    }
}

/// Where a box is and moves to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Motion {
    /// Centre x, centre y, aspect ratio, height.
    axes: [Axis; 4],
}

impl Motion {
    /// A box at rest.
    pub(crate) fn new(bbox: &BBox) -> Self {
        let measured = to_xyah(bbox);
        let [position, velocity] = [2.0 * POSITION, 10.0 * VELOCITY].map(|d| d * measured[3]);
        let moving = [position, velocity];
        let deviations = [moving, moving, [ASPECT, ASPECT_VELOCITY], moving];
        Self {
            axes: [0, 1, 2, 3].map(|i| Axis::new(measured[i], deviations[i])),
        }
    }

    /// The next frame. The height of an object that is not seen doesn't go on changing.
    pub(crate) fn predict(&mut self, is_seen: bool) {
        if !is_seen {
            self.axes[3].velocity = 0.0;
        }
        let moving = [POSITION, VELOCITY].map(|d| d * self.axes[3].position);
        let deviations = [moving, moving, [ASPECT, ASPECT_VELOCITY], moving];
        for (axis, deviations) in self.axes.iter_mut().zip(deviations) {
            axis.predict(deviations);
        }
    }

    /// The box as it was detected.
    pub(crate) fn correct(&mut self, bbox: &BBox) {
        let position = POSITION * self.axes[3].position;
        let deviations = [position, position, ASPECT_MEASURED, position];
        let measured = to_xyah(bbox);
        for ((axis, measured), deviation) in self.axes.iter_mut().zip(measured).zip(deviations) {
            axis.correct(measured, deviation);
        }
    }

    /// The box, xyxy.
    pub(crate) fn bbox(&self) -> [f64; 4] {
        let [x, y, aspect, height] = self.axes.map(|axis| axis.position);
        let (half_width, half_height) = (aspect * height / 2.0, height / 2.0);
        [
            x - half_width,
            y - half_height,
            x + half_width,
            y + half_height,
        ]
    }
}

fn to_xyah(bbox: &BBox) -> [f64; 4] {
    let [x1, y1, x2, y2] = bbox.map(f64::from);
    let height = (y2 - y1).max(LEAST_HEIGHT);
    [(x1 + x2) / 2.0, (y1 + y2) / 2.0, (x2 - x1) / height, height]
}
