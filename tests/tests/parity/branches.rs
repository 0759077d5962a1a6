//! The mask and the keypoint branch by themselves: logits, losses, gradients, and what is found.

use std::sync::LazyLock;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend, BackendTypes};
use burn::tensor::{Tensor, TensorData};
use parity::{Fixture, assert_close, norm, synthetic};
use rcnn_burn::Instances;
use rcnn_burn::backbone::NormKind;
use rcnn_burn::ops::{DetectionBackend, Forward};
use rcnn_burn::roi::{
    BoxHeadConfig, KeypointConfig, LogitBranch, MaskConfig, RoiHeads, RoiHeadsConfig, RoiSamples,
};
use rcnn_burn::types::{Keypoints, Mask, MaskProbabilities, Size};
use rcnn_burn::weights::{load_state_dict, parameter_shapes, state_dict};

use crate::Named;
use crate::training::{GRADIENT, Gradients, LOSS, scalar};

static BRANCHES: LazyLock<Fixture> = LazyLock::new(|| Fixture::open("branches"));

/// Largest difference of logits and probabilities, relative to the largest.
const LOGITS: f32 = 1e-5;
/// Largest difference of a keypoint in pixels.
const PIXELS: f32 = 1e-3;

/// What rounding leaves of a gradient that is zero: that of the heat maps' bias, which softmax cancels.
const NOTHING: f64 = 1e-6;

/// What runs on the host alone.
pub(crate) fn host_checks() -> Vec<(&'static str, fn())> {
    vec![
        ("every_branch_case_is_compared", || {
            BRANCHES.assert_cases(&[("keypoint", 2), ("mask", 2), ("paste", 5)]);
        }),
        ("pasted_masks", pasted_masks),
    ]
}

/// What runs on a backend.
pub(crate) fn checks<B: DetectionBackend>() -> Vec<Named<B>> {
    vec![
        ("mask_branch", mask_branch::<B>),
        ("keypoint_branch", keypoint_branch::<B>),
    ]
}

fn pasted_masks() {
    BRANCHES.for_cases("paste", |case| {
        let size: [usize; 2] = BRANCHES.setting(case, "size");
        let counts = BRANCHES.setting(case, "counts");
        let (shape, values) = BRANCHES.floats(&format!("{case}/probabilities"));
        let mask = MaskProbabilities {
            bbox: BRANCHES.boxes(&format!("{case}/box"))[0],
            side: shape[0],
            values,
        };
        let size = Size::new(size[0], size[1]);
        let expected = Mask::from_counts(counts, size).expect("a mask");
        assert!(
            mask.paste(size, 0.5).to_bits() == expected.to_bits(),
            "{case}"
        );
    });
}

/// A second stage with the rule's weights.
fn roi_heads<B: DetectionBackend>(
    case: &str,
    config: RoiHeadsConfig,
    device: &B::Device,
) -> RoiHeads<B> {
    let channels = BRANCHES.setting(case, "channels");
    let config = RoiHeadsConfig {
        box_head: BoxHeadConfig::TwoMlp {
            representation_size: 1,
        },
        ..config
    };
    let classes = BRANCHES.setting(case, "classes");
    let mut heads = config
        .init(channels, classes, device)
        .expect("a second stage");
    let shapes = parameter_shapes(&heads);
    let torch = |name: &str| format!("roi_heads.{name}");
    let weights = synthetic::state_dict(&shapes, &Default::default(), torch);
    load_state_dict(&mut heads, weights, true).expect("the rule covers every parameter");
    heads
}

/// The case's samples, all of which are positive, with classes of objects.
fn samples(case: &str, labels: &[Vec<usize>]) -> RoiSamples {
    let mut samples = RoiSamples::default();
    for (image, labels) in labels.iter().enumerate() {
        let matched = BRANCHES.ints(&format!("{case}/matched.{image}"));
        let boxes = BRANCHES.boxes(&format!("{case}/proposals.{image}"));
        samples.proposals.push(boxes);
        samples
            .labels
            .push(matched.iter().map(|&i| labels[i]).collect());
        samples.matched.push(matched);
    }
    samples
}

/// Every third row and column of `[K, C, height, width]`.
fn thinned<B: Backend>(maps: Tensor<B, 4>) -> Vec<f32> {
    let [count, channels, height, width] = maps.dims();
    let values: Vec<f32> = maps.into_data().into_vec().expect("f32");
    let rows =
        (0..count * channels).flat_map(|map| (0..height).step_by(3).map(move |y| map * height + y));
    let values = rows
        .flat_map(|row| (0..width).step_by(3).map(move |x| row * width + x))
        .map(|i| values[i]);
    values.collect()
}

fn assert_tensor(case: &str, name: &str, found: &[f32], tolerance: f32) {
    let (_, expected) = BRANCHES.floats(&format!("{case}/{name}"));
    assert_close(&format!("{case}/{name}"), found, &expected, tolerance);
}

fn assert_norm(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let error = norm(found.iter().zip(expected).map(|(f, e)| f - e));
    let size = norm(expected.iter().copied());
    let allowed = GRADIENT * size + NOTHING;
    assert!(
        error <= allowed,
        "{what}: an error of norm {error} of {size}"
    );
}

