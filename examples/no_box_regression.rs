//! A detector that takes its proposals as boxes: only classes are left to the second stage.
//! `cargo run --release --example no_box_regression -- WEIGHTS PICTURE OUT.bpk`.

use rcnn_burn::surgery::Operation;
use rcnn_burn::weights::{Precision, Weights};
use rcnn_burn::{Flex, Instance, image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, weights, picture, out] = &arguments[..] else {
        return Err("usage: no_box_regression WEIGHTS PICTURE OUT.bpk".into());
    };
    let device = Default::default();
    let whole = Weights::open(weights)?;
    let (cut, _) = whole.with_surgery::<Flex>(&[Operation::NoBoxRegression], &device)?;
    cut.write_burnpack(out, Precision::F32)?;
    // Opened again, it is a model like any other.
    let model = Weights::open(out)?.load::<Flex>(&device)?;
    let picture = image::open_rgb(picture)?;
    for Instance {
        bbox, label, score, ..
    } in model.detect(&[image::to_tensor(&picture, &device)])?[0].iter()
    {
        let name = model.class_names.get(label).map_or("?", String::as_str);
        println!("{name} ({label}) at {bbox:.1?}: {score:.3}");
    }
    Ok(())
}
