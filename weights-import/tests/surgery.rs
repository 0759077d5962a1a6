//! Every operation on a small detector: it runs, trains, and opens again by itself with the same
//! detections, and the report says what became of every parameter.

use std::collections::BTreeMap;

use burn::backend::Autodiff;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Distribution, Tensor, TensorData, backend::AutodiffBackend};
use rand::rngs::StdRng;
use rcnn_backbone::{ResNetArch, ResNetFpnConfig};
use rcnn_detector::surgery::Operation;
use rcnn_detector::{FasterRcnnConfig, StandardFasterRcnn};
use rcnn_ops::Subsample;
use rcnn_ops::backend_types::{Flex, FlexDevice};
use rcnn_roi::BoxHeadConfig;
use rcnn_types::Instances;
use weights_import::{Precision, SurgeryReport, Weights, parameter_shapes};

const DEVICE: FlexDevice = FlexDevice;

/// A ResNet-18 with all its levels, and little behind them.
fn weights() -> Weights {
    let backbone = ResNetFpnConfig {
        arch: ResNetArch::ResNet18,
        out_channels: 8,
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::new(backbone, 4);
    config.rpn.post_nms_top_n_test = 50;
    config.rpn.post_nms_top_n_train = 50;
    config.roi_heads.box_head = BoxHeadConfig::TwoMlp {
        representation_size: 16,
    };
    config.roi_heads.score_thresh = 0.0;
    config.roi_heads.detections_per_img = 20;
    config.transform.min_size = vec![64];
    config.class_names = ["__background__", "a", "b", "c"].map(String::from).into();
    Weights::from_model(&config.init::<Flex>(&DEVICE).expect("a model"))
}

fn operated(weights: &Weights, texts: &[&str]) -> (Weights, SurgeryReport) {
    let operations: Vec<Operation> = (texts.iter())
        .map(|text| text.parse().expect("an operation"))
        .collect();
    weights
        .with_surgery::<Flex>(&operations, &DEVICE)
        .unwrap_or_else(|error| panic!("{texts:?}: {error}"))
}

/// The prefixes that some of the names have, each once.
fn modules<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let module = |name: &String| {
        let name = name.replace("backbone.", "").replace("roi_heads.", "");
        let depth = if name.starts_with("body.") { 3 } else { 2 };
        name.split('.').take(depth).collect::<Vec<_>>().join(".")
    };
    let mut modules: Vec<String> = names.into_iter().map(module).collect();
    modules.dedup();
    modules
}

struct Gradients<'a, B: AutodiffBackend> {
    gradients: &'a B::Gradients,
    with: usize,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Gradients<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.with += usize::from(param.val().grad(self.gradients).is_some());
    }
}

/// Runs, trains a step, saves and opens again; gives the losses.
fn exercise(weights: &Weights, what: &[&str]) -> BTreeMap<&'static str, f64> {
    let image = Tensor::random([3, 60, 80], Distribution::Uniform(0.0, 1.0), &DEVICE);
    let model = weights.load::<Flex>(&DEVICE).expect("a model");
    let found = model
        .detect(std::slice::from_ref(&image))
        .expect("an image");
    assert!(!found[0].is_empty(), "{what:?}: nothing found");

    let folder = tempfile::tempdir().expect("a folder");
    for name in ["model.bpk", "model.safetensors"] {
        let path = folder.path().join(name);
        match name {
            "model.bpk" => weights.write_burnpack(&path, Precision::F32),
            _ => weights.write_safetensors(&path),
        }
        .expect("written");
        let again = Weights::open(&path).expect("weights");
        assert_eq!(again.config, weights.config, "{what:?}");
        let again = again.load::<Flex>(&DEVICE).expect("a model");
        let image = std::slice::from_ref(&image);
        assert_eq!(again.detect(image).expect("an image"), found, "{what:?}");
    }

    let model: StandardFasterRcnn<Autodiff<Flex>> = weights.load(&DEVICE).expect("a model");
    let image = Tensor::from_inner(image);
    let target = Instances::new(vec![[4.0, 6.0, 50.0, 40.0]], vec![1]);
    let losses = model
        .losses::<StdRng>(&[image], &[target], &mut Subsample::First)
        .expect("an image");
    let gradients = losses.total().backward();
    let mut visitor = Gradients {
        gradients: &gradients,
        with: 0,
    };
    model.visit(&mut visitor);
    // Frozen norms have none; all convolutions and linear layers have.
    let trainable = parameter_shapes(&model)
        .iter()
        .filter(|(name, _)| !name.contains("bn") && !name.contains("downsample.1"))
        .count();
    assert_eq!(
        visitor.with, trainable,
        "{what:?}: parameters with gradients"
    );
    let values: BTreeMap<_, _> = losses.values().into_iter().collect();
    let finite = values.values().all(|v| v.is_finite());
    assert!(finite, "{what:?}: {values:?}");
    values
}

