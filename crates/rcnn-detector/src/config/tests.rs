//! Reading and validation of configurations.

use std::collections::BTreeSet;
use std::fmt::Debug;

use rcnn_backbone::{NormKind, ResNetArch, ResNetFpnConfig};
use rcnn_ops::backend_types::Flex;
use rcnn_roi::{BoxHeadConfig, FocalLoss, KeypointConfig, MaskConfig, NmsMethod};
use serde_json::{Value, json};

use rcnn_types::Size;

use super::*;

#[test]
fn json_has_torchvisions_names_and_defaults() {
    let config: FasterRcnnConfig =
        serde_json::from_str(r#"{"num_classes": 4, "min_size": [240], "box_score_thresh": 0.5}"#)
            .unwrap();
    assert_eq!(config.num_classes, 4);
    assert_eq!(config.transform.min_size, [240]);
    assert_eq!(config.roi_heads.score_thresh, 0.5);
    assert_eq!(config.rpn.pre_nms_top_n_test, 1000);
    assert_eq!(config.roi_heads.class_weights, None);
    assert_eq!(config.roi_heads.focal_loss, None);
    let json = serde_json::to_value(&config).unwrap();
    for name in [
        "max_size",
        "rpn_nms_thresh",
        "box_detections_per_img",
        "rpn_anchor_generator",
        "box_class_weights",
        "box_focal_loss",
    ] {
        assert!(json.get(name).is_some(), "{name} is missing");
    }
    assert_eq!(
        serde_json::from_value::<FasterRcnnConfig>(json).unwrap(),
        config
    );
}

#[test]
fn parameters_can_be_overridden() {
    let overridden =
        |json: Value| FasterRcnnConfig::default().overridden(json.as_object().unwrap());
    let json = serde_json::json!({
        "min_size": [240],
        "backbone": {"arch": "resnet18"},
        "box_head": {"kind": "conv_fc", "conv_layers": [8], "fc_layers": [8], "norm": null},
    });
    let config = overridden(json).unwrap();
    assert_eq!(config.transform.min_size, [240]);
    let backbone = ResNetFpnConfig {
        arch: ResNetArch::ResNet18,
        ..Default::default()
    };
    assert_eq!(config.backbone, BackboneConfig::ResnetFpn(backbone));
    assert_eq!(config.roi_heads.box_head.out_features([1, 7, 7]), 8);

    let error = |json| overridden(json).unwrap_err().to_string();
    assert!(error(json!({"min_size": "big"})).contains("big"));
}

/// Parts of the configuration are flattened, and serde then says neither which parameter it is nor where.
#[test]
fn a_value_of_the_wrong_type_is_reported_with_its_parameter() {
    let base = FasterRcnnConfig::default();
    for (json, says) in [
        (json!({"min_size": "big"}), "min_size: invalid type: string"),
        (
            json!({"rpn_nms_thresh": []}),
            "rpn_nms_thresh: invalid type: sequence",
        ),
        (
            json!({"box_nms_method": "soft"}),
            "box_nms_method: unknown variant `soft`",
        ),
        (
            json!({"backbone": {"arch": "resnet17"}}),
            "backbone: unknown variant `resnet17`",
        ),
    ] {
        let error = base.overridden(json.as_object().unwrap()).unwrap_err();
        assert!(error.to_string().starts_with(says), "{error}");
    }
}

/// It has the network's in files, and another in the code.
#[test]
fn a_box_head_that_is_a_stage_keeps_its_name_in_files() {
    let config = FasterRcnnConfig::faster_rcnn_inception_v2_coco(91);
    let mut json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["box_head"]["kind"], "inception_v2");
    json["box_head"] = json!({"kind": "inception_v2", "depth_multiplier": 0.25});
    let config: FasterRcnnConfig = serde_json::from_value(json).unwrap();
    assert_eq!(config.roi_heads.box_head.out_features([144, 14, 14]), 256);
}

