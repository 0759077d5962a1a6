//! The elementary losses of both stages, with torch's definitions.

use burn::tensor::activation::{log_sigmoid, log_softmax};
use burn::tensor::{Int, Tensor, backend::Backend};

/// Sum of the smooth L1 distances (`torch.nn.functional.smooth_l1_loss`, `reduction="sum"`):
/// quadratic below `beta`, linear above and, with a `beta` of 0, everywhere.
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
    if beta == 0.0 {
        return distance.sum();
    }
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
/// Weights make it the weighted mean, the sum of weights being that of the labels' classes. Where
/// that sum is 0, so is the loss; torch has NaN.
///
/// # Shapes
/// - logits: `[N, C]`, labels: `[N]`, weight: one a class, `[C]`
/// - output: `[1]`
pub fn cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    labels: Tensor<B, 1, Int>,
    weight: Option<Tensor<B, 1>>,
) -> Tensor<B, 1> {
    let losses = log_likelihood(logits, labels.clone()) * -1.0;
    weighted_mean(losses, labels, weight)
}

/// Mean focal loss of softmax classes, `-alpha (1 - p)^gamma log p` with `p` the probability of the
/// label's class: the more certain a prediction is already, the less it counts (Lin et al. 2017,
/// <https://arxiv.org/abs/1708.02002>, who state it for sigmoids).
///
/// With `gamma` 0 and `alpha` 1 it is [`cross_entropy`], whose shapes and weighted mean it has.
/// `gamma` is at least 0.
pub fn focal_loss<B: Backend>(
    logits: Tensor<B, 2>,
    labels: Tensor<B, 1, Int>,
    weight: Option<Tensor<B, 1>>,
    alpha: f64,
    gamma: f64,
) -> Tensor<B, 1> {
    let likelihood = log_likelihood(logits, labels.clone());
    let mut losses = likelihood.clone() * -alpha;
    if gamma > 0.0 {
        // At 0 the slope of a power below 1 is infinite, and infinity times no loss is NaN.
        let doubt = (likelihood.exp() * -1.0 + 1.0).clamp_min(1e-12);
        losses = losses * doubt.powf_scalar(gamma);
    }
    weighted_mean(losses, labels, weight)
}

/// Logarithm of the probability of each row's own class, `[N]`.
fn log_likelihood<B: Backend>(logits: Tensor<B, 2>, labels: Tensor<B, 1, Int>) -> Tensor<B, 1> {
    log_softmax(logits, 1)
        .gather(1, labels.unsqueeze_dim(1))
        .squeeze_dim(1)
}

/// Mean of losses `[N]`, each weighted by its label's class.
fn weighted_mean<B: Backend>(
    losses: Tensor<B, 1>,
    labels: Tensor<B, 1, Int>,
    weight: Option<Tensor<B, 1>>,
) -> Tensor<B, 1> {
    let Some(weight) = weight else {
        return losses.mean();
    };
    let weight = weight.select(0, labels);
    let total = weight.clone().sum();
    let none = total.clone().equal_elem(0.0);
    (losses * weight).sum() / total.mask_fill(none, 1.0)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Autodiff;
    use burn_flex::Flex;

    use super::*;

    type B = Autodiff<Flex>;

    /// Focal loss of two rows, both of class 0, with the gradient of the logits.
    fn focal(logits: [[f32; 2]; 2], weight: Option<[f32; 2]>, gamma: f64) -> (f32, Vec<f32>) {
        let device = Default::default();
        let logits = Tensor::<B, 2>::from_floats(logits, &device).require_grad();
        let labels = Tensor::from_ints([0, 0], &device);
        let weight = weight.map(|weight| Tensor::from_floats(weight, &device));
        let loss = focal_loss(logits.clone(), labels, weight, 1.0, gamma);
        let gradient = logits.grad(&loss.backward()).expect("a gradient");
        let gradient = gradient.into_data().into_vec().expect("f32");
        (loss.into_scalar(), gradient)
    }

    #[test]
    fn certainty_has_a_gradient() {
        for gamma in [0.0, 0.5, 1.0, 2.0] {
            let (loss, gradient) = focal([[200.0, 0.0], [200.0, -200.0]], None, gamma);
            assert_eq!((loss, gradient), (0.0, vec![0.0; 4]), "{gamma}");
            let (loss, gradient) = focal([[-200.0, 0.0], [0.0, 200.0]], None, gamma);
            assert!((loss - 200.0).abs() < 1e-3, "{gamma}: {loss}");
            assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
        }
    }

    #[test]
    fn classes_without_weight_have_no_loss() {
        let (loss, gradient) = focal([[1.0, 2.0], [3.0, 0.5]], Some([0.0, 1.0]), 2.0);
        assert_eq!((loss, gradient), (0.0, vec![0.0; 4]));
    }
}
