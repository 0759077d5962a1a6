//! Gradients of the operations, hand-written: the forward pass of the RoI operations keeps the boxes
//! (and the positions of the maxima) instead of a graph of gathers, and a convolution computes no
//! gradient that nobody asks for.

use burn::tensor::TensorMetadata;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, FloatTensor, IntTensor};
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, binary, unary};

use crate::channels::{self, primitive, rows, tensor};
use crate::gate as gates;
use crate::{
    Activation, ConvEpilogue, ConvPrecision, DetectionBackend, ImageFit, LayerPlan,
    RoiAlignOptions, RoiLevel, RoiPoolOptions, image as images, same,
};

mod convolution;

/// The pooling from one level of several, which follow each other in the graph: a level's node passes the
/// gradient on to the level before.
#[derive(Debug)]
struct RoiAlignLevel;

impl<B: DetectionBackend> Backward<B, 2> for RoiAlignLevel {
    /// Shape of the features, boxes, their rows of the output, and options.
    type State = ([usize; 4], FloatTensor<B>, Vec<usize>, RoiAlignOptions);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (shape, rois, rows, options) = ops.state;
        binary::<B, _, _>(
            ops.parents,
            ops.node,
            grads,
            |grad| grad,
            |grad| B::roi_align_backward(shape, rois, &rows, grad, options),
        );
    }
}

#[derive(Debug)]
struct RoiPool;

impl<B: DetectionBackend> Backward<B, 1> for RoiPool {
    type State = ([usize; 4], FloatTensor<B>, IntTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (shape, rois, positions) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            B::roi_pool_backward(shape, rois, positions, grad)
        });
    }
}

#[derive(Debug)]
struct InterpolateNearest;

impl<B: DetectionBackend> Backward<B, 1> for InterpolateNearest {
    /// Input.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let x = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            B::interpolate_nearest_backward(x, grad)
        });
    }
}

#[derive(Debug)]
struct ChannelAffine;

impl<B: DetectionBackend> Backward<B, 3> for ChannelAffine {
    /// Input and scale.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, scale) = ops.state;
        let [x_node, scale_node, shift_node] = ops.parents;
        if scale_node.is_some() || shift_node.is_some() {
            let sums = B::channel_sums(grad.clone(), x);
            let (shift_grad, scale_grad) = rows::<B>(tensor(sums));
            for (node, grad) in [(scale_node, scale_grad), (shift_node, shift_grad)] {
                if let Some(node) = node {
                    grads.register::<B>(node.id, primitive(grad));
                }
            }
        }
        if let Some(node) = x_node {
            let zeros = primitive(tensor::<B, 1>(scale.clone()).zeros_like());
            grads.register::<B>(node.id, B::channel_affine(grad, scale, zeros));
        }
    }
}

#[derive(Debug)]
struct ChannelMoments;

impl<B: DetectionBackend> Backward<B, 1> for ChannelMoments {
    /// Input and moments.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, moments) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            // d mean / dx = 1 / n, d var / dx = 2 (x - mean) / n: both are affine in x.
            let [n, _, h, w]: [usize; 4] = x.shape().dims();
            let (mean_grad, var_grad) = rows::<B>(tensor(grad) / (n * h * w) as f64);
            let (mean, _) = rows::<B>(tensor(moments));
            let scale = var_grad * 2.0;
            let shift = mean_grad - mean * scale.clone();
            B::channel_affine(x, primitive(scale), primitive(shift))
        });
    }
}

impl<B: DetectionBackend, C: CheckpointStrategy> DetectionBackend for Autodiff<B, C> {
    fn fit_image(image: FloatTensor<Self>, fit: &ImageFit) -> FloatTensor<Self> {
        match image.is_tracked() {
            true => images::reference::<Self>(image, fit),
            false => Self::from_inner(B::fit_image(image.primitive, fit)),
        }
    }

