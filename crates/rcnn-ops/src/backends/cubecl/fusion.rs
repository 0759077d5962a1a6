//! Fusion: the operations go into its stream as they are, one operation each.

use std::fmt;

use burn::tensor::backend::BackendTypes;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{DType, Element, Shape};
use burn_fusion::stream::{Operation, OperationStreams};
use burn_fusion::{Fusion, FusionBackend, FusionRuntime, FusionTensor};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};

use crate::channels::tensor;
use crate::roi_align::{gather_levels, select_rows};
use crate::{DetectionBackend, RoiAlignOptions, RoiLevel, RoiPoolOptions};

type Runtime<B> = <B as FusionBackend>::FusionRuntime;
type Handles<B> = HandleContainer<<Runtime<B> as FusionRuntime>::FusionHandle>;
type Float<B> = <B as BackendTypes>::FloatTensorPrimitive;

/// An operation of the stream that runs a function on the tensors of its description.
struct Custom<F> {
    description: CustomOpIr,
    run: F,
}

impl<F> fmt::Debug for Custom<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.description.fmt(f)
    }
}

impl<R: FusionRuntime, F> Operation<R> for Custom<F>
where
    F: Fn(&CustomOpIr, &mut HandleContainer<R::FusionHandle>) + Send + Sync,
{
    fn execute(&self, handles: &mut HandleContainer<R::FusionHandle>) {
        (self.run)(&self.description, handles);
    }
}

/// Registers an operation; `run` takes its inputs from the handles and leaves its outputs there.
fn register<B: FusionBackend, const I: usize, const O: usize>(
    name: &'static str,
    inputs: [FusionTensor<Runtime<B>>; I],
    outputs: [(Shape, DType); O],
    run: impl Fn(&[TensorIr; I], &[TensorIr; O], &mut Handles<B>) + Send + Sync + 'static,
) -> [FusionTensor<Runtime<B>>; O] {
    let client = inputs[0].client.clone();
    let streams = OperationStreams::with_inputs(inputs.each_ref());
    let outputs =
        outputs.map(|(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype));
    let description = CustomOpIr::new(name, &inputs.map(FusionTensor::into_ir), &outputs);
    let operation = Custom {
        description: description.clone(),
        run: move |description: &CustomOpIr, handles: &mut Handles<B>| {
            let (inputs, outputs) = description.as_fixed();
            run(inputs, outputs, handles);
        },
    };
    let outputs = client.register(streams, OperationIr::Custom(description), operation);
    let Ok(outputs) = outputs.try_into() else {
        unreachable!("as many outputs as described");
    };
    outputs
}

/// [`register`] of an operation from float tensors to one float tensor.
fn floats<B: FusionBackend, const I: usize>(
    name: &'static str,
    inputs: [FusionTensor<Runtime<B>>; I],
    shape: Shape,
    dtype: DType,
    run: impl Fn([Float<B>; I]) -> Float<B> + Send + Sync + 'static,
) -> FusionTensor<Runtime<B>> {
    let run = move |inputs: &[TensorIr; I], [output]: &[TensorIr; 1], handles: &mut Handles<B>| {
        let inputs = inputs.each_ref().map(|t| handles.get_float_tensor::<B>(t));
        handles.register_float_tensor::<B>(&output.id, run(inputs));
    };
    let [output] = register::<B, I, 1>(name, inputs, [(shape, dtype)], run);
    output
}

impl<B: FusionBackend + DetectionBackend> DetectionBackend for Fusion<B> {
    fn roi_align(levels: Vec<RoiLevel<Self>>) -> FloatTensor<Self> {
        gather_levels(levels, |features, rois, options| {
            let ([k, _], [_, c, _, _]) = (rois.shape.dims(), features.shape.dims());
            let [out_h, out_w] = options.output_size;
            let (shape, dtype) = (Shape::new([k, c, out_h, out_w]), features.dtype);
            let run = move |[features, rois]: [_; 2]| {
                let (features, rois) = (tensor(features), tensor(rois));
                B::roi_align(vec![RoiLevel::only(features, rois, options)])
            };
            floats::<B, 2>("roi_align", [features, rois], shape, dtype, run)
        })
    }

