//! Weights and images from a written rule, stated in `tests/reference/synthetic.py`.

use std::collections::HashMap;

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rcnn_burn::weights::{StateDict, StateTensor};

fn splitmix(hash: u64, index: u64) -> u64 {
    let mut z = hash.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn fnv1a(key: &str) -> u64 {
    key.bytes().fold(0xCBF2_9CE4_8422_2325, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}

/// The rule's value of every element of a tensor, in torch's layout.
fn weight(key: &str, shape: &[usize], gain: f32, changes: &Changes) -> Vec<f32> {
    let (base, scale) = if key.ends_with("running_var") {
        (1.0f32, 0.5f32)
    } else if key.ends_with("running_mean") {
        (0.0, 0.1)
    } else if key.ends_with(".bias") {
        let body = key.starts_with("backbone.") && !key.starts_with("backbone.fpn.");
        (if body { changes.body_bias } else { 0.0 }, 0.05)
    } else if shape.len() == 1 {
        (changes.norm_weight, 0.12)
    } else {
        let fan_in: usize = shape[1..].iter().product();
        (0.0, (6.0 / fan_in as f64).sqrt() as f32)
    };
    let scale = scale * gain;
    let hash = fnv1a(key);
    (0..shape.iter().product::<usize>() as u64)
        .map(|i| {
            let unit = (splitmix(hash, i) >> 40) as f32 / (1u32 << 24) as f32;
            base + scale * (2.0 * unit - 1.0)
        })
        .collect()
}

/// What a case changes of the rule.
#[derive(Debug, Clone)]
pub struct Changes {
    /// Factors of the scale, by name.
    pub gains: HashMap<String, f32>,
    /// Base of the biases of the body.
    pub body_bias: f32,
    /// Base of the weights of norms.
    pub norm_weight: f32,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            gains: HashMap::new(),
            body_bias: 0.0,
            norm_weight: 0.6,
        }
    }
}

/// A state dict of the rule's weights for parameters of these names and shapes, which
/// `torch_name` translates to those that torchvision has.
pub fn state_dict(
    shapes: &[(String, Vec<usize>)],
    changes: &Changes,
    torch_name: impl Fn(&str) -> String,
) -> StateDict {
    let values = |(name, shape): &(String, Vec<usize>)| {
        let key = torch_name(name);
        let gain = changes.gains.get(&key).copied().unwrap_or(1.0);
        let values = weight(&key, shape, gain, changes);
        let tensor = StateTensor::new(TensorData::new(values, shape.clone()));
        (name.clone(), tensor)
    };
    shapes.iter().map(values).collect()
}

/// The rule's picture of that name, `[3, height, width]`, from 0 to 1.
pub fn image<B: Backend>(
    name: &str,
    height: usize,
    width: usize,
    device: &B::Device,
) -> Tensor<B, 3> {
    let (coarse, fine) = (
        fnv1a(&format!("{name}/coarse")),
        fnv1a(&format!("{name}/fine")),
    );
    let mut pixels = Vec::with_capacity(3 * height * width);
    for c in 0..3 {
        for y in 0..height {
            for x in 0..width {
                let at = |y: usize, x: usize| ((y * 4096 + x) * 3 + c) as u64;
                let coarse = splitmix(coarse, at(y / 8, x / 8)) >> 56;
                let fine = splitmix(fine, at(y, x)) >> 56;
                pixels.push(((3 * coarse + fine) / 4) as f32 / 255.0);
            }
        }
    }
    Tensor::from_data(TensorData::new(pixels, [3, height, width]), device)
}
