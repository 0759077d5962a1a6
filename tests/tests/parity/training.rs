//! Training: matching, sampling, losses, and the gradient of every parameter.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, backend::Backend};
use parity::{Fixture, assert_close, norm};
use rand::rngs::StdRng;
use rcnn_burn::StandardFasterRcnn;
use rcnn_burn::backbone::{Backbone, Phase};
use rcnn_burn::freeze::FreezeState;
use rcnn_burn::ops::{
    BalancedSampler, BoxCoder, Choice, DetectionBackend, Match, Matcher,
    binary_cross_entropy_with_logits, cross_entropy, smooth_l1_sum,
};
use rcnn_burn::roi::{BoxHeadConfig, BoxPredictions, RoiHeadsConfig, RoiSamples, Target};
use rcnn_burn::weights::state_dict;
use serde_json::Value;

use crate::{Check, models};

static OPS: LazyLock<Fixture> = LazyLock::new(|| Fixture::open("train_ops"));

/// What runs on the host alone.
pub(crate) fn host_checks() -> Vec<(&'static str, fn())> {
    vec![
        ("matcher", matcher),
        (
            "anchors_and_proposals_get_their_objects",
            anchors_and_proposals_get_their_objects,
        ),
        ("sampler", sampler),
    ]
}

/// Training steps that every backend runs.
const SMALL: [&str; 2] = ["train_resnet18_frozen", "train_resnet18_empty"];

/// Steps of many operations, left out where each takes its time.
const LARGE: [&str; 3] = [
    "train_resnet18_batchnorm",
    "train_resnet50_frozen",
    "train_resnet50_batchnorm",
];

/// What runs on a backend: small cases, or all.
pub(crate) fn checks<B: DetectionBackend>(all: bool) -> Vec<Check<B>> {
    let step =
        |name: &'static str| Check::new(name, move |device: &B::Device| check::<B>(name, device));
    let large = LARGE.into_iter().filter(|_| all);
    let steps = SMALL.into_iter().chain(large).map(step);
    let losses = [
        Check::new("elementary_losses", elementary_losses::<B>),
        Check::new(
            "weights_and_focal_loss_of_the_classifier",
            weights_and_focal_loss_of_the_classifier::<B>,
        ),
    ];
    losses.into_iter().chain(steps).collect()
}

/// Largest relative difference of a loss.
const LOSS: f32 = 1e-4;
/// Largest difference of a parameter's gradient, relative to its norm. Single elements move further
/// where another order of summation tips a ReLU.
const GRADIENT: f64 = 1e-3;

fn for_cases(operation: &str, check: impl Fn(&str)) {
    OPS.for_cases(operation, check);
}

fn scalar<B: Backend>(tensor: Tensor<B, 1>) -> f32 {
    tensor.into_data().into_vec::<f32>().expect("f32")[0]
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
                Match::Between => -2,
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
            Match::Between => -1.0,
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
            -1 => Match::Between,
            object => Match::Object(object as usize),
        })
        .collect();
    let sampler = BalancedSampler {
        batch_size_per_image: OPS.setting("sampler/first", "batch_size"),
        positive_fraction: OPS.setting("sampler/first", "positive_fraction"),
    };
    let found = sampler.sample(&matches, &mut Choice::<StdRng>::First);
    assert_eq!(found.positive, OPS.ints("sampler/first/positive"));
    assert_eq!(found.negative, OPS.ints("sampler/first/negative"));
}

