//! The operations of [`DetectionBackend`] that are recorded whole, with their attributes. The others are
//! recorded as Burn's operations that their default bodies consist of.

use burn::tensor::ops::conv::{calculate_conv_output_shape, calculate_conv_transpose_output_shape};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, FloatTensor, IntTensor, ModuleOps};
use burn::tensor::{DType, TensorMetadata};

use super::graph::{ConvolutionOptions, Epilogue, Operation};
use super::router::{Recorder, operation};
use crate::channels::primitive;
use crate::{
    Activation, ConvEpilogue, ConvPrecision, DetectionBackend, LayerPlan, RoiLevel, RoiPoolOptions,
    same,
};

fn dims(tensor: &FloatTensor<Recorder>) -> Vec<usize> {
    tensor.shape().to_vec()
}

impl DetectionBackend for Recorder {
    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
        epilogue: ConvEpilogue<Self>,
        _precision: ConvPrecision,
        _plan: Option<&LayerPlan>,
    ) -> FloatTensor<Self> {
        let ConvOptions {
            stride,
            padding,
            dilation,
            groups,
        } = options;
        let (shape, dtype) = (x.shape(), x.dtype());
        let shape =
            calculate_conv_output_shape(&shape, &weight.shape(), &stride, &padding, &dilation)
                .expect("images and a kernel of two axes");
        let recorded = Operation::Convolution {
            options: ConvolutionOptions::new(&stride, &padding, &dilation, groups),
            epilogue: Epilogue {
                bias: bias.is_some(),
                affine: epilogue.affine.is_some(),
                residual: epilogue.residual.is_some(),
                activation: epilogue.activation,
            },
        };
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        if let Some((scale, shift)) = epilogue.affine {
            inputs.extend([primitive(scale), primitive(shift)]);
        }
        inputs.extend(epilogue.residual.map(primitive));
        let [output] = operation(recorded, inputs, [(shape.to_vec(), dtype)]);
        output
    }

    fn global_average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::adaptive_avg_pool2d(x, [1, 1])
    }

    fn transposed_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvTransposeOptions<2>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let ConvTransposeOptions {
            stride,
            padding,
            padding_out,
            dilation,
            groups,
        } = options;
        let (shape, kernel) = (x.shape(), weight.shape());
        let shape = calculate_conv_transpose_output_shape(
            &shape,
            &kernel,
            &stride,
            &padding,
            &padding_out,
            &dilation,
            groups,
        );
        let output = (
            shape.expect("images and a kernel of two axes").to_vec(),
            x.dtype(),
        );
        let recorded = Operation::ConvTranspose {
            options: ConvolutionOptions::new(&stride, &padding, &dilation, groups),
            output_padding: padding_out.to_vec(),
            bias: bias.is_some(),
            activation,
        };
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        let [output] = operation(recorded, inputs, [output]);
        output
    }

    fn pad_same(
        x: FloatTensor<Self>,
        kernel: [usize; 2],
        stride: [usize; 2],
    ) -> (FloatTensor<Self>, [usize; 2]) {
        match stride {
            // The same for every size.
            [1, 1] => same::pad::<Self>(x, kernel, stride),
            _ => (same_padded(x, kernel, stride, 0.0), [0, 0]),
        }
    }

    fn max_pool_same(x: FloatTensor<Self>, kernel: usize, stride: usize) -> FloatTensor<Self> {
        if stride == 1 {
            return same::max_pool::<Self>(x, kernel, stride);
        }
        let (kernel, stride) = ([kernel; 2], [stride; 2]);
        let padded = same_padded(x, kernel, stride, f64::NEG_INFINITY);
        Self::max_pool(padded, kernel, stride, [0, 0], false)
    }

    fn channel_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let output = (dims(&x), x.dtype());
        let [output] = operation(Operation::ChannelAffine, vec![x, scale, shift], [output]);
        output
    }

    fn roi_align(levels: Vec<RoiLevel<Self>>) -> FloatTensor<Self> {
        let (mut inputs, mut options, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for level in levels {
            inputs.extend([primitive(level.features), primitive(level.rois)]);
            options.push(level.options);
            rows.push(level.rows);
        }
        let [features, rois] = [&inputs[0], &inputs[1]];
        let mut shape = pooled(features, rois, options[0].output_size);
        shape[0] = rows.iter().map(Vec::len).sum();
        let output = (shape, features.dtype());
        let [output] = operation(Operation::RoiAlign { options, rows }, inputs, [output]);
        output
    }

    fn roi_pool(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiPoolOptions,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        let shape = pooled(&features, &rois, options.output_size);
        let outputs = [(shape.clone(), features.dtype()), (shape, DType::I32)];
        operation(Operation::RoiPool(options), vec![features, rois], outputs).into()
    }

    fn top_k(values: FloatTensor<Self>, k: usize) -> (FloatTensor<Self>, IntTensor<Self>) {
        let shape = vec![dims(&values)[0], k];
        let outputs = [(shape.clone(), values.dtype()), (shape, DType::I32)];
        operation(Operation::TopK, vec![values], outputs).into()
    }

    fn decode_boxes(
        deltas: FloatTensor<Self>,
        references: FloatTensor<Self>,
        sizes: FloatTensor<Self>,
        weights: [f32; 4],
    ) -> FloatTensor<Self> {
        let [rows, columns] = [dims(&deltas)[0], dims(&deltas)[1]];
        let output = (vec![rows, columns / 4, 4], deltas.dtype());
        let recorded = Operation::DecodeBoxes { weights };
        let [output] = operation(recorded, vec![deltas, references, sizes], [output]);
        output
    }

    fn box_iou(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let output = (vec![dims(&a)[0], dims(&b)[0]], a.dtype());
        let [output] = operation(Operation::BoxIou, vec![a, b], [output]);
        output
    }

    fn nms(
        boxes: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        iou_threshold: f64,
    ) -> IntTensor<Self> {
        let output = (dims(&scores), DType::I32);
        let recorded = Operation::Nms { iou_threshold };
        let [output] = operation(recorded, vec![boxes, scores], [output]);
        output
    }
}

/// An input with all of its `SAME` padding.
fn same_padded(
    x: FloatTensor<Recorder>,
    kernel: [usize; 2],
    stride: [usize; 2],
    value: f64,
) -> FloatTensor<Recorder> {
    let mut shape = dims(&x);
    for (size, (kernel, stride)) in shape[2..].iter_mut().zip(kernel.into_iter().zip(stride)) {
        *size += same::margins(*size, kernel, stride).iter().sum::<usize>();
    }
    let (recorded, output) = (
        Operation::SamePad {
            kernel,
            stride,
            value,
        },
        (shape, x.dtype()),
    );
    let [output] = operation(recorded, vec![x], [output]);
    output
}

/// Shape of features that are cut out at boxes.
fn pooled(
    features: &FloatTensor<Recorder>,
    rois: &FloatTensor<Recorder>,
    [height, width]: [usize; 2],
) -> Vec<usize> {
    vec![dims(rois)[0], dims(features)[1], height, width]
}
