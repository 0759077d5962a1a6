//! Linear layers: rows times a matrix of inputs by outputs.

use burn::tensor::DType;
use burn::tensor::ops::ModuleOps;
use burn_flex::{Flex, FlexTensor};
use rcnn_cpu::BLOCK;
use rcnn_cpu::linear::{self as kernel, Linear, Weights};

use super::{arena, dims, plan};
use crate::LayerPlan;

/// Rows from which on the kernel pays.
const MIN_ROWS: usize = 64;

pub(super) fn forward(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    plan: Option<&LayerPlan>,
) -> FlexTensor {
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
    let plan = plan.filter(|_| Weights::pays(rows));
    let arranged = plan.and_then(|plan| plan::arranged(&layer, &weight, plan));
    let output = kernel::forward(&layer, arranged.as_deref(), rows, x.storage());
    arena::tensor(output, [rows, outs])
}
