//! Small detectors of every kind, pruned.

mod coupling;

use std::sync::Mutex;

use burn::tensor::TensorData;
use image::{Rgb, RgbImage};
use rcnn_core::backbone::{
    BackboneConfig, MobileNetV3Arch, ResNetArch, ResNetFpnConfig, SequentialConfig,
};
use rcnn_core::export::{OnnxOptions, onnx};
use rcnn_core::image::to_tensor;
use rcnn_core::roi::{KeypointConfig, MaskConfig};
use rcnn_core::weights::{Precision, StateTensor, Weights};
use rcnn_core::{Backend, FasterRcnnConfig, Flex, Instances, Size, StandardFasterRcnn};

use crate::{Budget, ChannelGroups, Importance, Kept, Limits, PruneError, Sample, draw_chart};

const SIZE: Size = Size::new(64, 64);

fn resnet(arch: ResNetArch) -> FasterRcnnConfig {
    small(ResNetFpnConfig {
        arch,
        returned_layers: vec![1, 2],
        out_channels: 32,
        max_pool_level: false,
        ..Default::default()
    })
}

fn mobilenet() -> FasterRcnnConfig {
    let mut backbone = SequentialConfig::with_fpn(MobileNetV3Arch::Small);
    backbone.returned_layers = vec![2, 3];
    let fpn = backbone.fpn.as_mut().expect("a pyramid");
    (fpn.out_channels, fpn.max_pool_level) = (32, false);
    small(backbone)
}

