//! The activations that a convolution applies to its output while that is in cache.

use burn::tensor::activation::relu;
use burn::tensor::{Tensor, backend::Backend};

/// Function applied to each value at the end of a [`ConvEpilogue`](crate::ConvEpilogue), as torch's modules
/// of the same names do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The value as it is.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x * relu6(x + 3) / 6`.
    Hardswish,
    /// `relu6(x + 3) / 6`.
    Hardsigmoid,
}

impl Activation {
    /// Applies the activation to every value of a tensor.
    pub fn apply<B: Backend, const D: usize>(self, x: Tensor<B, D>) -> Tensor<B, D> {
        let gate = |x: Tensor<B, D>| (x + 3.0).clamp(0.0, 6.0) / 6.0;
        match self {
            Self::None => x,
            Self::Relu => relu(x),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Hardswish => x.clone() * gate(x),
            Self::Hardsigmoid => gate(x),
        }
    }
}
