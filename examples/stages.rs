//! Calls the stages one by one, for those who build on what lies between them:
//! `cargo run --release --example stages -- WEIGHTS PICTURE`.

use rcnn_burn::weights::Weights;
use rcnn_burn::{Flex, image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, weights, picture] = &arguments[..] else {
        return Err("usage: stages WEIGHTS PICTURE".into());
    };
    let device = Default::default();
    let model = Weights::open(weights)?.load::<Flex>(&device)?;
    let picture = image::open_rgb(picture)?;

    let images = model
        .transform
        .forward(&[image::to_tensor(&picture, &device)])?;
    println!(
        "batch {:?}, image {:?}",
        images.tensors.dims(),
        images.image_sizes[0]
    );
    let features = model.features(&images)?;
    for (name, map) in features.iter() {
        println!("features {name}: {:?}", map.dims());
    }
    let proposals = model.proposals(&images, &features);
    println!(
        "{} proposals, the best {:?}",
        proposals[0].boxes.len(),
        proposals[0].boxes.first()
    );
    let pooled = model.pooled_features(&images, &features, &proposals);
    println!("pooled features {:?}", pooled.dims());

    // Every class for every proposal, before any threshold: here the best of each class.
    let all = &model.class_scores(&images, pooled, &proposals)[0];
    for class in 1..all.num_classes {
        let scores = all.scores.iter().skip(class).step_by(all.num_classes);
        println!(
            "class {class}: best score {:.3}",
            scores.fold(0.0f32, |best, s| best.max(*s))
        );
    }
    println!(
        "{} detections",
        model
            .roi_heads
            .box_branch()
            .select_detections(all, images.image_sizes[0])
            .len()
    );
    Ok(())
}
