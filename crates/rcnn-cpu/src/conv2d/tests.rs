//! Against a naive convolution in `f64`.

use super::*;
use crate::block;
use crate::epilogue::Activation;
use crate::simd::for_each_set;
use crate::testing::{error, random};

/// Calls `visit(output, input, weight)` for each product of the convolution.
fn each_product(conv: &Conv2d, mut visit: impl FnMut(usize, usize, usize)) {
    let (ins, outs) = (
        conv.in_channels / conv.groups,
        conv.out_channels / conv.groups,
    );
    let [kh, kw] = conv.kernel;
    for n in 0..conv.batch {
        for o in 0..conv.out_channels {
            for y in 0..conv.out_height() {
                for x in 0..conv.out_width() {
                    let out = ((n * conv.out_channels + o) * conv.out_height() + y)
                        * conv.out_width()
                        + x;
                    for i in 0..ins {
                        let plane = n * conv.in_channels + o / outs * ins + i;
                        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                            let row = (y * conv.stride[0] + ky).wrapping_sub(conv.padding[0]);
                            let col = (x * conv.stride[1] + kx).wrapping_sub(conv.padding[1]);
                            if row < conv.height && col < conv.width {
                                let input = (plane * conv.height + row) * conv.width + col;
                                visit(out, input, ((o * ins + i) * kh + ky) * kw + kx);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Planes as channels last; the channels that round them up are not numbers, and must not be read.
fn to_channels_last(planes: &[f32], channels: usize, plane: usize) -> Scratch {
    let blocks = channels.div_ceil(BLOCK);
    let images = planes.len().checked_div(channels * plane).unwrap_or(0);
    let mut pixels = Scratch::new(images * plane * blocks);
    pixels.fill(ChannelBlock([f32::NAN; BLOCK]));
    for (i, value) in planes.iter().enumerate() {
        let (image, channel, at) = (i / plane / channels, i / plane % channels, i % plane);
        pixels[(image * plane + at) * blocks + channel / BLOCK].0[channel % BLOCK] = *value;
    }
    pixels
}

fn to_planes(pixels: &[f32], channels: usize, plane: usize) -> Vec<f32> {
    let pitch = channels.next_multiple_of(BLOCK);
    let images = pixels.len() / (pitch * plane).max(1);
    (0..images * channels * plane)
        .map(|i| pixels[(i / plane / channels * plane + i % plane) * pitch + i / plane % channels])
        .collect()
}

/// The forward pass from planes to planes, by way of what inference does.
fn forward_as(
    weights: impl Fn(&Conv2d, &[f32]) -> Weights,
    conv: &Conv2d,
    x: &[f32],
    w: &[f32],
    epilogue: &Epilogue<'_>,
) -> Vec<f32> {
    let out = |pixels: &[f32]| to_planes(pixels, conv.out_channels, conv.out_plane());
    let planes = *epilogue;
    let residual = epilogue
        .residual
        .map(|residual| to_channels_last(residual, conv.out_channels, conv.out_plane()));
    let epilogue = Epilogue {
        residual: residual.as_deref().map(block::floats),
        ..*epilogue
    };
    let weights = weights(conv, w);
    let pixels = to_channels_last(x, conv.in_channels, conv.in_plane());
    let output = out(&super::forward(
        conv,
        Image::ChannelsLast(&pixels),
        &weights,
        &epilogue,
    ));
    let from_planes = out(&super::forward(conv, Image::Planes(x), &weights, &epilogue));
    assert!(
        error(
            &from_planes,
            &output.iter().map(|&v| v.into()).collect::<Vec<_>>()
        ) < 2e-6
    );
    if conv.groups > 1 {
        let planes = exact_forward(conv, x, w, &planes);
        let output = output.iter().map(|&value| value.into());
        assert!(error(&planes, &output.collect::<Vec<_>>()) < 2e-6);
    }
    output
}

fn forward(conv: &Conv2d, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>) -> Vec<f32> {
    forward_as(Weights::new, conv, x, w, epilogue)
}

fn shift(shift: &[f32]) -> Epilogue<'_> {
    Epilogue {
        shift: Some(shift),
        ..Epilogue::NONE
    }
}

/// The errors of the forward pass and of the gradients of input, weights and bias.
fn errors(conv: &Conv2d) -> [f32; 4] {
    assert!(conv.supports());
    let x = random(conv.input_len(), 1);
    let w = random(conv.weight_len(), 2);
    let bias = random(conv.out_channels, 3);
    let grad = random(conv.output_len(), 4);
    let plane = conv.out_plane();
    let mut want: Vec<f64> = (0..conv.output_len())
        .map(|i| f64::from(bias[i / plane % conv.out_channels]))
        .collect();
    let mut want_x = vec![0.0f64; x.len()];
    let mut want_w = vec![0.0f64; w.len()];
    let mut want_b = vec![0.0f64; bias.len()];
    each_product(conv, |o, i, k| {
        want[o] += f64::from(x[i]) * f64::from(w[k]);
        want_x[i] += f64::from(grad[o]) * f64::from(w[k]);
        want_w[k] += f64::from(grad[o]) * f64::from(x[i]);
    });
    for (i, grad) in grad.iter().enumerate() {
        want_b[i / plane % conv.out_channels] += f64::from(*grad);
    }
    [
        error(&forward(conv, &x, &w, &shift(&bias)), &want),
        error(&input_grad(conv, &w, &grad), &want_x),
        error(&weight_grad(conv, &x, &grad), &want_w),
        error(
            &bias_grad(&grad, conv.out_channels, conv.out_plane()),
            &want_b,
        ),
    ]
}

fn conv(
    batch: usize,
    channels: [usize; 2],
    size: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
    groups: usize,
) -> Conv2d {
    Conv2d {
        batch,
        in_channels: channels[0],
        out_channels: channels[1],
        height: size[0],
        width: size[1],
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [padding; 2],
        groups,
        exact: false,
    }
}

fn check(conv: Conv2d) {
    for_each_set(|set| {
        let errors = errors(&conv);
        println!("{set} {errors:?} {conv:?}");
        assert!(
            errors.iter().all(|&e| e < 1e-5),
            "{set} {errors:?} {conv:?}"
        );
    });
}

#[test]
fn three_by_three() {
    for batch in 1..=4 {
        check(conv(batch, [5, 7], [9, 6], 3, 1, 1, 1));
    }
    for size in [[1, 1], [1, 9], [2, 3], [4, 4], [5, 13], [7, 300], [31, 17]] {
        check(conv(2, [16, 16], size, 3, 1, 1, 1));
        check(conv(1, [33, 18], size, 3, 1, 1, 1));
    }
    check(conv(1, [64, 70], [37, 41], 3, 1, 1, 1));
    check(conv(4, [130, 64], [15, 20], 3, 1, 1, 1));
    check(conv(1, [256, 256], [8, 10], 3, 1, 1, 1));
    // More than one block of tiles, within an image and across images.
    check(conv(1, [16, 16], [121, 126], 3, 1, 1, 1));
    check(conv(3, [17, 16], [70, 71], 3, 1, 1, 1));
}

/// Both methods, whichever is faster.
#[test]
fn winograd_error() {
    for (channels, size) in [
        ([64, 64], [24, 24]),
        ([256, 64], [12, 12]),
        ([512, 32], [8, 10]),
    ] {
        let conv = conv(2, channels, size, 3, 1, 1, 1);
        let x = random(conv.input_len(), 1);
        let w = random(conv.weight_len(), 2);
        let grad = random(conv.output_len(), 4);
        let mut want = vec![0.0f64; conv.output_len()];
        let mut want_x = vec![0.0f64; x.len()];
        let mut want_w = vec![0.0f64; w.len()];
        each_product(&conv, |o, i, k| {
            want[o] += f64::from(x[i]) * f64::from(w[k]);
            want_x[i] += f64::from(grad[o]) * f64::from(w[k]);
            want_w[k] += f64::from(grad[o]) * f64::from(x[i]);
        });
        let transformed = |conv: &Conv2d, w: &[f32]| {
            let (ins, outs) = (conv.in_channels, conv.out_channels);
            Weights(Method::Winograd(winograd::Weights::transform(ins, outs, w)))
        };
        let plain =
            |conv: &Conv2d, w: &[f32]| Weights(Method::Direct(direct::Weights::new(conv, w)));
        let winograd = [
            error(
                &forward_as(transformed, &conv, &x, &w, &Epilogue::NONE),
                &want,
            ),
            error(&winograd::input_grad(&conv, &w, &grad), &want_x),
            error(&winograd::weight_grad(&conv, &x, &grad), &want_w),
        ];
        let direct = [
            error(&forward_as(plain, &conv, &x, &w, &Epilogue::NONE), &want),
            error(&im2col::input_grad(&conv, &w, &grad), &want_x),
            error(&im2col::weight_grad(&conv, &x, &grad), &want_w),
        ];
        println!("winograd {winograd:?} im2col {direct:?}");
        assert!(winograd.iter().all(|&e| e < 1e-5), "{winograd:?}");
        assert!(direct.iter().all(|&e| e < 2e-6), "{direct:?}");
    }
}

const ACTIVATIONS: [Activation; 5] = [
    Activation::None,
    Activation::Relu,
    Activation::Relu6,
    Activation::Hardswish,
    Activation::Hardsigmoid,
];

fn activated(activation: Activation, x: f64) -> f64 {
    let relu6 = |x: f64| x.clamp(0.0, 6.0);
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => relu6(x),
        Activation::Hardswish => x * relu6(x + 3.0) / 6.0,
        Activation::Hardsigmoid => relu6(x + 3.0) / 6.0,
    }
}

/// NaN reaches the output, whatever follows.
#[test]
fn activations_keep_what_is_not_a_number() {
    for conv in [
        conv(1, [16, 16], [12, 12], 3, 1, 1, 1),
        conv(1, [16, 16], [12, 12], 1, 1, 0, 1),
        conv(1, [16, 16], [12, 12], 3, 1, 1, 16),
    ] {
        let (x, w) = (
            vec![f32::NAN; conv.input_len()],
            random(conv.weight_len(), 1),
        );
        for activation in ACTIVATIONS {
            let epilogue = Epilogue {
                activation,
                ..Epilogue::NONE
            };
            for_each_set(|set| {
                let weights = Weights::new(&conv, &w);
                let output = super::forward(&conv, Image::Planes(&x), &weights, &epilogue);
                let all = output.iter().all(|value| value.is_nan());
                assert!(all, "{set} {activation:?} {conv:?}");
            });
        }
    }
}

/// In the output loops of all methods.
#[test]
fn epilogues() {
    for conv in [
        conv(2, [17, 35], [21, 30], 3, 1, 1, 1),
        conv(2, [17, 35], [21, 30], 3, 2, 1, 1),
        conv(2, [17, 35], [21, 30], 1, 1, 0, 1),
        conv(2, [16, 32], [21, 30], 1, 2, 0, 1),
        conv(1, [8, 36], [31, 30], 3, 2, 1, 4),
        conv(1, [32, 64], [21, 30], 3, 2, 1, 4),
        conv(2, [35, 35], [21, 30], 3, 1, 1, 35),
    ] {
        let (x, w) = (random(conv.input_len(), 1), random(conv.weight_len(), 2));
        let (scale, shift) = (random(conv.out_channels, 3), random(conv.out_channels, 4));
        let residual = random(conv.output_len(), 5);
        let mut sums = vec![0.0f64; conv.output_len()];
        each_product(&conv, |o, i, k| {
            sums[o] += f64::from(x[i]) * f64::from(w[k])
        });
        for (bits, activation) in (0..8).flat_map(|bits| ACTIVATIONS.map(|kind| (bits, kind))) {
            let on = |bit: usize| bits >> bit & 1 == 1;
            let epilogue = Epilogue {
                scale: on(0).then_some(&scale[..]),
                shift: on(1).then_some(&shift[..]),
                residual: on(2).then_some(&residual[..]),
                sources: None,
                activation,
            };
            let want: Vec<f64> = (0..sums.len())
                .map(|i| {
                    let channel = i / conv.out_plane() % conv.out_channels;
                    let scale = epilogue
                        .scale
                        .map_or(1.0, |scale| f64::from(scale[channel]));
                    let shift = epilogue
                        .shift
                        .map_or(0.0, |shift| f64::from(shift[channel]));
                    let residual = epilogue.residual.map_or(0.0, |r| f64::from(r[i]));
                    let sum = sums[i] * scale + shift + residual;
                    activated(activation, sum)
                })
                .collect();
            for_each_set(|set| {
                let error = error(&forward(&conv, &x, &w, &epilogue), &want);
                assert!(
                    error < 1e-5,
                    "{error} {set} {bits:b} {activation:?} {conv:?}"
                );
            });
        }
    }
}

#[test]
fn pointwise() {
    for size in [[1, 1], [5, 7], [20, 33]] {
        check(conv(3, [19, 35], size, 1, 1, 0, 1));
        check(conv(2, [64, 12], size, 1, 2, 0, 1));
        check(conv(1, [6, 4], size, 1, 1, 1, 2));
    }
    check(conv(4, [256, 64], [15, 20], 1, 1, 0, 1));
    // More than one block of pixels.
    check(conv(1, [20, 18], [91, 100], 1, 1, 0, 1));
    check(conv(2, [18, 20], [91, 100], 1, 1, 0, 1));
}

#[test]
fn strides_paddings_and_kernels() {
    for size in [[7, 7], [8, 13], [21, 40]] {
        for stride in 1..=3 {
            for padding in [0, 1, 3] {
                check(conv(2, [3, 20], size, 7, stride, padding, 1));
                check(conv(2, [17, 5], size, 3, stride, padding, 1));
                check(conv(1, [4, 5], size, 2, stride, padding, 1));
            }
        }
    }
    check(conv(1, [3, 64], [75, 101], 7, 2, 3, 1));
    let mut oblong = conv(2, [6, 10], [12, 9], 3, 1, 1, 2);
    oblong.kernel = [5, 2];
    oblong.stride = [1, 3];
    oblong.padding = [2, 0];
    check(oblong);
}

#[test]
fn groups() {
    check(conv(2, [64, 64], [9, 11], 3, 1, 1, 32));
    check(conv(2, [128, 128], [9, 11], 3, 2, 1, 32));
    check(conv(3, [32, 96], [5, 4], 3, 1, 1, 32));
    // Groups that share blocks, fill them, or end within one.
    check(conv(1, [24, 24], [9, 11], 3, 1, 1, 3));
    check(conv(2, [64, 128], [9, 11], 3, 1, 1, 2));
    check(conv(1, [40, 20], [9, 11], 1, 1, 0, 5));
    check(conv(1, [34, 51], [7, 30], 3, 2, 1, 17));
    check(conv(1, [96, 96], [40, 60], 1, 1, 0, 3));
    // As the first layer of a separable convolution of images.
    check(conv(1, [3, 24], [37, 41], 7, 2, 3, 3));
}

#[test]
fn depthwise() {
    for channels in [8, 16, 40, 72] {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 2), (2, 3)] {
            for size in [[1, 1], [2, 3], [9, 14], [17, 40]] {
                let conv = conv(2, [channels; 2], size, kernel, stride, kernel / 2, channels);
                check(conv);
            }
        }
        check(conv(1, [channels; 2], [9, 33], 3, 1, 0, channels));
    }
    let mut oblong = conv(1, [32, 32], [12, 9], 3, 1, 1, 32);
    oblong.kernel = [5, 2];
    oblong.stride = [1, 3];
    oblong.padding = [4, 3];
    check(oblong);
}

#[test]
fn nothing_to_do() {
    for kernel in [1, 3, 7] {
        let conv = conv(0, [4, 6], [8, 8], kernel, 1, kernel / 2, 1);
        assert!(forward(&conv, &[], &random(conv.weight_len(), 1), &Epilogue::NONE).is_empty());
        assert!(input_grad(&conv, &random(conv.weight_len(), 1), &[]).is_empty());
        assert!(weight_grad(&conv, &[], &[]).iter().all(|&w| w == 0.0));
        assert_eq!(bias_grad(&[], 6, 0), [0.0; 6]);
    }
}

#[test]
fn same_bits_every_time() {
    for conv in [
        conv(2, [64, 64], [30, 41], 3, 1, 1, 1),
        conv(2, [64, 64], [30, 41], 3, 2, 1, 1),
    ] {
        let (x, grad) = (random(conv.input_len(), 1), random(conv.output_len(), 2));
        for_each_set(|_| {
            let first = weight_grad(&conv, &x, &grad);
            for _ in 0..5 {
                assert!(weight_grad(&conv, &x, &grad) == first);
            }
        });
    }
}
