//! Two-dimensional convolution and its gradients.
//!
//! Weights are OIHW. With gradients, images are planes (NCHW), by Winograd's method, products of
//! pixels with 1x1 kernels, or columns of patches (im2col); in inference they have their channels last,
//! by Winograd's method, directly in one group or several, or depthwise.

mod columns;
mod depthwise;
mod direct;
mod im2col;
mod pointwise;
#[cfg(test)]
mod tests;
mod winograd;

use rayon::prelude::*;

use crate::arena::{Floats, Scratch};
use crate::block::{BLOCK, ChannelBlock};
use crate::channels_last;
use crate::epilogue::Epilogue;
use crate::simd::InstructionSet;

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Conv2d {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height of the input.
    pub height: usize,
    /// Width of the input.
    pub width: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps down and right.
    pub stride: [usize; 2],
    /// Zeros above and below, left and right.
    pub padding: [usize; 2],
    /// Groups of channels that are convolved apart.
    pub groups: usize,
    /// Whether it has to be computed by plain sums.
    pub exact: bool,
}

impl Conv2d {
    /// Whether these sizes make a convolution that this module computes.
    pub fn supports(&self) -> bool {
        let fits = |size: usize, axis: usize| size + 2 * self.padding[axis] >= self.kernel[axis];
        self.groups > 0
            && self.in_channels.is_multiple_of(self.groups)
            && self.out_channels.is_multiple_of(self.groups)
            && self.kernel.iter().chain(&self.stride).all(|&size| size > 0)
            && fits(self.height, 0)
            && fits(self.width, 1)
    }

    /// Height of the output.
    pub fn out_height(&self) -> usize {
        (self.height + 2 * self.padding[0] - self.kernel[0]) / self.stride[0] + 1
    }

    /// Width of the output.
    pub fn out_width(&self) -> usize {
        (self.width + 2 * self.padding[1] - self.kernel[1]) / self.stride[1] + 1
    }

    /// Shape of the output, `[N, C', H', W']`.
    pub fn output_shape(&self) -> [usize; 4] {
        [
            self.batch,
            self.out_channels,
            self.out_height(),
            self.out_width(),
        ]
    }

    fn in_plane(&self) -> usize {
        self.height * self.width
    }

    fn out_plane(&self) -> usize {
        self.out_height() * self.out_width()
    }

    fn input_len(&self) -> usize {
        self.batch * self.in_channels * self.in_plane()
    }

    fn output_len(&self) -> usize {
        self.batch * self.out_channels * self.out_plane()
    }

    /// Floats of the output with its channels last.
    fn channels_last_len(&self) -> usize {
        channels_last::len(self.output_shape())
    }

    /// Weights of one output channel.
    fn patch(&self) -> usize {
        self.in_channels / self.groups * self.kernel[0] * self.kernel[1]
    }

    fn weight_len(&self) -> usize {
        self.out_channels * self.patch()
    }

    fn is_empty(&self) -> bool {
        self.input_len() == 0 || self.output_len() == 0
    }
}

/// Images, by their layout.
#[derive(Clone, Copy)]
pub enum Image<'a> {
    /// Each channel's pixels in a row.
    Planes(&'a [f32]),
    /// Each pixel's channels in a row, rounded up to blocks.
    ChannelsLast(&'a [ChannelBlock]),
}

impl<'a> Image<'a> {
    /// The input of a convolution with its channels last, in `scratch` if it has another layout.
    fn channels_last(self, conv: &Conv2d, scratch: &'a mut Scratch) -> &'a [ChannelBlock] {
        match self {
            Self::ChannelsLast(blocks) => blocks,
            Self::Planes(planes) => {
                let (channels, plane) = (conv.in_channels, conv.in_plane());
                *scratch = Scratch::new(conv.batch * plane * channels.div_ceil(BLOCK));
                channels_last::from_planes(planes, channels, plane, scratch);
                scratch
            }
        }
    }
}

/// Weights in the form that one of the methods of inference multiplies with.
pub struct Weights(Method);

enum Method {
    Winograd(winograd::Weights),
    Direct(direct::Weights),
    Depthwise(depthwise::Weights),
}

impl Weights {
    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Method::Winograd(weights) => weights.bytes(),
            Method::Direct(weights) => weights.bytes(),
            Method::Depthwise(weights) => weights.bytes(),
        }
    }

    /// The instruction set whose kernels multiply with them.
    pub fn instruction_set(&self) -> InstructionSet {
        match &self.0 {
            Method::Winograd(weights) => weights.instruction_set(),
            Method::Direct(weights) => weights.instruction_set(),
            Method::Depthwise(weights) => weights.instruction_set(),
        }
    }

    /// Whether Winograd's method is to be used.
    pub fn uses_winograd(conv: &Conv2d) -> bool {
        winograd::is_faster(conv)
    }

    /// Prepares weights for the method that is faster.
    pub fn new(conv: &Conv2d, w: &[f32]) -> Self {
        assert_eq!(w.len(), conv.weight_len());
        if Self::uses_winograd(conv) {
            let (ins, outs) = (conv.in_channels, conv.out_channels);
            Self(Method::Winograd(winograd::Weights::transform(ins, outs, w)))
        } else if depthwise::applies(conv) {
            Self(Method::Depthwise(depthwise::Weights::new(conv, w)))
        } else {
            Self(Method::Direct(direct::Weights::new(conv, w)))
        }
    }
}