#[test]
fn every_operation_gives_a_model_like_any_other() {
    let whole = weights();
    // Operations, modules that are dropped, modules that start anew.
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        (
            &["drop-stage layer4"],
            &[
                "body.layer4.0",
                "body.layer4.1",
                "fpn.inner_blocks",
                "fpn.layer_blocks",
            ],
            &[],
        ),
        (
            &["drop-stage layer2"],
            &[
                "body.layer2.0",
                "body.layer2.1",
                "body.layer3.0",
                "fpn.inner_blocks",
                "fpn.layer_blocks",
            ],
            &["body.layer3.0"],
        ),
        (
            &["drop-stage layer1"],
            &[
                "body.layer1.0",
                "body.layer1.1",
                "fpn.inner_blocks",
                "fpn.layer_blocks",
            ],
            &[],
        ),
        (&["drop-block layer3.1"], &["body.layer3.1"], &[]),
        (&["drop-block layer1.0"], &["body.layer1.0"], &[]),
        (
            &["cut-after layer2"],
            &[
                "body.layer3.0",
                "body.layer3.1",
                "body.layer4.0",
                "body.layer4.1",
                "fpn.inner_blocks",
                "fpn.layer_blocks",
            ],
            &[],
        ),
        (
            &["levels 0,2,3"],
            &["fpn.inner_blocks", "fpn.layer_blocks"],
            &[],
        ),
        (&["box-head fc:16"], &["box_head.fc7"], &[]),
        (
            &["box-head conv:8x2,fc:32"],
            &[
                "box_head.fc6",
                "box_head.fc7",
                "box_predictor.cls_score",
                "box_predictor.bbox_pred",
            ],
            &[
                "box_head.0",
                "box_head.1",
                "box_head.3",
                "box_predictor.cls_score",
                "box_predictor.bbox_pred",
            ],
        ),
        (
            &["box-head none"],
            &[
                "box_head.fc6",
                "box_head.fc7",
                "box_predictor.cls_score",
                "box_predictor.bbox_pred",
            ],
            &["box_predictor.cls_score", "box_predictor.bbox_pred"],
        ),
        (&["no-box-regression"], &["box_predictor.bbox_pred"], &[]),
        (
            &["num-classes 3"],
            &["box_predictor.cls_score", "box_predictor.bbox_pred"],
            &["box_predictor.cls_score", "box_predictor.bbox_pred"],
        ),
        (&["class-names x,y,z"], &[], &[]),
        (&["rpn-convs 0"], &["rpn.head"], &[]),
        (&["rpn-convs 2"], &[], &["rpn.head"]),
        (&["anchors 16;32;64;128;256"], &[], &[]),
        (
            &["anchors 16;32;64;128;256@1"],
            &["rpn.head"],
            &["rpn.head"],
        ),
        (
            &["mask-head conv:8x2"],
            &[],
            &[
                "mask_head.0",
                "mask_head.1",
                "mask_predictor.conv5_mask",
                "mask_predictor.mask_fcn_logits",
            ],
        ),
        (
            &["keypoint-head conv:8/3"],
            &[],
            &["keypoint_head.0", "keypoint_predictor.kps_score_lowres"],
        ),
        (
            &[
                "drop-stage layer4",
                "no-box-regression",
                "box-head fc:16",
                "rpn-convs 0",
                "num-classes 2",
            ],
            &[
                "body.layer4.0",
                "body.layer4.1",
                "fpn.inner_blocks",
                "fpn.layer_blocks",
                "rpn.head",
                "box_head.fc7",
                "box_predictor.cls_score",
                "box_predictor.bbox_pred",
            ],
            &["box_predictor.cls_score"],
        ),
    ];
    for (operations, dropped, initialised) in cases {
        let (changed, report) = operated(&whole, operations);
        assert_eq!(
            modules(&report.dropped),
            *dropped,
            "{operations:?}: dropped"
        );
        let fresh: Vec<String> = report.initialised.iter().map(|(n, ..)| n.clone()).collect();
        assert_eq!(modules(&fresh), *initialised, "{operations:?}: initialised");
        assert_eq!(
            report.kept.len() + report.dropped.len(),
            whole.tensors.len()
        );
        assert_eq!(report.kept.len() + fresh.len(), changed.tensors.len());
        for (before, now) in &report.kept {
            let data = |w: &Weights, name: &String| w.tensors[name].to_data().expect("data");
            assert_eq!(
                data(&whole, before),
                data(&changed, now),
                "{before} -> {now}"
            );
        }
        let losses = exercise(&changed, operations);
        let refines = !operations.contains(&"no-box-regression");
        assert_eq!(
            losses["loss_box_reg"] > 0.0,
            refines,
            "{operations:?}: {losses:?}"
        );
    }
}

