//! Linear layers: rows times a matrix of inputs by outputs, of which a piece at a time is brought into
//! the form that the kernel multiplies with.

use burn::tensor::DType;
use burn::tensor::ops::ModuleOps;
use burn_flex::{Flex, FlexTensor};

use super::conv2d::{Linear, linear};
use super::dims;
use super::pool::LANES;
use super::pooled::pooled;

/// Rows from which on the kernel pays.
const MIN_ROWS: usize = 64;

pub(super) fn forward(x: FlexTensor, weight: FlexTensor, bias: Option<FlexTensor>) -> FlexTensor {
    let ([rows, ins], [_, outs]) = (dims(&x), dims(&weight));
    let operands = [Some(&x), Some(&weight), bias.as_ref()];
    let plain = operands
        .into_iter()
        .flatten()
        .all(|tensor| tensor.dtype() == DType::F32);
    // Whole lanes, so that the output lies as Burn expects it.
    if !plain || rows < MIN_ROWS || ins == 0 || !outs.is_multiple_of(LANES) {
        return Flex::linear(x, weight, bias);
    }
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    let bias = bias.map(|bias| bias.to_contiguous());
    let layer = Linear {
        ins,
        outs,
        weights: weight.storage(),
        bias: bias.as_ref().map(|bias| bias.storage()),
    };
    pooled(linear(&layer, rows, x.storage()), [rows, outs])
}