/// The convolution of images `x`, with its channels last.
pub fn forward(conv: &Conv2d, x: Image<'_>, w: &Weights, epilogue: &Epilogue<'_>) -> Floats {
    let blocks = conv.in_channels.div_ceil(BLOCK);
    match x {
        Image::Planes(x) => assert_eq!(x.len(), conv.input_len()),
        Image::ChannelsLast(x) => assert!(x.len() >= conv.batch * conv.in_plane() * blocks),
    }
    epilogue.check(conv.out_channels, conv.channels_last_len());
    if conv.is_empty() {
        return Floats::zeros(conv.channels_last_len());
    }
    let epilogue = &epilogue.by_block(conv.out_channels.div_ceil(BLOCK));
    let mut turned = Scratch::empty();
    match &w.0 {
        Method::Winograd(w) => {
            winograd::forward(conv, x.channels_last(conv, &mut turned), w, epilogue)
        }
        Method::Depthwise(w) => {
            depthwise::forward(conv, x.channels_last(conv, &mut turned), w, epilogue)
        }
        Method::Direct(w) => {
            // A group's channels lie side by side, but for few.
            let by_group = conv.groups > 1 && conv.in_channels >= BLOCK;
            let x = match by_group {
                true => Image::ChannelsLast(x.channels_last(conv, &mut turned)),
                false => x,
            };
            direct::forward(conv, x, w, epilogue)
        }
    }
}

/// The convolution of images `x` with weights `w`, by plain sums, as planes.
pub fn exact_forward(conv: &Conv2d, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) -> Floats {
    assert_eq!(x.len(), conv.input_len());
    assert_eq!(w.len(), conv.weight_len());
    epilogue.check(conv.out_channels, conv.output_len());
    assert!(epilogue.sources.is_none(), "planes take a whole residual");
    if pointwise::applies(conv) {
        pointwise::forward(conv, x, w, epilogue)
    } else if depthwise::applies(conv) {
        depthwise::planes::forward(conv, x, w, epilogue)
    } else {
        im2col::forward(conv, x, w, epilogue)
    }
}

/// The gradient of the input, given that of the output.
pub fn input_grad(conv: &Conv2d, w: &[f32], grad: &[f32]) -> Floats {
    assert_eq!(w.len(), conv.weight_len());
    assert_eq!(grad.len(), conv.output_len());
    if winograd::is_faster(conv) {
        winograd::input_grad(conv, w, grad)
    } else if pointwise::applies(conv) {
        pointwise::input_grad(conv, w, grad)
    } else if depthwise::applies(conv) {
        depthwise::planes::input_grad(conv, w, grad)
    } else {
        im2col::input_grad(conv, w, grad)
    }
}

/// The gradient of the weights, given that of the output.
pub fn weight_grad(conv: &Conv2d, x: &[f32], grad: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), conv.input_len());
    assert_eq!(grad.len(), conv.output_len());
    if winograd::is_faster(conv) {
        winograd::weight_grad(conv, x, grad)
    } else if pointwise::applies(conv) {
        pointwise::weight_grad(conv, x, grad)
    } else if depthwise::applies(conv) {
        depthwise::planes::weight_grad(conv, x, grad)
    } else {
        im2col::weight_grad(conv, x, grad)
    }
}

/// The gradient of the bias, given that of the output, in planes of `plane` pixels.
pub fn bias_grad(grad: &[f32], channels: usize, plane: usize) -> Vec<f32> {
    let images = grad.len() / (channels * plane).max(1);
    (0..channels)
        .into_par_iter()
        .map(|channel| {
            let sum_of = |image| sum(&grad[(image * channels + channel) * plane..][..plane]);
            (0..images).map(sum_of).sum()
        })
        .collect()
}

/// The sum of a slice in sixteen strands, which vectorise and lose less than one long sum would.
fn sum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<16>();
    let mut strands = [0.0f32; 16];
    for chunk in chunks {
        for (strand, value) in strands.iter_mut().zip(chunk) {
            *strand += value;
        }
    }
    strands.iter().chain(rest).sum()
}
