//! The elementary losses of both stages, with torch's definitions.

use burn::tensor::activation::{log_sigmoid, log_softmax};
use burn::tensor::{Int, Tensor, backend::Backend};

/// Sum of the smooth L1 distances (`torch.nn.functional.smooth_l1_loss`, `reduction="sum"`):
/// quadratic below `beta`, linear above.
///
/// # Shapes
/// - found, expected: equal
/// - output: `[1]`
pub fn smooth_l1_sum<B: Backend, const D: usize>(
    found: Tensor<B, D>,
    expected: Tensor<B, D>,
    beta: f64,
) -> Tensor<B, 1> {
    let distance = (found - expected).abs();
    let quadratic = distance.clone().powi_scalar(2) * (0.5 / beta);
    let linear = distance.clone() - 0.5 * beta;
    linear
        .mask_where(distance.lower_elem(beta), quadratic)
        .sum()
}

/// Mean binary cross-entropy of logits against targets of 0 or 1
/// (`torch.nn.functional.binary_cross_entropy_with_logits`).
///
/// # Shapes
/// - logits, targets: `[N]`
/// - output: `[1]`
pub fn binary_cross_entropy_with_logits<B: Backend>(
    logits: Tensor<B, 1>,
    targets: Tensor<B, 1>,
) -> Tensor<B, 1> {
    // -y log s(x) - (1 - y) log s(-x), where log s(-x) = log s(x) - x.
    (logits.clone() * (targets * -1.0 + 1.0) - log_sigmoid(logits)).mean()
}

/// Mean cross-entropy of logits against class indices (`torch.nn.functional.cross_entropy`).
///
/// # Shapes
/// - logits: `[N, C]`, labels: `[N]`
/// - output: `[1]`
pub fn cross_entropy<B: Backend>(logits: Tensor<B, 2>, labels: Tensor<B, 1, Int>) -> Tensor<B, 1> {
    let likelihood = log_softmax(logits, 1).gather(1, labels.unsqueeze_dim(1));
    likelihood.mean() * -1.0
}
