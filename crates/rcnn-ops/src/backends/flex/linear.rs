//! Linear layers: rows times a matrix of inputs by outputs.

use burn::tensor::DType;
use burn::tensor::ops::ModuleOps;
use burn_flex::{Flex, FlexTensor};
use rcnn_cpu::BLOCK;
use rcnn_cpu::linear::{self as kernel, Linear};

use super::{arena, dims};

/// Rows from which on the kernel pays.
const MIN_ROWS: usize = 64;

pub(super) fn forward(x: FlexTensor, weight: FlexTensor, bias: Option<FlexTensor>) -> FlexTensor {
    let ([rows, ins], [_, outs]) = (dims(&x), dims(&weight));
    let operands = [Some(&x), Some(&weight), bias.as_ref()];
    let plain = operands
        .into_iter()
        .flatten()
        .all(|tensor| tensor.dtype() == DType::F32);
    // Whole channel blocks, so that the output lies as Burn expects it.
    if !plain || rows < MIN_ROWS || ins == 0 || !outs.is_multiple_of(BLOCK) {
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
    arena::tensor(kernel::forward(&layer, rows, x.storage()), [rows, outs])
}
