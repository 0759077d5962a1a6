//! Training steps of whole detectors: losses, and the gradient of every parameter.

use std::collections::{BTreeMap, BTreeSet};

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::tensor::{Tensor, backend::Backend};
use parity::{Fixture, assert_close, norm};
use rand::rngs::StdRng;
use rcnn_burn::backbone::{Backbone, Forward};
use rcnn_burn::freeze::FreezeState;
use rcnn_burn::ops::{DetectionBackend, Losses, Subsample};
use rcnn_burn::types::{Keypoints, Mask, Size};
use rcnn_burn::weights::{parameter_shapes, state_dict};
use rcnn_burn::{Instances, StandardFasterRcnn};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Check, Extent, models};

/// Steps of whole detectors.
const STEPS: [&str; 8] = [
    "train_mobilenet_v2_features",
    "train_mobilenet_v3_fpn",
    "train_resnet18_frozen",
    "train_resnet18_batchnorm",
    "train_resnet18_empty",
    "train_resnet50_frozen",
    "train_resnet50_batchnorm",
    "train_vgg16_roi_pool",
];

/// Steps of small detectors with mask and keypoint branches.
const BRANCHES: [&str; 3] = ["train_mask", "train_keypoint", "train_mask_keypoint_empty"];

/// What runs on a backend.
pub(crate) fn checks<B: DetectionBackend>(extent: Extent) -> Vec<Check<B>> {
    let step =
        |name: &'static str| Check::new(name, move |device: &B::Device| check::<B>(name, device));
    let steps = STEPS.into_iter().filter(|_| extent == Extent::All);
    let least = |name: &&str| ["train_mask", "train_keypoint"].contains(name);
    let branches = BRANCHES
        .into_iter()
        .filter(|name| extent >= Extent::Small || least(name));
    steps.chain(branches).map(step).collect()
}

/// Largest relative difference of a loss.
pub(crate) const LOSS: f32 = 1e-4;
/// Largest difference of a parameter's gradient, relative to its norm. Single elements move further
/// where another order of summation tips a ReLU.
pub(crate) const GRADIENT: f64 = 1e-3;
/// What rounding leaves of a gradient that is zero, relative to the largest one's norm.
const NOTHING: f64 = 1e-6;

pub(crate) fn scalar<B: Backend>(tensor: Tensor<B, 1>) -> f32 {
    tensor.into_data().into_vec::<f32>().expect("f32")[0]
}

/// As many trainable stages as torchvision has in the case. Norms that can be trained go on counting in the
/// others, for which they have to be trainable here.
fn freeze<B: DetectionBackend>(case: &Value, model: Model<B>) -> Model<B> {
    let rule = format!("trainable_backbone_layers={}", case["trainable_layers"]);
    let model = rcnn_burn::freeze::freeze(model, &[&rule]).expect("that many stages");
    assert_eq!(FreezeState::from_model(&model).frozen().names, frozen(case));
    let rules: Vec<String> = thawed(case, &model)
        .iter()
        .map(|name| format!("thaw {name}"))
        .collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    rcnn_burn::freeze::freeze(model, &rules).expect("names of norms")
}

/// Parameters that torchvision freezes.
fn frozen(case: &Value) -> Vec<String> {
    serde_json::from_value(case["frozen"].clone()).expect("names")
}

/// Those among them that are trainable here: norms that count.
fn thawed<B: DetectionBackend>(case: &Value, model: &Model<B>) -> Vec<String> {
    let norms: BTreeSet<String> = (parameter_shapes(model).into_iter())
        .filter_map(|(name, _)| Some(name.strip_suffix(".running_mean")?.to_string()))
        .collect();
    let is_norm = |name: &String| {
        name.rsplit_once('.')
            .is_some_and(|(m, _)| norms.contains(m))
    };
    let mut names = frozen(case);
    names.retain(|name| case["norm"] == "batch" && is_norm(name));
    names
}

pub(crate) type Model<B> = StandardFasterRcnn<Autodiff<B>>;

/// Puts gradients in the place of parameters, NaN where there is none, so that they can be listed
/// under torchvision's names and in its layouts.
pub(crate) struct Gradients(pub(crate) GradientsParams);

impl<B: Backend> ModuleMapper<B> for Gradients {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let gradient = self.0.get::<B, D>(param.id);
        let gradient = gradient.unwrap_or_else(|| param.val() * f32::NAN);
        Param::initialized(param.id, gradient)
    }
}

/// The case's objects.
fn targets(case: &Value, sizes: &[Size]) -> Vec<Instances> {
    fn read<T: DeserializeOwned>(target: &Value, name: &str) -> Option<T> {
        let value = target.get(name)?.clone();
        Some(serde_json::from_value(value).expect(name))
    }
    let targets = case["targets"].as_array().expect("targets");
    let target = |(target, &size): (&Value, &Size)| {
        let mask = |counts| Mask::from_counts(counts, size).expect("run lengths");
        let masks: Option<Vec<Vec<u32>>> = read(target, "masks");
        let points: Option<Vec<Vec<[f32; 3]>>> = read(target, "keypoints");
        let boxes = read(target, "boxes").expect("boxes");
        Instances {
            masks: masks.map(|masks| masks.into_iter().map(mask).collect()),
            keypoints: points.map(|points| points.into_iter().map(Keypoints).collect()),
            ..Instances::new(boxes, read(target, "labels").expect("labels"))
        }
    };
    targets.iter().zip(sizes).map(target).collect()
}

