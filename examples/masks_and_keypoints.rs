//! Pixels and keypoints of the objects in a picture:
//! `cargo run --release --example masks_and_keypoints -- WEIGHTS PICTURE`.

use rcnn_burn::types::Size;
use rcnn_burn::weights::Weights;
use rcnn_burn::{Flex, image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, weights, picture] = &arguments[..] else {
        return Err("usage: masks_and_keypoints WEIGHTS PICTURE".into());
    };
    let device = Default::default();
    let model = Weights::open(weights)?.load::<Flex>(&device)?;
    let picture = image::open_rgb(picture)?;
    let mut found = model
        .detect(&[image::to_tensor(&picture, &device)])?
        .remove(0);
    found.paste_masks(Size::from_dimensions(picture.dimensions()), 0.5);
    for object in found.iter() {
        println!("class {} with {:.2}", object.label, object.score);
        if let Some(mask) = object.mask {
            println!("  {} pixels within {:?}", mask.area(), mask.bounds());
        }
        for [x, y, _] in object.keypoints.iter().flat_map(|points| &points.0) {
            println!("  a keypoint at {x:.1}, {y:.1}");
        }
    }
    Ok(())
}
