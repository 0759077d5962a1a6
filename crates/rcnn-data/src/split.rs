//! Seeded random splits, for data that have none of their own.

use rand::seq::SliceRandom;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::random::{Purpose, generator};

/// The shares of the images in the splits; what is left is for training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fractions {
    /// The share for validation, from 0 to 1.
    pub val: f64,
    /// The share for testing, from 0 to 1.
    pub test: f64,
}

/// Replaces the splits of a data set by random `train`, `val` and `test`; those with a share of 0 are left out. The
/// same seed and images give the same splits.
///
/// # Errors
/// [`DataError::Fractions`].
pub fn random_split(
    dataset: &mut Dataset,
    fractions: Fractions,
    seed: u64,
) -> Result<(), DataError> {
    let Fractions { val, test } = fractions;
    if !(val >= 0.0 && test >= 0.0 && val + test <= 1.0) {
        let given = format!("val {val}, test {test}");
        return Err(DataError::Fractions { given });
    }
    let total = dataset.samples.len();
    let mut order: Vec<usize> = (0..total).collect();
    order.shuffle(&mut generator(seed, Purpose::Split, 0, 0));
    let count = |share: f64| (share * total as f64).round() as usize;
    let tested = count(test);
    let validated = count(val).min(total - tested);
    let mut train = order.split_off(tested + validated);
    let mut val = order.split_off(tested);
    let mut test = order;
    dataset.splits.clear();
    for (name, indices) in [
        ("train", &mut train),
        ("val", &mut val),
        ("test", &mut test),
    ] {
        indices.sort_unstable();
        if !indices.is_empty() {
            dataset.splits.insert(name.into(), std::mem::take(indices));
        }
    }
    Ok(())
}
