//! Repeat-factor sampling: images of rare classes come more than once an epoch (Gupta et al. 2019,
//! <https://arxiv.org/abs/1908.03195>).

use rand::{Rng, RngExt};

use crate::dataset::{Dataset, Sample};

/// How often each image is to come in an epoch on average, as detectron2's `RepeatFactorTrainingSampler` counts it.
///
/// A class that `f` of the images show has the factor `max(1, sqrt(threshold / f))`, an image the largest of its
/// classes' and a background image 1. Crowds do not count, as they are not trained on.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_data as data; }
/// # use rcnn_burn::data::{Dataset, repeat_factors};
/// # fn example(dataset: &Dataset) {
/// let factors = repeat_factors(dataset, 0.1);
/// assert_eq!(factors.len(), dataset.samples.len());
/// # }
/// ```
pub fn repeat_factors(dataset: &Dataset, threshold: f64) -> Vec<f64> {
    let labels = |sample: &Sample| {
        let mut labels: Vec<usize> = sample.objects().map(|object| object.label).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    };
    let mut images = vec![0usize; dataset.class_names.len()];
    for sample in &dataset.samples {
        labels(sample)
            .into_iter()
            .for_each(|label| images[label] += 1);
    }
    let total = dataset.samples.len() as f64;
    let of_class = |label: usize| (threshold * total / images[label] as f64).sqrt().max(1.0);
    let of_image = |sample| labels(sample).into_iter().map(of_class).fold(1.0, f64::max);
    dataset.samples.iter().map(of_image).collect()
}

/// Samples of an epoch: the sum of the factors, without its fraction.
pub fn epoch_length(factors: &[f64]) -> usize {
    // Sums in another order differ in their last digits.
    (factors.iter().sum::<f64>() + 1e-6) as usize
}

/// The samples of an epoch in `order`, each as often as its factor says, rounded up or down by chance so that
/// its mean is the factor. The same offset rounds all, so that every epoch is of [`epoch_length`] and at most one more.
pub(crate) fn repeated(order: &[usize], factors: &[f64], rng: &mut impl Rng) -> Vec<usize> {
    let mut repeated = Vec::with_capacity(epoch_length(factors) + 1);
    let mut sum: f64 = rng.random();
    for &sample in order {
        let before = sum.floor();
        sum += factors[sample];
        let times = (sum.floor() - before) as usize;
        repeated.extend(std::iter::repeat_n(sample, times));
    }
    repeated
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rcnn_types::{Instances, Size};

    use super::*;
    use crate::detect_format::Format;
    use crate::extras::Extras;
    use crate::random::{Purpose, generator};

    /// A data set of images with objects of these labels.
    fn dataset(labels: &[&[usize]]) -> Dataset {
        let sample = |labels: &&[usize]| Sample {
            image: "a.png".into(),
            image_id: 1,
            size: Size::new(10, 10),
            instances: Instances::new(vec![[0.0, 0.0, 5.0, 5.0]; labels.len()], labels.to_vec()),
            object_extras: Vec::new(),
            extras: Extras::default(),
            source: Default::default(),
        };
        Dataset {
            root: "".into(),
            format: Format::Yolo,
            class_names: ["background", "a", "b", "c", "d"].map(String::from).into(),
            category_ids: Vec::new(),
            skeletons: Vec::new(),
            category_extras: Vec::new(),
            extras: Extras::default(),
            samples: labels.iter().map(sample).collect(),
            renumbered: false,
            splits: BTreeMap::new(),
        }
    }

    /// ```python
    /// images = [{1}, {1, 2}, {1}, {1}, {1}, {1, 3}, {3}, set(), {1}, {1, 4}]
    /// for t in 0.001, 0.25, 0.5:
    ///     f = {c: sum(c in i for i in images) / len(images) for c in (1, 2, 3, 4)}
    ///     r = {c: max(1.0, math.sqrt(t / f[c])) for c in f}
    ///     print([max((r[c] for c in i), default=1.0) for i in images])
    /// ```
    #[test]
    fn factors_are_detectron2s() {
        let mut data = dataset(&[
            &[1, 1],
            &[1, 2],
            &[1],
            &[1],
            &[1],
            &[3, 1],
            &[3],
            &[],
            &[1],
            &[1, 4],
        ]);
        let close = |data: &Dataset, threshold, expected: [f64; 10]| {
            let found = repeat_factors(data, threshold);
            assert!(
                found
                    .iter()
                    .zip(expected)
                    .all(|(a, b)| (a - b).abs() < 1e-6),
                "{threshold}: {found:?}"
            );
        };
        close(&data, 0.001, [1.0; 10]);
        let (rare, seldom) = (1.5811388300841898, 1.118033988749895);
        let quarter = [1.0, rare, 1.0, 1.0, 1.0, seldom, seldom, 1.0, 1.0, rare];
        close(&data, 0.25, quarter);
        let (rare, seldom) = (2.23606797749979, 1.5811388300841898);
        close(
            &data,
            0.5,
            [1.0, rare, 1.0, 1.0, 1.0, seldom, seldom, 1.0, 1.0, rare],
        );
        // A class of crowds alone is not there.
        data.samples[9].instances.crowd = Some(vec![false, true]);
        close(
            &data,
            0.5,
            [1.0, rare, 1.0, 1.0, 1.0, seldom, seldom, 1.0, 1.0, 1.0],
        );
    }

    #[test]
    fn images_come_as_often_as_their_factors_say() {
        let factors = [1.0, 1.25, 2.6, 1.0, 3.0];
        let order = [3, 1, 4, 0, 2];
        let mut counts = [0usize; 5];
        const EPOCHS: usize = 2000;
        for epoch in 0..EPOCHS {
            let mut rng = generator(1, Purpose::Order, epoch as u64, 0);
            let samples = repeated(&order, &factors, &mut rng);
            assert!([8, 9].contains(&samples.len()), "{samples:?}");
            for (sample, factor) in factors.iter().enumerate() {
                let times = samples.iter().filter(|&&other| other == sample).count();
                assert!(times == factor.floor() as usize || times == factor.ceil() as usize);
                counts[sample] += times;
            }
        }
        assert_eq!(epoch_length(&factors), 8);
        for (count, factor) in counts.iter().zip(factors) {
            let mean = *count as f64 / EPOCHS as f64;
            assert!((mean - factor).abs() < 0.05, "{mean} {factor}");
        }
    }
}
