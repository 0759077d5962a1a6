//! What operations make of configurations, and what they refuse.

use rcnn_backbone::{BackboneConfig, ResNetArch, ResNetFpnConfig};
use rcnn_roi::BoxHeadConfig;

use super::{Operation, SurgeryError};
use crate::FasterRcnnConfig;
#[cfg(feature = "record")]
use crate::cost::Costs;

fn resnet(arch: ResNetArch, returned_layers: &[usize]) -> FasterRcnnConfig {
    let backbone = ResNetFpnConfig {
        arch,
        returned_layers: returned_layers.to_vec(),
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::new(backbone, 91);
    let sizes = &mut config.rpn.anchor_generator.sizes;
    *sizes = returned_layers
        .iter()
        .chain([&(returned_layers[returned_layers.len() - 1] + 1)])
        .map(|stage| vec![(16 << stage) as f32])
        .collect();
    config.rpn.anchor_generator.aspect_ratios =
        vec![vec![0.5, 1.0, 2.0]; returned_layers.len() + 1];
    config
}

fn usual() -> FasterRcnnConfig {
    FasterRcnnConfig::default()
}

fn operate(config: &FasterRcnnConfig, texts: &[&str]) -> Result<FasterRcnnConfig, SurgeryError> {
    let operations: Result<Vec<Operation>, _> = texts.iter().map(|text| text.parse()).collect();
    config.with_surgery(&operations?)
}

fn operated(config: &FasterRcnnConfig, texts: &[&str]) -> FasterRcnnConfig {
    operate(config, texts).unwrap_or_else(|error| panic!("{texts:?}: {error}"))
}

fn backbone(config: &FasterRcnnConfig) -> &ResNetFpnConfig {
    match &config.backbone {
        BackboneConfig::ResnetFpn(backbone) => backbone,
        _ => unreachable!("a ResNet"),
    }
}

/// Sizes of the anchors of each level, and the maps that are pooled from.
fn levels(config: &FasterRcnnConfig) -> (Vec<f32>, String) {
    let sizes = config.rpn.anchor_generator.sizes.iter();
    let names = &config.roi_heads.box_roi_pool.featmap_names;
    (sizes.map(|sizes| sizes[0]).collect(), names.join(","))
}

#[test]
fn anchors_stay_with_their_strides() {
    for (operations, returned, expected) in [
        (
            vec!["drop-stage layer4"],
            vec![1, 2, 3],
            (vec![32.0, 64.0, 128.0, 256.0], "0,1,2"),
        ),
        (
            vec!["cut-after layer2"],
            vec![1, 2],
            (vec![32.0, 64.0, 128.0], "0,1"),
        ),
        // What follows has half the stride that it had.
        (
            vec!["drop-stage layer2"],
            vec![1, 3, 4],
            (vec![32.0, 64.0, 128.0, 256.0], "0,1,2"),
        ),
        // Stage 2 keeps its stride of 8.
        (
            vec!["drop-stage layer1"],
            vec![2, 3, 4],
            (vec![64.0, 128.0, 256.0, 512.0], "0,1,2"),
        ),
        (vec!["levels 1,2"], vec![2, 3], (vec![64.0, 128.0], "0,1")),
        (
            vec!["levels pool,2,layer1"],
            vec![1, 3],
            (vec![32.0, 128.0, 256.0], "0,1"),
        ),
        // A stride that no level had: scaled from the nearest.
        (
            vec!["levels 0", "levels 0,pool"],
            vec![1],
            (vec![32.0, 64.0], "0"),
        ),
    ] {
        let config = operated(&usual(), &operations);
        assert_eq!(backbone(&config).returned_layers, returned);
        let (sizes, names) = levels(&config);
        assert_eq!((sizes, &names[..]), expected, "{operations:?}");
    }
    let mut pooled = usual();
    pooled.roi_heads.box_roi_pool.featmap_names = vec!["1".into(), "3".into(), "pool".into()];
    let config = operated(&pooled, &["drop-stage layer1"]);
    assert_eq!(levels(&config).1, "0,2,pool");
    let config = operated(&pooled, &["levels 0,2"]);
    assert_eq!(levels(&config).1, "0,1", "all where none is left");
}

#[test]
fn only_what_is_built_is_written_down() {
    let config = operated(&usual(), &["drop-block layer4.1", "drop-stage layer4"]);
    assert_eq!(backbone(&config).dropped_stages, [0usize; 0]);
    assert_eq!(backbone(&config).dropped_blocks, []);
    assert_eq!(
        config,
        operated(&usual(), &["cut-after layer3"]),
        "the same network"
    );
    let config = operated(
        &usual(),
        &[
            "drop-block layer3.5",
            "drop-stage layer2",
            "drop-block layer3.1",
        ],
    );
    assert_eq!(backbone(&config).dropped_stages, [2]);
    assert_eq!(backbone(&config).dropped_blocks, [(3, 1), (3, 5)]);
    let json = serde_json::to_string(&config).expect("JSON");
    assert_eq!(
        serde_json::from_str::<FasterRcnnConfig>(&json).expect("a configuration"),
        config
    );
}

#[test]
fn heads_and_classes() {
    let mut named = FasterRcnnConfig::fasterrcnn_resnet50_fpn(3);
    named.class_names = ["__background__", "a", "b"].map(String::from).into();
    named.roi_heads.class_weights = Some(vec![1.0; 3]);
    let config = operated(
        &named,
        &[
            "box-head fc:512",
            "no-box-regression",
            "rpn-convs 0",
            "num-classes 5",
        ],
    );
    assert_eq!(
        config.roi_heads.box_head,
        BoxHeadConfig::ConvFc {
            conv_layers: vec![],
            fc_layers: vec![512],
            norm: None
        }
    );
    assert!(!config.roi_heads.box_regression);
    assert_eq!((config.rpn.conv_depth, config.num_classes), (0, 5));
    assert!(config.class_names.is_empty() && config.roi_heads.class_weights.is_none());
    // As many classes: only the names change.
    let config = operated(&named, &["class-names c, d"]);
    assert_eq!(config.class_names, ["__background__", "c", "d"]);
    assert_eq!(
        config.roi_heads.class_weights,
        named.roi_heads.class_weights
    );
    let config = operated(&usual(), &["anchors 8;16;32;64;128@1,2"]);
    assert_eq!(config.rpn.anchor_generator.num_anchors_per_location(), 2);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let one = resnet(ResNetArch::ResNet18, &[4]);
    let custom = FasterRcnnConfig::custom(3);
    for (config, operations, says) in [
        (
            usual(),
            vec!["drop-stage layer5"],
            "no stage layer5: its stages are layer1, layer2, layer3, layer4",
        ),
        (usual(), vec!["drop-stage conv1"], "no stage conv1"),
        (
            usual(),
            vec!["drop-stage layer4", "drop-stage layer4"],
            "its stages are layer1, layer2, layer3",
        ),
        (
            one.clone(),
            vec!["drop-stage layer4"],
            "`levels layer3` for one",
        ),
        (
            one.clone(),
            vec!["cut-after layer2"],
            "`levels layer2` for one",
        ),
        (
            usual(),
            vec![
                "drop-stage layer1",
                "drop-stage layer2",
                "drop-stage layer3",
                "drop-stage layer4",
            ],
            "no feature map would be left",
        ),
        (usual(), vec!["cut-after layer4"], "nothing follows layer4"),
        (usual(), vec!["levels 0,5"], "0 (layer1), 1 (layer2)"),
        (usual(), vec!["levels pool"], "at least one more"),
        (usual(), vec!["drop-stage"], "name of a stage"),
        (usual(), vec!["drop-stage stem"], "no stage stem"),
        (
            usual(),
            vec!["levels x"],
            "no stage x: its stages are layer1",
        ),
        (one, vec!["levels 1"], "the model has 0 (layer4), pool"),
        (usual(), vec!["drop-block layer2.0"], "from 256 to 512"),
        (usual(), vec!["drop-block layer2.4"], "layer2.0 to layer2.3"),
        (
            usual(),
            vec!["drop-block layer2"],
            "no block layer2: it has layer1.0 to layer1.2",
        ),
        (
            usual(),
            vec!["drop-block layer2.1", "drop-block layer2.1"],
            "already been dropped",
        ),
        (
            resnet(ResNetArch::ResNet18, &[1, 2]),
            vec!["drop-block layer1.0", "drop-block layer1.1"],
            "drop the whole stage instead",
        ),
        (usual(), vec!["anchors 32"], "5 feature maps"),
        (
            usual(),
            vec!["anchors 8;16;32;64;a"],
            "as 32;64;128;256@0.5,1,2",
        ),
        (usual(), vec!["box-head fc:1,conv:2"], "convolutions first"),
        (usual(), vec!["num-classes 1"], "at least 2"),
        (usual(), vec!["num-classes"], "whole number"),
        (
            usual(),
            vec!["no-box-regression", "no-box-regression"],
            "has no box regression",
        ),
        (usual(), vec!["prune 0.5"], "known are levels 0,1,pool"),
        (custom.clone(), vec!["drop-stage layer1"], "custom backbone"),
    ] {
        let error = operate(&config, &operations).unwrap_err().to_string();
        assert!(
            error.contains(says),
            "{operations:?}: `{says}` is not in: {error}"
        );
    }
    assert_eq!(operated(&custom, &["num-classes 4"]).num_classes, 4);
}

#[test]
fn mask_and_keypoint_heads_come_and_go() {
    let config = FasterRcnnConfig::fasterrcnn_resnet50_fpn(3);
    let with = |config: &FasterRcnnConfig, text: &str| {
        let operation = text.parse::<Operation>();
        operation.and_then(|operation| config.with_surgery(&[operation]))
    };
    let masked = with(&config, "mask-head conv:64x2").unwrap();
    let mask = masked.roi_heads.mask.as_ref().unwrap();
    assert_eq!(
        (&mask.layers[..], mask.dim_reduced, mask.norm),
        (&[64, 64][..], 64, None)
    );
    assert!(
        with(&config, "mask-head conv_bn:256x4")
            .unwrap()
            .roi_heads
            .mask
            .unwrap()
            .norm
            .is_some()
    );
    let posed = with(&masked, "keypoint-head conv:32x3/2").unwrap();
    let keypoint = posed.roi_heads.keypoint.as_ref().unwrap();
    assert_eq!(
        (&keypoint.layers[..], keypoint.num_keypoints),
        (&[32; 3][..], 2)
    );
    let again = with(&posed, "keypoint-head conv:8")
        .unwrap()
        .roi_heads
        .keypoint;
    assert_eq!(again.unwrap().num_keypoints, 2);
    // Feature maps that go are no longer pooled from by any branch.
    let fewer = with(&posed, "levels 1,2,pool").unwrap().roi_heads;
    let names = &fewer.box_roi_pool.featmap_names;
    assert_eq!(names.len(), 2);
    assert_eq!(&fewer.mask.as_ref().unwrap().roi_pool.featmap_names, names);
    assert_eq!(
        &fewer.keypoint.as_ref().unwrap().roi_pool.featmap_names,
        names
    );
    let gone = with(
        &with(&posed, "mask-head none").unwrap(),
        "keypoint-head none",
    )
    .unwrap();
    assert_eq!(gone, config);
    for (text, says) in [
        ("mask-head none", "the model has no mask head"),
        ("mask-head fc:8", "expected 3x3 convolutions"),
        ("mask-head conv:0", "`0` is not a number from 1"),
        ("keypoint-head conv_bn:8", "no norms"),
        ("keypoint-head conv:8/x", "whole number"),
    ] {
        let error = with(&config, text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
#[cfg(feature = "record")]
fn every_architecture_loses_blocks_and_stages_in_its_own_terms() {
    for (name, block, number, stage) in [
        ("resnet18", "layer3.1", "3.1", "layer2"),
        ("mobilenet_v3_large", "stage4.1", "4.1", "stage2"),
        ("mobilenet_v3_small_features", "stage3.2", "3.2", "stage2"),
        ("mobilenet_v2", "stage4.2", "4.2", "stage3"),
        ("mobilenet_v2_fpn", "stage2.1", "2.1", "stage2"),
        ("vgg11", "conv5_2", "5_2", "conv3"),
        ("vgg16_bn", "conv5_2", "5_2", "conv3"),
        ("vgg19_fpn", "conv4_4", "4_4", "conv2"),
    ] {
        let whole = FasterRcnnConfig::named(name, 4).expect(name);
        let costs = |config: &FasterRcnnConfig| config.costs((320, 320).into()).expect(name);
        let has_stage = |costs: &Costs| costs.parts().iter().any(|(part, _)| *part == stage);
        let all = costs(&whole);
        assert!(has_stage(&all), "{name}: {:?}", all.parts());

        let dropped = operated(&whole, &[&format!("drop-block {block}")]);
        let by_number = operated(&whole, &[&format!("drop-block {number}")]);
        assert_eq!(dropped, by_number, "{name}");
        let (fewer, all) = (costs(&dropped).total(), all.total());
        assert!(
            fewer.macs < all.macs,
            "{name} without {block}: {fewer:?} of {all:?}"
        );
        let again = operate(&dropped, &[&format!("drop-block {block}")]);
        assert!(
            matches!(again, Err(SurgeryError::DroppedAlready(_))),
            "{again:?}"
        );

        // Later stages may compute at a higher resolution, so that there are fewer parameters but more operations.
        let without = costs(&operated(&whole, &[&format!("drop-stage {stage}")]));
        assert!(!has_stage(&without), "{name}: {:?}", without.parts());
        assert!(
            without.total().parameters < all.parameters,
            "{name} without {stage}"
        );
    }
}
