//! Weights of detectors recognised by names and shapes.

use std::collections::BTreeMap;
use std::path::Path;

use rcnn_backbone::{
    BackboneConfig, MobileNetV2Arch, MobileNetV3Arch, NormKind, ResNetArch, ResNetFpnConfig,
    SequentialArch, SequentialConfig, VggArch,
};
use rcnn_detector::{FasterRcnnConfig, StandardFasterRcnn};
use rcnn_ops::backend_types::{Flex, FlexDevice};
use rcnn_roi::{BoxHeadConfig, KeypointConfig, MaskConfig};
use weights_import::{Checkpoint, LoadReport, Weights, parameter_shapes};

use super::fixture;

pub(crate) const DEVICE: FlexDevice = FlexDevice;

/// A detector of a single stage, small enough to write many of.
pub(crate) fn small() -> FasterRcnnConfig {
    let backbone = ResNetFpnConfig {
        arch: ResNetArch::ResNet18,
        returned_layers: vec![1],
        out_channels: 8,
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::new(backbone, 4);
    config.rpn.anchor_generator.sizes = vec![vec![32.0], vec![64.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![0.5, 1.0, 2.0]; 2];
    config.roi_heads.box_head = BoxHeadConfig::TwoMlp {
        representation_size: 16,
    };
    config.class_names = ["__background__", "RBC", "WBC", "Platelets"]
        .map(String::from)
        .into();
    config
}

pub(crate) fn small_model() -> StandardFasterRcnn<Flex> {
    small().init(&DEVICE).expect("a model")
}

/// A file of tensors with these names, all zeros and tiny on disk: safetensors have no sparse form,
/// so shapes are kept and the values are of one byte.
pub(crate) fn write_shapes(path: &Path, shapes: &[(String, Vec<usize>)]) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let start = end;
        end += shape.iter().product::<usize>();
        let info = serde_json::json!({"dtype": "U8", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), info);
    }
    let mut header = serde_json::to_vec(&header).expect("JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    std::fs::write(path, bytes).expect("a file");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a file");
    let length = file.metadata().expect("metadata").len() + end as u64;
    file.set_len(length).expect("a sparse file");
}

/// The names that torch would write: with counters where norms are trainable.
pub(crate) fn torch_shapes(config: &FasterRcnnConfig) -> Vec<(String, Vec<usize>)> {
    let model = config.init::<Flex>(&DEVICE).expect("a model");
    let backbone = serde_json::to_value(&config.backbone).expect("JSON");
    let mut shapes = parameter_shapes(&model);
    if backbone["norm"] == "BatchNorm2d" {
        let means = shapes
            .iter()
            .filter_map(|(name, _)| name.strip_suffix("running_mean"));
        let counters: Vec<_> = means
            .map(|prefix| (format!("{prefix}num_batches_tracked"), vec![]))
            .collect();
        shapes.extend(counters);
    }
    shapes
}

/// Backbones over every member of a family: with a pyramid and without, whole and without the last stage.
fn sequential<A: SequentialArch>() -> Vec<BackboneConfig> {
    let of = |&arch: &A| {
        let features = SequentialConfig::features(arch);
        let shorter = SequentialConfig {
            returned_layers: vec![features.returned_layers[0] - 1],
            ..features.clone()
        };
        let mut all = vec![SequentialConfig::with_fpn(arch), features, shorter];
        if all[0].to_string().contains("BatchNorm2d") {
            all.push(SequentialConfig {
                norm: NormKind::BatchNorm2d,
                ..all[0].clone()
            });
        }
        all.into_iter()
            .map(BackboneConfig::from)
            .collect::<Vec<_>>()
    };
    A::ALL.iter().flat_map(of).collect()
}

