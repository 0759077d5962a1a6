//! Gradients of the operations, hand-written: the forward pass of the RoI operations keeps the boxes
//! (and the positions of the maxima) instead of a graph of gathers, and a convolution computes no
//! gradient that nobody asks for.

use burn::tensor::TensorMetadata;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::{ConvOptions, FloatTensor, IntTensor};
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};

use crate::channels::{primitive, rows, tensor};
use crate::{DetectionBackend, RoiAlignOptions, RoiPoolOptions};

#[derive(Debug)]
struct RoiAlign;

impl<B: DetectionBackend> Backward<B, 1> for RoiAlign {
    type State = ([usize; 4], FloatTensor<B>, RoiAlignOptions);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (shape, rois, options) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            B::roi_align_backward(shape, rois, grad, options)
        });
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
struct Convolution;

/// Input, weight, bias if there is one, and options.
type ConvolutionState<B> = (
    FloatTensor<B>,
    FloatTensor<B>,
    Option<FloatTensor<B>>,
    ConvOptions<2>,
);

/// `N` is 3 with a bias, else 2.
impl<B: DetectionBackend, const N: usize> Backward<B, N> for Convolution {
    type State = ConvolutionState<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, bias, options) = ops.state;
        let node = |place: usize| ops.parents.get(place).cloned().flatten();
        if let Some(node) = node(0) {
            let (x, weight, grad) = (x.clone(), weight.clone(), grad.clone());
            let grad = B::convolution_input_grad(x, weight, grad, options.clone());
            grads.register::<B>(node.id, grad);
        }
        if let Some(node) = node(1) {
            let grad = B::convolution_weight_grad(x.clone(), weight, grad.clone(), options);
            grads.register::<B>(node.id, grad);
        }
        if let (Some(node), Some(bias)) = (node(2), bias) {
            grads.register::<B>(node.id, B::convolution_bias_grad(x, bias, grad));
        }
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
    ) -> FloatTensor<Self> {
        let bias_primitive = bias.as_ref().map(|bias| bias.primitive.clone());
        let state: ConvolutionState<B> = (x.primitive, weight.primitive, bias_primitive, options);
        let (input, kernel, shift, options) = state.clone();
        let output = B::convolution(input, kernel, shift, options);
        macro_rules! record {
            ($nodes:expr) => {
                match Convolution.prepare::<C>($nodes).compute_bound().stateful() {
                    OpsKind::Tracked(prep) => prep.finish(state, output),
                    OpsKind::UnTracked(prep) => prep.finish(output),
                }
            };
        }
        match bias {
            Some(bias) => record!([x.node, weight.node, bias.node]),
            None => record!([x.node, weight.node]),
        }
    }

    fn roi_align(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        let shape = features.primitive.shape().dims();
        let rois = rois.primitive;
        let pooled = B::roi_align(features.primitive, rois.clone(), options);
        match RoiAlign
            .prepare::<C>([features.node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((shape, rois, options), pooled),
            OpsKind::UnTracked(prep) => prep.finish(pooled),
        }
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
}
