//! A few steps of training on a backend and on Flex, from the same weights: the losses agree.

use burn::backend::Autodiff;
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use parity::{assert_close, synthetic};
use rand::rngs::StdRng;
use rcnn_burn::backbone::{NormKind, ResNetArch, ResNetFpnConfig};
use rcnn_burn::ops::backend_types::{Flex, FlexDevice};
use rcnn_burn::ops::{DetectionBackend, Subsample};
use rcnn_burn::roi::BoxHeadConfig;
use rcnn_burn::weights::{load_state_dict, parameter_shapes};
use rcnn_burn::{FasterRcnnConfig, Instances, StandardFasterRcnn};

use crate::{Check, training};

const STEPS: usize = 4;
/// Largest relative difference of a step's loss.
const LOSS: f32 = 1e-3;

pub(crate) fn checks<B: DetectionBackend>() -> Vec<Check<B>> {
    vec![Check::new("losses", losses_agree::<B>)]
}

fn losses_agree<B: DetectionBackend>(device: &B::Device) {
    let (found, expected) = (losses::<B>(device), losses::<Flex>(&FlexDevice));
    let change = (expected[STEPS - 1] - expected[0]).abs();
    assert!(
        change > 5.0 * LOSS * expected[0],
        "not learnt: {expected:?}"
    );
    for (step, (found, expected)) in found.into_iter().zip(expected).enumerate() {
        assert_close(&format!("step {step}"), &[found], &[expected], LOSS);
    }
}

/// A detector of a ResNet's first stage, small enough for software adapters and reference bodies.
fn model<B: DetectionBackend>(device: &B::Device) -> StandardFasterRcnn<Autodiff<B>> {
    let backbone = ResNetFpnConfig {
        arch: ResNetArch::ResNet18,
        norm: NormKind::BatchNorm2d,
        returned_layers: vec![1],
        out_channels: 8,
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::new(backbone, 3);
    config.rpn.anchor_generator.sizes = vec![vec![32.0], vec![64.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![1.0]; 2];
    config.roi_heads.batch_size_per_image = 64;
    config.roi_heads.box_head = BoxHeadConfig::TwoMlp {
        representation_size: 16,
    };
    config.transform.min_size = vec![64];
    let mut model = config.init::<Autodiff<B>>(device).expect("a model");
    let shapes = parameter_shapes(&model);
    let weights = synthetic::state_dict(&shapes, &Default::default(), str::to_string);
    load_state_dict(&mut model, weights, true).expect("the rule covers every parameter");
    model
}

/// The sum of the losses before each step.
fn losses<B: DetectionBackend>(device: &B::Device) -> Vec<f32> {
    let images = ["one", "another"].map(|name| synthetic::image(name, 48, 60, device));
    let boxes = vec![[4.0, 6.0, 30.0, 40.0], [20.0, 3.0, 45.0, 22.0]];
    let labels = vec![1, 2];
    let targets = [Instances::new(boxes, labels), Instances::default()];
    let mut model = model::<B>(device);
    let mut optimizer = SgdConfig::new().init();
    let mut losses = Vec::new();
    for _ in 0..STEPS {
        let step = model.losses(&images, &targets, &mut Subsample::<StdRng>::First);
        let total = step.expect("images").total();
        let gradients = GradientsParams::from_grads(total.backward(), &model);
        losses.push(training::scalar(total));
        model = optimizer.step(0.01, model, gradients);
    }
    losses
}
