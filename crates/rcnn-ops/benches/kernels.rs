//! Flex's kernels on the shapes of ResNet-50-FPN for one picture of 800x1088, beside Burn's own
//! convolution and the reference bodies.
//!
//! ```text
//! cargo bench -p rcnn-ops                      # all
//! cargo bench -p rcnn-ops -- convolution       # some
//! ```

use std::hint::black_box;

use burn::nn::conv::Conv2dConfig;
use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{LinearConfig, PaddingConfig2d};
use burn::tensor::{Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rcnn_ops::backend_types::Flex;
use rcnn_ops::{
    Conv2d, Linear, RoiAlignOptions, grouped_nms, max_pool2d, reference, roi_align, top_k,
};

fn random<const D: usize>(shape: [usize; D]) -> Tensor<Flex, D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Default::default())
}

/// So many boxes of all sizes, `[K, 4]`, in a picture of this size.
fn boxes(count: usize, [height, width]: [f32; 2]) -> Vec<f32> {
    // A low-discrepancy sequence: evenly spread, and the same every time.
    let at = |i: usize, ratio: f32| (i as f32 * ratio).fract();
    (0..count)
        .flat_map(|i| {
            let (x, y) = (at(i, 0.754_877_7) * width, at(i, 0.569_840_3) * height);
            let side = 16.0 * 2f32.powf(at(i, 0.618_034) * 5.0);
            [x, y, (x + side).min(width), (y + side).min(height)]
        })
        .collect()
}

fn convolution(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("convolution");
    group.sample_size(10);
    for (name, channels, size, kernel, stride, groups) in [
        ("stem", [3, 64], [800, 1088], 7, 2, 1),
        ("layer1 3x3", [64, 64], [200, 272], 3, 1, 1),
        ("layer3 1x1", [1024, 256], [50, 68], 1, 1, 1),
        ("layer4 3x3", [512, 512], [25, 34], 3, 1, 1),
        ("layer3.0 3x3 by 2", [256, 256], [100, 136], 3, 2, 1),
        ("fpn 3x3", [256, 256], [200, 272], 3, 1, 1),
        // Of MobileNetV3 and ResNeXt.
        ("depthwise 3x3 by 2", [64, 64], [400, 544], 3, 2, 64),
        ("depthwise 5x5", [120, 120], [100, 136], 5, 1, 120),
        ("32 groups", [128, 128], [200, 272], 3, 1, 32),
    ] {
        let burn = Conv2dConfig::new(channels, [kernel; 2])
            .with_stride([stride; 2])
            .with_groups(groups)
            .with_padding(PaddingConfig2d::Explicit(
                kernel / 2,
                kernel / 2,
                kernel / 2,
                kernel / 2,
            ))
            .init::<Flex>(&Default::default());
        let module = Conv2d::from(burn.clone());
        let x = random([1, channels[0], size[0], size[1]]);
        group.bench_function(BenchmarkId::new("rcnn", name), |b| {
            b.iter(|| black_box(module.forward(x.clone())));
        });
        group.bench_function(BenchmarkId::new("burn", name), |b| {
            b.iter(|| black_box(burn.forward(x.clone())));
        });
    }
}

/// The box head's first layer.
fn fully_connected(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear");
    group.sample_size(10);
    let burn = LinearConfig::new(256 * 7 * 7, 1024).init(&Default::default());
    let module = Linear::from(burn.clone());
    for count in [100, 1000] {
        let x = random([count, 256 * 7 * 7]);
        group.bench_function(BenchmarkId::new("rcnn", count), |b| {
            b.iter(|| black_box(module.forward(x.clone())));
        });
        group.bench_function(BenchmarkId::new("burn", count), |b| {
            b.iter(|| black_box(burn.forward(x.clone())));
        });
    }
}

fn resampling(criterion: &mut Criterion) {
    let x = random([1, 64, 400, 544]);
    let pool = MaxPool2dConfig::new([3, 3])
        .with_strides([2, 2])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .init();
    criterion.bench_function("max_pool2d", |b| {
        b.iter(|| black_box(max_pool2d(&pool, x.clone())));
    });
}

fn regions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("roi_align");
    group.sample_size(10);
    let features = random([1, 256, 200, 272]);
    let rows = boxes(1000, [800.0, 1088.0]);
    let rois = rows.chunks(4).flat_map(|b| [0.0, b[0], b[1], b[2], b[3]]);
    let rois =
        Tensor::<Flex, 1>::from_floats(rois.collect::<Vec<_>>().as_slice(), &Default::default());
    let rois: Tensor<Flex, 2> = rois.reshape([1000, 5]);
    let options = RoiAlignOptions {
        output_size: [7, 7],
        spatial_scale: 0.25,
        sampling_ratio: 2,
        aligned: false,
    };
    group.bench_function("rcnn", |b| {
        b.iter(|| black_box(roi_align(features.clone(), rois.clone(), options)));
    });
    group.bench_function("reference", |b| {
        b.iter(|| {
            let [features, rois] = [
                features.clone().into_primitive().tensor(),
                rois.clone().into_primitive().tensor(),
            ];
            black_box(reference::roi_align::<Flex>(features, rois, options))
        });
    });
}

fn selection(criterion: &mut Criterion) {
    let scores = random([1, 163_200]);
    criterion.bench_function("top_k", |b| {
        b.iter(|| black_box(top_k(scores.clone(), 1000)));
    });
    let rows = boxes(5 * 1000, [800.0, 1088.0]);
    let all = Tensor::<Flex, 1>::from_floats(rows.as_slice(), &Default::default());
    let all: Tensor<Flex, 3> = all.reshape([5, 1000, 4]);
    let scores = random([5, 1000]);
    criterion.bench_function("grouped_nms", |b| {
        b.iter(|| black_box(grouped_nms(all.clone(), scores.clone(), 0.7)));
    });
}

criterion_group!(
    kernels,
    convolution,
    fully_connected,
    resampling,
    regions,
    selection
);
criterion_main!(kernels);
