//! Times a training step of ResNet-50-FPN with parts of it frozen; `bench/freeze.py` compares them:
//! `cargo run --release --example training_step -- [RULE...]`.

use std::time::Instant;

use burn::backend::Autodiff;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::tensor::{Distribution, Tensor};
use rand::{SeedableRng, rngs::StdRng};
use rcnn_burn::backbone::ResNetFpnConfig;
use rcnn_burn::freeze::{FreezeState, FreezingOptimizer, freeze};
use rcnn_burn::ops::Choice;
use rcnn_burn::roi::Target;
use rcnn_burn::{Backend, FasterRcnnConfig, Flex, StandardFasterRcnn};

const BATCH: usize = 4;
const STEPS: usize = 7;
/// Nothing is to be learned of noise: with a rate so small the weights stay finite.
const RATE: f64 = 1e-15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rules: Vec<String> = std::env::args().skip(1).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let device = Default::default();
    // How many proposals there are, and so the work, depends on the weights.
    Flex::seed(&device, 0);
    let mut config = FasterRcnnConfig::resnet_fpn(ResNetFpnConfig::default(), 4);
    (config.transform.min_size, config.transform.max_size) = (vec![240], 480);
    let model: StandardFasterRcnn<Autodiff<Flex>> = config.init(&device)?;
    let mut model = freeze(model, &rules)?;
    println!("{}", FreezeState::of(&model));

    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let sgd = SgdConfig::new().with_momentum(Some(momentum)).init();
    let mut optimizer = FreezingOptimizer::from(sgd);
    let random = Distribution::Uniform(0.0, 1.0);
    let images = [(); BATCH].map(|()| Tensor::random([3, 240, 320], random, &device));
    let boxes = vec![[20.0, 30.0, 90.0, 110.0], [150.0, 60.0, 300.0, 200.0]];
    let labels = vec![1, 2];
    let targets = [(); BATCH].map(|()| Target {
        boxes: boxes.clone(),
        labels: labels.clone(),
    });
    let mut rng = StdRng::seed_from_u64(0);
    let mut seconds = Vec::new();
    for _ in 0..STEPS {
        let start = Instant::now();
        let losses = model.losses(&images, &targets, &mut Choice::Random(&mut rng))?;
        let gradients = GradientsParams::from_grads(losses.total().backward(), &model);
        model = optimizer.step(RATE, model, gradients);
        seconds.push(start.elapsed().as_secs_f64());
    }
    // The first step also initialises.
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    println!("{:.3} s", seconds[seconds.len() / 2]);
    Ok(())
}