#[test]
fn misspelt_names_are_refused_wherever_a_configuration_is_read() {
    let folder = std::env::temp_dir();
    let file = folder.join(format!("misspelt-{}.json", std::process::id()));
    for (json, says) in [
        (json!({"minsize": [240]}), "minsize; did you mean min_size?"),
        (
            json!({"rpn_nms_tresh": 0.5}),
            "did you mean rpn_nms_thresh?",
        ),
        (
            json!({"backbone": {"kind": "resnet_fpn", "arhc": "resnet18"}}),
            "backbone.arhc; did you mean backbone.arch?",
        ),
        (
            json!({"box_roi_pool": {"output_sizes": [7, 7]}}),
            "did you mean box_roi_pool.output_size?",
        ),
        (
            json!({"box_head": {"kind": "two_mlp", "representation_size": 8, "width": 8}}),
            "unknown parameter box_head.width",
        ),
        (
            json!({"rpn_anchor_generator": {"sizes": [], "aspect_ratios": [], "size": []}}),
            "expected one of `sizes`, `aspect_ratios`, `strides`",
        ),
        (
            json!({"box_focal_loss": {"gama": 2}}),
            "expected `alpha` or `gamma`",
        ),
        (
            json!({"backbone": {"kind": "custom", "arch": "resnet18"}}),
            "backbone.arch",
        ),
    ] {
        std::fs::write(&file, json.to_string()).unwrap();
        let text = json.to_string();
        let errors = [
            serde_json::from_str::<FasterRcnnConfig>(&text)
                .unwrap_err()
                .to_string(),
            serde_json::from_value::<FasterRcnnConfig>(json.clone())
                .unwrap_err()
                .to_string(),
            FasterRcnnConfig::load(&file).unwrap_err().to_string(),
            FasterRcnnConfig::load_binary(text.as_bytes())
                .unwrap_err()
                .to_string(),
            FasterRcnnConfig::default()
                .overridden(json.as_object().unwrap())
                .unwrap_err()
                .to_string(),
        ];
        for error in errors {
            assert!(error.contains(says), "`{says}` is not in: {error}");
        }
    }
    let whole = FasterRcnnConfig::fasterrcnn_resnet50_fpn_v2(3);
    whole.save(&file).unwrap();
    assert_eq!(FasterRcnnConfig::load(&file).unwrap(), whole);
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn losses_of_the_classifier_are_in_json() {
    let config: FasterRcnnConfig = serde_json::from_str(
        r#"{"num_classes": 3, "box_class_weights": [0.5, 1, 4], "box_focal_loss": {"gamma": 1.5}}"#,
    )
    .unwrap();
    config.validate().unwrap();
    let roi_heads = config.roi_heads;
    assert_eq!(roi_heads.class_weights, Some(vec![0.5, 1.0, 4.0]));
    let (alpha, gamma) = (0.25, 1.5);
    assert_eq!(roi_heads.focal_loss, Some(FocalLoss { alpha, gamma }));
}

/// Configurations with one value changed, by the field's name in JSON.
#[derive(Default)]
struct Changed(Vec<(&'static str, String, FasterRcnnConfig)>);

impl Changed {
    fn add<T: Clone + Debug>(
        &mut self,
        field: &'static str,
        values: &[T],
        set: fn(&mut FasterRcnnConfig, T),
    ) {
        for value in values {
            let mut config = FasterRcnnConfig::fasterrcnn_resnet50_fpn(3);
            set(&mut config, value.clone());
            self.0.push((field, format!("{value:?}"), config));
        }
    }
}

fn resnet(config: &mut FasterRcnnConfig) -> &mut ResNetFpnConfig {
    match &mut config.backbone {
        BackboneConfig::ResnetFpn(backbone) => backbone,
        _ => unreachable!("the default is a ResNet"),
    }
}

fn chain(conv_layers: Vec<usize>, fc_layers: Vec<usize>, eps: f64) -> BoxHeadConfig {
    BoxHeadConfig::ConvFc {
        conv_layers,
        fc_layers,
        norm: Some((NormKind::BatchNorm2d, eps)),
    }
}

const SHARES: [f64; 5] = [-0.1, 1.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
const SHARES32: [f32; 4] = [-0.1, 1.1, f32::NAN, f32::INFINITY];
const NOT_POSITIVE: [f32; 5] = [0.0, -1.0, 1e-40, f32::NAN, f32::INFINITY];
const SIZES: [usize; 4] = [0, 1_000_000, 1_000_000_000_000, usize::MAX];

/// Every field with values that make no sense.
#[rustfmt::skip]
fn nonsense() -> Changed {
    let mut all = Changed::default();
    all.add("num_classes", &[0, 1, 1_000_000, usize::MAX], |c, v| c.num_classes = v);
    all.add("class_names", &[1, 2, 4], |c, v| c.class_names = vec!["a".into(); v]);

    let stages = [vec![], vec![0], vec![5], vec![3, 2], vec![2, 2], vec![usize::MAX]];
    let blocks = [(0, 0), (5, 0), (3, 6), (2, 0), (usize::MAX, 0), (1, usize::MAX)];
    all.add("backbone.norm_eps", &SHARES, |c, v| resnet(c).norm_eps = v);
    all.add("backbone.returned_layers", &stages, |c, v| resnet(c).returned_layers = v);
    all.add("backbone.out_channels", &SIZES, |c, v| resnet(c).out_channels = v);
    all.add("backbone.inner_channels", &SIZES, |c, v| resnet(c).inner_channels = Some(v));
    all.add("backbone.dropped_stages", &stages[1..], |c, v| resnet(c).dropped_stages = v);
    all.add("backbone.dropped_blocks", &blocks, |c, v| resnet(c).dropped_blocks = vec![v]);

    let sizes = [vec![], vec![0], vec![800, 0], vec![usize::MAX]];
    let fixed = [(0, 8), (8, 0), (100_000, 100_000), (usize::MAX, usize::MAX)];
    all.add("min_size", &sizes, |c, v| c.transform.min_size = v);
    all.add("max_size", &[0, SIZES[2], SIZES[3]], |c, v| c.transform.max_size = v);
    all.add("image_mean", &[f32::NAN, f32::INFINITY], |c, v| c.transform.image_mean[1] = v);
    all.add("image_std", &NOT_POSITIVE, |c, v| c.transform.image_std[2] = v);
    all.add("size_divisible", &SIZES, |c, v| c.transform.size_divisible = v);
    all.add("fixed_size", &fixed, |c, v| c.transform.fixed_size = Some(v.into()));

    let (sizes, ratios) = ("rpn_anchor_generator.sizes", "rpn_anchor_generator.aspect_ratios");
    all.add(sizes, &NOT_POSITIVE, |c, v| c.rpn.anchor_generator.sizes[2][0] = v);
    all.add(sizes, &[0, 2], |c, v| c.rpn.anchor_generator.sizes[3] = vec![32.0; v]);
    all.add(sizes, &[0, 1, 4, 6], |c, v| {
        c.rpn.anchor_generator.sizes = vec![vec![32.0]; v];
        c.rpn.anchor_generator.aspect_ratios = vec![vec![1.0]; v];
    });
    all.add(ratios, &NOT_POSITIVE, |c, v| c.rpn.anchor_generator.aspect_ratios[0][1] = v);
    all.add(ratios, &[0, 4, 6], |c, v| c.rpn.anchor_generator.aspect_ratios = vec![vec![1.0]; v]);
    all.add("rpn_conv_depth", &SIZES[1..], |c, v| c.rpn.conv_depth = v);
    all.add("rpn_conv_channels", &SIZES, |c, v| c.rpn.conv_channels = vec![v]);
    all.add("rpn_conv_channels", &[2, 3], |c, v| c.rpn.conv_channels = vec![8; v]);
    let strides = [vec![], vec![16; 4], vec![0; 5], vec![usize::MAX; 5]];
    all.add("rpn_anchor_generator.strides", &strides, |c, v| c.rpn.anchor_generator.strides = Some(v));
    all.add("rpn_bbox_reg_weights", &NOT_POSITIVE, |c, v| c.rpn.bbox_reg_weights[1] = v);
    let negative = [-1.0, f64::NAN, f64::INFINITY];
    let not_positive = [0.0, -1.0, f64::NAN, f64::INFINITY];
    all.add("rpn_loss_weights", &negative, |c, v| c.rpn.loss_weights[1] = v);
    all.add("rpn_smooth_l1_beta", &not_positive, |c, v| c.rpn.smooth_l1_beta = v);
    all.add("box_loss_weights", &negative, |c, v| c.roi_heads.loss_weights[0] = v);
    all.add("box_smooth_l1_beta", &not_positive, |c, v| c.roi_heads.smooth_l1_beta = v);
    all.add("box_detections_per_class", &[0], |c, v| c.roi_heads.detections_per_class = Some(v));
    all.add("rpn_pre_nms_top_n_train", &[0], |c, v| c.rpn.pre_nms_top_n_train = v);
    all.add("rpn_pre_nms_top_n_test", &[0], |c, v| c.rpn.pre_nms_top_n_test = v);
    all.add("rpn_post_nms_top_n_train", &[0], |c, v| c.rpn.post_nms_top_n_train = v);
    all.add("rpn_post_nms_top_n_test", &[0], |c, v| c.rpn.post_nms_top_n_test = v);
    all.add("rpn_nms_thresh", &SHARES, |c, v| c.rpn.nms_thresh = v);
    all.add("rpn_fg_iou_thresh", &SHARES, |c, v| c.rpn.fg_iou_thresh = v);
    all.add("rpn_fg_iou_thresh", &[0.2], |c, v| c.rpn.fg_iou_thresh = v);
    all.add("rpn_bg_iou_thresh", &SHARES, |c, v| c.rpn.bg_iou_thresh = v);
    all.add("rpn_bg_iou_thresh", &[0.8], |c, v| c.rpn.bg_iou_thresh = v);
    all.add("rpn_batch_size_per_image", &[0], |c, v| c.rpn.batch_size_per_image = v);
    all.add("rpn_positive_fraction", &SHARES, |c, v| c.rpn.positive_fraction = v);
    all.add("rpn_score_thresh", &SHARES32, |c, v| c.rpn.score_thresh = v);

    let names = [vec![], vec!["c4".to_string()]];
    all.add("box_roi_pool.featmap_names", &names, |c, v| c.roi_heads.box_roi_pool.featmap_names = v);
    all.add("box_roi_pool.output_size", &SIZES, |c, v| c.roi_heads.box_roi_pool.output_size[1] = v);
    all.add("box_roi_pool.sampling_ratio", &SIZES[1..], |c, v| c.roi_heads.box_roi_pool.sampling_ratio = v);
    all.add("box_roi_pool.canonical_scale", &NOT_POSITIVE, |c, v| c.roi_heads.box_roi_pool.canonical_scale = v);
    all.add("box_roi_pool.canonical_level", &[-1, i32::MIN, i32::MAX], |c, v| c.roi_heads.box_roi_pool.canonical_level = v);
    all.add("box_head.representation_size", &SIZES, |c, v| {
        c.roi_heads.box_head = BoxHeadConfig::TwoMlp { representation_size: v };
    });
    all.add("box_head.fc6", &SIZES, |c, v| c.roi_heads.box_head = BoxHeadConfig::Mlp { fc6: v, fc7: 8 });
    all.add("box_head.fc7", &SIZES, |c, v| c.roi_heads.box_head = BoxHeadConfig::Mlp { fc6: 8, fc7: v });
    all.add("box_head.conv_layers", &SIZES, |c, v| c.roi_heads.box_head = chain(vec![8, v], vec![], 0.0));
    all.add("box_head.conv_layers", &[1000], |c, v| c.roi_heads.box_head = chain(vec![8; v], vec![], 0.0));
    all.add("box_head.fc_layers", &SIZES, |c, v| c.roi_heads.box_head = chain(vec![], vec![8, v], 0.0));
    all.add("box_dropout", &SHARES, |c, v| c.roi_heads.box_dropout = v);
    all.add("box_head.norm", &SHARES, |c, v| c.roi_heads.box_head = chain(vec![8], vec![8], v));
    all.add("box_score_thresh", &SHARES32, |c, v| c.roi_heads.score_thresh = v);
    all.add("box_nms_thresh", &SHARES, |c, v| c.roi_heads.nms_thresh = v);
    all.add("box_detections_per_img", &[0], |c, v| c.roi_heads.detections_per_img = v);
    all.add("box_fg_iou_thresh", &SHARES, |c, v| c.roi_heads.fg_iou_thresh = v);
    all.add("box_fg_iou_thresh", &[0.4], |c, v| c.roi_heads.fg_iou_thresh = v);
    all.add("box_bg_iou_thresh", &SHARES, |c, v| c.roi_heads.bg_iou_thresh = v);
    all.add("box_bg_iou_thresh", &[0.6], |c, v| c.roi_heads.bg_iou_thresh = v);
    all.add("box_batch_size_per_image", &[0], |c, v| c.roi_heads.batch_size_per_image = v);
    all.add("box_positive_fraction", &SHARES, |c, v| c.roi_heads.positive_fraction = v);
    all.add("bbox_reg_weights", &NOT_POSITIVE, |c, v| c.roi_heads.bbox_reg_weights[3] = v);
    all.add("box_nms_method", &NOT_POSITIVE, |c, sigma| {
        c.roi_heads.nms_method = NmsMethod::SoftGaussian { sigma };
    });
    let weights = [vec![], vec![1.0; 2], vec![0.0; 3], vec![1.0, -1.0, 1.0], vec![1.0, f32::NAN, 1.0]];
    all.add("box_class_weights", &weights, |c, v| c.roi_heads.class_weights = Some(v));
    let losses = [(0.0, 2.0), (f64::INFINITY, 2.0), (1.0, -0.5), (1.0, f64::INFINITY), (1.0, f64::NAN)];
    all.add("box_focal_loss", &losses, |c, (alpha, gamma)| {
        c.roi_heads.focal_loss = Some(FocalLoss { alpha, gamma });
    });
    all.add("mask.roi_pool.featmap_names", &names, |c, v| mask(c).roi_pool.featmap_names = v);
    all.add("mask.roi_pool.output_size", &SIZES, |c, v| mask(c).roi_pool.output_size[0] = v);
    all.add("mask.roi_pool.sampling_ratio", &SIZES[1..], |c, v| mask(c).roi_pool.sampling_ratio = v);
    all.add("mask.roi_pool.canonical_scale", &NOT_POSITIVE, |c, v| mask(c).roi_pool.canonical_scale = v);
    all.add("mask.roi_pool.canonical_level", &[-1], |c, v| mask(c).roi_pool.canonical_level = v);
    all.add("mask.layers", &SIZES, |c, v| mask(c).layers = vec![8, v]);
    all.add("mask.layers", &[1000], |c, v| mask(c).layers = vec![8; v]);
    all.add("mask.norm", &SHARES, |c, v| mask(c).norm = Some((NormKind::BatchNorm2d, v)));
    all.add("mask.dim_reduced", &SIZES, |c, v| mask(c).dim_reduced = v);
    all.add("keypoint.roi_pool.featmap_names", &names, |c, v| keypoint(c).roi_pool.featmap_names = v);
    all.add("keypoint.roi_pool.output_size", &[0, 13], |c, v| keypoint(c).roi_pool.output_size[1] = v);
    all.add("keypoint.roi_pool.sampling_ratio", &SIZES[1..], |c, v| keypoint(c).roi_pool.sampling_ratio = v);
    all.add("keypoint.roi_pool.canonical_scale", &NOT_POSITIVE, |c, v| keypoint(c).roi_pool.canonical_scale = v);
    all.add("keypoint.roi_pool.canonical_level", &[-1], |c, v| keypoint(c).roi_pool.canonical_level = v);
    all.add("keypoint.layers", &SIZES, |c, v| keypoint(c).layers = vec![8, v]);
    all.add("keypoint.num_keypoints", &SIZES, |c, v| keypoint(c).num_keypoints = v);
    all.add("keypoint.names", &[1, 18], |c, v| keypoint(c).names = vec!["nose".into(); v]);
    all.add("keypoint.skeleton", &[17, usize::MAX], |c, v| keypoint(c).skeleton = vec![[0, v]]);
    all
}

fn mask(config: &mut FasterRcnnConfig) -> &mut MaskConfig {
    config.roi_heads.mask.get_or_insert_default()
}

fn keypoint(config: &mut FasterRcnnConfig) -> &mut KeypointConfig {
    config.roi_heads.keypoint.get_or_insert_default()
}

#[test]
fn branches_are_in_json_and_files_without_them_open() {
    let read = |json: serde_json::Value| serde_json::from_value::<FasterRcnnConfig>(json);
    let config = FasterRcnnConfig::keypointrcnn_resnet50_fpn(2).with_mask(MaskConfig::v2());
    let mut json = serde_json::to_value(&config).unwrap();
    assert_eq!(read(json.clone()).unwrap(), config);
    let fields = json.as_object_mut().unwrap();
    assert!(fields.remove("mask").is_some() && fields.remove("keypoint").is_some());
    let plain = read(json).unwrap();
    assert_eq!(
        (plain.roi_heads.mask, plain.roi_heads.keypoint),
        (None, None)
    );
    // What is not said has the branch's default, and not the box branch's.
    let json = serde_json::json!({"mask": {"layers": [8], "roi_pool": {"sampling_ratio": 0}}});
    let config = FasterRcnnConfig::default();
    for mask in [
        read(json.clone()).unwrap().roi_heads.mask,
        config
            .overridden(json.as_object().unwrap())
            .unwrap()
            .roi_heads
            .mask,
    ] {
        let mask = mask.unwrap();
        assert_eq!((mask.layers, mask.dim_reduced), (vec![8], 256));
        assert_eq!(
            (mask.roi_pool.output_size, mask.roi_pool.sampling_ratio),
            ([14, 14], 0)
        );
    }
    let error = read(serde_json::json!({"mask": {"layer": [8]}})).unwrap_err();
    assert!(error.to_string().contains("mask.layers"), "{error}");
}

#[test]
fn every_value_that_makes_no_sense_is_refused_by_name() {
    for (field, value, config) in nonsense().0 {
        let name = field.trim_start_matches("backbone.");
        let error = config.validate().expect_err(&format!("{field} = {value}"));
        let text = error.to_string();
        // A stage or block that cannot be dropped is named itself.
        let named = text.contains(name) || text.contains("layer");
        assert!(named, "{field} = {value}: {text}");
        let made = config.init::<Flex>(&Default::default());
        assert_eq!(made.err(), Some(error), "{field} = {value}");
        assert!(
            config.costs(Size::new(480, 640)).is_err(),
            "{field} = {value}"
        );
    }
}

/// Names of everything in a configuration but strings, flags and objects.
fn leaves(json: &Value, path: &str, found: &mut BTreeSet<String>) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                leaves(value, &path, found);
            }
        }
        Value::String(_) | Value::Bool(_) => {}
        _ => {
            found.insert(path.to_string());
        }
    }
}

