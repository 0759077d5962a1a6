//! What follows a convolution, done to its output while that is in cache.

use std::array::from_fn;

use super::pool::{LANES, Lane};
use super::vector::vectorised;

/// `y * scale + shift + residual`, then perhaps a ReLU, for outputs `y` of a convolution.
#[derive(Clone, Copy)]
pub(in super::super) struct Epilogue<'a> {
    /// One for each channel of the output.
    pub(in super::super) scale: Option<&'a [f32]>,
    /// One for each channel of the output.
    pub(in super::super) shift: Option<&'a [f32]>,
    /// Of the output's layout, and as large where there are no `sources`.
    pub(in super::super) residual: Option<&'a [f32]>,
    /// For each pixel of the output, which of the residual's is added.
    pub(in super::super) sources: Option<&'a [usize]>,
    /// Whether what is negative becomes zero.
    pub(in super::super) relu: bool,
}

impl Epilogue<'_> {
    pub(in super::super) const NONE: Self = Self {
        scale: None,
        shift: None,
        residual: None,
        sources: None,
        relu: false,
    };

    /// Panics unless this is for an output of so many channels and floats. Whether the residual has
    /// the `sources` shows when it is read.
    pub(super) fn check(&self, channels: usize, len: usize) {
        let mut per_channel = [self.scale, self.shift].into_iter().flatten();
        assert!(per_channel.all(|values| values.len() == channels));
        let whole = |residual: &[f32]| self.sources.is_some() || residual.len() >= len;
        assert!(self.residual.is_none_or(whole));
    }

    /// For pixels of so many lanes.
    pub(super) fn by_lane(&self, lanes: usize) -> LaneEpilogue<'_> {
        let Self {
            scale,
            shift,
            residual,
            sources,
            relu,
        } = *self;
        let values = |values: Option<&[f32]>, default: f32, lane: usize| {
            let value = |i| values?.get(lane * LANES + i).copied();
            Lane(from_fn(|i| value(i).unwrap_or(default)))
        };
        let applies = relu || scale.or(shift).or(residual).is_some();
        let lanes = 0..if applies { lanes } else { 0 };
        let factors = lanes.map(|lane| [values(scale, 1.0, lane), values(shift, 0.0, lane)]);
        LaneEpilogue {
            factors: factors.collect(),
            residual,
            sources,
            relu,
        }
    }

    /// Finishes pixels of a channel that are to stand at `start` of the output.
    pub(super) fn finish(&self, channel: usize, start: usize, pixels: &mut [f32]) {
        let scale = self.scale.map_or(1.0, |scale| scale[channel]);
        let shift = self.shift.map_or(0.0, |shift| shift[channel]);
        if (scale, shift) != (1.0, 0.0) || self.residual.is_some() || self.relu {
            finish(self, [scale, shift], start, pixels);
        }
    }
}

/// An [`Epilogue`] of pixels with their channels side by side.
pub(super) struct LaneEpilogue<'a> {
    /// Scale and shift of each lane of a pixel; none where nothing follows.
    factors: Vec<[Lane; 2]>,
    pub(super) residual: Option<&'a [f32]>,
    sources: Option<&'a [usize]>,
    pub(super) relu: bool,
}

impl LaneEpilogue<'_> {
    pub(super) const NONE: Self = Self {
        factors: Vec::new(),
        residual: None,
        sources: None,
        relu: false,
    };

    /// Scale and shift of some lanes, unless nothing follows.
    pub(super) fn factors(&self, first: usize, count: usize) -> Option<&[[Lane; 2]]> {
        (!self.factors.is_empty()).then(|| &self.factors[first..first + count])
    }

    /// Where the residual has what belongs to a lane of a pixel of the output, of so many lanes.
    #[inline(always)]
    pub(super) fn source(&self, pixel: usize, lane: usize, lanes: usize) -> usize {
        let pixel = self.sources.map_or(pixel, |sources| sources[pixel]);
        (pixel * lanes + lane) * LANES
    }

    /// Finishes sixteen channels of a pixel, with their [`factors`](Self::factors), with what stands at
    /// [`source`](Self::source) of the residual.
    #[inline(always)]
    pub(super) fn finish(&self, [scale, shift]: &[Lane; 2], source: usize, pixel: &mut Lane) {
        for (i, value) in pixel.0.iter_mut().enumerate() {
            *value = *value * scale.0[i] + shift.0[i];
        }
        if let Some(residual) = self.residual {
            // A copy, for the compiler does not see that the two do not overlap.
            let residual: [f32; LANES] = *residual[source..].first_chunk().expect("a lane");
            for (value, residual) in pixel.0.iter_mut().zip(residual) {
                *value += residual;
            }
        }
        if self.relu {
            pixel.0.iter_mut().for_each(|value| *value = relu(*value));
        }
    }
}

vectorised! {
    fn finish(epilogue: &Epilogue<'_>, factors: [f32; 2], start: usize, pixels: &mut [f32]) {
        let [scale, shift] = factors;
        match (epilogue.residual, epilogue.relu) {
            (None, false) => pixels.iter_mut().for_each(|pixel| *pixel = *pixel * scale + shift),
            (None, true) => pixels.iter_mut().for_each(|pixel| *pixel = relu(*pixel * scale + shift)),
            (Some(residual), with_relu) => {
                for (pixel, residual) in pixels.iter_mut().zip(&residual[start..]) {
                    let sum = *pixel * scale + shift + residual;
                    *pixel = if with_relu { relu(sum) } else { sum };
                }
            }
        }
    }
}

/// Not `max`, which would make zero of a NaN.
#[inline(always)]
fn relu(value: f32) -> f32 {
    if value < 0.0 { 0.0 } else { value }
}
