//! Sampling of candidates for a loss: some of the objects, and the rest background.

use rand::Rng;
use rand::seq::{IndexedRandom, index};

use crate::Match;

/// Samples objects and background in a fixed proportion
/// (`torchvision.models.detection._utils.BalancedPositiveNegativeSampler`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BalancedSampler {
    /// Candidates of an image.
    pub batch_size_per_image: usize,
    /// Share of objects among them, 0 to 1, as far as there are any.
    pub positive_fraction: f64,
}

/// Indices of sampled candidates, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// Candidates that were matched to an object.
    pub positive: Vec<usize>,
    /// Candidates of the background.
    pub negative: Vec<usize>,
}

/// Choice of some among many in training: candidates for the losses, and the size of an image.
pub enum Subsample<'a, R: Rng> {
    /// At random.
    Random(&'a mut R),
    /// The first ones, for runs that are compared.
    First,
}

impl<R: Rng> Subsample<'_, R> {
    /// Chooses one of several items, `None` of none (`torch_choice` of torchvision's `GeneralizedRCNNTransform`).
    pub fn one_of<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        match self {
            Self::First => from.first().copied(),
            Self::Random(rng) => from.choose(*rng).copied(),
        }
    }

    fn choose(&mut self, mut from: Vec<usize>, count: usize) -> Vec<usize> {
        if count >= from.len() {
            return from;
        }
        match self {
            Self::First => from.truncate(count),
            Self::Random(rng) => {
                let chosen = index::sample(rng, from.len(), count);
                from = chosen.into_iter().map(|i| from[i]).collect();
                from.sort_unstable();
            }
        }
        from
    }
}

impl BalancedSampler {
    /// Samples from the matches of one image.
    pub fn sample<R: Rng>(&self, matches: &[Match], subsample: &mut Subsample<'_, R>) -> Sample {
        let of = |wanted: fn(&Match) -> bool| -> Vec<usize> {
            (0..matches.len())
                .filter(|&i| wanted(&matches[i]))
                .collect()
        };
        let objects = of(|m| matches!(m, Match::Object(_)));
        let background = of(|m| *m == Match::Background);
        let batch_size = self.batch_size_per_image;
        let most = (batch_size as f64 * self.positive_fraction) as usize;
        let positive = subsample.choose(objects, most.min(batch_size));
        let rest = batch_size - positive.len();
        Sample {
            negative: subsample.choose(background, rest),
            positive,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn keeps_the_proportion_and_fills_up_with_background() {
        let sampler = BalancedSampler {
            batch_size_per_image: 8,
            positive_fraction: 0.5,
        };
        let mut matches = vec![Match::Background; 30];
        matches[3] = Match::Object(0);
        matches[4] = Match::Ignored;
        let first = sampler.sample(&matches, &mut Subsample::<StdRng>::First);
        assert_eq!(first.positive, [3]);
        assert_eq!(first.negative, [0, 1, 2, 5, 6, 7, 8]);

        matches[10..20].fill(Match::Object(1));
        let random = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            sampler.sample(&matches, &mut Subsample::Random(&mut rng))
        };
        let sample = random(1);
        assert_eq!((sample.positive.len(), sample.negative.len()), (4, 4));
        assert!(
            sample
                .positive
                .iter()
                .all(|&i| matches!(matches[i], Match::Object(_)))
        );
        assert!(
            sample
                .negative
                .iter()
                .all(|&i| matches[i] == Match::Background)
        );
        assert_eq!(sample, random(1));
        assert_ne!(sample, random(2));
    }

    #[test]
    fn a_fraction_above_one_samples_no_more_than_the_batch() {
        let mut matches = vec![Match::Object(0); 6];
        matches.extend([Match::Background; 6]);
        for (positive_fraction, positive, negative) in [
            (2.0, 4, 0),
            (f64::INFINITY, 4, 0),
            (-1.0, 0, 4),
            (f64::NAN, 0, 4),
        ] {
            let sampler = BalancedSampler {
                batch_size_per_image: 4,
                positive_fraction,
            };
            let sample = sampler.sample(&matches, &mut Subsample::<StdRng>::First);
            let found = (sample.positive.len(), sample.negative.len());
            assert_eq!(found, (positive, negative), "{positive_fraction}");
        }
    }
}
