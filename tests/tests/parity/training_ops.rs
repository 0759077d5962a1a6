//! Matching, sampling and losses by themselves.

use std::sync::LazyLock;

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::backend::{Backend, BackendTypes};
use parity::{Fixture, assert_close};
use rand::rngs::StdRng;
use rcnn_burn::Instances;
use rcnn_burn::ops::backend_types::Flex;
use rcnn_burn::ops::{
    BBox, BalancedSampler, BoxCoder, DetectionBackend, Match, Matcher, Subsample,
    binary_cross_entropy_with_logits, smooth_l1_sum,
};
use rcnn_burn::roi::{BoxHeadConfig, BoxPredictions, RoiHeads, RoiHeadsConfig, RoiSamples};
use rcnn_burn::rpn::{AnchorGenerator, RpnConfig, RpnOutput, RpnSamples};

use crate::Named;
use crate::training::{LOSS, scalar};

static OPS: LazyLock<Fixture> = LazyLock::new(|| Fixture::open("train_ops"));

/// Operations of the fixture and their numbers of cases, all of which are compared below.
const CASES: [(&str, usize); 10] = [
    ("assign_anchors", 3),
    ("assign_proposals", 3),
    ("binary_cross_entropy", 3),
    ("classifier_loss", 10),
    ("matcher", 48),
    ("regression_targets", 2),
    ("roi_loss", 4),
    ("rpn_loss", 6),
    ("sampler", 2),
    ("smooth_l1", 4),
];

/// What runs on the host alone.
pub(crate) fn host_checks() -> Vec<(&'static str, fn())> {
    vec![
        ("every_training_case_is_compared", || {
            OPS.assert_cases(&CASES)
        }),
        ("matcher", matcher),
        (
            "anchors_and_proposals_get_their_objects",
            anchors_and_proposals_get_their_objects,
        ),
        ("sampler", sampler),
        ("losses_of_nothing", losses_of_nothing),
    ]
}

/// What runs on a backend.
pub(crate) fn checks<B: DetectionBackend>() -> Vec<Named<B>> {
    vec![
        ("elementary_losses", elementary_losses::<B>),
        ("rpn_loss", rpn_loss::<B>),
        ("roi_loss", roi_loss::<B>),
        (
            "weights_and_focal_loss_of_the_classifier",
            weights_and_focal_loss_of_the_classifier::<B>,
        ),
    ]
}

fn for_cases(operation: &str, check: impl Fn(&str)) {
    OPS.for_cases(operation, check);
}

/// A loss of the case; NaN, which JSON does not have, is null there.
fn loss(case: &str, name: &str) -> f32 {
    OPS.setting::<Option<f32>>(case, name).unwrap_or(f32::NAN)
}

/// Compares the gradient of an input with the case's.
fn assert_gradient<B: DetectionBackend, const D: usize>(
    case: &str,
    name: &str,
    found: Option<Tensor<B, D>>,
    tolerance: f32,
) {
    let found: Vec<f32> = found
        .expect("a gradient")
        .into_data()
        .into_vec()
        .expect("f32");
    let (_, expected) = OPS.floats(&format!("{case}/{name}_grad"));
    assert_close(&format!("{case}/{name}"), &found, &expected, tolerance);
}

fn matcher() {
    for_cases("matcher", |case| {
        let matcher = Matcher {
            high_threshold: OPS.setting(case, "high"),
            low_threshold: OPS.setting(case, "low"),
            allow_low_quality_matches: OPS.setting(case, "low_quality"),
        };
        let (shape, quality) = OPS.floats(&format!("{case}/quality"));
        let found = matcher.matches_by(shape[0], shape[1], |o, c| quality[o * shape[1] + c]);
        let found: Vec<i64> = found
            .into_iter()
            .map(|m| match m {
                Match::Object(object) => object as i64,
                Match::Background => -1,
                Match::Ignored => -2,
            })
            .collect();
        let expected: Vec<i64> = OPS
            .ints(&format!("{case}/matches"))
            .into_iter()
            .map(|m| m as i64)
            .collect();
        assert_eq!(found, expected, "{case}");
    });
}

