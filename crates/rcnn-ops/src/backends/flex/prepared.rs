//! Weights that convolutions have brought into the form that they multiply with, kept for the next
//! use.
//!
//! To prepare them is a few hundredths of a convolution, but Winograd's are four times as large as
//! they were, and memory that is new costs as much as several preparations. So they are kept once
//! they have been prepared as often, and there is room for those of a ResNet-50.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use burn::tensor::Bytes;
use burn_flex::FlexTensor;
use rcnn_cpu::conv2d::{Conv2d, Weights};
use rcnn_cpu::{InstructionSet, instruction_set};

/// Bytes of prepared weights that are kept at most.
const MAX_BYTES: usize = 256 << 20;

/// Preparations after which weights are kept.
const OFTEN: usize = 8;

static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

struct Kept {
    /// The tensor's memory. Nothing else can come to stand there while this exists, and who writes
    /// to it must leave it for another place, as it is shared.
    source: Weak<Bytes>,
    /// The sizes of the weights, which views of the same memory may differ in.
    shape: [usize; 4],
    /// What they have been prepared for.
    instruction_set: InstructionSet,
    /// Whether they are for Winograd's method.
    winograd: bool,
    /// How often they have been prepared.
    times: usize,
    /// None until that was [`OFTEN`].
    weights: Option<Arc<Weights>>,
}

/// The weights of a convolution, prepared now or before.
pub(super) fn prepared(conv: &Conv2d, weight: &FlexTensor) -> Arc<Weights> {
    let source = Arc::downgrade(&weight.data_arc());
    let winograd = Weights::uses_winograd(conv);
    let shape = super::dims(weight);
    let instruction_set = instruction_set();
    let is_this = |kept: &Kept| {
        kept.source.ptr_eq(&source)
            && kept.shape == shape
            && kept.instruction_set == instruction_set
            && kept.winograd == winograd
    };
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let found = kept()
        .iter()
        .find(|kept| is_this(kept))
        .map(|kept| (kept.times, kept.weights.clone()));
    let times = match found {
        Some((_, Some(weights))) => return weights,
        Some((times, None)) => times + 1,
        None => 1,
    };
    let weights = Arc::new(Weights::new(conv, weight.storage()));
    let mut kept = kept();
    kept.retain(|kept| kept.source.strong_count() > 0 && !is_this(kept));
    let bytes: usize = kept
        .iter()
        .flat_map(|kept| &kept.weights)
        .map(|weights| weights.bytes())
        .sum();
    let keep = times >= OFTEN && bytes + weights.bytes() <= MAX_BYTES;
    kept.push(Kept {
        source,
        shape,
        instruction_set: weights.instruction_set(),
        winograd,
        times,
        weights: keep.then(|| weights.clone()),
    });
    weights
}

#[cfg(test)]
mod tests {
    use burn::tensor::ops::ConvOptions;
    use burn::tensor::{Distribution, Tensor, TensorData};
    use burn_flex::Flex;

    use super::*;
    use crate::DetectionBackend;
    use crate::channels::{primitive, tensor};

    #[test]
    fn what_is_kept_is_of_these_weights() {
        for kernel in [1, 3] {
            let random = |shape: [usize; 4]| {
                let distribution = Distribution::Uniform(-1.0, 1.0);
                Tensor::<Flex, 4>::random(shape, distribution, &Default::default())
            };
            let x = random([1, 16, 12, 16]);
            let convolved = |weight: &Tensor<Flex, 4>| -> TensorData {
                let (x, weight) = (primitive(x.clone()), primitive(weight.clone()));
                let options = ConvOptions::new([1; 2], [kernel / 2; 2], [1; 2], 1);
                tensor::<Flex, 4>(Flex::convolution(x, weight, None, options)).into_data()
            };
            let weight = random([16, 16, kernel, kernel]);
            let first = convolved(&weight);
            for _ in 0..OFTEN {
                convolved(&weight).assert_eq(&first, true);
            }
            let source = Arc::downgrade(&primitive(weight.clone()).data_arc());
            let is_kept = |kept: &Kept| kept.source.ptr_eq(&source) && kept.weights.is_some();
            assert!(KEPT.lock().unwrap().iter().any(is_kept));

            let twice = Tensor::<Flex, 4>::from_data(first, &Default::default()) * 2.0;
            convolved(&(weight * 2.0)).assert_eq(&twice.into_data(), true);
        }
    }

    /// Equal pointers mean equal weights only as long as Flex copies a buffer that something else knows
    /// of, be it by a weak reference alone, before it writes.
    #[test]
    fn weights_written_in_place_are_others() {
        let options = || ConvOptions::new([1; 2], [1; 2], [1; 2], 1);
        let convolved = |x: &FlexTensor, weight: &FlexTensor| -> Vec<f32> {
            let output = Flex::convolution(x.clone(), weight.clone(), None, options());
            output.to_contiguous().storage::<f32>().to_vec()
        };
        let full = |shape: [usize; 4], value: f32| {
            let values = vec![value; shape.iter().product()];
            FlexTensor::from_data(TensorData::new(values, shape))
        };
        let x = full([1, 16, 12, 16], 1.0);
        let mut weight = full([16, 16, 3, 3], 1.0);
        let mut first = Vec::new();
        for _ in 0..=OFTEN {
            first = convolved(&x, &weight);
        }
        weight.storage_mut::<f32>().fill(2.0);
        let second = convolved(&x, &weight);
        for (first, second) in first.iter().zip(&second) {
            assert!((2.0 * first - second).abs() < 1e-3, "{first} {second}");
        }
    }
}
