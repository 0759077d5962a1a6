//! What follows a convolution, done to its output while that is in cache.

use std::array::from_fn;

use super::lanes::vectorised;
use super::pool::{LANES, Lane};

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

    /// Whether nothing follows.
    pub(super) fn is_none(&self) -> bool {
        let Self {
            scale,
            shift,
            residual,
            relu,
            ..
        } = self;
        scale.or(*shift).or(*residual).is_none() && !relu
    }

    /// Panics unless this is for an output of so many channels and floats. Whether the residual has
    /// the `sources` shows when it is read.
    pub(super) fn check(&self, channels: usize, len: usize) {
        let mut per_channel = [self.scale, self.shift].into_iter().flatten();
        assert!(per_channel.all(|values| values.len() == channels));
        let whole = |residual: &[f32]| self.sources.is_some() || residual.len() >= len;
        assert!(self.residual.is_none_or(whole));
    }

    /// Scale and shift of sixteen channels.
    pub(super) fn lane(&self, lane: usize) -> [Lane; 2] {
        let values = |values: Option<&[f32]>, default: f32| {
            let value = |i| values?.get(lane * LANES + i).copied();
            Lane(from_fn(|i| value(i).unwrap_or(default)))
        };
        [values(self.scale, 1.0), values(self.shift, 0.0)]
    }

    /// Where the residual has what belongs to lane `at` of an output of so many lanes a pixel.
    #[inline(always)]
    pub(super) fn source(&self, at: usize, lanes: usize) -> usize {
        match self.sources {
            None => at * LANES,
            Some(sources) => (sources[at / lanes] * lanes + at % lanes) * LANES,
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

    /// Finishes sixteen channels of a pixel, with their [`lane`](Self::lane), with what stands at
    /// [`source`](Self::source) of the residual.
    #[inline(always)]
    pub(super) fn finish_lane(&self, [scale, shift]: &[Lane; 2], source: usize, pixel: &mut Lane) {
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
