//! Weights of detectors: strict, and the same bits after a round trip.

use burn::module::{Module, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{TensorData, Tolerance};
use burn_store::{BurnpackStore, BurnpackWriter, ModuleSnapshot, TensorSnapshot};
use rcnn_detector::FasterRcnnConfig;
use rcnn_ops::backend_types::Flex;
use rcnn_roi::{KeypointConfig, MaskConfig};
use weights_import::{
    Checkpoint, CheckpointError, ConfigOrigin, Precision, StateTensor, Weights, WeightsError,
    load_backbone, parameter_shapes, state_dict,
};

use crate::models::{DEVICE, small, small_model};

#[test]
fn weights_go_to_other_threads() {
    let weights = Weights::from_model(&small_model());
    let names = weights.tensors.len();
    let there =
        std::thread::spawn(move || weights.load::<Flex>(&DEVICE).map(|m| parameter_shapes(&m)));
    assert_eq!(
        there.join().expect("no panic").expect("a model").len(),
        names
    );
}

#[test]
fn round_trips_change_no_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let mut original = Weights::from_model(&small_model());
    // A counter has no dimensions and no place in the model, but must survive.
    let counter = "backbone.body.bn1.num_batches_tracked";
    let count = StateTensor::new(TensorData::new(vec![730i64], [0usize; 0]));
    original.tensors.insert(counter.into(), count);

    original
        .write_burnpack(file("a.bpk"), Precision::F32)
        .expect("written");
    let burnpack = Weights::open(file("a.bpk")).expect("opens by itself");
    burnpack
        .write_safetensors(file("b.safetensors"))
        .expect("written");
    let safetensors = Weights::open(file("b.safetensors")).expect("opens by itself");
    for copy in [&burnpack, &safetensors] {
        assert_eq!(copy.config, small());
        assert_eq!(copy.tensors.len(), original.tensors.len());
        for (name, tensor) in &original.tensors {
            let copied = copy.tensors[name].to_data().expect("data");
            assert_eq!(copied, tensor.to_data().expect("data"), "{name}");
        }
    }
    let reloaded = state_dict(&safetensors.load::<Flex>(&DEVICE).expect("a model"));
    for (name, tensor) in &reloaded {
        let (found, expected) = (tensor.to_data(), original.tensors[name].to_data());
        assert_eq!(found.expect("data"), expected.expect("data"), "{name}");
    }
}

/// A small detector with both branches.
fn with_branches() -> FasterRcnnConfig {
    let mask = MaskConfig {
        layers: vec![8, 4],
        dim_reduced: 6,
        ..Default::default()
    };
    let keypoint = KeypointConfig {
        layers: vec![8],
        num_keypoints: 3,
        ..Default::default()
    };
    small().with_mask(mask).with_keypoint(keypoint)
}

#[test]
fn branches_survive_every_format_and_precision() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let model = with_branches().init::<Flex>(&DEVICE).expect("a model");
    for (precision, bpk) in [(Precision::F32, "f32.bpk"), (Precision::F16, "f16.bpk")] {
        let original = Weights::from_model(&model);
        original
            .write_burnpack(file(bpk), precision)
            .expect("written");
        let burnpack = Weights::open(file(bpk)).expect("opens");
        let flat = file("back.safetensors");
        burnpack.write_safetensors(&flat).expect("written");
        let back = Weights::open(&flat).expect("opens");
        assert_eq!(back.config, with_branches());
        // What load_state_dict(strict=True) asks for: torchvision's names and shapes.
        let names: Vec<_> = back.tensors.keys().collect();
        assert_eq!(names, original.tensors.keys().collect::<Vec<_>>());
        for (name, tensor) in &burnpack.tensors {
            let found = back.tensors[name].to_data().expect("data");
            assert_eq!(found, tensor.to_data().expect("data"), "{name}");
            assert_eq!(found.shape.to_vec(), original.tensors[name].shape, "{name}");
        }
        back.load::<Flex>(&DEVICE).expect("a model");
    }
}

