//! Fine-tunes a detector on a data set for one epoch (Pascal VOC, COCO or YOLO):
//! `cargo run --release --example finetune -- WEIGHTS DATA SPLIT OUT.bpk`.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::grad_clipping::GradientClippingConfig;
use burn::module::AutodiffModule;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use rand::{SeedableRng, rngs::StdRng};
use rcnn_burn::image::{open_rgb, to_tensor};
use rcnn_burn::ops::Choice;
use rcnn_burn::roi::Target;
use rcnn_burn::weights::{Precision, Weights};
use rcnn_burn::{Flex, StandardFasterRcnn};
use rcnn_data::{Augmentation, Loader, LoaderOptions, ReadOptions, read};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, start, data, split, out] = &arguments[..] else {
        return Err("usage: finetune WEIGHTS DATA SPLIT OUT.bpk".into());
    };
    let options = ReadOptions {
        split: Some(split.clone()),
        ..Default::default()
    };
    let dataset = read(data.as_ref(), &options)?.accept(true)?;

    // Everything is kept but the predictor, where the classes are others.
    let device = Default::default();
    let mut weights = Weights::open(start)?;
    weights.config.num_classes = dataset.class_names.len();
    weights.config.class_names = dataset.class_names.clone();
    let (mut model, report): (StandardFasterRcnn<Autodiff<Flex>>, _) =
        weights.load_partial(&device)?;
    println!("{} tensors kept\n{report}", report.loaded.len());

    let mut sgd = SgdConfig::new()
        .with_momentum(Some(
            MomentumConfig::new().with_momentum(0.9).with_dampening(0.0),
        ))
        .with_weight_decay(Some(WeightDecayConfig::new(1e-4)))
        .with_gradient_clipping(Some(GradientClippingConfig::Norm(10.0)))
        .init();
    let options = LoaderOptions {
        batch_size: 4,
        shuffle: true,
        ..Default::default()
    };
    let decode = Arc::new(|path: &std::path::Path| Ok(open_rgb(path)?));
    let loader = Loader::new(Arc::new(dataset), decode, Augmentation::default(), options);
    let mut rng = StdRng::seed_from_u64(0);
    for (step, batch) in loader.epoch(0).enumerate() {
        let (mut images, mut targets) = (Vec::new(), Vec::new());
        for example in batch {
            let example = example?;
            images.push(to_tensor(&example.image, &device));
            targets.push(Target {
                boxes: example.boxes,
                labels: example.labels,
            });
        }
        let loss = model
            .losses(&images, &targets, &mut Choice::Random(&mut rng))?
            .total();
        println!("step {step}: loss {:.3}", loss.clone().into_scalar());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = sgd.step(0.005, model, gradients);
    }
    Weights::of_model(&model.valid()).write_burnpack(out, Precision::F32)?;
    Ok(())
}
