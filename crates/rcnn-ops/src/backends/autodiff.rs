//! Gradients of the operations, hand-written: the forward pass of the RoI operations keeps the boxes
//! (and the positions of the maxima) instead of a graph of gathers, and a convolution computes no
//! gradient that nobody asks for.

use burn::tensor::TensorMetadata;
use burn::tensor::ops::{ConvOptions, FloatTensor, IntTensor};
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};

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

impl<B: DetectionBackend, C: CheckpointStrategy> DetectionBackend for Autodiff<B, C> {
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
