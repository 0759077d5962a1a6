//! The gradients of every operation of a training step, on a backend and on Flex: with maps and gradients row by
//! row, and with both channels last, as pools and interpolations leave them on GPUs. Chains of operations and odd
//! maps included: whole steps are compared with torchvision elsewhere, but do not say which operation is wrong.

use burn::backend::Autodiff;
use burn::tensor::activation::{log_softmax, sigmoid};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, FloatTensor};
use burn::tensor::{Int, Tensor, TensorPrimitive};
use parity::norm;
use rcnn_burn::ops::backend_types::{Flex, FlexDevice};
use rcnn_burn::ops::{
    Activation, ConvEpilogue, ConvPrecision, DetectionBackend, RoiAlignOptions, RoiPoolOptions,
    average_pool3x3, channel_affine, channel_gate, channel_moments, concat_channels,
    global_average_pool, roi_align, roi_pool,
};

use crate::Named;
use crate::kernels::{noise, tensor};

/// Largest difference of an output or a gradient, relative to its norm.
const TOLERANCE: f64 = 1e-4;

pub(crate) fn checks<B: DetectionBackend>() -> Vec<Named<B>> {
    vec![
        ("convolutions", convolutions::<B>),
        ("pools", pools::<B>),
        ("upsampling", upsampling::<B>),
        ("channels", channels::<B>),
        ("heads", heads::<B>),
    ]
}

/// Output of a function, and gradients of its inputs of these shapes.
fn gradients<B: DetectionBackend, const N: usize>(
    shapes: [[usize; 4]; N],
    channels_last: bool,
    device: &B::Device,
    run: impl Fn([Tensor<Autodiff<B>, 4>; N]) -> Tensor<Autodiff<B>, 4>,
) -> Vec<Vec<f32>> {
    let values = |shape: [usize; 4], seed| {
        let values = noise(shape.iter().product(), seed);
        let values: Vec<f32> = values.iter().map(|value| value - 0.5).collect();
        tensor::<Autodiff<B>, 4>(&values, shape, device)
    };
    let laid_out = |map: Tensor<Autodiff<B>, 4>| match channels_last {
        true => identity(map),
        false => map,
    };
    let mut seed = 0;
    let inputs = shapes.map(|shape| {
        seed += 1;
        values(shape, seed).require_grad()
    });
    let output = laid_out(run(inputs.clone().map(laid_out)));
    let gradients = (output.clone() * values(output.dims(), 0)).sum().backward();
    let inputs = inputs.map(|input| input.grad(&gradients).expect("a gradient"));
    let results = std::iter::once(output.inner()).chain(inputs);
    results
        .map(|result| result.into_data().into_vec().expect("f32"))
        .collect()
}

/// A pool of single pixels: changes no value, but on GPUs leaves what it is given, and the gradient on the way back,
/// channels last.
fn identity<B: DetectionBackend>(map: Tensor<B, 4>) -> Tensor<B, 4> {
    max_pool(map, 1, 1, 0)
}

fn assert_same(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}");
        let error = norm(found.iter().zip(expected).map(|(f, e)| f - e));
        let size = norm(expected.iter().copied());
        let which = match i {
            0 => "the output".to_string(),
            _ => format!("the gradient of input {i}"),
        };
        // Written so that NaN fails.
        assert!(
            error <= TOLERANCE * size,
            "{what}: an error of norm {error} in {which}, which is of norm {size} on Flex"
        );
    }
}

/// Compares a function of tensors of these shapes on `B` and on Flex, in both layouts.
macro_rules! compare {
    ($what:expr, $shapes:expr, $device:expr, $run:expr) => {
        for channels_last in [false, true] {
            let what = match channels_last {
                true => format!("{}, channels last", $what),
                false => $what.to_string(),
            };
            let found = gradients::<B, _>($shapes, channels_last, $device, $run);
            let expected = gradients::<Flex, _>($shapes, channels_last, &FlexDevice, $run);
            assert_same(&what, &found, &expected);
        }
    };
}

fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

fn from_primitive<B: Backend>(primitive: FloatTensor<B>) -> Tensor<B, 4> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn flat<B: Backend>(tensor: Tensor<B, 4>) -> Tensor<B, 1> {
    tensor.flatten(0, 3)
}