fn elementary_losses<B: DetectionBackend>(device: &B::Device) {
    let input = |case: &str, name: &str| OPS.floats(&format!("{case}/{name}")).1;
    for_cases("smooth_l1", |case| {
        if !case.contains("beta0.111_sum") || case.ends_with("_0") {
            return;
        }
        let tensor = |name: &str| OPS.tensor::<Autodiff<B>, 2>(&format!("{case}/{name}"), device);
        let found = tensor("input").require_grad();
        let loss = smooth_l1_sum(found.clone(), tensor("target"), 1.0 / 9.0);
        let gradients = loss.clone().backward();
        assert_close(case, &[scalar(loss)], &[OPS.setting(case, "loss")], LOSS);
        let gradient = found.grad(&gradients).expect("a gradient").into_data();
        let gradient: Vec<f32> = gradient.into_vec().expect("f32");
        assert_close(case, &gradient, &input(case, "input_grad"), 1e-6);
    });
    for_cases("binary_cross_entropy", |case| {
        if case.ends_with("/0") {
            return;
        }
        let tensor = |name: &str| OPS.tensor::<Autodiff<B>, 1>(&format!("{case}/{name}"), device);
        let logits = tensor("logits").require_grad();
        let loss = binary_cross_entropy_with_logits(logits.clone(), tensor("labels"));
        let gradients = loss.clone().backward();
        assert_close(case, &[scalar(loss)], &[OPS.setting(case, "loss")], LOSS);
        let gradient = logits.grad(&gradients).expect("a gradient").into_data();
        let gradient: Vec<f32> = gradient.into_vec().expect("f32");
        assert_close(case, &gradient, &input(case, "logits_grad"), 1e-6);
    });
    for_cases("roi_loss", |case| {
        let logits = OPS.tensor::<B, 2>(&format!("{case}/class_logits"), device);
        let labels = OPS.ints(&format!("{case}/labels"));
        let labels: Vec<i32> = labels.into_iter().map(|l| l as i32).collect();
        let labels = Tensor::<B, 1, Int>::from_ints(labels.as_slice(), device);
        let found = scalar(cross_entropy(logits, labels, None));
        assert_close(
            case,
            &[found],
            &[OPS.setting(case, "classification_loss")],
            LOSS,
        );
    });
    for_cases("regression_targets", |case| {
        let tensor = |name: &str| OPS.tensor::<B, 2>(&format!("{case}/{name}"), device);
        let coder = BoxCoder {
            weights: OPS.setting(case, "weights"),
        };
        let found = coder.encode(tensor("truth"), tensor("boxes")).into_data();
        let found: Vec<f32> = found.into_vec().expect("f32");
        assert_close(case, &found, &input(case, "targets"), 1e-6);
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
            box_head: BoxHeadConfig::TwoMlp {
                representation_size: 1,
            },
            ..Default::default()
        };
        let predictions = BoxPredictions {
            class_logits: class_logits.clone(),
            box_regression: Some(Tensor::zeros([count, 4 * num_classes], device)),
        };
        let samples = RoiSamples {
            proposals: vec![vec![[0.0, 0.0, 8.0, 8.0]; count]],
            labels: vec![OPS.ints(&format!("{case}/labels"))],
            objects: vec![vec![[0.0, 0.0, 8.0, 8.0]; count]],
        };
        let roi_heads = config.init::<Autodiff<B>>(1, num_classes, device);
        let loss = roi_heads.loss(predictions, &samples).classifier;
        let gradients = loss.backward();
        assert_close(case, &[scalar(loss)], &[OPS.setting(case, "loss")], LOSS);
        let gradient = class_logits.grad(&gradients).expect("a gradient");
        let gradient: Vec<f32> = gradient.into_data().into_vec().expect("f32");
        let expected = OPS.floats(&format!("{case}/class_logits_grad")).1;
        assert_close(case, &gradient, &expected, 1e-6);
    });
}

/// torchvision's default of three trainable stages: stem and first stage stay as they are. Norms that
/// can be trained go on counting there, for which they have to be trainable here.
fn freeze<B: DetectionBackend>(case: &Value, model: Model<B>) -> Model<B> {
    let model = rcnn_burn::freeze::freeze(model, &["trainable_backbone_layers=3"]);
    let model = model.expect("a ResNet");
    let expected: Vec<String> = serde_json::from_value(case["frozen"].clone()).expect("names");
    assert_eq!(FreezeState::of(&model).frozen().names, expected);
    match case["norm"].as_str() {
        Some("batch") => rcnn_burn::freeze::freeze(model, &[&format!("thaw {NORMS}")]),
        _ => Ok(model),
    }
    .expect("norms")
}

