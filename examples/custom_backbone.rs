//! A detector over a custom backbone: a few convolutions, one feature map, no pyramid. Any network will
//! do that says which feature maps it returns; anchors and pooling must fit them.
//! `cargo run --release --example custom_backbone`.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::activation::relu;
use rcnn_burn::backbone::{Backbone, FeatureMaps, Forward, LevelSpec};
use rcnn_burn::rpn::AnchorGenerator;
use rcnn_burn::weights::{Precision, Weights};
use rcnn_burn::{Backend, FasterRcnnConfig, Flex, Tensor, image};

#[derive(Module, Debug)]
struct Plain<B: Backend> {
    convs: Vec<Conv2d<B>>,
}

impl<B: Backend> Plain<B> {
    fn new(device: &B::Device) -> Self {
        let conv = |channels: [usize; 2]| {
            Conv2dConfig::new(channels, [3, 3])
                .with_stride([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(device)
        };
        Self {
            convs: [[3, 16], [16, 32], [32, 64], [64, 64]].map(conv).into(),
        }
    }
}

impl<B: Backend> Backbone<B> for Plain<B> {
    fn forward(&self, images: Tensor<B, 4>, _cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
        FeatureMaps::single(
            self.convs
                .iter()
                .fold(images, |x, conv| relu(conv.forward(x))),
        )
    }

    fn levels(&self) -> Vec<LevelSpec> {
        vec![LevelSpec::new("0", 64, 16)]
    }

    fn size_divisibility(&self) -> usize {
        16
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Default::default();
    let mut config = FasterRcnnConfig::custom(2);
    // torchvision's anchors are for five feature maps: the error names the one that there is.
    if let Err(error) = config.init_with_backbone(Plain::<Flex>::new(&device), &device) {
        println!("{error}");
    }
    config.rpn.anchor_generator = AnchorGenerator {
        sizes: vec![vec![32.0, 64.0, 128.0]],
        aspect_ratios: vec![vec![0.5, 1.0, 2.0]],
        strides: None,
    };
    config.transform.min_size = vec![240];
    let model = config.init_with_backbone(Plain::<Flex>::new(&device), &device)?;

    let picture = image::open_rgb(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../assets/blood-cells.jpg"
    ))?;
    let picture = image::to_tensor(&picture, &device);
    let pictures = [picture];
    let found = model.detect(&pictures)?;
    println!("untrained, it finds {} things", found[0].len());

    // Saved and opened again: the backbone is made by hand, the rest is in the file.
    let file = std::env::temp_dir().join("custom_backbone.bpk");
    Weights::from_model(&model).write_burnpack(&file, Precision::F32)?;
    let weights = Weights::open(&file)?;
    let mut again = weights
        .config
        .init_with_backbone(Plain::<Flex>::new(&device), &device)?;
    weights.load_into(&mut again)?;
    assert_eq!(again.detect(&pictures)?, found);
    println!("{} opens again and finds the same", file.display());
    Ok(())
}