    fn roi_align_backward(
        features: [usize; 4],
        rois: FloatTensor<Self>,
        rows: &[usize],
        grad: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        let grad = select_rows::<Self>(grad, rows);
        let dtype = grad.dtype;
        let rows: Vec<usize> = (0..rows.len()).collect();
        let run =
            move |[rois, grad]: [_; 2]| B::roi_align_backward(features, rois, &rows, grad, options);
        let (inputs, shape) = ([rois, grad], Shape::new(features));
        floats::<B, 2>("roi_align_backward", inputs, shape, dtype, run)
    }

    fn roi_pool(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiPoolOptions,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        let ([k, _], [_, c, _, _]) = (rois.shape.dims(), features.shape.dims());
        let [out_h, out_w] = options.output_size;
        let shape = Shape::new([k, c, out_h, out_w]);
        let outputs = [
            (shape.clone(), features.dtype),
            (shape, B::IntElem::dtype()),
        ];
        let inputs = [features, rois];
        let [values, positions] = register::<B, 2, 2>(
            "roi_pool",
            inputs,
            outputs,
            move |inputs, [values, positions], handles| {
                let [features, rois] = inputs.each_ref().map(|t| handles.get_float_tensor::<B>(t));
                let results = B::roi_pool(features, rois, options);
                handles.register_float_tensor::<B>(&values.id, results.0);
                handles.register_int_tensor::<B>(&positions.id, results.1);
            },
        );
        (values, positions)
    }

    fn roi_pool_backward(
        features: [usize; 4],
        rois: FloatTensor<Self>,
        positions: IntTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let outputs = [(Shape::new(features), grad.dtype)];
        let [output] = register::<B, 3, 1>(
            "roi_pool_backward",
            [rois, positions, grad],
            outputs,
            move |[rois, positions, grad], [output], handles| {
                let rois = handles.get_float_tensor::<B>(rois);
                let positions = handles.get_int_tensor::<B>(positions);
                let grad = handles.get_float_tensor::<B>(grad);
                let result = B::roi_pool_backward(features, rois, positions, grad);
                handles.register_float_tensor::<B>(&output.id, result);
            },
        );
        output
    }

    fn top_k(values: FloatTensor<Self>, k: usize) -> (FloatTensor<Self>, IntTensor<Self>) {
        let [rows, _] = values.shape.dims();
        let shape = Shape::new([rows, k]);
        let outputs = [(shape.clone(), values.dtype), (shape, B::IntElem::dtype())];
        let [top_values, top_indices] = register::<B, 1, 2>(
            "top_k",
            [values],
            outputs,
            move |[values], [top_values, top_indices], handles| {
                let results = B::top_k(handles.get_float_tensor::<B>(values), k);
                handles.register_float_tensor::<B>(&top_values.id, results.0);
                handles.register_int_tensor::<B>(&top_indices.id, results.1);
            },
        );
        (top_values, top_indices)
    }

    fn decode_boxes(
        deltas: FloatTensor<Self>,
        references: FloatTensor<Self>,
        sizes: FloatTensor<Self>,
        weights: [f32; 4],
    ) -> FloatTensor<Self> {
        let [n, columns] = deltas.shape.dims();
        let (shape, dtype) = (Shape::new([n, columns / 4, 4]), references.dtype);
        let run = move |[deltas, references, sizes]: [_; 3]| {
            B::decode_boxes(deltas, references, sizes, weights)
        };
        let inputs = [deltas, references, sizes];
        floats::<B, 3>("decode_boxes", inputs, shape, dtype, run)
    }

    fn box_iou(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let (shape, dtype) = (Shape::new([a.shape[0], b.shape[0]]), a.dtype);
        floats::<B, 2>("box_iou", [a, b], shape, dtype, |[a, b]| B::box_iou(a, b))
    }

    fn nms(
        boxes: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        iou_threshold: f64,
    ) -> IntTensor<Self> {
        let outputs = [(scores.shape.clone(), B::IntElem::dtype())];
        let [keep] = register::<B, 2, 1>(
            "nms",
            [boxes, scores],
            outputs,
            move |inputs, [keep], handles| {
                let [boxes, scores] = inputs.each_ref().map(|t| handles.get_float_tensor::<B>(t));
                let result = B::nms(boxes, scores, iou_threshold);
                handles.register_int_tensor::<B>(&keep.id, result);
            },
        );
        keep
    }
}
