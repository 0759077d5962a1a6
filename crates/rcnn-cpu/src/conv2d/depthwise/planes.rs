//! Depthwise convolution of planes, with its gradients: row by row, each plane by itself.

use rayon::prelude::*;

use super::super::Conv2d;
use super::super::columns::{Run, Tap};
use crate::arena::Floats;
use crate::epilogue::Epilogue;
use crate::simd::vectorised;
use crate::transpose::take_every;

/// Strands of a sum, which vectorise and lose less than one long sum would.
const STRANDS: usize = 16;

pub(crate) fn forward(conv: &Conv2d, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) -> Floats {
    let (plane, taps) = (conv.out_plane(), conv.patch());
    let mut output = Floats::new(conv.output_len());
    let planes = output
        .par_chunks_mut(plane)
        .zip(x.par_chunks(conv.in_plane()));
    planes.enumerate().for_each(|(i, (out, x))| {
        let channel = i % conv.groups;
        convolve(conv, x, &w[channel * taps..][..taps], out);
        epilogue.finish(channel, i * plane, out);
    });
    output
}

pub(crate) fn input_grad(conv: &Conv2d, w: &[f32], grad: &[f32]) -> Floats {
    let taps = conv.patch();
    let mut output = Floats::new(conv.input_len());
    let planes = output
        .par_chunks_mut(conv.in_plane())
        .zip(grad.par_chunks(conv.out_plane()));
    planes.enumerate().for_each(|(i, (out, grad))| {
        let channel = i % conv.groups;
        scatter(conv, grad, &w[channel * taps..][..taps], out);
    });
    output
}

pub(crate) fn weight_grad(conv: &Conv2d, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0; conv.weight_len()];
    let kernels = sums.par_chunks_mut(conv.patch()).enumerate();
    kernels.for_each(|(channel, sums)| {
        let mut strands = vec![[0.0; STRANDS]; sums.len()];
        for image in 0..conv.batch {
            let plane = image * conv.groups + channel;
            let x = &x[plane * conv.in_plane()..][..conv.in_plane()];
            let grad = &grad[plane * conv.out_plane()..][..conv.out_plane()];
            correlate(conv, x, grad, &mut strands);
        }
        for (sum, strands) in sums.iter_mut().zip(&strands) {
            *sum = strands.iter().sum();
        }
    });
    sums
}

/// The rows of a plane of the output.
fn rows(conv: &Conv2d) -> impl Iterator<Item = Run> + use<> {
    let width = conv.out_width();
    (0..conv.out_height()).map(move |row| Run {
        image: 0,
        start: row * width,
        len: width,
        at: row * width,
    })
}

/// As many pixels as `scratch` holds, every `step` from `start` on: as they lie, or copied there.
#[inline(always)]
fn pixels<'a>(x: &'a [f32], start: usize, step: usize, scratch: &'a mut [f32]) -> &'a [f32] {
    if step == 1 {
        return &x[start..][..scratch.len()];
    }
    take_every(step, &x[start..], scratch);
    scratch
}

fn taps(conv: &Conv2d) -> Vec<Tap> {
    (0..conv.patch()).map(|tap| Tap::new(conv, tap)).collect()
}

vectorised! {
    fn convolve(conv: &Conv2d, x: &[f32], kernel: &[f32], out: &mut [f32]) {
        let (step, taps) = (conv.stride[1], taps(conv));
        let mut met = vec![0.0; conv.out_width()];
        out.fill(0.0);
        for row in rows(conv) {
            for (tap, weight) in taps.iter().zip(kernel) {
                tap.meet(conv, &row, |at, len, start| {
                    let x = pixels(x, start, step, &mut met[..len]);
                    let out = out[at..at + len].iter_mut();
                    out.zip(x).for_each(|(out, x)| *out += weight * x);
                });
            }
        }
    }
}

vectorised! {
    /// The adjoint of [`convolve`].
    fn scatter(conv: &Conv2d, grad: &[f32], kernel: &[f32], out: &mut [f32]) {
        let (step, taps) = (conv.stride[1], taps(conv));
        out.fill(0.0);
        for row in rows(conv) {
            for (tap, weight) in taps.iter().zip(kernel) {
                tap.meet(conv, &row, |at, len, start| {
                    let grad = grad[at..at + len].iter();
                    match step {
                        1 => {
                            let out = out[start..].iter_mut();
                            out.zip(grad).for_each(|(out, grad)| *out += weight * grad);
                        }
                        _ => {
                            let out = out[start..].iter_mut().step_by(step);
                            out.zip(grad).for_each(|(out, grad)| *out += weight * grad);
                        }
                    }
                });
            }
        }
    }
}

vectorised! {
    /// Adds the products of each tap's pixels with those of the output's gradient.
    fn correlate(conv: &Conv2d, x: &[f32], grad: &[f32], sums: &mut [[f32; STRANDS]]) {
        let (step, taps) = (conv.stride[1], taps(conv));
        let mut met = vec![0.0; conv.out_width()];
        for row in rows(conv) {
            for (tap, sums) in taps.iter().zip(&mut *sums) {
                tap.meet(conv, &row, |at, len, start| {
                    let x = pixels(x, start, step, &mut met[..len]);
                    let (xs, x_rest) = x.as_chunks::<STRANDS>();
                    let (grads, grad_rest) = grad[at..at + len].as_chunks::<STRANDS>();
                    for (x, grad) in xs.iter().zip(grads) {
                        for i in 0..STRANDS {
                            sums[i] += x[i] * grad[i];
                        }
                    }
                    for (sum, (x, grad)) in sums.iter_mut().zip(x_rest.iter().zip(grad_rest)) {
                        *sum += x * grad;
                    }
                });
            }
        }
    }
}
