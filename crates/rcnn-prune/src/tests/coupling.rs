//! Which channels go together.

use rcnn_core::Flex;
use rcnn_core::backbone::ResNetArch;

use super::{free, groups, mobilenet, resnet, weights, with_branches};
use crate::{Budget, ChannelGroups, Group, Importance};

fn found(groups: &ChannelGroups) -> Vec<(Vec<&str>, usize)> {
    let groups = groups.groups().iter();
    groups
        .map(|Group { layers, units, .. }| {
            let layers = layers.iter().map(|layer| {
                let layer = layer.strip_prefix("backbone.").unwrap_or(layer);
                layer.strip_prefix("body.").unwrap_or(layer)
            });
            (layers.collect(), *units)
        })
        .collect()
}

#[test]
fn channels_of_a_resnet_are_coupled_by_its_sums() {
    let groups = groups(&resnet(ResNetArch::ResNet18));
    assert_eq!(
        found(&groups),
        [
            // Without a convolution in its shortcut the first stage adds to the stem.
            (vec!["conv1", "layer1.0.conv2", "layer1.1.conv2"], 64),
            (vec!["layer1.0.conv1"], 64),
            (vec!["layer1.1.conv1"], 64),
            (vec!["layer2.0.conv1"], 128),
            (
                vec!["layer2.0.downsample.0", "layer2.0.conv2", "layer2.1.conv2"],
                128
            ),
            (vec!["layer2.1.conv1"], 128),
            // The pyramid adds its maps up; the heads see all of its outputs, flattened in the box head.
            (vec!["fpn.inner_blocks.1.0", "fpn.inner_blocks.0.0"], 32),
            (vec!["fpn.layer_blocks.1.0", "fpn.layer_blocks.0.0"], 32),
            (vec!["rpn.head.conv.0.0"], 32),
            (vec!["roi_heads.box_head.fc6"], 16),
            (vec!["roi_heads.box_head.fc7"], 16),
        ]
    );
}

#[test]
fn bottlenecks_and_their_groups_are_coupled() {
    let r50 = groups(&resnet(ResNetArch::ResNet50));
    let r50 = found(&r50);
    assert_eq!(r50[0], (vec!["conv1"], 64));
    let stage = (
        vec![
            "layer1.0.downsample.0",
            "layer1.0.conv3",
            "layer1.1.conv3",
            "layer1.2.conv3",
        ],
        256,
    );
    assert!(r50.contains(&stage), "{r50:?}");
    assert!(r50.contains(&(vec!["layer2.3.conv2"], 128)), "{r50:?}");
    // 32 groups of four channels.
    let resnext = groups(&resnet(ResNetArch::ResNeXt50_32x4d));
    let group = resnext.groups().iter().find(|group| {
        group.layers
            == [
                "backbone.body.layer1.0.conv1",
                "backbone.body.layer1.0.conv2",
            ]
    });
    let group = group.expect("what goes into a group comes out of it");
    assert_eq!((group.units, group.channels_per_unit), (32, 4));
}

#[test]
fn depthwise_convolutions_and_gates_follow_their_input() {
    let groups = groups(&mobilenet());
    let found = found(&groups);
    assert_eq!(
        found[..6],
        [
            (vec!["0.0", "1.block.0.0", "1.block.1.fc2"], 16),
            (vec!["1.block.1.fc1"], 8),
            (vec!["1.block.2.0"], 16),
            (vec!["2.block.0.0", "2.block.1.0"], 72),
            // The next block adds to it.
            (vec!["2.block.2.0", "3.block.2.0"], 24),
            (vec!["3.block.0.0", "3.block.1.0"], 88),
        ]
    );
}

#[test]
fn heads_of_masks_and_keypoints_see_the_pyramid() {
    let config = with_branches(resnet(ResNetArch::ResNet18));
    let groups = groups(&config);
    let found = found(&groups);
    for group in [
        (vec!["roi_heads.mask_head.0.0"], 16),
        (vec!["roi_heads.mask_head.1.0"], 24),
        (vec!["roi_heads.mask_predictor.conv5_mask"], 16),
        (vec!["roi_heads.keypoint_head.0"], 16),
        (vec!["roi_heads.keypoint_head.2"], 24),
    ] {
        assert!(found.contains(&group), "{group:?} is not in {found:?}");
    }
    let kept = groups.order(
        &Importance::by_norm(&groups, &weights(&config)).unwrap(),
        Budget::Parameters,
        &free(),
    );
    let kept = kept.unwrap().meet(0.5).unwrap();
    let (pruned, _) = groups.prune(&weights(&config), &kept).expect("a model");
    // The channels of the pyramid are one group, and each head has lost the same.
    let inputs = |layer: &str| {
        let weight = &pruned.tensors[&format!("roi_heads.{layer}.weight")];
        weight.shape.to_vec()[1]
    };
    let channels = inputs("mask_head.0.0");
    assert_eq!(inputs("keypoint_head.0"), channels);
    assert_eq!(inputs("box_head.fc6"), 49 * channels);
    pruned.load::<Flex>(&Default::default()).expect("it opens");
}
