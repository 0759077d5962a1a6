//! Takes the last stage out of a detector's body, finds objects without it, and saves what is left:
//! `cargo run --release --example drop_layer4 -- WEIGHTS PICTURE OUT.bpk`.

use rcnn_burn::surgery::Operation;
use rcnn_burn::weights::{Precision, Weights};
use rcnn_burn::{Flex, Size, image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, weights, picture, out] = &arguments[..] else {
        return Err("usage: drop_layer4 WEIGHTS PICTURE OUT.bpk".into());
    };
    let device = Default::default();
    let whole = Weights::open(weights)?;
    // Its level of the pyramid goes too; anchors and pooling follow.
    let (cut, report) =
        whole.with_surgery::<Flex>(&[Operation::DropStage("layer4".into())], &device)?;
    print!("{report}");
    let picture = image::open_rgb(picture)?;
    let pictures = [image::to_tensor(&picture, &device)];
    let size = Size::from_dimensions(picture.dimensions());
    for (name, weights) in [("whole", &whole), ("without layer4", &cut)] {
        let found = weights.load::<Flex>(&device)?.detect(&pictures)?;
        let macs = weights.config.costs(size)?.total().macs / 1_000_000;
        println!("{name}: {} objects, {macs} million MACs", found[0].len());
    }
    cut.write_burnpack(out, Precision::F32)?;
    Ok(())
}