    fn global_average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.is_tracked() {
            true => gates::means::<Self>(x),
            false => Self::from_inner(B::global_average_pool(x.primitive)),
        }
    }

    fn channel_gate(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.is_tracked() || gate.is_tracked() {
            true => gates::multiply::<Self>(x, gate),
            false => Self::from_inner(B::channel_gate(x.primitive, gate.primitive)),
        }
    }

    fn average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match x.is_tracked() {
            true => same::average::<Self>(x),
            false => Self::from_inner(B::average_pool(x.primitive)),
        }
    }

    fn concat_channels(maps: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        match maps.iter().any(|map| map.is_tracked()) {
            true => channels::concat::<Self>(maps),
            false => {
                let maps = maps.into_iter().map(|map| map.primitive);
                Self::from_inner(B::concat_channels(maps.collect()))
            }
        }
    }

    fn interpolate_nearest(x: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self> {
        let output = B::interpolate_nearest(x.primitive.clone(), size);
        let ops = InterpolateNearest.prepare::<C>([x.node]);
        match ops.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.primitive, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn channel_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let state = (x.primitive.clone(), scale.primitive.clone());
        let output = B::channel_affine(x.primitive, scale.primitive, shift.primitive);
        let nodes = [x.node, scale.node, shift.node];
        match ChannelAffine.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn channel_moments(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let moments = B::channel_moments(x.primitive.clone());
        let ops = ChannelMoments.prepare::<C>([x.node]);
        match ops.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x.primitive, moments.clone()), moments),
            OpsKind::UnTracked(prep) => prep.finish(moments),
        }
    }

    fn channel_sums(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        // Of gradients alone: nothing is tracked through it.
        <Self as AutodiffBackend>::from_inner(B::channel_sums(a.primitive, b.primitive))
    }

    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
        epilogue: ConvEpilogue<Self>,
        _: ConvPrecision,
        plan: Option<&LayerPlan>,
    ) -> FloatTensor<Self> {
        convolution::forward::<B, C>(x, weight, bias, options, epilogue, plan)
    }

    fn transposed_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvTransposeOptions<2>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        convolution::transposed::<B, C>(x, weight, bias, options, activation)
    }

    fn roi_align(levels: Vec<RoiLevel<Self>>) -> FloatTensor<Self> {
        let inner = |level: &RoiLevel<Self>| RoiLevel {
            features: level.features.clone().inner(),
            rois: level.rois.clone().inner(),
            rows: level.rows.clone(),
            options: level.options,
        };
        let pooled = Self::from_inner(B::roi_align(levels.iter().map(inner).collect()));
        levels.into_iter().fold(pooled, |pooled, level| {
            let features = primitive(level.features);
            let nodes = [pooled.node, features.node];
            let ops = RoiAlignLevel.prepare::<C>(nodes).compute_bound().stateful();
            let pooled = pooled.primitive;
            match ops {
                OpsKind::Tracked(prep) => {
                    let shape = features.primitive.shape().dims();
                    let rois = primitive(level.rois).primitive;
                    prep.finish((shape, rois, level.rows, level.options), pooled)
                }
                OpsKind::UnTracked(prep) => prep.finish(pooled),
            }
        })
    }

    fn roi_pool(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiPoolOptions,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        let shape = features.primitive.shape().dims();
        let rois = rois.primitive;
        let (pooled, positions) = B::roi_pool(features.primitive, rois.clone(), options);
        let pooled = match RoiPool
            .prepare::<C>([features.node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((shape, rois, positions.clone()), pooled),
            OpsKind::UnTracked(prep) => prep.finish(pooled),
        };
        (pooled, positions)
    }

    // Selections: nothing is tracked through them.

    fn top_k(values: FloatTensor<Self>, k: usize) -> (FloatTensor<Self>, IntTensor<Self>) {
        let (values, indices) = B::top_k(values.primitive, k);
        (<Self as AutodiffBackend>::from_inner(values), indices)
    }

    fn decode_boxes(
        deltas: FloatTensor<Self>,
        references: FloatTensor<Self>,
        sizes: FloatTensor<Self>,
        weights: [f32; 4],
    ) -> FloatTensor<Self> {
        let [deltas, references, sizes] = [deltas, references, sizes].map(|t| t.primitive);
        let boxes = B::decode_boxes(deltas, references, sizes, weights);
        <Self as AutodiffBackend>::from_inner(boxes)
    }

    fn box_iou(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as AutodiffBackend>::from_inner(B::box_iou(a.primitive, b.primitive))
    }

    fn nms(
        boxes: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        iou_threshold: f64,
    ) -> IntTensor<Self> {
        B::nms(boxes.primitive, scores.primitive, iou_threshold)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Distribution, Shape, Tensor, Tolerance};
    use burn_flex::Flex;

    use super::*;

    type B = Autodiff<Flex>;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
        let distribution = Distribution::Uniform(-1.0, 1.0);
        Tensor::random(Shape::from(shape), distribution, &Default::default()).require_grad()
    }

    /// Runs an operation and a reference composed of Burn's; compares values and all gradients.
    fn compare<const D: usize>(
        inputs: [FloatTensor<B>; 3],
        operation: fn([FloatTensor<B>; 3]) -> FloatTensor<B>,
        reference: fn([FloatTensor<B>; 3]) -> FloatTensor<B>,
    ) {
        let results = [operation, reference].map(|run| {
            let output = tensor::<B, D>(run(inputs.clone()));
            // Weights make every element's gradient another.
            let ramp = Tensor::<B, 1, burn::tensor::Int>::arange(
                0..output.shape().num_elements() as i64,
                &output.device(),
            );
            let ramp = ramp.float().sin().reshape(output.shape());
            let gradients = (output.clone() * ramp).sum().backward();
            let [x, y, z] = inputs.clone();
            let gradients = [
                tensor::<B, 4>(x).grad(&gradients).map(Tensor::into_data),
                tensor::<B, 1>(y.clone())
                    .grad(&gradients)
                    .map(Tensor::into_data),
                tensor::<B, 1>(z).grad(&gradients).map(Tensor::into_data),
            ];
            (output.into_data(), gradients)
        });
        let close = Tolerance::<f32>::rel_abs(1e-3, 1e-4);
        results[0].0.assert_approx_eq(&results[1].0, close);
        for (found, expected) in results[0].1.iter().zip(&results[1].1) {
            match (found, expected) {
                (Some(found), Some(expected)) => found.assert_approx_eq(expected, close),
                (found, expected) => assert_eq!(found.is_some(), expected.is_some()),
            }
        }
    }

    #[test]
    fn scales_and_moments_of_channels_have_the_gradients_of_composed_operations() {
        for shape in [[2, 3, 5, 7], [1, 1, 1, 1], [3, 2, 1, 40]] {
            let [x, scale, shift] = [
                primitive(random(shape)),
                primitive(random([shape[1]])),
                primitive(random([shape[1]])),
            ];
            compare::<4>(
                [x.clone(), scale.clone(), shift.clone()],
                |[x, scale, shift]| B::channel_affine(x, scale, shift),
                |[x, scale, shift]| channels::affine::<B>(x, scale, shift),
            );
            compare::<2>(
                [x, scale, shift],
                |[x, ..]| B::channel_moments(x),
                |[x, ..]| channels::moments::<B>(x),
            );
        }
    }
}
