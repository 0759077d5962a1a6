//! Thaws a detector from its end to its beginning, the later a part the slower it learns:
//! `cargo run --release --example gradual_unfreezing -- WEIGHTS DATA RUN_DIR`.

use rcnn_burn::Flex;
use rcnn_burn::freeze::{FreezePlan, FreezeState, parse};
use rcnn_burn::train::{Progress, Run, TrainConfig};
use rcnn_burn::weights::Weights;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, weights, data, out] = &arguments[..] else {
        return Err("usage: gradual_unfreezing WEIGHTS DATA RUN_DIR".into());
    };
    let rules = parse(&[
        "freeze *",
        "thaw box_predictor",
        "thaw box_head from epoch 3",
        "thaw rpn from epoch 5",
        "thaw fpn from epoch 5",
        "thaw layer4 from epoch 7",
    ])?;
    let model = Weights::open(weights)?.load::<Flex>(&Default::default())?;
    for (epoch, state) in FreezePlan::new(FreezeState::from_model(&model), &rules)?.stages() {
        println!("from epoch {epoch} on {state}");
    }

    let config = TrainConfig {
        data: data.into(),
        weights: Some(weights.into()),
        skip_invalid: true,
        epochs: 8,
        freeze: rules,
        learning_rate_factors: vec!["fpn=0.3".parse()?, "body=0.1".parse()?],
        ..TrainConfig::default()
    };
    let run = Run::create(out, config)?;
    let report = run.train::<Flex>(&[Default::default()], Progress::Lines)?;
    println!("AP {:.3} after epoch {}", report.best_ap, report.best_epoch);
    Ok(())
}
