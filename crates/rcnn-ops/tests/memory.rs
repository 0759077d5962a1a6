//! Memory that stays after a model is dropped. Alone in its process, for the memory is shared by all models.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::Tensor;
use rcnn_ops::backend_types::Flex;
use rcnn_ops::cpu::memory::{clear, idle_bytes, plan_bytes, set_limit};
use rcnn_ops::{Conv2d, ConvEpilogue};

fn run(layers: &[Conv2d<Flex>]) {
    let mut x = Tensor::ones([1, 32, 64, 64], &Default::default());
    for layer in layers {
        x = layer.forward_fused(x, ConvEpilogue::default());
    }
}

#[test]
fn nothing_stays_of_a_dropped_model_but_idle_memory_within_the_limit() {
    let layer = |kernel: usize| {
        let pad = kernel / 2;
        let padding = PaddingConfig2d::Explicit(pad, pad, pad, pad);
        let config = Conv2dConfig::new([32, 32], [kernel; 2]).with_padding(padding);
        Conv2d::from(config.init(&Default::default()))
    };
    let layers = [layer(3), layer(1)];
    for _ in 0..20 {
        run(&layers);
    }
    assert!(plan_bytes() > 0 && idle_bytes() > 0);
    drop(layers);
    assert_eq!(plan_bytes(), 0);

    let limit = idle_bytes() / 2;
    set_limit(limit);
    assert!(idle_bytes() <= limit);
    clear();
    assert_eq!(idle_bytes(), 0);

    set_limit(0);
    run(&[layer(3)]);
    assert_eq!(idle_bytes(), 0);
}
