//! Times training steps on made-up pictures, for `bench/train.py` and `bench/freeze.py`:
//! `cargo run --release --example train_step -- ARCH STEPS [RULE...]`.

use std::time::Instant;

use burn::backend::Autodiff;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::tensor::{Distribution, Tensor};
use rand::{SeedableRng, rngs::StdRng};
use rcnn_burn::backbone::{NormKind, ResNetFpnConfig};
use rcnn_burn::freeze::{FreezingOptimizer, freeze};
use rcnn_burn::ops::Subsample;
use rcnn_burn::{Backend, FasterRcnnConfig, Flex, Instances, StandardFasterRcnn};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, arch, steps, rules @ ..] = &arguments[..] else {
        return Err("usage: train_step ARCH STEPS [RULE...]".into());
    };
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let backbone = ResNetFpnConfig {
        arch: arch.parse()?,
        norm: NormKind::BatchNorm2d,
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::new(backbone, 4);
    config.transform.min_size = vec![240];
    config.transform.max_size = 480;
    let device = Default::default();
    // How many proposals there are, and so the work, depends on the weights.
    Flex::seed(&device, 0);
    let model: StandardFasterRcnn<Autodiff<Flex>> = config.init(&device)?;
    let mut model = freeze(model, &rules)?;
    let momentum = MomentumConfig::new().with_dampening(0.0);
    let sgd = SgdConfig::new().with_momentum(Some(momentum)).init();
    let mut sgd = FreezingOptimizer::from(sgd);
    let uniform = Distribution::Uniform(0.0, 1.0);
    let images: Vec<_> = (0..4)
        .map(|_| Tensor::random([3, 480, 640], uniform, &device))
        .collect();
    // Twelve objects of 60 to 115 pixels on each picture.
    let corner = |i: usize| {
        [
            (i % 4 * 150) as f32,
            (i / 4 * 120) as f32,
            (60 + 5 * i) as f32,
        ]
    };
    let boxes = (0..12)
        .map(corner)
        .map(|[x, y, side]| [x, y, x + side, y + side]);
    let target = Instances::new(boxes.collect(), (0..12).map(|i| 1 + i % 3).collect());
    let targets = vec![target; 4];
    let mut rng = StdRng::seed_from_u64(0);
    for _ in 0..steps.parse()? {
        let start = Instant::now();
        let subsample = &mut Subsample::Random(&mut rng);
        let loss = model.losses(&images, &targets, subsample)?.total();
        let forward = start.elapsed().as_secs_f64();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = sgd.step(1e-4, model, gradients);
        println!("{forward} {}", start.elapsed().as_secs_f64());
    }
    Ok(())
}