#[test]
fn a_mask_rcnn_loads_as_faster_rcnn_and_back_with_a_report() {
    let branch = |name: &str| {
        ["roi_heads.mask_", "roi_heads.keypoint_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let with = Weights::from_model(&with_branches().init::<Flex>(&DEVICE).expect("a model"));
    let branches = with.tensors.keys().filter(|name| branch(name)).count();

    let as_faster = Weights {
        config: small(),
        ..with.clone()
    };
    let strict = as_faster.load::<Flex>(&DEVICE).expect_err("unused tensors");
    assert!(
        strict
            .to_string()
            .contains("roi_heads.mask_predictor.conv5_mask.weight")
    );
    let (faster, report) = as_faster.load_partial::<Flex>(&DEVICE).expect("a model");
    assert!(
        report.missing.is_empty() && report.mismatched.is_empty(),
        "{report}"
    );
    assert_eq!(report.unexpected.len(), branches);
    assert!(faster.roi_heads.mask_branch().is_none());

    let as_mask = Weights {
        config: with_branches(),
        ..Weights::from_model(&faster)
    };
    let (masks, report) = as_mask.load_partial::<Flex>(&DEVICE).expect("a model");
    assert!(
        report.unexpected.is_empty() && report.mismatched.is_empty(),
        "{report}"
    );
    assert_eq!(report.missing.len(), branches);
    assert!(
        report.missing.iter().all(|(name, _)| branch(name)),
        "{report}"
    );
    for (name, tensor) in state_dict(&masks).iter().filter(|(name, _)| !branch(name)) {
        let (found, expected) = (tensor.to_data(), with.tensors[name].to_data());
        assert_eq!(found.expect("data"), expected.expect("data"), "{name}");
    }
}

/// The box head of a Burn user, under torchvision's names.
#[derive(Module, Debug)]
struct BurnHead<B: Backend> {
    fc6: Linear<B>,
    fc7: Linear<B>,
}

#[derive(Module, Debug)]
struct BurnRoiHeads<B: Backend> {
    box_head: BurnHead<B>,
}

#[derive(Module, Debug)]
struct BurnDetector<B: Backend> {
    roi_heads: BurnRoiHeads<B>,
}

/// Of a square matrix no shape would tell.
#[test]
fn burns_own_store_does_not_get_square_linears_transposed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.bpk");
    let weights = Weights::from_model(&small_model());
    weights
        .write_burnpack(&path, Precision::F32)
        .expect("written");

    let linear = |inputs| LinearConfig::new(inputs, 16).init::<Flex>(&DEVICE);
    let box_head = BurnHead {
        fc6: linear(8 * 7 * 7),
        fc7: linear(16),
    };
    let roi_heads = BurnRoiHeads { box_head };
    let mut module = BurnDetector { roi_heads };
    let mut store = BurnpackStore::from_file(&path);
    let loaded = module.load_from(&mut store).expect("every shape fits");
    assert_eq!(loaded.applied.len(), 4);
    let head = module.roi_heads.box_head;
    for (name, linear) in [("fc6", head.fc6), ("fc7", head.fc7)] {
        let found = linear.weight.val().transpose().into_data();
        let expected = &weights.tensors[&format!("roi_heads.box_head.{name}.weight")];
        found.assert_eq(&expected.to_data().expect("data"), true);
    }
}

#[test]
fn burnpacks_of_before_open_with_the_same_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let weights = Weights::from_model(&small_model());
    let write = |name: &str, metadata: &[(&str, &str)]| {
        let snapshot = |(name, tensor): (&String, &StateTensor)| {
            let path = name.split('.').map(String::from).collect();
            TensorSnapshot::from_data(
                tensor.to_data().expect("data"),
                path,
                vec![],
                ParamId::new(),
            )
        };
        let mut writer = BurnpackWriter::new(weights.tensors.iter().map(snapshot).collect());
        for (key, value) in metadata {
            writer = writer.with_metadata(key, value);
        }
        writer.write_to_file(file(name)).expect("written");
    };
    // They had torch's layouts, and nothing that says so.
    let config = serde_json::to_string(&small()).expect("JSON");
    write("before.bpk", &[("rcnn_burn_config", &config)]);
    let before = Weights::open(file("before.bpk")).expect("opens");
    weights
        .write_burnpack(file("now.bpk"), Precision::F32)
        .expect("written");
    let now = Weights::open(file("now.bpk")).expect("opens");
    for opened in [&before, &now] {
        assert_eq!(opened.origin, ConfigOrigin::Stored);
        for (name, tensor) in &weights.tensors {
            let (found, expected) = (opened.tensors[name].to_data(), tensor.to_data());
            found
                .expect("data")
                .assert_eq(&expected.expect("data"), true);
        }
    }
    // A layout of times to come is not guessed at.
    write("later.bpk", &[("rcnn_burn_linear_layout", "blocked")]);
    let later = Checkpoint::open(file("later.bpk")).expect_err("unknown");
    assert!(
        matches!(later, CheckpointError::Unsupported { .. }),
        "{later:?}"
    );
    assert!(later.to_string().contains("`blocked`"), "{later}");
}

