//! Gradients of the RoI operations, hand-written: the forward pass keeps the boxes (and the
//! positions of the maxima) instead of a graph of gathers.

use burn::tensor::TensorMetadata;
use burn::tensor::ops::{FloatTensor, IntTensor};
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

impl<B: DetectionBackend, C: CheckpointStrategy> DetectionBackend for Autodiff<B, C> {
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
