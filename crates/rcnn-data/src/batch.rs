//! The order of an epoch: seeded, in batches.

use rand::seq::SliceRandom;

use crate::random::{Purpose, generator};

/// Orders the samples of an epoch; the same seed and epoch give the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// The seed of the order.
    pub seed: u64,
    /// Whether the order is by chance.
    pub shuffle: bool,
    /// Samples in a batch; 0 counts as 1.
    pub batch_size: usize,
    /// Whether a last batch of fewer samples is left out.
    pub drop_last: bool,
}

impl Sampler {
    /// The indices of the samples of an epoch, those of a last batch that is left out included.
    pub fn order(&self, samples: usize, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..samples).collect();
        if self.shuffle {
            order.shuffle(&mut generator(self.seed, Purpose::Order, epoch, 0));
        }
        order
    }

    /// The number of batches in an epoch.
    pub fn batches(&self, samples: usize) -> usize {
        let size = self.batch_size.max(1);
        match self.drop_last {
            true => samples / size,
            false => samples.div_ceil(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_batches() {
        let mut sampler = Sampler {
            seed: 7,
            shuffle: true,
            batch_size: 4,
            drop_last: false,
        };
        let first = sampler.order(50, 0);
        assert_eq!(first, sampler.order(50, 0));
        assert_ne!(first, sampler.order(50, 1));
        assert_ne!(first, Sampler { seed: 8, ..sampler }.order(50, 0));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..50));
        assert_eq!(sampler.batches(50), 13);
        sampler.drop_last = true;
        assert_eq!(sampler.batches(50), 12);
    }
}