fn check<B: DetectionBackend>(name: &str, device: &B::Device) {
    let fixture = Fixture::open(name);
    let case = &fixture.settings;
    let model = models::config(case)
        .init::<Autodiff<B>>(device)
        .expect("a model");
    let model = models::with_weights(case, model, str::to_string);
    // A copy: in training the norms count what they see.
    let copy = models::config(case).init(device).expect("a model");
    let copy = models::with_weights(case, copy, str::to_string);
    check_step(&fixture, freeze(case, model), copy, device);
}

/// Compares a step of a model, of which there is a copy without gradients.
pub(crate) fn check_step<B: DetectionBackend>(
    fixture: &Fixture,
    model: Model<B>,
    copy: StandardFasterRcnn<B>,
    device: &B::Device,
) {
    let case = &fixture.settings;
    let images = models::images(case, device);
    let batch = model.transform.forward(&images).expect("images");
    let targets = targets(case, &batch.original_sizes);
    fixture.assert_sampled("transform.images", batch.tensors.clone(), 1e-5);
    let features = copy
        .backbone
        .forward(batch.tensors.inner(), &mut Forward::training());
    for (name, map) in features.iter() {
        fixture.assert_sampled(
            &format!("features.{name}"),
            Tensor::<B, 4>::clone(map),
            1e-4,
        );
    }
    let losses = model
        .losses(&images, &targets, &mut Subsample::<StdRng>::First)
        .expect("images");
    let total = losses.total();
    assert_eq!(
        losses.iter().len(),
        case["losses"].as_object().map_or(0, |l| l.len())
    );
    assert_losses("", &losses, &case["losses"]);

    let gradients = GradientsParams::from_grads(total.backward(), &model);
    let mut gradients = Gradients(gradients);
    let found = state_dict(&model.valid().map(&mut gradients));
    let expected: BTreeMap<String, f64> =
        serde_json::from_value(case["gradient_norms"].clone()).expect("norms");
    let thawed = thawed(case, &model);
    let trained = FreezeState::from_model(&model).trainable().names.len();
    assert_eq!(expected.len() + thawed.len(), trained, "gradients");
    let nothing = NOTHING * expected.values().copied().fold(0.0, f64::max);
    for (name, snapshot) in &found {
        let gradient: Vec<f32> = snapshot.to_data().expect("data").into_vec().expect("f32");
        if !expected.contains_key(name) {
            let none = gradient.iter().all(|g| g.is_nan());
            assert_eq!(none, !thawed.contains(name), "{name} without gradient");
            continue;
        }
        let (size, expected) = (norm(gradient.iter().copied()), expected[name]);
        if expected <= nothing {
            assert!(size <= nothing, "{name}: a gradient of norm {size}");
            continue;
        }
        fixture.assert_sampled_norm(&format!("gradient.{name}"), &gradient, GRADIENT);
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
    let counted = fixture.sampled("after.");
    assert_eq!(counted.is_empty(), thawed.is_empty(), "{counted:?}");
    for name in counted {
        let snapshot = &after[name.trim_start_matches("after.")];
        let values: Vec<f32> = snapshot.to_data().expect("data").into_vec().expect("f32");
        fixture.assert_sampled_values(&name, &values, 1e-4);
    }
    if let Some(expected) = case["losses_of_steps"].as_array() {
        descend(case, model, gradients.0, &images, &targets, expected);
    }
}

/// Compares the losses after each of some steps of SGD, of which the first takes these gradients.
fn descend<B: DetectionBackend>(
    case: &Value,
    mut model: Model<B>,
    mut gradients: GradientsParams,
    images: &[Tensor<Autodiff<B>, 3>],
    targets: &[Instances],
    expected: &[Value],
) {
    let sgd = &case["steps"]["sgd"];
    let momentum = MomentumConfig::new().with_dampening(0.0);
    let momentum = momentum.with_momentum(sgd["momentum"].as_f64().expect("a number"));
    let rate = sgd["lr"].as_f64().expect("a number");
    let mut optimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
    let [first, further @ ..] = expected else {
        panic!("no steps");
    };
    // Without the second update momentum would not show.
    assert!(
        further.len() > 1 && further.last() != Some(first),
        "nothing is learnt"
    );
    for (i, expected) in further.iter().enumerate() {
        model = optimizer.step(rate, model, gradients);
        let losses = model
            .losses(images, targets, &mut Subsample::<StdRng>::First)
            .expect("images");
        assert_losses(&format!("after {} steps: ", i + 1), &losses, expected);
        if i + 1 == further.len() {
            break;
        }
        gradients = GradientsParams::from_grads(losses.total().backward(), &model);
    }
}

/// Compares losses by name.
fn assert_losses<B: DetectionBackend>(which: &str, losses: &Losses<Autodiff<B>>, expected: &Value) {
    for (name, found) in losses.iter() {
        let expected = expected[name].as_f64().expect("a loss") as f32;
        let found = scalar(Tensor::clone(found));
        assert_close(&format!("{which}{name}"), &[found], &[expected], LOSS);
    }
}