#[test]
fn recognizes_every_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let mut configs = vec![
        FasterRcnnConfig::fasterrcnn_resnet50_fpn(91),
        FasterRcnnConfig::fasterrcnn_resnet50_fpn_v2(7),
        FasterRcnnConfig::maskrcnn_resnet50_fpn(7),
        FasterRcnnConfig::maskrcnn_resnet50_fpn_v2(7),
        FasterRcnnConfig::keypointrcnn_resnet50_fpn(2),
    ];
    let mut narrow = small().with_mask(MaskConfig {
        layers: vec![8, 4],
        dim_reduced: 6,
        ..Default::default()
    });
    narrow = narrow.with_keypoint(KeypointConfig {
        layers: vec![8],
        num_keypoints: 3,
        ..Default::default()
    });
    narrow.backbone = ResNetFpnConfig::default().into();
    narrow.rpn = Default::default();
    narrow.class_names = Vec::new();
    configs.push(narrow);
    for arch in ResNetArch::ALL {
        for norm in [NormKind::FrozenBatchNorm2d, NormKind::BatchNorm2d] {
            let backbone = ResNetFpnConfig {
                arch,
                norm,
                ..Default::default()
            };
            configs.push(FasterRcnnConfig::new(backbone, 4));
        }
    }
    let backbones = sequential::<MobileNetV3Arch>().into_iter();
    let backbones = backbones.chain(sequential::<MobileNetV2Arch>());
    let backbones = backbones.chain(sequential::<VggArch>());
    configs.extend(backbones.map(|backbone| FasterRcnnConfig::usual(backbone, 4)));
    for mut expected in configs {
        write_shapes(&path, &torch_shapes(&expected));
        let found = Weights::open(&path).expect("a detector").config;
        if expected.num_classes == 91 {
            expected.class_names = found.class_names.clone();
            assert_eq!(found.class_names[18], "dog");
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn wrapped_and_old_names_are_understood() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("checkpoint.safetensors");
    let expected = FasterRcnnConfig::fasterrcnn_resnet50_fpn(4);
    // torchvision's names of 2019: no level between block and parameter.
    let old = |name: &str| {
        let name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.");
        match name.split_once("_blocks.") {
            Some((fpn, rest)) => format!("{fpn}_blocks.{}", rest.replacen(".0.", ".", 1)),
            None => name,
        }
    };
    for prefix in [
        "",
        "model.",
        "state_dict.",
        "model_state_dict.",
        "module.",
        "model.module.",
        "detector.",
        "net_1.",
        "params.",
        "ema_model.module.",
        "model_ema.module.",
        "state_dict.model._orig_mod.",
    ] {
        let mut shapes: Vec<_> = torch_shapes(&expected)
            .into_iter()
            .map(|(name, shape)| (format!("{prefix}{}", old(&name)), shape))
            .collect();
        if !prefix.is_empty() {
            for name in ["0", "backbone.body.conv1.weight"] {
                let name = format!("optimizer.state.{name}.momentum_buffer");
                shapes.push((name, vec![64, 3, 7, 7]));
            }
            // A teacher that is a part of a detector alone.
            shapes.push(("teacher.backbone.body.conv1.weight".into(), vec![1]));
        }
        write_shapes(&path, &shapes);
        let weights = Weights::open(&path).unwrap_or_else(|error| panic!("{prefix}: {error}"));
        assert_eq!(weights.config, expected, "{prefix}");
        let model = expected.init::<Flex>(&DEVICE).expect("a model");
        for (name, shape) in parameter_shapes(&model) {
            assert_eq!(
                weights.tensors[&name].shape.to_vec(),
                shape,
                "{prefix}: {name}"
            );
        }
    }
}

/// `torch.compile` and FSDP of a part put their names in the middle.
#[test]
fn parts_of_a_detector_that_were_wrapped_are_understood() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("checkpoint.safetensors");
    let expected = FasterRcnnConfig::fasterrcnn_resnet50_fpn(4);
    let shapes = torch_shapes(&expected);
    let mut names: Vec<&String> = shapes.iter().map(|(name, _)| name).collect();
    names.sort();
    for (module, wrapper) in [
        ("backbone.", "_orig_mod"),
        (
            "backbone.body.layer3.",
            "_fsdp_wrapped_module._checkpoint_wrapped_module",
        ),
        ("roi_heads.box_head.", "_orig_mod"),
        ("rpn.head.conv.0.0.", "_fsdp_wrapped_module"),
    ] {
        let wrapped = shapes.iter().map(|(name, shape)| {
            let wrapped = name.replacen(module, &format!("{module}{wrapper}."), 1);
            (format!("state_dict.{wrapped}"), shape.clone())
        });
        write_shapes(&path, &wrapped.collect::<Vec<_>>());
        let found = Weights::open(&path).unwrap_or_else(|error| panic!("{module}: {error}"));
        assert_eq!(found.config, expected, "{module}");
        let mut found: Vec<&String> = found.tensors.keys().collect();
        found.sort();
        assert_eq!(found, names, "{module}");
    }
}

/// A first layer for grey images was a wrong shape among others.
#[test]
fn weights_for_grey_images_are_named_as_such() {
    let [expected, found] = [3, 1].map(|channels| vec![64, channels, 7, 7]);
    let report = LoadReport {
        mismatched: vec![("backbone.body.conv1.weight".into(), expected, found)],
        ..Default::default()
    };
    let says = "a layer for images of 1 channel(s) instead of RGB";
    assert!(report.to_string().contains(says), "{report}");
}

