//! Weights in the form that convolutions multiply with, in the layer's [`LayerPlan`].
//!
//! To prepare them is a few hundredths of a convolution, but Winograd's are four times as large as they
//! were, and memory that is new costs as much as several preparations. So they are kept once they have
//! been prepared as often, and there is room for those of a ResNet-50.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use burn::tensor::Bytes;
use burn_flex::FlexTensor;
use rcnn_cpu::conv2d::{Conv2d, Weights};
use rcnn_cpu::{InstructionSet, instruction_set};

use crate::LayerPlan;

/// Bytes of prepared weights that all layers together keep at most.
const MAX_BYTES: usize = 256 << 20;

/// Preparations after which weights are kept.
pub(crate) const KEPT_AFTER: usize = 8;

/// Bytes of prepared weights that all layers together keep.
static BYTES: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn kept_bytes() -> usize {
    BYTES.load(Ordering::Relaxed)
}

/// Weights that count towards [`BYTES`].
struct Kept(Arc<Weights>);

impl Kept {
    /// None where there is no room.
    fn new(weights: &Arc<Weights>) -> Option<Self> {
        let more = |bytes: usize| {
            let sum = bytes + weights.bytes();
            (sum <= MAX_BYTES).then_some(sum)
        };
        let update = BYTES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        update.is_ok().then(|| Self(weights.clone()))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.0.bytes(), Ordering::Relaxed);
    }
}

/// Identity of a prepared weight, and what it was prepared for.
struct Key {
    /// The tensor's memory. Nothing else can come to stand there while this exists, and who writes to it
    /// must leave it for another place, as it is shared.
    source: Weak<Bytes>,
    /// The sizes of the weight, which views of the same memory may differ in.
    shape: [usize; 4],
    instruction_set: InstructionSet,
    winograd: bool,
}

impl Key {
    fn new(conv: &Conv2d, weight: &FlexTensor) -> Self {
        Self {
            source: Arc::downgrade(&weight.data_arc()),
            shape: super::dims(weight),
            instruction_set: instruction_set(),
            winograd: Weights::uses_winograd(conv),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.source.ptr_eq(&other.source)
            && self.shape == other.shape
            && self.instruction_set == other.instruction_set
            && self.winograd == other.winograd
    }
}

struct Entry {
    key: Key,
    /// How often the weights have been prepared.
    times: usize,
    /// None until that was [`KEPT_AFTER`].
    kept: Option<Kept>,
}

/// A layer's entries: one, or more where its images have several sizes or its clones other weights.
type Entries = Vec<Entry>;

/// The weights of a convolution, prepared now or before.
pub(super) fn prepared(conv: &Conv2d, weight: &FlexTensor, plan: &LayerPlan) -> Arc<Weights> {
    let key = Key::new(conv, weight);
    let (times, kept) = plan.with(|entries: &mut Entries| {
        entries.retain(|entry| entry.key.source.strong_count() > 0);
        let Some(entry) = entries.iter().find(|entry| entry.key == key) else {
            return (0, None);
        };
        let kept = entry.kept.as_ref().map(|Kept(weights)| weights.clone());
        (entry.times, kept)
    });
    if let Some(weights) = kept {
        return weights;
    }
    // The plan is not locked while threads work together.
    let weights = Arc::new(Weights::new(conv, weight.storage()));
    plan.with(|entries: &mut Entries| {
        entries.retain(|entry| entry.key != key);
        let times = times + 1;
        let often = times >= KEPT_AFTER;
        let kept = often.then(|| Kept::new(&weights)).flatten();
        entries.push(Entry { key, times, kept });
    });
    weights
}

/// The weights that a layer keeps.
#[cfg(test)]
pub(crate) fn kept_weights(plan: &LayerPlan) -> Vec<Weak<Weights>> {
    plan.with(|entries: &mut Entries| {
        let kept = entries.iter().filter_map(|entry| entry.kept.as_ref());
        kept.map(|Kept(weights)| Arc::downgrade(weights)).collect()
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    /// Equal pointers mean equal weights only as long as Flex copies a buffer that something else knows
    /// of, be it by a weak reference alone, before it writes.
    #[test]
    fn weights_written_in_place_are_others() {
        let values = TensorData::new(vec![1.0f32; 16 * 16 * 9], [16, 16, 3, 3]);
        let mut weight = FlexTensor::from_data(values);
        let conv = Conv2d {
            batch: 1,
            in_channels: 16,
            out_channels: 16,
            height: 12,
            width: 16,
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
            groups: 1,
            exact: false,
        };
        let plan = LayerPlan::default();
        for _ in 0..KEPT_AFTER {
            prepared(&conv, &weight, &plan);
        }
        let kept = kept_weights(&plan)[0].upgrade().expect("often enough");
        assert!(Arc::ptr_eq(&kept, &prepared(&conv, &weight, &plan)));
        weight.storage_mut::<f32>().fill(2.0);
        assert!(!Arc::ptr_eq(&kept, &prepared(&conv, &weight, &plan)));
    }
}
