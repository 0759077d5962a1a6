//! Two-dimensional convolution and its gradients, on plain slices of `f32`.
//!
//! Images are NCHW, weights OIHW. Every method gives the same bits at each run: the work is
//! partitioned by shape alone, and no two threads add to the same element.

mod epilogue;
mod gemm;
mod im2col;
mod lanes;
mod pointwise;
mod shared;
#[cfg(test)]
mod tests;
mod winograd;

use rayon::prelude::*;

use super::pool::{self, Floats};
pub(super) use epilogue::Epilogue;
pub(super) use lanes::{interleave, separate_lane, vectorised};

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv2d {
    /// Images.
    pub(super) batch: usize,
    /// Channels of the input.
    pub(super) in_channels: usize,
    /// Channels of the output.
    pub(super) out_channels: usize,
    /// Height of the input.
    pub(super) height: usize,
    /// Width of the input.
    pub(super) width: usize,
    /// Height and width of the kernel.
    pub(super) kernel: [usize; 2],
    /// Steps down and right.
    pub(super) stride: [usize; 2],
    /// Zeros above and below, left and right.
    pub(super) padding: [usize; 2],
    /// Groups of channels that are convolved apart.
    pub(super) groups: usize,
}

impl Conv2d {
    /// Whether these sizes make a convolution that this module computes.
    pub(super) fn supports(&self) -> bool {
        let fits = |size: usize, axis: usize| size + 2 * self.padding[axis] >= self.kernel[axis];
        self.groups > 0
            && self.in_channels.is_multiple_of(self.groups)
            && self.out_channels.is_multiple_of(self.groups)
            && self.kernel.iter().chain(&self.stride).all(|&size| size > 0)
            && fits(self.height, 0)
            && fits(self.width, 1)
    }

    /// Height of the output.
    pub(super) fn out_height(&self) -> usize {
        (self.height + 2 * self.padding[0] - self.kernel[0]) / self.stride[0] + 1
    }

    /// Width of the output.
    pub(super) fn out_width(&self) -> usize {
        (self.width + 2 * self.padding[1] - self.kernel[1]) / self.stride[1] + 1
    }

    /// `[N, C', H', W']`.
    pub(super) fn output_shape(&self) -> [usize; 4] {
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

/// The convolution of images `x` with weights `w`, by Winograd's method where that is faster.
pub(super) fn forward(conv: &Conv2d, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) -> Floats {
    if winograd::is_faster(conv) {
        check_forward(conv, x, w, epilogue);
        winograd::forward(conv, x, w, epilogue)
    } else {
        exact_forward(conv, x, w, epilogue)
    }
}

/// As [`forward`], by plain sums.
pub(super) fn exact_forward(
    conv: &Conv2d,
    x: &[f32],
    w: &[f32],
    epilogue: &Epilogue<'_>,
) -> Floats {
    check_forward(conv, x, w, epilogue);
    if pointwise::applies(conv) {
        pointwise::forward(conv, x, w, epilogue)
    } else {
        im2col::forward(conv, x, w, epilogue)
    }
}

fn check_forward(conv: &Conv2d, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) {
    assert_eq!(x.len(), conv.input_len());
    assert_eq!(w.len(), conv.weight_len());
    let per_channel = [epilogue.scale, epilogue.shift].into_iter().flatten();
    assert!(
        per_channel
            .into_iter()
            .all(|values| values.len() == conv.out_channels)
    );
    let residual = epilogue.residual;
    assert!(residual.is_none_or(|residual| residual.len() == conv.output_len()));
}

/// The gradient of the input, given that of the output.
pub(super) fn input_grad(conv: &Conv2d, w: &[f32], grad: &[f32]) -> Floats {
    assert_eq!(w.len(), conv.weight_len());
    assert_eq!(grad.len(), conv.output_len());
    if winograd::is_faster(conv) {
        winograd::input_grad(conv, w, grad)
    } else if pointwise::applies(conv) {
        pointwise::input_grad(conv, w, grad)
    } else {
        im2col::input_grad(conv, w, grad)
    }
}

/// The gradient of the weights, given that of the output.
pub(super) fn weight_grad(conv: &Conv2d, x: &[f32], grad: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), conv.input_len());
    assert_eq!(grad.len(), conv.output_len());
    if winograd::is_faster(conv) {
        winograd::weight_grad(conv, x, grad)
    } else if pointwise::applies(conv) {
        pointwise::weight_grad(conv, x, grad)
    } else {
        im2col::weight_grad(conv, x, grad)
    }
}

/// The gradient of the bias, given that of the output, in planes of so many pixels.
pub(super) fn bias_grad(grad: &[f32], channels: usize, plane: usize) -> Vec<f32> {
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
