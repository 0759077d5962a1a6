//! Convolutions with gradients, of which only those that are asked for are computed.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, FloatTensor};
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};

use crate::channels::{primitive, tensor};
use crate::convolution::bias_grad;
use crate::{Activation, ConvEpilogue, ConvPrecision, DetectionBackend, LayerPlan};

#[derive(Debug)]
struct Convolution;

/// `N` is 3 with a bias, else 2.
impl<B: DetectionBackend, const N: usize> Backward<B, N> for Convolution {
    /// Input, weight and options.
    type State = (FloatTensor<B>, FloatTensor<B>, ConvOptions<2>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, options) = ops.state;
        let nodes = [0, 1, 2].map(|place: usize| ops.parents.get(place).cloned().flatten());
        let wanted = nodes.each_ref().map(Option::is_some);
        let found = B::convolution_backward(x, weight, grad, options, wanted);
        for (node, grad) in nodes.into_iter().zip(found) {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct TransposedConvolution;

/// `N` is 3 with a bias, else 2.
impl<B: DetectionBackend, const N: usize> Backward<B, N> for TransposedConvolution {
    /// Input, weight and options.
    type State = (FloatTensor<B>, FloatTensor<B>, ConvTransposeOptions<2>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, options) = ops.state;
        let [x_node, weight_node, bias_node] =
            [0, 1, 2].map(|place: usize| ops.parents.get(place).cloned().flatten());
        // It is itself the gradient of this convolution with respect to its input.
        let ConvTransposeOptions {
            stride,
            padding,
            dilation,
            groups,
            ..
        } = options;
        let options = ConvOptions::new(stride, padding, dilation, groups);
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, bias_grad::<B>(grad.clone()));
        }
        if let Some(node) = x_node {
            let output = B::convolution(
                grad.clone(),
                weight.clone(),
                None,
                options.clone(),
                ConvEpilogue::default(),
                ConvPrecision::Exact,
                None,
            );
            grads.register::<B>(node.id, output);
        }
        if let Some(node) = weight_node {
            let wanted = [false, true, false];
            let [_, found, _] = B::convolution_backward(grad, weight, x, options, wanted);
            grads.register::<B>(node.id, found.expect("a gradient that is asked for"));
        }
    }
}

/// Records an operation of two operands, or three.
macro_rules! record {
    ($step:expr, $x:ident, $weight:ident, $bias:ident, $state:expr, $output:expr) => {
        match $bias {
            Some(bias) => record!($step, [$x.node, $weight.node, bias.node], $state, $output),
            None => record!($step, [$x.node, $weight.node], $state, $output),
        }
    };
    ($step:expr, $nodes:expr, $state:expr, $output:expr) => {
        match $step.prepare::<C>($nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish($state, $output),
            OpsKind::UnTracked(prep) => prep.finish($output),
        }
    };
}

impl<B: DetectionBackend, C: CheckpointStrategy> ConvEpilogue<Autodiff<B, C>> {
    fn is_tracked(&self) -> bool {
        let affine = self.affine.clone().into_iter();
        let affine = affine.flat_map(|(scale, shift)| [scale, shift].map(primitive));
        let mut operands = affine.chain(self.residual.clone().map(primitive));
        operands.any(|operand| operand.is_tracked())
    }

    fn inner(self) -> ConvEpilogue<B> {
        ConvEpilogue {
            affine: self.affine.map(|(a, b)| (a.inner(), b.inner())),
            residual: self.residual.map(Tensor::inner),
            activation: self.activation,
        }
    }
}