/// Compares a branch's logits, its loss, and the gradients by the pooled features and by every parameter. Returns the
/// logits.
fn assert_learns<B: DetectionBackend>(
    case: &str,
    branch: &impl LogitBranch<Autodiff<B>>,
    samples: &RoiSamples,
    targets: &[Instances],
    heads: &RoiHeads<Autodiff<B>>,
) -> Tensor<Autodiff<B>, 4>
where
    Autodiff<B>: AutodiffBackend<InnerBackend = B>,
{
    let device = &heads.devices()[0];
    let pooled = BRANCHES.tensor::<Autodiff<B>, 4>(&format!("{case}/pooled"), device);
    let pooled = pooled.require_grad();
    let logits = branch.predict(pooled.clone(), &mut Forward::training());
    assert_tensor(case, "logits", &thinned(logits.clone()), LOGITS);
    let positives: Vec<_> = samples.positives().collect();
    let loss = branch.loss(logits.clone(), &positives, targets);
    let expected: f32 = BRANCHES.setting(case, "loss");
    assert_close(case, &[scalar(loss.clone())], &[expected], LOSS);
    let gradients = loss.backward();
    let found = thinned(pooled.grad(&gradients).expect("a gradient"));
    assert_norm(
        case,
        &found,
        &BRANCHES.floats(&format!("{case}/pooled_grad")).1,
    );
    let gradients = GradientsParams::from_grads(gradients, heads);
    let mut compared = 0;
    for (name, snapshot) in state_dict(&heads.valid().map(&mut Gradients(gradients))) {
        let reference = format!("{case}/gradient/{name}");
        if BRANCHES.has(&reference) {
            let found: Vec<f32> = snapshot.to_data().expect("data").into_vec().expect("f32");
            assert_norm(&reference, &found, &BRANCHES.floats(&reference).1);
            compared += 1;
        }
    }
    assert!(compared >= 6, "{case}: {compared} gradients compared");
    logits
}

fn mask_branch<B: DetectionBackend>(device: &<B as BackendTypes>::Device) {
    BRANCHES.for_cases("mask", |case| {
        let has_norm: bool = BRANCHES.setting(case, "norm");
        let mask = MaskConfig {
            layers: vec![8, 6],
            dim_reduced: 4,
            norm: has_norm.then_some((NormKind::BatchNorm2d, 1e-5)),
            ..Default::default()
        };
        let config = RoiHeadsConfig {
            mask: Some(mask),
            ..Default::default()
        };
        let heads = roi_heads::<Autodiff<B>>(case, config, device);
        let size: [usize; 2] = BRANCHES.setting(case, "size");
        let size = Size::new(size[0], size[1]);
        let labels: Vec<Vec<usize>> = BRANCHES.setting(case, "labels");
        let masks: Vec<Vec<Vec<u32>>> = BRANCHES.setting(case, "masks");
        let masks = masks.into_iter().map(|masks| {
            let masks = masks
                .into_iter()
                .map(|counts| Mask::from_counts(counts, size));
            Instances {
                masks: Some(masks.collect::<Result<_, _>>().expect("masks")),
                ..Default::default()
            }
        });
        let targets: Vec<Instances> = masks.collect();
        let samples = samples(case, &labels);
        let branch = heads.mask_branch().expect("a mask branch");
        let logits = assert_learns::<B>(case, &branch, &samples, &targets, &heads);

        let boxes = samples.proposals.iter().zip(&samples.labels);
        let mut found: Vec<Instances> = boxes
            .map(|(boxes, labels)| Instances::new(boxes.clone(), labels.clone()))
            .collect();
        branch.add(logits, &mut found);
        let masks = found
            .iter()
            .flat_map(|found| found.mask_probabilities.iter().flatten());
        let values: Vec<f32> = masks.flat_map(|mask| mask.values.iter().copied()).collect();
        let values = TensorData::new(values, [samples.positives().count(), 1, 28, 28]);
        let values = thinned(Tensor::<B, 4>::from_data(values, device));
        assert_tensor(case, "probabilities", &values, LOGITS);
    });
}

fn keypoint_branch<B: DetectionBackend>(device: &<B as BackendTypes>::Device) {
    BRANCHES.for_cases("keypoint", |case| {
        let points: Vec<Vec<Vec<[f32; 3]>>> = BRANCHES.setting(case, "keypoints");
        let keypoint = KeypointConfig {
            layers: vec![8, 6],
            num_keypoints: points[0][0].len(),
            ..Default::default()
        };
        let config = RoiHeadsConfig {
            keypoint: Some(keypoint),
            ..Default::default()
        };
        let heads = roi_heads::<Autodiff<B>>(case, config, device);
        let labels: Vec<Vec<usize>> = points
            .iter()
            .map(|objects| vec![1; objects.len()])
            .collect();
        let targets: Vec<Instances> = points
            .into_iter()
            .map(|objects| Instances {
                keypoints: Some(objects.into_iter().map(Keypoints).collect()),
                ..Default::default()
            })
            .collect();
        let samples = samples(case, &labels);
        let branch = heads.keypoint_branch().expect("a keypoint branch");
        let logits = assert_learns::<B>(case, &branch, &samples, &targets, &heads);

        let boxes = BRANCHES.boxes(&format!("{case}/boxes"));
        let labels = vec![1; boxes.len()];
        let mut found = [Instances::new(boxes, labels)];
        branch.add(logits, &mut found);
        let [found] = found;
        let points: Vec<f32> = (found.keypoints.iter().flatten())
            .flat_map(|points| points.0.iter().flatten().copied())
            .collect();
        let (_, expected) = BRANCHES.floats(&format!("{case}/found"));
        assert_eq!(points.len(), expected.len(), "{case}");
        for (found, expected) in points.iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= PIXELS,
                "{case}: {found} is not {expected}"
            );
        }
        let scores: Vec<f32> = found
            .keypoint_scores
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        assert_tensor(case, "scores", &scores, LOGITS);
    });
}
