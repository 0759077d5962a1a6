//! Backbones, images, targets and changed configurations that do not fit are errors, never a panic.

use burn::module::Param;
use rand::rngs::StdRng;
use rcnn_backbone::LevelSpec;
use rcnn_ops::backend_types::Flex;
use rcnn_ops::{LayerOutput, Subsample};
use rcnn_types::Instances;

use super::*;

/// A backbone whose feature maps may contradict its levels.
#[derive(Module, Debug)]
struct Maps<B: Backend> {
    scale: Param<Tensor<B, 1>>,
    #[module(skip)]
    declared: Levels,
    #[module(skip)]
    returned: Levels,
    #[module(skip)]
    divisibility: usize,
}

#[derive(Debug, Clone)]
struct Levels(Vec<LevelSpec>);

impl<B: Backend> Backbone<B> for Maps<B> {
    fn forward(&self, images: Tensor<B, 4>, _cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
        let [n, _, height, width] = images.dims();
        let map = |level: &LevelSpec| {
            let [h, w] = [height, width].map(|side| side / level.stride.max(1));
            let map = Tensor::ones([n, level.channels, h, w], &images.device());
            (
                level.name.clone(),
                map * self.scale.val().reshape([1, 1, 1, 1]),
            )
        };
        FeatureMaps::new(self.returned.0.iter().map(map).collect())
    }

    fn levels(&self) -> Vec<LevelSpec> {
        self.declared.0.clone()
    }

    fn size_divisibility(&self) -> usize {
        self.divisibility
    }
}