fn anchors_and_proposals_get_their_objects() {
    let matcher = |high_threshold, low_threshold, allow_low_quality_matches| Matcher {
        high_threshold,
        low_threshold,
        allow_low_quality_matches,
    };
    for_cases("assign_anchors", |case| {
        let truth = OPS.boxes(&format!("{case}/truth"));
        let anchors = OPS.boxes(&format!("{case}/anchors"));
        let matches = matcher(0.7, 0.3, true).matches(&truth, &anchors);
        let label = |m: &Match| match m {
            Match::Object(_) => 1.0,
            Match::Background => 0.0,
            Match::Ignored => -1.0,
        };
        let found: Vec<f32> = matches.iter().map(label).collect();
        assert_close(case, &found, &OPS.floats(&format!("{case}/labels")).1, 0.0);
        let expected = OPS.boxes(&format!("{case}/matched_boxes"));
        for (found, expected) in matches.iter().zip(expected) {
            if let Match::Object(object) = found {
                assert_eq!(truth[*object], expected, "{case}");
            }
        }
    });
    for_cases("assign_proposals", |case| {
        let truth = OPS.boxes(&format!("{case}/truth"));
        let labels = OPS.ints(&format!("{case}/truth_labels"));
        let proposals = OPS.boxes(&format!("{case}/proposals"));
        let matches = matcher(0.5, 0.5, false).matches(&truth, &proposals);
        let label = |m: &Match| match m {
            Match::Object(object) => labels[*object],
            _ => 0,
        };
        let found: Vec<usize> = matches.iter().map(label).collect();
        assert_eq!(found, OPS.ints(&format!("{case}/labels")), "{case}");
    });
}

fn sampler() {
    let labels = OPS.ints("sampler/first/labels");
    let matches: Vec<Match> = labels
        .iter()
        .map(|&label| match label as i64 {
            0 => Match::Background,
            -1 => Match::Ignored,
            object => Match::Object(object as usize),
        })
        .collect();
    let sampler = BalancedSampler {
        batch_size_per_image: OPS.setting("sampler/first", "batch_size"),
        positive_fraction: OPS.setting("sampler/first", "positive_fraction"),
    };
    let found = sampler.sample(&matches, &mut Subsample::<StdRng>::First);
    assert_eq!(found.positive, OPS.ints("sampler/first/positive"));
    assert_eq!(found.negative, OPS.ints("sampler/first/negative"));

    let rows: Vec<(usize, f64, [usize; 4])> = OPS
        .setting::<Vec<[f64; 6]>>("sampler/counts", "rows")
        .into_iter()
        .map(|[size, fraction, counts @ ..]| (size as usize, fraction, counts.map(|c| c as usize)))
        .collect();
    assert!(!rows.is_empty(), "no counts");
    for row @ (batch_size_per_image, positive_fraction, [objects, background, ..]) in rows {
        let sampler = BalancedSampler {
            batch_size_per_image,
            positive_fraction,
        };
        let mut matches = vec![Match::Object(0); objects];
        matches.resize(objects + background, Match::Background);
        let found = sampler.sample(&matches, &mut Subsample::<StdRng>::First);
        let [.., positive, negative] = row.2;
        let found = [found.positive.len(), found.negative.len()];
        assert_eq!(found, [positive, negative], "{row:?}");
    }
}

/// Cases without any element. Not every backend can take their mean: they are compared on Flex alone.
const EMPTY: [(&str, Compare<Flex>); 3] = [
    ("binary_cross_entropy/0", binary_cross_entropy::<Flex>),
    ("rpn_loss/all_ignored", rpn_loss_case::<Flex>),
    ("smooth_l1/beta0.111_sum_0", smooth_l1::<Flex>),
];

type Compare<B> = fn(&str, &<B as BackendTypes>::Device);

fn losses_of_nothing() {
    for (case, compare) in EMPTY {
        compare(case, &Default::default());
    }
}

/// Runs a check on every case of an operation but those of [`EMPTY`].
fn for_cases_on<B: Backend>(operation: &str, device: &B::Device, check: Compare<B>) {
    for_cases(operation, |case| {
        if EMPTY.iter().all(|(empty, _)| *empty != case) {
            check(case, device);
        }
    });
}

fn smooth_l1<B: DetectionBackend>(case: &str, device: &B::Device) {
    let tensor = |name: &str| OPS.tensor::<Autodiff<B>, 2>(&format!("{case}/{name}"), device);
    let found = tensor("input").require_grad();
    let sum = smooth_l1_sum(found.clone(), tensor("target"), OPS.setting(case, "beta"));
    let reduced = match &OPS.setting::<String>(case, "reduction")[..] {
        "mean" => sum / found.shape().num_elements() as f64,
        _ => sum,
    };
    let gradients = reduced.backward();
    assert_close(case, &[scalar(reduced)], &[loss(case, "loss")], LOSS);
    assert_gradient(case, "input", found.grad(&gradients), 1e-6);
}