#[test]
fn weights_go_by_stage_and_order_not_by_position() {
    let whole = weights();
    let (_, report) = operated(&whole, &["drop-stage layer2"]);
    let pair = |before: &str, now: &str| (before.to_string(), now.to_string());
    let level = |l: usize| format!("backbone.fpn.inner_blocks.{l}.0.weight");
    assert!(report.kept.contains(&pair(&level(2), &level(1))));
    let text = report.to_string();
    assert!(text.contains("kept under another name"), "{text}");
    assert!(
        text.contains("backbone.body.layer3.0.conv1.weight [256, 64, 3, 3], was [256, 128, 3, 3]"),
        "{text}"
    );

    let (_, report) = operated(&whole, &["box-head fc:16"]);
    let head = |layer: &str| format!("roi_heads.box_head.{layer}.weight");
    assert!(report.kept.contains(&pair(&head("fc6"), &head("1"))));
    // Holes: the block behind the dropped one keeps its name.
    let (_, report) = operated(&whole, &["drop-block layer1.0"]);
    let block = "backbone.body.layer1.1.conv1.weight";
    assert!(report.kept.contains(&pair(block, block)));
}

#[test]
fn heads_are_added_to_and_removed_from_a_trained_model() {
    let whole = weights();
    let (with, _) = operated(&whole, &["mask-head conv:8x2", "keypoint-head conv:8/3"]);
    let (other, report) = operated(&with, &["mask-head conv:8"]);
    assert_eq!(modules(&report.dropped), ["mask_head.1"]);
    assert!(report.initialised.is_empty(), "{report}");
    assert_eq!(other.config.roi_heads.mask.as_ref().unwrap().layers, [8]);
    let (without, report) = operated(&with, &["mask-head none", "keypoint-head none"]);
    assert!(report.initialised.is_empty(), "{report}");
    assert_eq!(without.config, whole.config);
    let names = |weights: &Weights| weights.tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&without), names(&whole));

    let image = Tensor::random([3, 60, 80], Distribution::Uniform(0.0, 1.0), &DEVICE);
    let detect = |weights: &Weights| {
        let model = weights.load::<Flex>(&DEVICE).expect("a model");
        let found = model.detect(std::slice::from_ref(&image));
        found.expect("an image").remove(0)
    };
    let (plain, both) = (detect(&without), detect(&with));
    assert!(plain.mask_probabilities.is_none() && plain.keypoints.is_none());
    assert_eq!(both.mask_probabilities.as_ref().unwrap().len(), both.len());
    assert_eq!(both.keypoints.as_ref().unwrap()[0].0.len(), 3);
    // Neither head touches what the boxes are made of.
    assert_eq!(plain, detect(&whole));
    assert_eq!(
        (plain.boxes, plain.labels, plain.scores),
        (both.boxes, both.labels, both.scores)
    );
}

#[test]
fn refusals_name_the_reason() {
    let mut whole = weights();
    let refuse = |weights: &Weights, text: &str| {
        let operation = text.parse().expect("an operation");
        let error = weights.with_surgery::<Flex>(&[operation], &DEVICE);
        match error {
            Ok(_) => panic!("{text} was not refused"),
            Err(error) => error.to_string(),
        }
    };
    assert!(
        refuse(&whole, "drop-block layer2.0").contains("drop one of those, or the whole stage")
    );
    assert!(refuse(&whole, "cut-after layer4").contains("nothing follows"));
    whole.tensors.shift_remove("rpn.head.cls_logits.bias");
    let error = refuse(&whole, "num-classes 3");
    assert!(error.contains("rpn.head.cls_logits.bias"), "{error}");
}

#[test]
fn the_counters_of_a_norm_go_along() {
    let mut whole = weights();
    let counter = "backbone.body.layer1.0.bn1.num_batches_tracked".to_string();
    let data = TensorData::from([7i64]);
    let tensor = weights_import::StateTensor::new(data);
    whole.tensors.insert(counter.clone(), tensor);
    let (changed, _) = operated(&whole, &["num-classes 2"]);
    assert!(changed.tensors.contains_key(&counter));
    changed.load::<Flex>(&DEVICE).expect("a model");
    let (changed, report) = operated(&whole, &["drop-block layer1.0"]);
    assert!(!changed.tensors.contains_key(&counter) && report.dropped.contains(&counter));
}