/// Name, channels and stride of a feature map.
type Spec = (&'static str, usize, usize);

fn levels(levels: &[Spec]) -> Levels {
    let level = |&(name, channels, stride): &Spec| LevelSpec::new(name, channels, stride);
    Levels(levels.iter().map(level).collect())
}

const FITTING: [Spec; 2] = [("0", 4, 8), ("1", 4, 16)];

fn backbone(declared: Levels, returned: Levels) -> Maps<Flex> {
    Maps {
        scale: Param::from_tensor(Tensor::ones([1], &Default::default())),
        declared,
        returned,
        divisibility: 16,
    }
}

/// A configuration for two levels.
fn config() -> FasterRcnnConfig {
    let mut config = FasterRcnnConfig::custom(3);
    config.transform.min_size = vec![64];
    config.rpn.anchor_generator.sizes = vec![vec![16.0], vec![32.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![1.0]; 2];
    config.roi_heads.box_head = "fc:8".parse().expect("a head");
    config
}

fn model(returns: Levels) -> FasterRcnn<Flex, Maps<Flex>> {
    let model =
        config().init_with_backbone(backbone(levels(&FITTING), returns), &Default::default());
    model.expect("a model")
}

fn image(height: usize, width: usize) -> Tensor<Flex, 3> {
    Tensor::ones([3, height, width], &Default::default())
}

fn losses(
    model: &FasterRcnn<Flex, Maps<Flex>>,
    images: &[Tensor<Flex, 3>],
    targets: &[Instances],
) -> Result<f32, DetectError> {
    let losses = model.losses(images, targets, &mut Subsample::<StdRng>::First)?;
    Ok(losses.total().into_scalar())
}

#[test]
fn a_backbone_that_does_not_fit_is_a_configuration_error() {
    let sizes = |expected: &str| {
        let found = "rpn_anchor_generator.sizes = [[16.0], [32.0]]";
        format!("{found}: expected sizes for the {expected}")
    };
    let cases: [(&[Spec], String); 9] = [
        (&[], "levels = []: expected at least one feature map".into()),
        (&FITTING[..1], sizes("1 feature maps of the backbone (0)")),
        (
            &[("0", 4, 8), ("1", 4, 16), ("2", 4, 32)],
            sizes("3 feature maps of the backbone (0, 1, 2)"),
        ),
        (
            &[("c3", 4, 8), ("c4", 4, 16)],
            "one or more of the backbone's feature maps: c3, c4".into(),
        ),
        (
            &[("", 4, 8), ("", 4, 16)],
            "a name for each feature map".into(),
        ),
        (
            &[("0", 4, 16), ("1", 4, 8)],
            "expected the finest feature map first".into(),
        ),
        (
            &[("0", 4, 8), ("1", 8, 16)],
            "1 (8 channels, stride 16)".into(),
        ),
        (
            &[("0", 0, 8), ("1", 0, 16)],
            "channels = 0: expected 1 to".into(),
        ),
        (&[("0", 4, 0), ("1", 4, 16)], "strides from 1".into()),
    ];
    for (declared, expected) in cases {
        let maps = backbone(levels(declared), levels(declared));
        let error = config().init_with_backbone(maps, &Default::default());
        let error = error.err().map_or(String::new(), |error| error.to_string());
        assert!(error.contains(&expected), "`{expected}` is not in: {error}");
    }
    for divisibility in [0, 64] {
        let mut maps = backbone(levels(&FITTING), levels(&FITTING));
        maps.divisibility = divisibility;
        let error = config().validate_for(&maps).unwrap_err().to_string();
        let expected = format!("size_divisible = 32: expected a multiple of {divisibility}");
        assert!(error.contains(&expected), "{error}");
    }
    // Of torchvision's five levels of anchors one is left alone by such a backbone.
    let maps = backbone(levels(&FITTING), levels(&FITTING));
    assert!(FasterRcnnConfig::custom(3).validate_for(&maps).is_err());
}

#[test]
fn maps_that_contradict_the_backbones_levels_are_an_error() {
    let fits = model(levels(&FITTING));
    assert!(fits.detect(&[image(48, 60)]).is_ok());
    assert!(losses(&fits, &[image(48, 60)], &[Instances::default()]).is_ok());
    for returns in [
        &[][..],
        &FITTING[..1],
        &[("0", 4, 8), ("1", 4, 16), ("2", 4, 32)],
        &[("0", 4, 16), ("1", 4, 8)],
        &[("1", 4, 8), ("0", 4, 16)],
        &[("c3", 4, 8), ("c4", 4, 16)],
        &[("0", 5, 8), ("1", 5, 16)],
        &[("0", 4, 8), ("1", 4, 1000)],
        &[("0", 4, 1), ("1", 4, 16)],
    ] {
        let model = model(levels(returns));
        let images = [image(48, 60)];
        for error in [
            model.detect(&images).err(),
            losses(&model, &images, &[Instances::default()]).err(),
        ] {
            let text = error.map_or(String::new(), |error| error.to_string());
            let says = "its `levels()` are 0 (4 channels, stride 8), 1 (4 channels, stride 16)";
            assert!(text.contains(says), "{returns:?}: {text}");
        }
    }
}

#[test]
fn what_is_changed_to_nonsense_after_the_model_was_made_is_an_error() {
    type Change = fn(&mut FasterRcnn<Flex, Maps<Flex>>);
    let changes: [(&str, Change); 8] = [
        ("featmap_names", |m| {
            m.roi_heads.config.box_roi_pool.featmap_names.clear()
        }),
        ("box_positive_fraction", |m| {
            m.roi_heads.config.positive_fraction = 1.5
        }),
        ("rpn_pre_nms_top_n", |m| m.rpn.config.pre_nms_top_n_test = 0),
        ("sizes", |m| m.rpn.config.anchor_generator.sizes.truncate(1)),
        ("anchors at a location = 2", |m| {
            m.rpn.config.anchor_generator.aspect_ratios = vec![vec![1.0, 2.0]; 2];
        }),
        ("min_size", |m| m.transform.min_size.clear()),
        ("image_std", |m| m.transform.image_std = [0.0; 3]),
        ("size_divisible", |m| m.transform.size_divisible = 8),
    ];
    for (field, change) in changes {
        let mut model = model(levels(&FITTING));
        change(&mut model);
        let images = [image(48, 60)];
        let errors = [
            model.detect(&images).err(),
            losses(&model, &images, &[Instances::default()]).err(),
        ];
        for error in errors {
            let text = error.map_or(String::new(), |error| error.to_string());
            assert!(text.contains(field), "{field}: {text}");
        }
    }
}

#[test]
fn targets_that_are_none_are_named() {
    let model = model(levels(&FITTING));
    let images = [image(48, 60), image(48, 60)];
    let target = |b, label| Instances::new(vec![b], vec![label]);
    let good = || target([4.0, 6.0, 30.0, 40.0], 2);
    assert!(losses(&model, &images, &[good(), Instances::default()]).is_ok());
    let unlabelled = Instances {
        labels: Vec::new(),
        ..good()
    };
    for (targets, says) in [
        (vec![good()], "1 targets for 2 images"),
        (
            vec![good(), target([4.0, 6.0, 30.0, 40.0], 3)],
            "image 1: labels[0] = 3: expected 1 to 2",
        ),
        (
            vec![good(), target([4.0, 6.0, 30.0, 40.0], 0)],
            "image 1: labels[0] = 0",
        ),
        (
            vec![target([4.0, 6.0, 4.0, 40.0], 1), good()],
            "image 0: boxes[0] = [4.0, 6.0, 4.0, 40.0]",
        ),
        (
            vec![target([f32::NAN, 6.0, 30.0, 40.0], 1), good()],
            "boxes[0] = [NaN",
        ),
        (
            vec![target([4.0, 6.0, f32::INFINITY, 40.0], 1), good()],
            "boxes[0]",
        ),
        (
            vec![good(), unlabelled],
            "image 1: labels = 0 values: expected 1, one per box",
        ),
    ] {
        let text =
            losses(&model, &images, &targets).map_or_else(|e| e.to_string(), |l| l.to_string());
        assert!(text.contains(says), "`{says}` is not in: {text}");
    }
    assert_eq!(losses(&model, &[], &[]), Err(DetectError::NoImages));
    let sizes = model.losses_at(
        &images,
        &[good(), good()],
        &[None],
        &mut Subsample::<StdRng>::First,
    );
    assert_eq!(
        sizes.err().map(|e| e.to_string()),
        Some("1 min_sizes for 2 images".to_string())
    );
}

#[test]
fn a_size_that_memory_cannot_hold_is_an_error_before_it_is_allocated() {
    let mut model = model(levels(&FITTING));
    let images = [image(48, 60), image(60, 48)];
    (model.transform.min_size, model.transform.max_size) = (vec![100_000], 100_000);
    let error = model.detect(&images).unwrap_err();
    assert_eq!(error.image(), Some(0));
    let text = error.to_string();
    let says = "image 0 of 48x60 pixels (height x width) would be resized to 80000x100000, but a batch \
                has at most 67108864 pixels";
    assert!(text.contains(says), "{text}");

    // Each by itself is small enough, but not padded to the other.
    model.transform.max_size = 30_000;
    let long = [image(1, 30_000), image(30_000, 1)];
    let text = model.detect(&long).unwrap_err().to_string();
    let says =
        "2 image(s) padded to 30016x30016 pixels (height x width) are more than the 67108864";
    assert!(text.contains(says), "{text}");
}

#[test]
fn long_and_tiny_images_are_detected_in() {
    let model = model(levels(&FITTING));
    for (height, width) in [(1, 3000), (3000, 1), (30_000, 2), (1, 1), (2, 1)] {
        let found = model.detect(&[image(height, width)]);
        assert!(found.is_ok(), "{height}x{width}: {found:?}");
    }
    for (height, width) in [(0, 8), (8, 0), (0, 0)] {
        let error = model
            .detect(&[image(8, 8), image(height, width)])
            .unwrap_err();
        let says = format!("image 1 has shape [3, {height}, {width}]");
        assert!(error.to_string().contains(&says), "{error}");
    }
    assert_eq!(model.detect(&[]), Ok(Vec::new()));
    assert_eq!(
        model.transform.forward::<Flex>(&[]).err(),
        Some(DetectError::NoImages)
    );
}

#[test]
fn hooks_see_the_maps_of_a_backbone_that_shows_no_layers() {
    let mut seen = Vec::new();
    let mut hook = |name: &str, output: LayerOutput<Flex>| {
        seen.push((name.to_string(), output.dims()));
    };
    let model = model(levels(&FITTING));
    let found = model.detect_with_hook(&[image(64, 96)], &mut hook);
    assert_eq!(found, model.detect(&[image(64, 96)]));
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names[..4],
        ["transform", "backbone.0", "backbone.1", "rpn.head.conv.0"]
    );
    assert_eq!(seen[2].1, [1, 4, 4, 6]);
    assert!(names.contains(&"roi_heads.box_predictor.cls_score"));
}
