//! Freezes the box classifier of TensorFlow's Faster R-CNN over Inception v2: all of it, then a part, then it is thawed
//! layer by layer. After each epoch what was frozen is the same bit for bit:
//! `cargo run --release --example freeze_box_classifier [-- MODEL]`.
//!
//! MODEL is what the Object Detection API left (a folder, a frozen graph, a checkpoint); without one, a small network of
//! random weights is trained on five pictures of blood cells.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::grad_clipping::GradientClippingConfig;
use burn::module::AutodiffModule;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use rand::{SeedableRng, rngs::StdRng};
use rcnn_burn::backbone::StageHeadConfig;
use rcnn_burn::backbone::inception_v2::{InceptionV2Config, InceptionV2Depth};
use rcnn_burn::data::{Augmentation, Loader, LoaderOptions, ReadOptions, read};
use rcnn_burn::freeze::{FreezePlan, FreezeState, FreezingOptimizer, parse};
use rcnn_burn::image::to_tensor;
use rcnn_burn::ops::Subsample;
use rcnn_burn::roi::BoxHeadConfig;
use rcnn_burn::weights::{Weights, state_dict};
use rcnn_burn::{Backend, FasterRcnnConfig, Flex};

/// By the API's names of variables, as in `freeze_variables` of a `pipeline.config`.
const RULES: [&str; 6] = [
    // All of the box classifier.
    "freeze tf:^SecondStage",
    // A part of it: the classes stay frozen, the boxes learn.
    "thaw tf:^SecondStageBoxPredictor/BoxEncodingPredictor from epoch 2",
    // The rest, from its end to its beginning.
    "thaw tf:^SecondStageBoxPredictor from epoch 3",
    "thaw tf:^SecondStageFeatureExtractor/InceptionV2/Mixed_5c from epoch 4",
    "thaw tf:^SecondStageFeatureExtractor/InceptionV2/Mixed_5b from epoch 5",
    "thaw tf:^SecondStage from epoch 6",
];

/// The detector with a quarter of the channels.
fn small() -> FasterRcnnConfig {
    let depth = InceptionV2Depth {
        depth_multiplier: 0.25,
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::faster_rcnn_inception_v2_coco(91);
    config.backbone = InceptionV2Config {
        depth,
        ..Default::default()
    }
    .into();
    config.roi_heads.box_head = BoxHeadConfig::Stage(StageHeadConfig {
        depth,
        ..Default::default()
    });
    config.transform.min_size = vec![240];
    config
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Default::default();
    Flex::seed(&device, 0);
    let cells = concat!(env!("CARGO_MANIFEST_DIR"), "/blood-cells");
    let data = read(cells.as_ref(), &ReadOptions::default())?.accept(false)?;
    let weights = match std::env::args().nth(1) {
        Some(model) => Weights::open(model)?,
        None => Weights::from_model(&small().init::<Flex>(&device)?),
    };
    // The last layers start anew for the cells.
    let classes = format!("class-names {}", data.class_names[1..].join(","));
    let (weights, _) = weights.with_surgery::<Flex>(&[classes.parse()?], &device)?;
    let mut model = weights.load::<Autodiff<Flex>>(&device)?;

    let plan = FreezePlan::new(FreezeState::from_model(&model), &parse(&RULES)?)?;
    // As the model's pipeline.config has them.
    let momentum = MomentumConfig::new().with_dampening(0.0).with_momentum(0.9);
    let sgd = SgdConfig::new()
        .with_momentum(Some(momentum))
        .with_gradient_clipping(Some(GradientClippingConfig::Norm(10.0)));
    let mut sgd = FreezingOptimizer::from(sgd.init());
    let loader = Loader::new(
        Arc::new(data),
        Augmentation::default(),
        LoaderOptions::default(),
    )?;
    let mut rng = StdRng::seed_from_u64(0);
    for epoch in 1..=RULES.len() {
        model = plan.at(epoch).apply(model);
        let before = state_dict(&model.valid());
        let mut sum = 0.0;
        for example in loader.epoch(epoch as u64).flatten() {
            let example = example?;
            let images = [to_tensor(&example.image, &device)];
            let subsample = &mut Subsample::Random(&mut rng);
            let loss = model
                .losses(&images, &[example.instances], subsample)?
                .total();
            sum += loss.clone().into_scalar();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = sgd.step(2e-4, model, gradients);
        }
        if !sum.is_finite() {
            return Err(format!("epoch {epoch}: the losses sum to {sum}").into());
        }
        let after = state_dict(&model.valid());
        let frozen = plan.at(epoch).frozen();
        for name in &frozen.names {
            assert_eq!(before[*name].to_data()?, after[*name].to_data()?, "{name}");
        }
        println!("epoch {epoch}: losses {sum:.2}, {}", plan.at(epoch));
        if let (Some(first), Some(last)) = (frozen.names.first(), frozen.names.last()) {
            println!("  frozen from {first} to {last}");
        }
    }
    Ok(())
}