fn binary_cross_entropy<B: DetectionBackend>(case: &str, device: &B::Device) {
    let tensor = |name: &str| OPS.tensor::<Autodiff<B>, 1>(&format!("{case}/{name}"), device);
    let logits = tensor("logits").require_grad();
    let found = binary_cross_entropy_with_logits(logits.clone(), tensor("labels"));
    let gradients = found.backward();
    assert_close(case, &[scalar(found)], &[loss(case, "loss")], LOSS);
    assert_gradient(case, "logits", logits.grad(&gradients), 1e-6);
}

fn elementary_losses<B: DetectionBackend>(device: &B::Device) {
    for_cases_on::<B>("smooth_l1", device, smooth_l1::<B>);
    for_cases_on::<B>("binary_cross_entropy", device, binary_cross_entropy::<B>);
    for_cases("regression_targets", |case| {
        let tensor = |name: &str| OPS.tensor::<B, 2>(&format!("{case}/{name}"), device);
        let coder = BoxCoder {
            weights: OPS.setting(case, "weights"),
        };
        let found = coder.encode(tensor("truth"), tensor("boxes")).into_data();
        let found: Vec<f32> = found.into_vec().expect("f32");
        assert_close(
            case,
            &found,
            &OPS.floats(&format!("{case}/targets")).1,
            1e-6,
        );
    });
}

/// The anchor or proposal that regression targets are relative to.
const REFERENCE: BBox = [0.0, 0.0, 16.0, 16.0];

/// The object with these regression targets relative to [`REFERENCE`].
fn object(targets: &[f32], weights: [f32; 4]) -> BBox {
    let side = f64::from(REFERENCE[2]);
    let delta = |i: usize| f64::from(targets[i]) / f64::from(weights[i]);
    let [x, y] = [0, 1].map(|i| side / 2.0 + side * delta(i));
    let [w, h] = [2, 3].map(|i| side * delta(i).exp() / 2.0);
    [x - w, y - h, x + w, y + h].map(|v| v as f32)
}

fn rpn_loss<B: DetectionBackend>(device: &B::Device) {
    for_cases_on::<B>("rpn_loss", device, rpn_loss_case::<B>);
}

fn rpn_loss_case<B: DetectionBackend>(case: &str, device: &B::Device) {
    let config = RpnConfig {
        anchor_generator: AnchorGenerator {
            sizes: vec![vec![16.0]],
            aspect_ratios: vec![vec![1.0]],
            strides: None,
        },
        ..Default::default()
    };
    let rpn = config.init::<Autodiff<B>>(1, device).expect("a network");
    let sampler = BalancedSampler {
        batch_size_per_image: OPS.setting(case, "batch_size"),
        positive_fraction: OPS.setting(case, "positive_fraction"),
    };
    let (shape, labels) = OPS.floats(&format!("{case}/labels"));
    let [images, anchors] = [shape[0], shape[1]];
    let (_, targets) = OPS.floats(&format!("{case}/targets"));
    let mut samples = RpnSamples::default();
    for (image, labels) in labels.chunks(anchors).enumerate() {
        let label = |label: &f32| match *label {
            1.0 => Match::Object(0),
            0.0 => Match::Background,
            _ => Match::Ignored,
        };
        let matches: Vec<Match> = labels.iter().map(label).collect();
        let sample = sampler.sample(&matches, &mut Subsample::<StdRng>::First);
        let place = |i: usize| image * anchors + i;
        samples
            .positive
            .extend(sample.positive.into_iter().map(place));
        samples
            .negative
            .extend(sample.negative.into_iter().map(place));
    }
    samples.anchors = vec![REFERENCE; samples.positive.len()];
    let object = |i: &usize| object(&targets[4 * i..], [1.0; 4]);
    samples.objects = samples.positive.iter().map(object).collect();

    // One level, whose locations follow each other down a column.
    let tensor = |name: &str| {
        let values = OPS.tensor::<Autodiff<B>, 2>(&format!("{case}/{name}"), device);
        values.require_grad()
    };
    let (objectness, deltas) = (tensor("objectness"), tensor("deltas"));
    let level = |values: &Tensor<Autodiff<B>, 2>, columns: usize| {
        let values = values.clone().reshape([images, anchors, 1, columns]);
        vec![values.permute([0, 3, 1, 2])]
    };
    let output = RpnOutput {
        objectness: level(&objectness, 1),
        deltas: level(&deltas, 4),
    };
    let found = rpn.loss(&output, &samples);
    let gradients = found.total().backward();
    let value = |name: &str| scalar(found.get(name).expect("a loss").clone());
    let expected = loss(case, "objectness_loss");
    assert_close(case, &[value("loss_objectness")], &[expected], LOSS);
    assert_gradient(case, "objectness", objectness.grad(&gradients), SIGMOIDS);
    let found = [value("loss_rpn_box_reg")];
    if samples.positive.len() + samples.negative.len() == 0 {
        // torchvision divides by no samples.
        assert_eq!((found, loss(case, "box_loss").is_nan()), ([0.0], true));
        return;
    }
    assert_close(case, &found, &[loss(case, "box_loss")], LOSS);
    assert_gradient(case, "deltas", deltas.grad(&gradients), STAGE);
}