type Model<B> = StandardFasterRcnn<Autodiff<B>>;

const NORMS: &str = r"/\.(bn\d|downsample\.1)\./";

/// Puts gradients in the place of parameters, NaN where there is none, so that they can be listed
/// under torchvision's names and in its layouts.
struct Gradients(GradientsParams);

impl<B: Backend> ModuleMapper<B> for Gradients {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let gradient = self.0.get::<B, D>(param.id);
        let gradient = gradient.unwrap_or_else(|| param.val() * f32::NAN);
        Param::initialized(param.id, gradient)
    }
}

fn check<B: DetectionBackend>(name: &str, device: &B::Device) {
    let fixture = Fixture::open(name);
    let case = &fixture.settings;
    let model = models::config(case)
        .init::<Autodiff<B>>(device)
        .expect("a model");
    let model = models::with_weights(case, model, str::to_string);
    let model = freeze(case, model);
    let images = models::images(case, device);
    let targets: Vec<Target> = case["targets"]
        .as_array()
        .expect("targets")
        .iter()
        .map(|target| Target {
            boxes: serde_json::from_value(target["boxes"].clone()).expect("boxes"),
            labels: serde_json::from_value(target["labels"].clone()).expect("labels"),
        })
        .collect();

    let batch = model.transform.forward(&images).expect("images");
    fixture.assert_sampled("transform.images", batch.tensors.clone(), 1e-5);
    // A copy: in training the norms count what they see.
    let backbone = models::with_weights(
        case,
        models::config(case).init(device).expect("a model"),
        str::to_string,
    )
    .backbone;
    let features = backbone.forward(batch.tensors.inner(), Phase::Training);
    for (name, map) in features.iter() {
        fixture.assert_sampled(
            &format!("features.{name}"),
            Tensor::<B, 4>::clone(map),
            1e-4,
        );
    }
    let losses = model
        .losses(&images, &targets, &mut Choice::<StdRng>::First)
        .expect("images");
    let total = losses.total();
    for (name, found) in [
        ("loss_objectness", losses.objectness),
        ("loss_rpn_box_reg", losses.rpn_box_reg),
        ("loss_classifier", losses.classifier),
        ("loss_box_reg", losses.box_reg),
    ] {
        let expected = case["losses"][name].as_f64().expect("a loss") as f32;
        assert_close(name, &[scalar(found)], &[expected], LOSS);
    }

    let gradients = GradientsParams::from_grads(total.backward(), &model);
    let found = state_dict(&model.valid().map(&mut Gradients(gradients)));
    let expected: BTreeMap<String, f64> =
        serde_json::from_value(case["gradient_norms"].clone()).expect("norms");
    assert!(expected.len() > 40, "few gradients");
    for (name, snapshot) in &found {
        let gradient: Vec<f32> = snapshot.to_data().expect("data").into_vec().expect("f32");
        if !expected.contains_key(name) {
            let counts = name.contains(".bn") || name.contains(".downsample.1.");
            let none = gradient.iter().all(|g| g.is_nan());
            assert!(none || counts, "{name} has a gradient");
            continue;
        }
        fixture.assert_sampled_norm(&format!("gradient.{name}"), &gradient, GRADIENT);
        let (size, expected) = (norm(gradient.into_iter()), expected[name]);
        assert!(
            (size - expected).abs() <= GRADIENT * expected,
            "{name}: a gradient of norm {size}, torchvision's is of {expected}"
        );
    }
    for name in expected.keys() {
        assert!(found.contains_key(name), "no parameter {name}");
    }

    // Counted only where norms are trainable.
    let after = state_dict(&model.valid());
    for (name, snapshot) in &after {
        let key = format!("after.{name}");
        if fixture.has(&key) {
            let values: Vec<f32> = snapshot.to_data().expect("data").into_vec().expect("f32");
            fixture.assert_sampled_values(&key, &values, 1e-4);
        }
    }
}