/// Of two models in a file the one that came first by a list of names was taken.
#[test]
fn of_several_models_in_a_file_one_is_to_be_chosen() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ema.safetensors");
    let expected = FasterRcnnConfig::fasterrcnn_resnet50_fpn(4);
    let shapes = torch_shapes(&expected);
    let under = |prefix: &'static str| {
        let shapes = shapes.iter();
        shapes.map(move |(name, shape)| (format!("{prefix}{name}"), shape.clone()))
    };
    let both: Vec<_> = under("model.").chain(under("ema.module.")).collect();
    write_shapes(&path, &both);
    let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
    let error = Weights::from_checkpoint(&checkpoint).expect_err("two models");
    let message = error.to_string();
    assert!(
        message.contains("ema.safetensors")
            && message.contains("`model`")
            && message.contains("`ema.module`")
            && message.contains("--prefix"),
        "{message}"
    );
    for prefix in ["model", "ema", "ema.module"] {
        let part = checkpoint.within(prefix).expect("a model");
        let weights = Weights::from_checkpoint(&part).expect("a detector");
        assert_eq!(weights.config, expected, "{prefix}");
    }
    let message = checkpoint.within("swa").expect_err("none").to_string();
    assert!(
        message.contains("`swa.`") && message.contains("`ema.module`"),
        "{message}"
    );

    // What stands at the top is the file's own.
    let both: Vec<_> = under("").chain(under("ema.")).collect();
    write_shapes(&path, &both);
    assert_eq!(Weights::open(&path).expect("a detector").config, expected);
}

/// `FasterRCNN(backbone=nn.Sequential(vgg16().features))`, or a class with an attribute around it.
#[test]
fn a_module_around_the_backbone_is_looked_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("checkpoint.safetensors");
    for name in ["vgg11", "mobilenet_v2", "mobilenet_v3_small_features"] {
        let expected = FasterRcnnConfig::named(name, 3).expect(name);
        for module in ["0", "features", "body"] {
            let wrapped = torch_shapes(&expected).into_iter().map(|(name, shape)| {
                let wrapped = name.replacen("backbone.", &format!("backbone.{module}."), 1);
                (wrapped, shape)
            });
            write_shapes(&path, &wrapped.collect::<Vec<_>>());
            let found = Weights::open(&path).expect("a detector");
            assert_eq!(found.config, expected, "{name} in {module}");
            let mut names: Vec<&String> = found.tensors.keys().collect();
            let mut own: Vec<String> = torch_shapes(&expected)
                .into_iter()
                .map(|(n, _)| n)
                .collect();
            names.sort();
            own.sort();
            assert!(names.into_iter().eq(&own), "{name} in {module}");
        }
    }
}

/// Norms without counters were all taken as frozen, and those of a MobileNetV3 without a pyramid had their epsilon.
#[test]
fn norms_whose_counters_were_left_out_keep_torchvisions_epsilon() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stripped.safetensors");
    for (name, kind, eps) in [
        ("mobilenet_v3_large_features", NormKind::BatchNorm2d, 1e-3),
        ("mobilenet_v3_small_features", NormKind::BatchNorm2d, 1e-3),
        ("mobilenet_v3_large", NormKind::FrozenBatchNorm2d, 1e-5),
        ("mobilenet_v2", NormKind::BatchNorm2d, 1e-5),
        ("vgg11_bn", NormKind::BatchNorm2d, 1e-5),
        ("resnet18", NormKind::FrozenBatchNorm2d, 1e-5),
        ("maskrcnn_resnet50_fpn_v2", NormKind::BatchNorm2d, 1e-5),
    ] {
        let mut expected = match BackboneConfig::named(name) {
            Ok(backbone) => FasterRcnnConfig::usual(backbone, 3),
            Err(_) => FasterRcnnConfig::named(name, 3).expect(name),
        };
        let mut shapes = torch_shapes(&expected);
        shapes.retain(|(name, _)| !name.ends_with(".num_batches_tracked"));
        write_shapes(&path, &shapes);
        let found = Weights::open(&path).expect("a detector").config;
        let network = expected.backbone.architecture_mut().expect(name);
        network.set_norm(kind);
        network.set_norm_eps(eps);
        assert_eq!(found, expected, "{name}");
    }
}

/// torch says in a state dict of which version each module's class is, and a module that was pickled whole has its
/// epsilon; neither was read.
#[test]
fn torch_tells_of_norms_without_counters_what_they_are() {
    let expected: BTreeMap<String, (NormKind, f64)> = {
        let json = std::fs::read_to_string(fixture("norms/norms.json")).expect("a file");
        serde_json::from_str(&json).expect("kinds and epsilons")
    };
    assert_eq!(expected.len(), 5);
    for (name, (kind, eps)) in expected {
        let found = Weights::open(fixture(&format!("norms/{name}.pth"))).expect(&name);
        let backbone = serde_json::to_value(&found.config.backbone).expect("JSON");
        assert_eq!(backbone["norm"], format!("{kind:?}"), "{name}");
        assert_eq!(backbone["norm_eps"], eps, "{name}");
    }
}

