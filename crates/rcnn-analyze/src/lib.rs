//! Analysis of a detector layer by layer: cost, and loss of accuracy without the layer.
//!
//! [`analyze`] measures on real pictures: the time of each layer, what it puts out, and, where the
//! pictures have labels, the gradients of its parameters and what happens to loss and average
//! precision when it is left out, so that what to remove is measured rather than guessed.
//! [`feature_maps`] draws the outputs of layers.

mod activations;
mod analysis;
mod bypass;
mod chart;
mod clock;
mod error;
mod feature_maps;
mod gradients;

pub use analysis::{Activation, Analysis, Layer, Quality};
pub use chart::draw_chart;
pub use error::AnalyzeError;
pub use feature_maps::{FeatureMap, feature_maps};

use image::RgbImage;
use indexmap::IndexMap;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rcnn_core::cost::Costs;
use rcnn_core::image::to_tensor;
use rcnn_core::ops::{DetectionBackend, Subsample};
use rcnn_core::types::ImageInstances;
use rcnn_core::weights::Weights;
use rcnn_core::{Instances, Losses, Size, StandardFasterRcnn, Tensor};
use rcnn_eval::evaluate;

use crate::activations::Activations;
use crate::bypass::Bypass;
use crate::clock::Clock;

/// A picture to measure on.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The picture.
    pub image: RgbImage,
    /// Objects on it, if they are known. Without them, neither gradients nor bypasses are measured.
    pub truth: Option<ImageInstances>,
}

/// Measures every layer of a model on pictures, one at a time. Layers without which the model still
/// works are left out in turn.
///
/// `progress` is called after each pass, with how many there were and how many there will be.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_analyze as analyze; pub use rcnn_core::*; }
/// # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../rcnn-core/assets"))?;
/// use rcnn_burn::Flex;
/// use rcnn_burn::analyze::{Sample, analyze};
/// use rcnn_burn::image::RgbImage;
/// use rcnn_burn::weights::Weights;
///
/// let weights = Weights::open("blood-cells.bpk")?;
/// // With `truth`, gradients and the effect of removing each layer too.
/// let samples = [Sample { image: RgbImage::new(320, 240), truth: None }];
/// let analysis = analyze::<Flex>(&weights, &samples, &Default::default(), &mut |_, _| ())?;
/// println!("{analysis}");
/// assert!(analysis.layers.iter().any(|layer| layer.name == "backbone.body.layer1.0"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the weights do not fit, there are no pictures, or labels are not the model's.
pub fn analyze<B: DetectionBackend>(
    weights: &Weights,
    samples: &[Sample],
    device: &B::Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Analysis, AnalyzeError> {
    if samples.is_empty() {
        return Err(AnalyzeError::NoPictures);
    }
    for truth in samples.iter().filter_map(|sample| sample.truth.as_ref()) {
        rcnn_eval::validate(truth, weights.config.num_classes)?;
    }
    let model = weights.load::<B>(device)?;
    let labelled = samples.iter().all(|sample| sample.truth.is_some());
    let bypasses = match labelled {
        true => Bypass::all(&model),
        false => Vec::new(),
    };
    // Timed twice, once looked at; with labels, gradients and one pass as it is too.
    let passes = samples.len() * (3 + if labelled { 2 + bypasses.len() } else { 0 });
    let mut done = 0;
    let mut tick = || {
        done += 1;
        progress(done, passes);
    };

    let (mut clock, mut activations) = (Clock::<B>::new(device), Activations::default());
    for sample in samples {
        let image = [to_tensor::<B>(&sample.image, device)];
        // The first pass over a size fills caches.
        model.detect(&image)?;
        tick();
        clock.start();
        model.detect_with_hook(&image, &mut clock)?;
        tick();
        model.detect_with_hook(&image, &mut activations)?;
        tick();
    }

    let sizes = samples
        .iter()
        .map(|s| Size::from_dimensions(s.image.dimensions()));
    let costs = sizes.map(|size| weights.config.costs(size));
    let costs: Vec<Costs> = costs.collect::<Result<_, _>>()?;
    let mut analysis = Analysis::new(clock.seconds(), &costs);
    analysis.put(activations.finish(), |layer, output| {
        layer.output = Some(output);
    });
    if labelled {
        let norms = gradients::norms::<B>(weights, samples, device, &mut tick)?;
        let mut squares: IndexMap<String, f64> = IndexMap::new();
        for (parameter, square) in norms {
            if let Some(layer) = costs[0].layer(&parameter) {
                *squares.entry(layer.to_string()).or_default() += square;
            }
        }
        analysis.put(squares, |layer, squares| {
            layer.gradient_norm = Some(squares.sqrt());
        });
        let names = &weights.config.class_names;
        analysis.quality = Some(quality(&model, samples, names, device, &mut tick)?);
        for bypass in bypasses {
            let without = bypass.apply(model.clone());
            let mut quality = quality(&without, samples, names, device, &mut tick)?;
            // Without box regression there is no such loss, so that the rest cannot be compared.
            if bypass == Bypass::BoxRegression {
                quality.loss = None;
            }
            let name = bypass.name(&model);
            analysis.put(IndexMap::from([(name, quality)]), |layer, quality| {
                layer.without = Some(quality);
                layer.removed_by = bypass.option(&weights.config);
            });
        }
    }
    analysis.sort();
    Ok(analysis)
}

/// Loss and average precision of a model.
fn quality<B: DetectionBackend>(
    model: &StandardFasterRcnn<B>,
    samples: &[Sample],
    class_names: &[String],
    device: &B::Device,
    tick: &mut dyn FnMut(),
) -> Result<Quality, AnalyzeError> {
    let (mut loss, mut truth, mut all) = (0.0, Vec::new(), Vec::new());
    for sample in samples {
        let Some(labels) = &sample.truth else {
            continue;
        };
        let (losses, found) = validate(model, &sample.image, labels, device)?;
        loss += losses.total().into_data().iter::<f64>().sum::<f64>() / samples.len() as f64;
        all.push(ImageInstances {
            image_id: labels.image_id,
            instances: found,
            ..Default::default()
        });
        truth.push(labels.clone());
        tick();
    }
    Ok(Quality {
        loss: Some(loss),
        ap: evaluate(&truth, &all, class_names)?.summary.ap,
    })
}

/// One pass for losses and detections; whatever the model, the same draws of samples.
fn validate<B: DetectionBackend>(
    model: &StandardFasterRcnn<B>,
    image: &RgbImage,
    truth: &ImageInstances,
    device: &B::Device,
) -> Result<(Losses<B>, Instances), AnalyzeError> {
    let image: Tensor<B, 3> = to_tensor(image, device);
    let mut random = StdRng::seed_from_u64(truth.image_id);
    let subsample = &mut Subsample::Random(&mut random);
    let objects = std::slice::from_ref(&truth.instances);
    let (losses, mut found) = model.validate(&[image], objects, subsample)?;
    Ok((losses, found.pop().unwrap_or_default()))
}
