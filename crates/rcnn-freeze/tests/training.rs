//! Frozen parameters in training: the same bits after steps with momentum and weight decay, no state
//! in the optimizer, no statistics counted, nothing tracked that leads to them alone.

use std::collections::{BTreeMap, HashMap};

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ParamId};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, Optimizer, Sgd, SgdConfig};
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Recorder};
use burn::tensor::{Distribution, Tensor};
use rand::rngs::StdRng;
use rcnn_backbone::{
    AnyBackbone, Body, Forward, NormKind, ResNetArch, ResNetFpnConfig, named_parameters,
};
use rcnn_detector::{FasterRcnnConfig, StandardFasterRcnn};
use rcnn_freeze::{FreezeError, FreezePlan, FreezeState, FreezingOptimizer, freeze, parse};
use rcnn_ops::Subsample;
use rcnn_ops::backend_types::Flex;
use rcnn_roi::{BoxHeadConfig, KeypointConfig, MaskConfig};
use rcnn_types::Instances;
use weights_import::{Weights, state_dict};

type B = Autodiff<Flex>;
type Model = StandardFasterRcnn<B>;
type Optim = FreezingOptimizer<Sgd<Flex>, Model, B>;

/// A small detector of two stages.
fn model(norm: NormKind) -> Model {
    let backbone = ResNetFpnConfig {
        arch: ResNetArch::ResNet18,
        norm,
        returned_layers: vec![1, 2],
        out_channels: 8,
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::new(backbone, 3);
    config.rpn.anchor_generator.sizes = vec![vec![16.0], vec![32.0], vec![64.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![1.0]; 3];
    config.roi_heads.box_head = BoxHeadConfig::TwoMlp {
        representation_size: 16,
    };
    config.transform.min_size = vec![48];
    config.init(&Default::default()).expect("a model")
}

fn optimizer() -> Optim {
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let sgd = SgdConfig::new()
        .with_momentum(Some(momentum))
        .with_weight_decay(Some(WeightDecayConfig::new(1e-2)));
    sgd.init().into()
}

fn train(mut model: Model, optimizer: &mut Optim, steps: usize) -> Model {
    for _ in 0..steps {
        let random = Distribution::Uniform(0.0, 1.0);
        let image = Tensor::random([3, 48, 64], random, &Default::default());
        let boxes = vec![[4.0, 6.0, 30.0, 40.0], [20.0, 3.0, 60.0, 22.0]];
        let target = Instances::new(boxes, vec![1, 2]);
        let subsample = &mut Subsample::<StdRng>::First;
        let losses = model
            .losses(&[image], &[target], subsample)
            .expect("an image");
        let gradients = GradientsParams::from_grads(losses.total().backward(), &model);
        model = optimizer.step(1e-2, model, gradients);
    }
    model
}

/// All tensors, as bits.
fn bits(model: &Model) -> BTreeMap<String, Vec<u32>> {
    let tensors = state_dict(&model.valid()).into_iter();
    let read = tensors.map(|(name, snapshot)| {
        let values: Vec<f32> = snapshot.to_data().expect("data").into_vec().expect("f32");
        (name, values.into_iter().map(f32::to_bits).collect())
    });
    read.collect()
}

fn ids(model: &Model) -> HashMap<String, ParamId> {
    let named = named_parameters(model).into_iter();
    named
        .map(|parameter| (parameter.name, parameter.id))
        .collect()
}

#[test]
fn the_frozen_stays_and_the_rest_moves() {
    let rules = [
        "trainable_backbone_layers=3",
        "rpn",
        "box_head",
        "thaw box_head.fc7",
    ];
    let model = freeze(model(NormKind::BatchNorm2d), &rules).expect("rules that fit");
    let state = FreezeState::from_model(&model);
    let frozen = state.frozen().names;
    assert!(frozen.contains(&"backbone.body.layer1.1.bn2.bias"));
    assert!(frozen.contains(&"roi_heads.box_head.fc6.weight"));
    let before = bits(&model);
    let mut optimizer = optimizer();
    let model = train(model, &mut optimizer, 3);
    let after = bits(&model);
    for name in &frozen {
        assert_eq!(before[*name], after[*name], "{name}");
    }
    for name in state.trainable().names {
        assert_ne!(before[name], after[name], "{name}");
    }
    let statistics = before.keys().filter(|name| name.contains(".running_"));
    for name in statistics {
        let weight = format!("{}.weight", name.rsplit_once('.').expect("a module").0);
        let stays = frozen.contains(&weight.as_str());
        assert_eq!(before[name] == after[name], stays, "{name}");
    }
    let (record, ids) = (optimizer.to_record(), ids(&model));
    assert_eq!(record.len(), state.trainable().names.len());
    assert!(frozen.iter().all(|name| !record.contains_key(&ids[*name])));
}

#[test]
fn freezing_in_the_middle_stops_and_thawing_starts_clean() {
    let start = model(NormKind::FrozenBatchNorm2d);
    let rules = parse(&["fpn from epoch 2", "thaw fpn from epoch 3"]).expect("rules");
    let plan = FreezePlan::new(FreezeState::from_model(&start), &rules).expect("rules that fit");
    let mut optimizer = optimizer();
    let first = train(plan.at(1).apply(start), &mut optimizer, 2);
    let fpn = "backbone.fpn.layer_blocks.0.0.weight";
    let id = ids(&first)[fpn];
    assert!(optimizer.to_record().contains_key(&id));
    let before = bits(&first);
    let second = train(plan.at(2).apply(first), &mut optimizer, 2);
    assert_eq!(bits(&second)[fpn], before[fpn]);
    assert!(!optimizer.to_record().contains_key(&id));
    let third = train(plan.at(3).apply(second), &mut optimizer, 1);
    assert_ne!(bits(&third)[fpn], before[fpn]);
    assert!(optimizer.to_record().contains_key(&id));
    assert_eq!(plan.at(3), plan.at(100));
}

/// The model as a checkpoint of Burn's holds it, where each tensor wishes for a gradient.
fn from_checkpoint(model: &Model) -> Model {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::new();
    let bytes = Recorder::<B>::record(&recorder, model.clone().into_record(), ());
    let record = Recorder::<B>::load(&recorder, bytes.expect("bytes"), &Default::default());
    model.clone().load_record(record.expect("a record"))
}

#[test]
fn nothing_is_tracked_before_the_first_trainable_layer() {
    for norm in [NormKind::BatchNorm2d, NormKind::FrozenBatchNorm2d] {
        for (rules, expected) in [
            (vec!["backbone"], [false, false]),
            (vec!["backbone", "thaw layer2.1"], [false, true]),
            (vec!["trainable_backbone_layers=5"], [true, true]),
        ] {
            let made = model(norm);
            let loaded = Weights::from_model(&made).load::<B>(&Default::default());
            let resumed = from_checkpoint(&made);
            for model in [made, loaded.expect("its own weights"), resumed] {
                let model = freeze(model, &rules).expect("rules that fit");
                let image = Tensor::ones([1, 3, 64, 64], &Default::default());
                let AnyBackbone::ResNetFpn(backbone) = &model.backbone else {
                    unreachable!("a ResNet")
                };
                let cx = &mut Forward::training();
                let stages = backbone.body.forward(image, &[1, 2], cx);
                let tracked = stages
                    .into_iter()
                    .map(|s| s.into_primitive().tensor().is_tracked());
                assert_eq!(tracked.collect::<Vec<_>>(), expected, "{norm:?} {rules:?}");
            }
        }
    }
}

#[test]
fn mask_and_keypoint_branches_freeze_by_name() {
    let config = model(NormKind::FrozenBatchNorm2d).config();
    let mask = MaskConfig {
        layers: vec![4, 4],
        dim_reduced: 4,
        ..Default::default()
    };
    let keypoint = KeypointConfig {
        layers: vec![4],
        num_keypoints: 2,
        ..Default::default()
    };
    let config = config.with_mask(mask).with_keypoint(keypoint);
    let model: Model = config.init(&Default::default()).expect("a model");
    let state = FreezeState::from_model(&model);
    for (pattern, parameters) in [
        ("mask_head", 4),
        ("mask_head.0", 2),
        ("mask_predictor", 4),
        ("mask_predictor.mask_fcn_logits", 2),
        ("keypoint_head", 2),
        ("roi_heads.keypoint_predictor", 2),
        ("roi_heads.mask_*", 8),
        ("/(mask|keypoint)_/", 12),
    ] {
        let pattern = pattern.parse().unwrap_or_else(|e| panic!("{pattern}: {e}"));
        let found = state.matching(&pattern).expect("parameters");
        assert_eq!(found.len(), parameters, "{pattern}: {found:?}");
    }
    // What counts stages is about the backbone alone.
    let rules = [
        "trainable_backbone_layers=0",
        "mask_head",
        "keypoint_predictor",
    ];
    let model = freeze(model, &rules).expect("rules that fit");
    let state = FreezeState::from_model(&model);
    let frozen = |part: &str| {
        let frozen = state.frozen().names.into_iter();
        frozen.filter(|name| name.contains(part)).count()
    };
    assert_eq!(
        [
            "mask_head",
            "mask_predictor",
            "keypoint_head",
            "keypoint_predictor"
        ]
        .map(frozen),
        [4, 0, 0, 2]
    );
}

#[test]
fn rules_that_do_not_fit_are_refused() {
    let state = FreezeState::from_model(&model(NormKind::FrozenBatchNorm2d));
    let plan = |rules: &[&str]| FreezePlan::new(state.clone(), &parse(rules).expect("rules"));
    let says = |rules: &[&str], text: &str| {
        let error = plan(rules).expect_err(text).to_string();
        assert!(error.contains(text), "{error}");
    };
    says(
        &["rpn", "thaw box_haed from epoch 9"],
        "the nearest are roi_heads.box_head",
    );
    says(
        &["trainable_backbone_layers=6"],
        "= 6: expected 0 to 5, the backbone's stages (stem, layer1, layer2, layer3, layer4)",
    );
    says(&["bn1"], "buffers only (such as backbone.body.bn1.weight)");
    says(
        &["* from epoch 4"],
        "from epoch 4 on all parameters are frozen",
    );
    let nothing = plan(&["*"]).expect_err("nothing to train");
    assert_eq!(nothing, FreezeError::NothingTrainable { epoch: 1 });

    // The order of epochs counts before that of the list.
    let plan = plan(&[
        "thaw rpn from epoch 3",
        "first:1",
        "rpn",
        "fpn from epoch 3",
    ]);
    let plan = plan.expect("rules that fit");
    let starts: Vec<usize> = plan.stages().iter().map(|(epoch, _)| *epoch).collect();
    assert_eq!(starts, [1, 3]);
    let rpn = plan.at(2).frozen();
    assert_eq!(rpn.names[0], "backbone.body.conv1.weight");
    assert!(rpn.names[1..].iter().all(|name| name.starts_with("rpn.")));
    assert_eq!(rpn.bytes, rpn.elements * 4);
    let fpn = plan.at(3).frozen().names;
    assert!(
        fpn[1..]
            .iter()
            .all(|name| name.starts_with("backbone.fpn."))
    );
}
