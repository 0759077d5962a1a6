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
    /// As large as the output.
    pub(in super::super) residual: Option<&'a [f32]>,
    /// Whether what is negative becomes zero.
    pub(in super::super) relu: bool,
}

impl Epilogue<'_> {
    pub(in super::super) const NONE: Self = Self {
        scale: None,
        shift: None,
        residual: None,
        relu: false,
    };

    /// Scale and shift of sixteen channels.
    pub(super) fn lane(&self, lane: usize) -> [Lane; 2] {
        let values = |values: Option<&[f32]>, default: f32| {
            let value = |i| values?.get(lane * LANES + i).copied();
            Lane(from_fn(|i| value(i).unwrap_or(default)))
        };
        [values(self.scale, 1.0), values(self.shift, 0.0)]
    }

    /// Finishes pixels of a channel that are to stand at `start` of the output.
    pub(super) fn finish(&self, channel: usize, start: usize, pixels: &mut [f32]) {
        let scale = self.scale.map_or(1.0, |scale| scale[channel]);
        let shift = self.shift.map_or(0.0, |shift| shift[channel]);
        if (scale, shift) != (1.0, 0.0) || self.residual.is_some() || self.relu {
            finish(self, [scale, shift], start, pixels);
        }
    }

    /// As [`finish`](Self::finish), of pixels that are scaled and shifted.
    #[inline(always)]
    pub(super) fn finish_scaled(&self, start: usize, pixels: &mut [f32]) {
        if let Some(residual) = self.residual {
            for (pixel, residual) in pixels.iter_mut().zip(&residual[start..]) {
                *pixel += residual;
            }
        }
        if self.relu {
            for pixel in pixels {
                *pixel = relu(*pixel);
            }
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
