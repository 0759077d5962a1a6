//! Replaces the box head by a single linear layer and trains a step on one picture, as if all of it
//! were an object of class 1: `cargo run --release --example single_layer_head -- WEIGHTS PICTURE OUT.bpk`.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use rand::{SeedableRng, rngs::StdRng};
use rcnn_burn::ops::Subsample;
use rcnn_burn::surgery::Operation;
use rcnn_burn::weights::{Precision, Weights};
use rcnn_burn::{Flex, Instances, StandardFasterRcnn, image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, weights, picture, out] = &arguments[..] else {
        return Err("usage: single_layer_head WEIGHTS PICTURE OUT.bpk".into());
    };
    let device = Default::default();
    let head = Operation::BoxHead("fc:1024".parse()?);
    let (cut, report) = Weights::open(weights)?.with_surgery::<Flex>(&[head], &device)?;
    // As wide as before, it starts from the first of the two layers that were there.
    print!("{report}");
    let mut model: StandardFasterRcnn<Autodiff<Flex>> = cut.load(&device)?;

    let picture = image::open_rgb(picture)?;
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let target = Instances::new(vec![[0.0, 0.0, width, height]], vec![1]);
    let mut rng = StdRng::seed_from_u64(0);
    let images = [image::to_tensor(&picture, &device)];
    let losses = model.losses(&images, &[target], &mut Subsample::Random(&mut rng))?;
    let loss = losses.total();
    println!("loss {:.3}", loss.clone().into_scalar());
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    model = SgdConfig::new().init().step(1e-3, model, gradients);
    Weights::from_model(&model.valid()).write_burnpack(out, Precision::F32)?;
    Ok(())
}
