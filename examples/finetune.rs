//! Fine-tunes a detector on a folder of labelled pictures (Pascal VOC, COCO or YOLO):
//! `cargo run --release --example finetune -- WEIGHTS DATA RUN_DIR [EPOCHS]`.

use rcnn_burn::image::{open_rgb, to_tensor};
use rcnn_burn::train::{OptimizerConfig, Progress, Run, TrainConfig};
use rcnn_burn::weights::Weights;
use rcnn_burn::{Flex, Instance, StandardFasterRcnn};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, data, folder, rest @ ..] = &arguments[..] else {
        return Err("usage: finetune WEIGHTS DATA RUN_DIR [EPOCHS]".into());
    };

    // What is not said has torchvision's values. Where the classes of the data are others than those
    // of the weights, the predictor starts anew and everything else is kept.
    let config = TrainConfig {
        data: data.into(),
        weights: Some(weights.into()),
        skip_invalid: true,
        epochs: rest.first().map_or(Ok(5), |epochs| epochs.parse())?,
        optimizer: OptimizerConfig {
            learning_rate: 0.002,
            ..Default::default()
        },
        ..Default::default()
    };
    let run = Run::create(folder, config)?;
    let device = Default::default();
    let report = run.train::<Flex>(&[device], Progress::Lines)?;
    println!("AP {:.3} after epoch {}", report.best_ap, report.best_epoch);

    // The best model is a file that opens by itself.
    let best = Weights::open(run.folder().join("best.bpk"))?;
    let model: StandardFasterRcnn<Flex> = best.load(&device)?;
    let data = rcnn_burn::data::read(data.as_ref(), &Default::default())?.accept(true)?;
    let photo = open_rgb(&data.samples[0].image)?;
    for Instance {
        bbox, label, score, ..
    } in model.detect(&[to_tensor(&photo, &device)])?[0].iter()
    {
        if score > 0.5 {
            println!("{} at {bbox:.0?}: {score:.2}", model.class_names[label]);
        }
    }
    Ok(())
}
