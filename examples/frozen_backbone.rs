//! Trains a new head on the frozen backbone of a trained detector:
//! `cargo run --release --example frozen_backbone -- WEIGHTS DATA RUN_DIR`.

use rcnn_burn::Flex;
use rcnn_burn::freeze::parse;
use rcnn_burn::train::{Progress, Run, TrainConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, weights, data, out] = &arguments[..] else {
        return Err("usage: frozen_backbone WEIGHTS DATA RUN_DIR".into());
    };
    let config = TrainConfig {
        data: data.into(),
        weights: Some(weights.into()),
        skip_invalid: true,
        epochs: 5,
        freeze: parse(&["backbone"])?,
        ..TrainConfig::default()
    };
    let run = Run::create(out, config)?;
    let report = run.train::<Flex>(&[Default::default()], Progress::Lines)?;
    println!("AP {:.3} after epoch {}", report.best_ap, report.best_epoch);
    Ok(())
}
