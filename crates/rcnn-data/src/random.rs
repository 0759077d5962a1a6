//! Random numbers that depend on what they are for, never on who asks first.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// What random numbers are used for; each purpose has numbers of its own.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Order = 1,
    Augmentation,
    Split,
    Clusters,
    Repeats,
}

/// A generator for one purpose, epoch and item (such as the index of a sample).
pub(crate) fn generator(seed: u64, purpose: Purpose, epoch: u64, item: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    let parts = [seed, purpose as u64, epoch, item];
    for (bytes, part) in key.chunks_exact_mut(8).zip(parts) {
        bytes.copy_from_slice(&part.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn the_numbers_stay_what_they_are() {
        let draw = |seed, item| generator(seed, Purpose::Order, 0, item).random::<u32>();
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
    }
}