#[test]
fn anchors_of_one_map_are_asked_for_and_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vgg.safetensors");
    let mut expected = FasterRcnnConfig::named("vgg11", 3).expect("a VGG");
    expected.rpn.anchor_generator.sizes = vec![vec![64.0, 128.0, 256.0]];
    write_shapes(&path, &torch_shapes(&expected));
    let error = Weights::open(&path).expect_err("anchors").to_string();
    for says in [
        "9 anchors at each location of its one feature map",
        r#"{"rpn_anchor_generator": {"sizes": [[128, 256, 512]], "aspect_ratios": [[0.5, 1, 2]]}}"#,
    ] {
        assert!(error.contains(says), "{error}");
    }
    let checkpoint = Checkpoint::open(&path).expect("a file");
    let overrides = serde_json::json!({"rpn_anchor_generator": expected.rpn.anchor_generator});
    let overrides = overrides.as_object().expect("an object");
    let found = Weights::from_checkpoint_overridden(&checkpoint, overrides);
    assert_eq!(found.expect("a detector").config, expected);
    let misspelt = serde_json::json!({"rpn_anchor_generatr": {}});
    let misspelt =
        Weights::from_checkpoint_overridden(&checkpoint, misspelt.as_object().expect("an object"));
    let error = misspelt.expect_err("misspelt").to_string();
    assert!(
        error.contains("did you mean rpn_anchor_generator?"),
        "{error}"
    );
}

#[test]
fn says_what_it_does_not_recognize() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let message = |shapes: &[(String, Vec<usize>)]| {
        write_shapes(&path, shapes);
        Weights::open(&path).expect_err("no detector").to_string()
    };
    let whole = torch_shapes(&FasterRcnnConfig::fasterrcnn_resnet50_fpn(91));
    let foreign = message(&[(
        "backbone.bottom_up.stem.conv1.weight".into(),
        vec![64, 3, 7, 7],
    )]);
    assert!(
        foreign.contains("detectron2") && foreign.contains("model.safetensors"),
        "{foreign}"
    );
    // A backbone under torchvision's names was taken for a part of a detector.
    for (head, whose) in [
        ("head.classification_head.conv.0.0.weight", "RetinaNet's"),
        ("roi_head.bbox_head.fc_cls.weight", "MMDetection's"),
    ] {
        let backbone = whole
            .iter()
            .filter(|(name, _)| name.starts_with("backbone."));
        let other: Vec<_> = backbone
            .cloned()
            .chain([(head.into(), vec![2, 2])])
            .collect();
        assert!(message(&other).contains(whose), "{}", message(&other));
    }
    let mut mask = whole.clone();
    mask.push((
        "roi_heads.mask_head.0.0.weight".into(),
        vec![256, 256, 3, 3],
    ));
    assert!(message(&mask).contains("mask head without a mask predictor"));
    for (parameter, shape) in [
        ("mask_predictor.mask_fcn_logits", vec![91, 256]),
        ("keypoint_predictor.kps_score_lowres", vec![512]),
    ] {
        let mut odd = whole.clone();
        odd.push((format!("roi_heads.{parameter}.weight"), shape));
        assert!(message(&odd).contains(parameter), "{parameter}");
    }
    let no_rpn: Vec<_> = whole
        .iter()
        .filter(|(n, _)| !n.starts_with("rpn."))
        .cloned()
        .collect();
    assert!(message(&no_rpn).contains("rpn.head"));
    let mut anchors = whole.clone();
    for (name, shape) in &mut anchors {
        if name.starts_with("rpn.head.cls_logits") {
            shape[0] = 15;
        }
    }
    let anchors = message(&anchors);
    assert!(
        anchors.contains("15 anchors") && anchors.contains("--config"),
        "{anchors}"
    );
    let classifier: Vec<_> = whole
        .iter()
        .filter_map(|(n, s)| Some((n.strip_prefix("backbone.body.")?.to_string(), s.clone())))
        .collect();
    assert!(message(&classifier).contains("image classifier (resnet50)"));
    let wrapped = classifier.into_iter().map(|(n, s)| (format!("net.{n}"), s));
    let wrapped: Vec<_> = wrapped.collect();
    assert!(message(&wrapped).contains("image classifier (resnet50)"));
}
