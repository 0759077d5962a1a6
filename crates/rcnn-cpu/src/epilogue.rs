//! Operations after a convolution, applied to its output while that is in cache.

use std::array::from_fn;

use crate::block::{BLOCK, ChannelBlock};
use crate::simd::vectorised;

/// Function applied to each value at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x * relu6(x + 3) / 6`.
    Hardswish,
    /// `relu6(x + 3) / 6`.
    Hardsigmoid,
}

impl Activation {
    /// Applies the activation to values, of which those that are not numbers stay so.
    #[inline(always)]
    fn apply(self, values: &mut [f32]) {
        // A loop for each, that it vectorises.
        match self {
            Self::None => {}
            Self::Relu => values.iter_mut().for_each(|value| *value = relu(*value)),
            Self::Relu6 => values
                .iter_mut()
                .for_each(|value| *value = clamp(*value, 6.0)),
            Self::Hardswish => values.iter_mut().for_each(|value| *value *= gate(*value)),
            Self::Hardsigmoid => values.iter_mut().for_each(|value| *value = gate(*value)),
        }
    }
}

/// Not `max`, which would make zero of a NaN.
#[inline(always)]
fn relu(value: f32) -> f32 {
    if value < 0.0 { 0.0 } else { value }
}

#[inline(always)]
fn clamp(value: f32, most: f32) -> f32 {
    let value = relu(value);
    if value > most { most } else { value }
}

#[inline(always)]
fn gate(value: f32) -> f32 {
    clamp(value * (1.0 / 6.0) + 0.5, 1.0)
}

/// `activation(y * scale + shift + residual)` for outputs `y` of a convolution.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// One for each channel of the output.
    pub scale: Option<&'a [f32]>,
    /// One for each channel of the output.
    pub shift: Option<&'a [f32]>,
    /// Values to add, of the output's layout, and as large where there are no `sources`.
    pub residual: Option<&'a [f32]>,
    /// Pixel of the residual that is added to each pixel of the output.
    pub sources: Option<&'a [usize]>,
    /// Last operation.
    pub activation: Activation,
}

impl Epilogue<'_> {
    /// The epilogue that changes nothing.
    pub const NONE: Self = Self {
        scale: None,
        shift: None,
        residual: None,
        sources: None,
        activation: Activation::None,
    };

    /// Panics unless this is for an output of that many channels and floats. Whether the residual has
    /// the `sources` shows when it is read.
    pub(crate) fn check(&self, channels: usize, len: usize) {
        let mut per_channel = [self.scale, self.shift].into_iter().flatten();
        assert!(per_channel.all(|values| values.len() == channels));
        let whole = |residual: &[f32]| self.sources.is_some() || residual.len() >= len;
        assert!(self.residual.is_none_or(whole));
    }

    /// For pixels of that many blocks.
    pub(crate) fn by_block(&self, blocks: usize) -> BlockEpilogue<'_> {
        let Self {
            scale,
            shift,
            residual,
            sources,
            activation,
        } = *self;
        let values = |values: Option<&[f32]>, default: f32, block: usize| {
            let value = |i| values?.get(block * BLOCK + i).copied();
            ChannelBlock(from_fn(|i| value(i).unwrap_or(default)))
        };
        let applies = activation != Activation::None || scale.or(shift).or(residual).is_some();
        let blocks = 0..if applies { blocks } else { 0 };
        let factors = blocks.map(|block| [values(scale, 1.0, block), values(shift, 0.0, block)]);
        BlockEpilogue {
            factors: factors.collect(),
            residual,
            sources,
            activation,
        }
    }

    /// Finishes pixels of a channel that are to stand at `start` of the output.
    pub(crate) fn finish(&self, channel: usize, start: usize, pixels: &mut [f32]) {
        let scale = self.scale.map_or(1.0, |scale| scale[channel]);
        let shift = self.shift.map_or(0.0, |shift| shift[channel]);
        let applies = self.activation != Activation::None || self.residual.is_some();
        if applies || (scale, shift) != (1.0, 0.0) {
            finish(self, [scale, shift], start, pixels);
        }
    }
}

/// An [`Epilogue`] of pixels with their channels side by side.
pub(crate) struct BlockEpilogue<'a> {
    /// Scale and shift of each block of a pixel; none where nothing follows.
    factors: Vec<[ChannelBlock; 2]>,
    pub(crate) residual: Option<&'a [f32]>,
    sources: Option<&'a [usize]>,
    pub(crate) activation: Activation,
}

impl BlockEpilogue<'_> {
    pub(crate) fn none() -> &'static Self {
        static NONE: BlockEpilogue<'static> = BlockEpilogue {
            factors: Vec::new(),
            residual: None,
            sources: None,
            activation: Activation::None,
        };
        &NONE
    }

    /// Scale and shift of some blocks, unless nothing follows.
    pub(crate) fn factors(&self, first: usize, count: usize) -> Option<&[[ChannelBlock; 2]]> {
        (!self.factors.is_empty()).then(|| &self.factors[first..first + count])
    }

    /// Where the residual has what belongs to a block of a pixel of the output, which has `blocks`.
    #[inline(always)]
    pub(crate) fn source(&self, pixel: usize, block: usize, blocks: usize) -> usize {
        let pixel = self.sources.map_or(pixel, |sources| sources[pixel]);
        (pixel * blocks + block) * BLOCK
    }

    /// Finishes sixteen channels of a pixel, with their [`factors`](Self::factors), with what stands at
    /// [`source`](Self::source) of the residual.
    #[inline(always)]
    pub(crate) fn finish(
        &self,
        [scale, shift]: &[ChannelBlock; 2],
        source: usize,
        pixel: &mut ChannelBlock,
    ) {
        for (i, value) in pixel.0.iter_mut().enumerate() {
            *value = *value * scale.0[i] + shift.0[i];
        }
        if let Some(residual) = self.residual {
            // A copy, for the compiler does not see that the two do not overlap.
            let residual: [f32; BLOCK] = *residual[source..].first_chunk().expect("a block");
            for (value, residual) in pixel.0.iter_mut().zip(residual) {
                *value += residual;
            }
        }
        self.activation.apply(&mut pixel.0);
    }
}

vectorised! {
    fn finish(epilogue: &Epilogue<'_>, factors: [f32; 2], start: usize, pixels: &mut [f32]) {
        let [scale, shift] = factors;
        match epilogue.residual {
            None => pixels.iter_mut().for_each(|pixel| *pixel = *pixel * scale + shift),
            Some(residual) => {
                for (pixel, residual) in pixels.iter_mut().zip(&residual[start..]) {
                    *pixel = *pixel * scale + shift + residual;
                }
            }
        }
        epilogue.activation.apply(pixels);
    }
}