#[test]
fn no_field_goes_without_a_check() {
    let mut found = BTreeSet::new();
    let config = FasterRcnnConfig::default().with_mask(MaskConfig::default());
    let config = config.with_keypoint(KeypointConfig::default());
    let json = serde_json::to_value(config).unwrap();
    leaves(&json, "", &mut found);
    // `null` for none; the kind of a norm.
    found.remove("backbone.fpn_norm");
    let checked: BTreeSet<String> = nonsense()
        .0
        .iter()
        .map(|(name, ..)| name.to_string())
        .collect();
    let missing: Vec<_> = found.difference(&checked).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Values at the borders of what makes sense.
#[rustfmt::skip]
fn sense() -> Changed {
    let mut all = Changed::default();
    let shares = [0.0, 1e-300, 0.5, 1.0];
    all.add("num_classes", &[2, 91, 1204], |c, v| c.num_classes = v);
    all.add("class_names", &[0, 3], |c, v| c.class_names = vec!["a".into(); v]);
    all.add("backbone.norm_eps", &shares, |c, v| resnet(c).norm_eps = v);
    all.add("backbone.out_channels", &[1, 256, 2048], |c, v| resnet(c).out_channels = v);
    all.add("backbone.arch", &ResNetArch::ALL, |c, v| resnet(c).arch = v);
    let sizes = [vec![1], vec![100_000], vec![640, 672, 704, 736, 768, 800]];
    all.add("min_size", &sizes, |c, v| c.transform.min_size = v);
    all.add("max_size", &[1, 200, 100_000], |c, v| c.transform.max_size = v);
    all.add("size_divisible", &[1, 7, 32, 128], |c, v| c.transform.size_divisible = v);
    all.add("fixed_size", &[(1, 1), (8192, 8192)], |c, v| c.transform.fixed_size = Some(v.into()));
    all.add("image_mean", &[-1.0, 0.0, 123.7], |c, v| c.transform.image_mean = [v; 3]);
    all.add("image_std", &[1e-3, 1.0, 58.4], |c, v| c.transform.image_std = [v; 3]);
    all.add("rpn_conv_depth", &[0, 1, 2, 8], |c, v| c.rpn.conv_depth = v);
    all.add("rpn_post_nms_top_n_test", &[1, usize::MAX], |c, v| c.rpn.post_nms_top_n_test = v);
    all.add("rpn_pre_nms_top_n_train", &[1, usize::MAX], |c, v| c.rpn.pre_nms_top_n_train = v);
    all.add("rpn_nms_thresh", &shares, |c, v| c.rpn.nms_thresh = v);
    all.add("rpn_positive_fraction", &shares, |c, v| c.rpn.positive_fraction = v);
    all.add("rpn_bg_iou_thresh", &[0.0, 0.7], |c, v| c.rpn.bg_iou_thresh = v);
    all.add("box_bg_iou_thresh", &[0.0, 0.5], |c, v| c.roi_heads.bg_iou_thresh = v);
    all.add("box_nms_thresh", &shares, |c, v| c.roi_heads.nms_thresh = v);
    all.add("box_detections_per_img", &[1, usize::MAX], |c, v| c.roi_heads.detections_per_img = v);
    all.add("box_head.fc_layers", &[vec![], vec![1], vec![4096; 2]], |c, v| c.roi_heads.box_head = chain(vec![], v, 1e-3));
    all.add("box_roi_pool.sampling_ratio", &[0, 1, 2, 4], |c, v| c.roi_heads.box_roi_pool.sampling_ratio = v);
    all.add("box_roi_pool.output_size", &[1, 7, 14, 28], |c, v| c.roi_heads.box_roi_pool.output_size = [v; 2]);
    let weights = [vec![0.0, 1.0, 2.5], vec![0.0, 0.0, 1e3]];
    all.add("box_class_weights", &weights, |c, v| c.roi_heads.class_weights = Some(v));
    all.add("box_focal_loss", &[(0.25, 2.0), (1.0, 0.0), (1.5, 5.0)], |c, (alpha, gamma)| {
        c.roi_heads.focal_loss = Some(FocalLoss { alpha, gamma });
    });
    all
}

#[test]
fn what_makes_sense_is_accepted() {
    let names = |config: &FasterRcnnConfig| config.validate().map_err(|error| error.to_string());
    for (field, value, config) in sense().0 {
        assert_eq!(names(&config), Ok(()), "{field} = {value}");
    }
    assert_eq!(
        names(&FasterRcnnConfig::fasterrcnn_resnet50_fpn_v2(91)),
        Ok(())
    );
    assert_eq!(names(&FasterRcnnConfig::custom(2)), Ok(()));
}

#[test]
fn errors_say_what_was_found_and_expected() {
    let says = |set: fn(&mut FasterRcnnConfig)| {
        let mut config = FasterRcnnConfig::default();
        set(&mut config);
        config.validate().unwrap_err().to_string()
    };
    for (error, expected) in [
        (
            says(|c| c.num_classes = 1),
            "num_classes = 1: expected at least 2, the background and one class",
        ),
        (
            says(|c| c.class_names = vec!["a".into()]),
            "class_names = [\"a\"]: expected 91 names, the background's first, or none; not 1",
        ),
        (
            says(|c| c.rpn.positive_fraction = 1.5),
            "rpn_positive_fraction = 1.5: expected 0 to 1",
        ),
        (
            says(|c| c.roi_heads.bg_iou_thresh = 0.6),
            "box_bg_iou_thresh = 0.6: expected at most 0.5, which is box_fg_iou_thresh",
        ),
        (
            says(|c| resnet(c).returned_layers = vec![2, 3]),
            "expected sizes for the 3 feature maps of the backbone (0, 1, pool)",
        ),
        (
            says(|c| resnet(c).returned_layers = vec![3, 2]),
            "backbone: returned_layers = [3, 2]: expected one or more of 1, 2, 3, 4, in ascending order",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}