pub(super) fn forward<B: DetectionBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
    options: ConvOptions<2>,
    epilogue: ConvEpilogue<Autodiff<B, C>>,
    plan: Option<&LayerPlan>,
) -> FloatTensor<Autodiff<B, C>> {
    let operands = [Some(&x), Some(&weight), bias.as_ref()];
    let tracked = operands
        .into_iter()
        .flatten()
        .any(|operand| operand.is_tracked());
    if !tracked && !epilogue.is_tracked() {
        // What follows may want gradients.
        let exact = ConvPrecision::Exact;
        let bias = bias.map(|bias| bias.primitive);
        let (x, weight, epilogue) = (x.primitive, weight.primitive, epilogue.inner());
        let output = B::convolution(x, weight, bias, options, epilogue, exact, plan);
        return Autodiff::<B, C>::from_inner(output);
    }
    // A weight that is trained is another at the next step.
    let plan = plan.filter(|_| !tracked);
    let output = B::convolution(
        x.primitive.clone(),
        weight.primitive.clone(),
        bias.as_ref().map(|bias| bias.primitive.clone()),
        options.clone(),
        ConvEpilogue::default(),
        ConvPrecision::Exact,
        plan,
    );
    let state = (x.primitive, weight.primitive, options);
    let output = record!(Convolution, x, weight, bias, state, output);
    primitive(epilogue.apply(tensor(output)))
}

pub(super) fn transposed<B: DetectionBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
    options: ConvTransposeOptions<2>,
    activation: Activation,
) -> FloatTensor<Autodiff<B, C>> {
    let output = B::transposed_convolution(
        x.primitive.clone(),
        weight.primitive.clone(),
        bias.as_ref().map(|bias| bias.primitive.clone()),
        options.clone(),
        Activation::None,
    );
    let state = (x.primitive, weight.primitive, options);
    let output = record!(TransposedConvolution, x, weight, bias, state, output);
    primitive(activation.apply(tensor::<Autodiff<B, C>, 4>(output)))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::ops::ModuleOps;
    use burn::tensor::{Distribution, Tolerance};
    use burn_flex::Flex;

    use super::*;

    type B = Autodiff<Flex>;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
        let distribution = Distribution::Uniform(-1.0, 1.0);
        Tensor::random(shape, distribution, &Default::default()).require_grad()
    }

    fn convolution(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: Option<FloatTensor<B>>,
        options: ConvOptions<2>,
    ) -> FloatTensor<B> {
        let (epilogue, fast) = (ConvEpilogue::default(), ConvPrecision::Fast);
        B::convolution(x, weight, bias, options, epilogue, fast, None)
    }

    #[test]
    fn convolutions_have_burns_gradients() {
        let cases = [
            ([2, 16, 9, 13], [16, 16, 3, 3], 1, 1, 1),
            ([2, 3, 20, 17], [8, 3, 7, 7], 2, 3, 1),
            ([3, 8, 6, 5], [4, 8, 1, 1], 1, 0, 1),
            ([1, 8, 5, 5], [8, 2, 3, 3], 2, 1, 4),
        ];
        for (x, weight, stride, padding, groups) in cases {
            let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], groups);
            let inputs = (
                random::<4>(x),
                random::<4>(weight),
                random::<1>([weight[0]]),
            );
            let results = [convolution, B::conv2d].map(|run| {
                let (x, weight, bias) = inputs.clone();
                let output = run(
                    primitive(x.clone()),
                    primitive(weight.clone()),
                    Some(primitive(bias.clone())),
                    options.clone(),
                );
                let output = tensor::<B, 4>(output);
                let gradients = output.clone().powi_scalar(2).sum().backward();
                [
                    output.into_data(),
                    x.grad(&gradients).unwrap().into_data(),
                    weight.grad(&gradients).unwrap().into_data(),
                    bias.grad(&gradients).unwrap().into_data(),
                ]
            });
            for (found, expected) in results[0].iter().zip(&results[1]) {
                found.assert_approx_eq(expected, Tolerance::<f32>::rel_abs(1e-3, 1e-3));
            }
            // What is not tracked gets no gradient, and the rest still does.
            let (x, weight, bias) = inputs;
            let output = convolution(
                primitive(x.clone().detach()),
                primitive(weight.clone()),
                Some(primitive(bias.detach())),
                options,
            );
            let gradients = tensor::<B, 4>(output).sum().backward();
            assert!(weight.grad(&gradients).is_some() && x.grad(&gradients).is_none());
        }
    }
}