/// Largest difference of a gradient through a stage's whole loss, relative to the largest element: the
/// regression targets are decoded and encoded again.
const STAGE: f32 = 2e-5;
/// The same of many sigmoids at once, for which NdArray takes reciprocals of 12 bits.
const SIGMOIDS: f32 = 1e-4;

/// A second stage without anything but its losses.
fn roi_heads<B: Backend>(
    config: RoiHeadsConfig,
    num_classes: usize,
    device: &B::Device,
) -> RoiHeads<B> {
    let config = RoiHeadsConfig {
        box_head: BoxHeadConfig::TwoMlp {
            representation_size: 1,
        },
        ..config
    };
    config.init(1, num_classes, device).expect("a second stage")
}

fn roi_loss<B: DetectionBackend>(device: &B::Device) {
    for_cases("roi_loss", |case| {
        let tensor = |name: &str| {
            let values = OPS.tensor::<Autodiff<B>, 2>(&format!("{case}/{name}"), device);
            values.require_grad()
        };
        let (class_logits, box_regression) = (tensor("class_logits"), tensor("box_regression"));
        let roi_heads = roi_heads(Default::default(), class_logits.dims()[1], device);
        let labels = OPS.ints(&format!("{case}/labels"));
        let (_, targets) = OPS.floats(&format!("{case}/targets"));
        let weights = roi_heads.config.bbox_reg_weights;
        let targets = targets.chunks(4).zip(&labels);
        let objects = targets.map(|(targets, label)| match label {
            0 => [0.0; 4],
            _ => object(targets, weights),
        });
        let target = Instances::new(objects.collect(), Vec::new());
        let samples = RoiSamples {
            proposals: vec![vec![REFERENCE; labels.len()]],
            matched: vec![(0..labels.len()).collect()],
            labels: vec![labels],
        };
        let predictions = BoxPredictions {
            class_logits: class_logits.clone(),
            box_regression: Some(box_regression.clone()),
        };
        let branch = roi_heads.box_branch();
        let found = branch.loss(predictions, &samples, &[target]);
        let gradients = found.total().backward();
        for (name, (_, found)) in ["classification_loss", "box_loss"].into_iter().zip(found) {
            assert_close(case, &[scalar(found)], &[loss(case, name)], LOSS);
        }
        assert_gradient(case, "class_logits", class_logits.grad(&gradients), 1e-6);
        let found = box_regression.grad(&gradients);
        assert_gradient(case, "box_regression", found, STAGE);
    });
}

fn weights_and_focal_loss_of_the_classifier<B: DetectionBackend>(device: &B::Device) {
    for_cases("classifier_loss", |case| {
        let class_logits = OPS.tensor::<Autodiff<B>, 2>(&format!("{case}/class_logits"), device);
        let class_logits = class_logits.require_grad();
        let [count, num_classes] = class_logits.dims();
        let config = RoiHeadsConfig {
            class_weights: OPS.setting(case, "class_weights"),
            focal_loss: OPS.setting(case, "focal_loss"),
            ..Default::default()
        };
        let roi_heads = roi_heads::<Autodiff<B>>(config, num_classes, device);
        let predictions = BoxPredictions {
            class_logits: class_logits.clone(),
            box_regression: Some(Tensor::zeros([count, 4 * num_classes], device)),
        };
        let samples = RoiSamples {
            proposals: vec![vec![[0.0, 0.0, 8.0, 8.0]; count]],
            labels: vec![OPS.ints(&format!("{case}/labels"))],
            matched: vec![vec![0; count]],
        };
        let target = Instances::new(vec![[0.0, 0.0, 8.0, 8.0]], Vec::new());
        let branch = roi_heads.box_branch();
        let found = branch.loss(predictions, &samples, &[target]);
        let found = found.get("loss_classifier").expect("a loss").clone();
        let gradients = found.backward();
        assert_close(case, &[scalar(found)], &[loss(case, "loss")], LOSS);
        assert_gradient(case, "class_logits", class_logits.grad(&gradients), 1e-6);
    });
}