fn max_pool<B: DetectionBackend>(
    map: Tensor<B, 4>,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Tensor<B, 4> {
    let [kernel, stride, padding] = [kernel, stride, padding].map(|side| [side; 2]);
    from_primitive(B::max_pool(primitive(map), kernel, stride, padding, false))
}

/// A convolution with a bias, and a residual where there is one.
fn convolve<B: DetectionBackend>(
    [x, weight, bias]: [Tensor<B, 4>; 3],
    residual: Option<Tensor<B, 4>>,
    [stride, padding, groups]: [usize; 3],
) -> Tensor<B, 4> {
    let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], groups);
    let epilogue = ConvEpilogue {
        residual,
        ..Default::default()
    };
    let bias = Some(primitive(flat(bias)));
    let (x, weight, exact) = (primitive(x), primitive(weight), ConvPrecision::Exact);
    from_primitive(B::convolution(
        x, weight, bias, options, epilogue, exact, None,
    ))
}

fn convolutions<B: DetectionBackend>(device: &B::Device) {
    for (x, weight, options @ [stride, padding, groups]) in [
        ([2, 8, 3, 4], [16, 8, 3, 3], [1, 1, 1]),
        ([2, 16, 2, 3], [16, 16, 3, 3], [1, 1, 1]),
        ([1, 16, 5, 7], [6, 16, 1, 1], [1, 0, 1]),
        ([2, 8, 5, 7], [16, 8, 1, 1], [2, 0, 1]),
        ([2, 8, 4, 6], [8, 8, 3, 3], [2, 1, 1]),
        ([1, 3, 9, 13], [8, 3, 7, 7], [2, 3, 1]),
        ([2, 8, 5, 4], [8, 2, 3, 3], [1, 1, 4]),
        ([1, 8, 5, 6], [8, 1, 3, 3], [2, 1, 8]),
    ] {
        let bias = [weight[0], 1, 1, 1];
        let what = format!(
            "a convolution of {x:?} by {weight:?}, stride {stride}, padding {padding}, {groups} groups"
        );
        compare!(what, [x, weight, bias], device, |inputs| convolve(
            inputs, None, options
        ));
    }
    for (x, weight, stride, padding) in [
        ([3, 8, 4, 4], [8, 8, 2, 2], 2, 0),
        ([2, 8, 3, 4], [8, 3, 4, 4], 2, 1),
    ] {
        let what = format!("a transposed convolution of {x:?} by {weight:?}");
        let bias = [weight[1], 1, 1, 1];
        compare!(what, [x, weight, bias], device, |[x, weight, bias]| {
            let options = ConvTransposeOptions::new([stride; 2], [padding; 2], [0; 2], [1; 2], 1);
            transposed(x, weight, bias, options)
        });
    }
}

fn transposed<B: DetectionBackend>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 4>,
    options: ConvTransposeOptions<2>,
) -> Tensor<B, 4> {
    from_primitive(B::transposed_convolution(
        primitive(x),
        primitive(weight),
        Some(primitive(flat(bias))),
        options,
        Activation::Relu,
    ))
}

fn pools<B: DetectionBackend>(device: &B::Device) {
    for (shape, [kernel, stride, padding]) in [
        ([2, 8, 5, 7], [3, 2, 1]),
        ([1, 6, 4, 6], [3, 2, 1]),
        ([2, 16, 2, 3], [1, 2, 0]),
        ([1, 8, 5, 6], [2, 2, 0]),
        ([1, 8, 3, 4], [3, 1, 1]),
    ] {
        let what = format!("a max-pool of {shape:?}, {kernel}, stride {stride}, padding {padding}");
        compare!(what, [shape], device, |[x]| max_pool(
            x, kernel, stride, padding
        ));
    }
    compare!("an average pool", [[2, 8, 4, 5]], device, |[x]| {
        average_pool3x3(x)
    });
}

fn upsample<B: DetectionBackend>(map: Tensor<B, 4>, size: [usize; 2]) -> Tensor<B, 4> {
    from_primitive(B::interpolate_nearest(primitive(map), size))
}

/// Gradients through burn-cubecl's interpolation were wrong where they came from another one: in a pyramid from the
/// third level on, and in the whole body.
fn upsampling<B: DetectionBackend>(device: &B::Device) {
    for (shape, size) in [
        ([2, 16, 2, 3], [4, 6]),
        ([2, 16, 2, 3], [3, 5]),
        ([1, 6, 3, 4], [7, 9]),
    ] {
        let what = format!("{shape:?} upsampled to {size:?}");
        compare!(what, [shape], device, |[x]| upsample(x, size));
    }
    let levels = [[2, 16, 2, 3], [2, 16, 4, 6], [2, 16, 7, 11]];
    let weights = [[16, 16, 1, 1], [16, 1, 1, 1]];
    let shapes = [levels[0], levels[1], levels[2], weights[0], weights[1]];
    compare!("a pyramid", shapes, device, pyramid);
}

