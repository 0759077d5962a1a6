//! Finds objects in a picture: `cargo run --release --example detect -- WEIGHTS PICTURE`.

use rcnn_burn::weights::Weights;
use rcnn_burn::{Flex, Instance, image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, weights, picture] = &arguments[..] else {
        return Err("usage: detect WEIGHTS PICTURE".into());
    };
    let device = Default::default();
    let model = Weights::open(weights)?.load::<Flex>(&device)?;
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