#[test]
fn f16_halves_the_file_and_loads_as_f32() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let original = Weights::from_model(&small_model());
    original
        .write_burnpack(file("a.bpk"), Precision::F32)
        .expect("written");
    original
        .write_burnpack(file("b.bpk"), Precision::F16)
        .expect("written");
    let size = |name: &str| std::fs::metadata(file(name)).expect("a file").len() as f64;
    assert!(size("b.bpk") < 0.6 * size("a.bpk"));
    let half = Weights::open(file("b.bpk"))
        .expect("opens")
        .load::<Flex>(&DEVICE)
        .expect("a model");
    for (name, tensor) in &state_dict(&half) {
        let (found, expected) = (tensor.to_data(), original.tensors[name].to_data());
        let tolerance = Tolerance::absolute(1e-3);
        found
            .expect("data")
            .assert_approx_eq::<f32>(&expected.expect("data"), tolerance);
    }
}

#[test]
fn strict_lists_what_does_not_fit_and_partial_loads_the_rest() {
    let mut weights = Weights::from_model(&small_model());
    weights.tensors.shift_remove("rpn.head.cls_logits.bias");
    for (name, data) in [
        ("rpn.head.extra", TensorData::new(vec![1.0f32], [1])),
        (
            "roi_heads.box_head.fc7.weight",
            TensorData::new(vec![0.0f32; 6], [2, 3]),
        ),
    ] {
        weights.tensors.insert(name.into(), StateTensor::new(data));
    }

    let error = weights
        .load::<Flex>(&DEVICE)
        .expect_err("strict")
        .to_string();
    for part in [
        "rpn.head.cls_logits.bias [3]",
        "rpn.head.extra",
        "roi_heads.box_head.fc7.weight: the model expects [16, 16], the checkpoint has [2, 3]",
    ] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    let (model, report) = weights.load_partial::<Flex>(&DEVICE).expect("partial");
    assert_eq!(report.loaded.len() + 2, parameter_shapes(&model).len());
    assert_eq!(
        (
            report.missing.len(),
            report.unexpected.len(),
            report.mismatched.len()
        ),
        (1, 1, 1)
    );
    let name = "roi_heads.box_head.fc6.weight";
    let (found, expected) = (&state_dict(&model)[name], &weights.tensors[name]);
    assert_eq!(
        found.to_data().expect("data"),
        expected.to_data().expect("data")
    );
}

#[test]
fn a_classifier_loads_into_the_backbone_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("resnet18.safetensors");
    let mut classifier = Weights::from_model(&small_model());
    let body = classifier.tensors.iter().filter_map(|(name, tensor)| {
        Some((
            name.strip_prefix("backbone.body.")?.to_string(),
            tensor.clone(),
        ))
    });
    classifier.tensors = body.collect();
    for name in [
        "fc.weight",
        "layer4.0.conv1.weight",
        "bn1.num_batches_tracked",
    ] {
        let tensor = StateTensor::new(TensorData::new(vec![0.0f32], [1]));
        classifier.tensors.insert(name.into(), tensor);
    }
    classifier.write_safetensors(&path).expect("written");

    let mut model = small_model();
    load_backbone(&path, &mut model.backbone).expect("fits");
    let name = "conv1.weight";
    let found = &state_dict(&model)[&format!("backbone.body.{name}")];
    let expected = &classifier.tensors[name];
    assert_eq!(
        found.to_data().expect("data"),
        expected.to_data().expect("data")
    );
}

#[test]
fn what_can_not_be_written_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut weights = Weights::from_model(&small_model());
    let nowhere = folder.path().join("no/such/folder/model.bpk");
    let error = weights
        .write_burnpack(&nowhere, Precision::F32)
        .expect_err("no folder");
    assert!(
        matches!(&error, WeightsError::Write { path, .. } if *path == nowhere),
        "{error}"
    );
    // A tensor whose data is not what its shape says.
    let mut bad = StateTensor::new(TensorData::new(vec![0.0f32; 2], [2]));
    bad.shape = vec![3];
    weights.tensors.insert("bad".into(), bad);
    let path = folder.path().join("model.bpk");
    assert!(weights.write_burnpack(&path, Precision::F32).is_err());
    assert!(weights.write_safetensors(&path).is_err());
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0
    );
}