fn pyramid<B: DetectionBackend>(
    [coarse, middle, fine, weight, bias]: [Tensor<B, 4>; 5],
) -> Tensor<B, 4> {
    let lateral = |map, above| {
        let layer = [map, weight.clone(), bias.clone()];
        convolve(layer, Some(above), [1, 0, 1])
    };
    let middle = lateral(middle, coarse.clone());
    let fine = lateral(fine, middle.clone());
    // Each level is used twice.
    fine + upsample(max_pool(coarse, 1, 2, 0), [7, 11]) + upsample(middle, [7, 11])
}

fn channels<B: DetectionBackend>(device: &B::Device) {
    let (map, each) = ([2, 8, 3, 5], [8, 1, 1, 1]);
    compare!("an affine", [map, each, each], device, |[
        x,
        scale,
        shift,
    ]| {
        channel_affine(x, flat(scale), flat(shift))
    });
    compare!("a batch norm", [map], device, |[x]| {
        let (mean, var) = channel_moments(x.clone());
        let scale = (var + 1e-5).sqrt().recip();
        channel_affine(x, scale.clone(), -mean * scale)
    });
    compare!("a gate", [map], device, |[x]| {
        let gate = Activation::Hardsigmoid.apply(global_average_pool(x.clone()));
        channel_gate(x, gate)
    });
    for activation in [
        Activation::Relu,
        Activation::Relu6,
        Activation::Hardswish,
        Activation::Hardsigmoid,
    ] {
        let what = format!("{activation:?}");
        compare!(what, [map], device, |[x]| activation.apply(x * 12.0));
    }
    compare!("a residual", [map, map], device, |[x, y]| {
        let sum = x.clone() + y;
        Activation::Relu.apply(sum.clone()) + sum * x
    });
    let maps = [[2, 8, 3, 5], [2, 3, 3, 5], [2, 4, 3, 5]];
    compare!("maps side by side", maps, device, |maps| concat_channels(
        maps.to_vec()
    ));
}

fn heads<B: DetectionBackend>(device: &B::Device) {
    let linear = [[6, 4, 2, 2], [16, 8, 1, 1], [8, 1, 1, 1]];
    compare!("a linear layer", linear, device, |[x, weight, bias]| {
        let rows = x.reshape([6, 16]);
        fully_connected(rows, weight.reshape([16, 8]), flat(bias)).reshape([6, 8, 1, 1])
    });
    compare!("samples of anchors", [[2, 12, 3, 4]], device, |[x]| {
        // Three anchors at each place, of which some are picked, one of them twice.
        let rows = x.permute([0, 2, 3, 1]).reshape([2 * 3 * 4 * 3, 4]);
        let picked = Tensor::<_, 1, Int>::from_ints([70, 3, 3, 41, 0, 12], &rows.device());
        sigmoid(rows.select(0, picked)).reshape([6, 4, 1, 1])
    });
    compare!("a cross entropy", [[5, 4, 1, 1]], device, |[x]| {
        let labels = Tensor::<_, 2, Int>::from_ints([[3], [0], [1], [1], [2]], &x.device());
        let log_softmax = log_softmax(x.reshape([5, 4]), 1);
        log_softmax.gather(1, labels).reshape([5, 1, 1, 1])
    });
    compare!("masks of labels", [[3, 4, 2, 3]], device, |[x]| {
        let planes = x.reshape([12, 6]);
        let own = Tensor::<_, 1, Int>::from_ints([1, 6, 11], &planes.device());
        planes.select(0, own).reshape([3, 1, 2, 3])
    });
    let rois = [
        [0.0, 1.0, 1.0, 9.0, 5.0],
        [1.0, 2.0, 0.0, 8.0, 8.0],
        [0.0, 0.0, 3.0, 20.0, 9.0],
    ];
    compare!("RoIAlign", [[2, 8, 5, 7]], device, |[x]| {
        let rois = Tensor::from_floats(rois, &x.device());
        let options = RoiAlignOptions {
            output_size: [3, 2],
            spatial_scale: 0.5,
            sampling_ratio: 2,
            aligned: false,
        };
        roi_align(x, rois, options)
    });
    compare!("RoIPool", [[2, 8, 5, 7]], device, |[x]| {
        let rois = Tensor::from_floats(rois, &x.device());
        let options = RoiPoolOptions {
            output_size: [3, 2],
            spatial_scale: 0.5,
        };
        roi_pool(x, rois, options)
    });
}

fn fully_connected<B: DetectionBackend>(
    rows: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let (rows, weight, bias) = (primitive(rows), primitive(weight), primitive(bias));
    let output = B::fully_connected(rows, weight, Some(bias), None);
    Tensor::from_primitive(TensorPrimitive::Float(output))
}
