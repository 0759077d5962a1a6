//! Weights in the form that layers multiply with, in the layer's [`LayerPlan`].
//!
//! To prepare a convolution's is a few hundredths of the work, but Winograd's are four times as large as they
//! were, and memory that is new costs as much as several preparations. So they are kept once they have
//! been prepared as often, and there is room within `MAX_BYTES`. Until then, linear layers use their weights as
//! they are stored.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use burn::tensor::{Bytes, Shape};
use burn_flex::FlexTensor;
use rcnn_cpu::conv2d::{self, Conv2d};
use rcnn_cpu::linear::{self, Linear};
use rcnn_cpu::{InstructionSet, instruction_set};

use crate::LayerPlan;

/// Bytes of prepared weights that all layers together keep at most.
const MAX_BYTES: usize = 256 << 20;

/// Passes of a layer after which weights are kept.
pub(crate) const KEPT_AFTER: usize = 8;

/// Bytes of prepared weights that all layers together keep.
static BYTES: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn kept_bytes() -> usize {
    BYTES.load(Ordering::Relaxed)
}

/// Prepared weights of a kind of layer.
pub(crate) trait Prepared: Send + Sync + 'static {
    /// Bytes that they take.
    fn bytes(&self) -> usize;
}

impl Prepared for conv2d::Weights {
    fn bytes(&self) -> usize {
        conv2d::Weights::bytes(self)
    }
}

impl Prepared for linear::Weights {
    fn bytes(&self) -> usize {
        linear::Weights::bytes(self)
    }
}

/// Weights that count towards [`BYTES`].
struct Kept<W: Prepared>(Arc<W>);

impl<W: Prepared> Kept<W> {
    /// None where there is no room.
    fn new(weights: &Arc<W>) -> Option<Self> {
        let more = |bytes: usize| {
            let sum = bytes + weights.bytes();
            (sum <= MAX_BYTES).then_some(sum)
        };
        let update = BYTES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        update.is_ok().then(|| Self(weights.clone()))
    }
}

impl<W: Prepared> Drop for Kept<W> {
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
    shape: Shape,
    instruction_set: InstructionSet,
    winograd: bool,
}

impl Key {
    fn new(weight: &FlexTensor, winograd: bool) -> Self {
        Self {
            source: Arc::downgrade(&weight.data_arc()),
            shape: weight.layout().shape().clone(),
            instruction_set: instruction_set(),
            winograd,
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

struct Entry<W: Prepared> {
    key: Key,
    /// Passes with these weights.
    times: usize,
    /// None until that was [`KEPT_AFTER`].
    kept: Option<Kept<W>>,
}

/// A layer's entries: one, or more where its images have several sizes or its clones other weights.
type Entries<W> = Vec<Entry<W>>;

/// The kept weights, or the number of passes so far.
fn find<W: Prepared>(key: &Key, plan: &LayerPlan) -> Result<Arc<W>, usize> {
    plan.with(|entries: &mut Entries<W>| {
        entries.retain(|entry| entry.key.source.strong_count() > 0);
        let entry = entries
            .iter()
            .find(|entry| entry.key == *key)
            .ok_or(0usize)?;
        let kept = entry.kept.as_ref().map(|Kept(weights)| weights.clone());
        kept.ok_or(entry.times)
    })
}

/// Records the number of passes, and keeps the weights once there have been enough.
fn note<W: Prepared>(key: Key, plan: &LayerPlan, times: usize, weights: Option<&Arc<W>>) {
    plan.with(|entries: &mut Entries<W>| {
        entries.retain(|entry| entry.key != key);
        let weights = weights.filter(|_| times >= KEPT_AFTER);
        let kept = weights.and_then(Kept::new);
        entries.push(Entry { key, times, kept });
    });
}

/// The weights of a convolution, prepared now or before.
pub(super) fn prepared(
    conv: &Conv2d,
    weight: &FlexTensor,
    plan: &LayerPlan,
) -> Arc<conv2d::Weights> {
    let key = Key::new(weight, conv2d::Weights::uses_winograd(conv));
    find(&key, plan).unwrap_or_else(|times| {
        // The plan is not locked while threads work together.
        let weights = Arc::new(conv2d::Weights::new(conv, weight.storage()));
        note(key, plan, times + 1, Some(&weights));
        weights
    })
}

/// The weights of a linear layer, if they are kept.
pub(super) fn arranged(
    layer: &Linear<'_>,
    weight: &FlexTensor,
    plan: &LayerPlan,
) -> Option<Arc<linear::Weights>> {
    let key = Key::new(weight, false);
    find(&key, plan).map_or_else(
        |times| {
            let room = kept_bytes() + size_of_val(layer.weights) <= MAX_BYTES;
            let pays = room && times + 1 >= KEPT_AFTER;
            let weights = pays.then(|| Arc::new(linear::Weights::new(layer)));
            note(key, plan, times + 1, weights.as_ref());
            weights
        },
        Some,
    )
}

/// The weights that a layer keeps.
#[cfg(test)]
pub(crate) fn kept_weights<W: Prepared>(plan: &LayerPlan) -> Vec<Weak<W>> {
    plan.with(|entries: &mut Entries<W>| {
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
        let kept = kept_weights::<conv2d::Weights>(&plan)[0]
            .upgrade()
            .expect("often enough");
        assert!(Arc::ptr_eq(&kept, &prepared(&conv, &weight, &plan)));
        weight.storage_mut::<f32>().fill(2.0);
        assert!(!Arc::ptr_eq(&kept, &prepared(&conv, &weight, &plan)));
    }
}