fn small(backbone: impl Into<BackboneConfig>) -> FasterRcnnConfig {
    let mut config = FasterRcnnConfig::new(backbone, 3);
    config.rpn.anchor_generator.sizes = vec![vec![16.0], vec![32.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![1.0]; 2];
    config.rpn.post_nms_top_n_test = 20;
    config.roi_heads.box_head = "fc:16x2".parse().expect("a box head");
    config.roi_heads.box_roi_pool.featmap_names = vec!["0".into(), "1".into()];
    config.roi_heads.detections_per_img = 5;
    config.roi_heads.score_thresh = 0.0;
    config.transform.min_size = vec![64];
    config
}

fn with_branches(config: FasterRcnnConfig) -> FasterRcnnConfig {
    let pool = |mut pool: rcnn_core::roi::MultiScaleRoiAlign| {
        pool.featmap_names = vec!["0".into(), "1".into()];
        pool
    };
    let (mask, keypoint) = (MaskConfig::default(), KeypointConfig::default());
    let config = config.with_mask(MaskConfig {
        roi_pool: pool(mask.roi_pool),
        layers: vec![16, 24],
        dim_reduced: 16,
        norm: None,
    });
    let mut config = config.with_keypoint(KeypointConfig {
        roi_pool: pool(keypoint.roi_pool),
        layers: vec![16, 24],
        num_keypoints: 2,
        ..KeypointConfig::default()
    });
    config.transform.min_size = vec![64];
    config
}

/// Random weights. Flex has one generator for all threads: the tests take turns.
fn weights(config: &FasterRcnnConfig) -> Weights {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _turn = GENERATOR.lock();
    let device = Default::default();
    Flex::seed(&device, 1);
    Weights::from_model(&config.init::<Flex>(&device).expect("a model"))
}

fn groups(config: &FasterRcnnConfig) -> ChannelGroups {
    ChannelGroups::new(config, SIZE).expect("groups")
}

/// Limits that hardly limit.
fn free() -> Limits {
    Limits {
        round_to: 1,
        min_channels: 1,
        keep: 0.0,
        keep_of: Vec::new(),
    }
}

fn configs() -> Vec<FasterRcnnConfig> {
    let mut convolved = resnet(ResNetArch::ResNet18);
    convolved.roi_heads.box_head = "conv_bn:16x2,fc:24".parse().expect("a box head");
    convolved.rpn.conv_depth = 2;
    vec![
        with_branches(resnet(ResNetArch::ResNet18)),
        convolved,
        resnet(ResNetArch::ResNet50),
        resnet(ResNetArch::ResNeXt50_32x4d),
        mobilenet(),
    ]
}

/// A backbone without a pyramid.
fn one_map(name: &str) -> FasterRcnnConfig {
    let mut config = small(BackboneConfig::named(name).expect("a backbone"));
    config.rpn.anchor_generator.sizes.truncate(1);
    config.rpn.anchor_generator.aspect_ratios.truncate(1);
    config.roi_heads.box_roi_pool.featmap_names.truncate(1);
    config.roi_heads.box_roi_pool.output_size = [2; 2];
    config
}

fn detections(model: &StandardFasterRcnn<Flex>) -> (Vec<Vec<f32>>, Vec<f32>) {
    let device = Default::default();
    let picture = RgbImage::from_fn(80, 64, |x, y| {
        Rgb([3, 5, 7].map(|step| (x * y + step * x + 31 * y) as u8))
    });
    let image = to_tensor::<Flex>(&picture, &device);
    let mut maps = Vec::new();
    let mut see = |name: &str, output: rcnn_core::ops::LayerOutput<Flex>| {
        if name.contains("cls_logits") || name.contains("bbox_pred") || name.contains("cls_score") {
            maps.push(output.into_data().iter::<f32>().collect());
        }
    };
    let found = model
        .detect_with_hook(&[image], &mut see)
        .expect("detections");
    let scores = found[0].iter().map(|object| object.score).collect();
    (maps, scores)
}

/// The weights with zeros wherever every second unit of each group goes through, and the other units.
fn with_zeros(groups: &ChannelGroups, weights: &Weights) -> (Weights, Kept) {
    let mut zeroed = weights.clone();
    for parameter in &groups.parameters {
        let data = weights.tensors[&parameter.name].to_data().expect("data");
        let shape = data.shape.to_vec();
        let mut values: Vec<f32> = data.iter().collect();
        for axis in &parameter.axes {
            let torch_axis = parameter.torch_axis(axis.axis);
            let inner: usize = shape[torch_axis + 1..].iter().product();
            for (i, value) in values.iter_mut().enumerate() {
                let position = axis.positions[i / inner % shape[torch_axis]];
                if position.is_some_and(|(_, unit)| unit % 2 == 1) {
                    *value = 0.0;
                }
            }
        }
        let data = TensorData::new(values, shape);
        let name = parameter.name.clone();
        zeroed.tensors.insert(name, StateTensor::new(data));
    }
    let units = groups
        .groups()
        .iter()
        .map(|group| (0..group.units).step_by(2).collect());
    let units: Vec<Vec<usize>> = units.collect();
    let counts: Vec<usize> = units.iter().map(Vec::len).collect();
    let cost = groups.cost(&counts);
    (zeroed, Kept { units, cost })
}

/// Every second unit of every group has zeros wherever it goes through: the network computes the same without it.
#[test]
fn channels_that_are_zero_are_removed_without_a_trace() {
    let maps = ["mobilenet_v2_features", "vgg11_bn"].map(one_map);
    for config in configs().into_iter().chain(maps) {
        let (groups, whole) = (groups(&config), weights(&config));
        let (zeroed, kept) = with_zeros(&groups, &whole);
        let (pruned, report) = groups.prune(&zeroed, &kept).expect("a model");
        let device = Default::default();
        let before = detections(&zeroed.load(&device).expect("a model"));
        let after = detections(&pruned.load(&device).expect("a model"));
        let name = config.backbone.to_string();
        assert_eq!(before.0.len(), after.0.len(), "{name}");
        for (before, after) in before.0.iter().zip(&after.0) {
            let largest = before
                .iter()
                .fold(1e-3f32, |most, value| most.max(value.abs()));
            assert_eq!(before.len(), after.len(), "{name}");
            for (a, b) in before.iter().zip(after) {
                assert!(
                    (a - b).abs() <= 1e-5 * largest.max(1.0),
                    "{name}: {a} became {b}"
                );
            }
        }
        assert_eq!(before.1.len(), after.1.len(), "{name}");
        // What is left is what was counted.
        let costs = pruned.config.costs(SIZE).expect("costs").total();
        assert_eq!(
            (costs.macs, costs.parameters),
            (report.macs[1], report.parameters[1])
        );
        let costs = config.costs(SIZE).expect("costs").total();
        assert_eq!(
            (costs.macs, costs.parameters),
            (report.macs[0], report.parameters[0])
        );
    }
}

#[test]
fn budgets_are_met_and_the_model_is_one_like_any_other() {
    let folder = tempfile::tempdir().expect("a folder");
    for config in configs() {
        let (groups, whole) = (groups(&config), weights(&config));
        let importance = Importance::by_norm(&groups, &whole).expect("norms");
        for share in [0.7, 0.5, 0.3] {
            let order = groups
                .order(&importance, Budget::Macs, &free())
                .expect("an order");
            let kept = order.meet(share).expect("a budget that can be met");
            let left = kept.cost.macs as f64 / groups.total().macs as f64;
            assert!(left <= share && left > share - 0.03, "{left} for {share}");
            let (pruned, report) = groups.prune(&whole, &kept).expect("a model");
            assert_eq!(report.macs[1], kept.cost.macs);
            if share != 0.5 {
                continue;
            }
            assert_eq!(pruned.config.costs(SIZE).expect("costs").total(), kept.cost);
            let path = folder.path().join("pruned.bpk");
            pruned
                .write_burnpack(&path, Precision::F32)
                .expect("written");
            let opened = Weights::open(&path).expect("it opens by itself");
            assert_eq!(opened.config, pruned.config);
            let model = opened.load::<Flex>(&Default::default()).expect("a model");
            assert_eq!(detections(&model).1.len(), 5);
            let path = folder.path().join("pruned.onnx");
            onnx(&model, &OnnxOptions::default(), &path).expect("exported");
            let path = folder.path().join("pruned.safetensors");
            pruned.write_safetensors(&path).expect("written");
            let opened = Weights::open(&path).expect("it opens by itself");
            assert!(opened.tensors.keys().eq(whole.tensors.keys()), "names stay");
        }
        let order = groups
            .order(&importance, Budget::Parameters, &free())
            .expect("an order");
        let kept = order.meet(0.5).expect("a budget that can be met");
        let left = kept.cost.parameters as f64 / groups.total().parameters as f64;
        assert!(left <= 0.5 && left > 0.45, "{left}");
    }
}

#[test]
fn what_is_left_is_rounded_and_limited() {
    let config = resnet(ResNetArch::ResNet18);
    let (groups, whole) = (groups(&config), weights(&config));
    let importance = Importance::by_norm(&groups, &whole).expect("norms");
    let limits = Limits {
        keep: 0.5,
        keep_of: vec!["rpn=1".parse().unwrap(), "layer2=0.75".parse().unwrap()],
        ..Limits::default()
    };
    let order = groups
        .order(&importance, Budget::Macs, &limits)
        .expect("an order");
    let error = order.meet(0.1).expect_err("too little");
    let PruneError::Budget { least, .. } = error else {
        panic!("{error}");
    };
    assert!(
        error
            .to_string()
            .contains("0.100 of the multiply-accumulates can't be met"),
        "{error}"
    );
    let kept = order.meet(least).expect("the least");
    let (_, report) = groups.prune(&whole, &kept).expect("a model");
    let left = |layer: &str| {
        let mut layers = report.layers.iter();
        let found = layers.find(|change| change.layer.ends_with(layer));
        found.unwrap_or_else(|| panic!("{layer}")).channels[1]
    };
    for (layer, channels) in [
        ("body.conv1", 32),
        ("layer1.0.conv1", 32),
        ("layer2.0.conv1", 96),
        ("layer2.1.conv2", 96),
        ("inner_blocks.0.0", 16),
        ("rpn.head.conv.0.0", 32),
        ("fc6", 16),
    ] {
        assert_eq!(left(layer), channels, "{layer}");
    }
    assert!(draw_chart(&report).width() > 0);
    let table = report.to_string();
    assert!(
        table.contains("backbone.body.layer2.0.downsample.0"),
        "{table}"
    );
    let limits = Limits {
        keep_of: vec!["layr2=0.5".parse().unwrap()],
        ..Limits::default()
    };
    let error = groups
        .order(&importance, Budget::Macs, &limits)
        .unwrap_err()
        .to_string();
    assert!(error.contains("layr2"), "{error}");
}

fn samples() -> Vec<Sample> {
    let sample = |width: u32| Sample {
        image: RgbImage::from_fn(width, 64, |x, y| {
            let inside = (10..40).contains(&x) && (20..50).contains(&y);
            Rgb([if inside { 220 } else { ((x * 3) ^ y) as u8 }; 3])
        }),
        objects: Instances::new(vec![[10.0, 20.0, 40.0, 50.0]], vec![1]),
    };
    [64, 96].map(sample).into()
}

#[test]
fn channels_that_do_nothing_matter_least() {
    let device = Default::default();
    for config in [resnet(ResNetArch::ResNet18), mobilenet()] {
        let (groups, whole) = (groups(&config), weights(&config));
        let (zeroed, _) = with_zeros(&groups, &whole);
        let mut passes = Vec::new();
        let tick = &mut |done, all| passes.push((done, all));
        let importance = Importance::by_taylor::<Flex>(&groups, &zeroed, &samples(), &device, tick);
        let importance = importance.expect("importance");
        assert_eq!(passes, [(1, 2), (2, 2)]);
        let again =
            Importance::by_taylor::<Flex>(&groups, &zeroed, &samples(), &device, &mut |_, _| {});
        assert_eq!(again.expect("importance"), importance, "the same bits");
        for (group, units) in groups.groups().iter().zip(&importance.units) {
            let zeros = units.iter().skip(1).step_by(2).all(|unit| *unit == 0.0);
            assert!(zeros, "{:?}", group.layers);
        }
        let first = importance.units[0].iter().step_by(2);
        assert!(first.sum::<f64>() > 0.0);
    }
    let none = Sample {
        objects: Instances::default(),
        ..samples()[0].clone()
    };
    let config = resnet(ResNetArch::ResNet18);
    let (groups, whole) = (groups(&config), weights(&config));
    let error = Importance::by_taylor::<Flex>(&groups, &whole, &[none], &device, &mut |_, _| {});
    assert!(matches!(error, Err(PruneError::NoPictures)));
}

#[test]
fn a_second_pruning_keeps_to_the_limits_of_the_first_model() {
    let config = resnet(ResNetArch::ResNet18);
    let (original, whole) = (groups(&config), weights(&config));
    let limits = Limits {
        keep: 0.5,
        ..Limits::default()
    };
    let least = |groups: &ChannelGroups, weights: &Weights| {
        let importance = Importance::by_norm(groups, weights).expect("norms");
        let order = groups
            .order(&importance, Budget::Macs, &limits)
            .expect("an order");
        let Err(PruneError::Budget { least, .. }) = order.meet(1e-6) else {
            panic!("it cannot be met");
        };
        order.meet(least).expect("the least")
    };
    let (pruned, _) = original
        .prune(&whole, &least(&original, &whole))
        .expect("a model");
    let again = groups(&pruned.config);
    assert_eq!(again.groups().len(), original.groups().len());
    let change = again.change_from(&original);
    let conv = change
        .layers
        .iter()
        .find(|layer| layer.layer.ends_with("layer2.0.conv1"));
    assert_eq!(conv.expect("a layer").channels, [128, 64]);
    let again = again.pruned_from(&original);
    assert_eq!(
        least(&again, &pruned).cost,
        again.total(),
        "nothing more can go"
    );
}

#[test]
fn time_is_met_by_trying() {
    let config = resnet(ResNetArch::ResNet18);
    let (groups, whole) = (groups(&config), weights(&config));
    let importance = Importance::by_norm(&groups, &whole).expect("norms");
    let order = groups
        .order(&importance, Budget::Macs, &free())
        .expect("an order");
    let mut tries = 0;
    // A machine that takes a fixed time besides.
    let mut measure = |kept: &Kept| {
        tries += 1;
        Ok::<_, PruneError>(1e6 + kept.cost.macs as f64)
    };
    let time = 1e6 + groups.total().macs as f64;
    let kept = order
        .meet_time(0.6, &mut measure)
        .expect("a time that can be met");
    let left = (1e6 + kept.cost.macs as f64) / time;
    assert!(left <= 0.6 && left > 0.59, "{left}");
    assert!(tries < 20, "{tries} models were made");
    let mut slow = |_: &Kept| Ok::<_, PruneError>(1.0);
    let error = order.meet_time(0.6, &mut slow).expect_err("never faster");
    assert!(
        error
            .to_string()
            .contains("0.600 of the time of a detection can't be met"),
        "{error}"
    );
}
