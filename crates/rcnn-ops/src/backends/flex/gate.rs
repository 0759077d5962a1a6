//! Means of channels and their gates, which stay channels-last between convolutions.

use burn::tensor::DType;
use burn_flex::{Flex, FlexTensor};
use rcnn_cpu::{BLOCK, gate as kernel};

use super::{channels_last, dims};
use crate::gate;

pub(super) fn means(x: FlexTensor) -> FlexTensor {
    if x.dtype() != DType::F32 {
        return gate::means::<Flex>(x);
    }
    let [n, c, h, w] = dims(&x);
    let x = channels_last::from_planes(x);
    let x = channels_last::blocks(&x).expect("just brought there");
    let output = kernel::means(x, n, [h, w], c.div_ceil(BLOCK));
    channels_last::tensor(output, [n, c, 1, 1])
}

pub(super) fn multiply(x: FlexTensor, gate: FlexTensor) -> FlexTensor {
    if x.dtype() != DType::F32 || gate.dtype() != DType::F32 {
        return gate::multiply::<Flex>(x, gate);
    }
    let shape @ [n, c, h, w] = dims(&x);
    assert_eq!(dims(&gate), [n, c, 1, 1], "a gate for each channel");
    let [x, gate] = [x, gate].map(channels_last::from_planes);
    let [x, gate] = [&x, &gate].map(|t| channels_last::blocks(t).expect("just brought there"));
    let blocks = c.div_ceil(BLOCK);
    // The storage may be longer than the images.
    let x = &x[..n * h * w * blocks];
    let output = kernel::multiply(x, h * w, blocks, gate);
    channels_last::tensor(output, shape)
}

#[cfg(test)]
mod tests {
    use super::{Flex, channels_last};
    use crate::DetectionBackend;
    use crate::channels::{primitive, tensor};
    use crate::gate::{means, multiply};
    use burn::tensor::{Distribution, Tensor, Tolerance};

    #[test]
    fn gates_of_either_layout_are_the_reference() {
        for shape @ [n, c, ..] in [[1, 16, 5, 7], [2, 40, 1, 3], [3, 7, 9, 1], [1, 150, 33, 20]] {
            let random = |shape| {
                let x =
                    Tensor::<Flex, 4>::random(shape, Distribution::Default, &Default::default());
                primitive(x)
            };
            let (x, gate) = (random(shape), random([n, c, 1, 1]));
            let [mean, gated] = [
                means::<Flex>(x.clone()),
                multiply::<Flex>(x.clone(), gate.clone()),
            ]
            .map(|expected| tensor::<Flex, 4>(expected).into_data());
            for x in [x.clone(), channels_last::from_planes(x)] {
                let found = Flex::global_average_pool(x.clone());
                let found = tensor::<Flex, 4>(found).into_data();
                found.assert_approx_eq::<f32>(&mean, Tolerance::absolute(1e-6));
                for gate in [gate.clone(), channels_last::from_planes(gate.clone())] {
                    let found = Flex::channel_gate(x.clone(), gate);
                    assert!(
                        channels_last::blocks(&found).is_some(),
                        "it leaves channels-last"
                    );
                    let found = tensor::<Flex, 4>(found).into_data();
                    found.assert_approx_eq::<f32>(&gated, Tolerance::absolute(0.0));
                }
            }
        }
    }
}
