//! Freezing: torchvision's lists of frozen parameters for every number of trainable layers.

use std::collections::BTreeMap;

use parity::Fixture;
use rcnn_burn::backbone::NormKind;
use rcnn_burn::freeze::{Change, FreezeState};
use rcnn_burn::{FasterRcnnConfig, Flex};
use serde::Deserialize;

/// `frozen[n]` of the first `names` are frozen with n trainable layers.
#[derive(Deserialize)]
struct Frozen {
    names: Vec<String>,
    frozen: Vec<usize>,
}

pub(crate) fn trainable_backbone_layers() {
    let cases: BTreeMap<String, Frozen> = Fixture::json("frozen_names");
    assert_eq!(cases.len(), 14);
    for (case, expected) in cases {
        let (arch, norm) = case.split_once('/').expect("architecture and norm");
        let mut config = FasterRcnnConfig::named(arch, 2).expect("a backbone");
        let backbone = config.backbone.architecture_mut().expect("known");
        backbone.set_norm(match norm {
            "batch" => NormKind::BatchNorm2d,
            _ => NormKind::FrozenBatchNorm2d,
        });
        let stages = backbone.stages().len();
        let model = config.init::<Flex>(&Default::default());
        let start = FreezeState::from_model(&model.expect("a model"));
        assert_eq!(expected.frozen.len(), stages + 1);
        for (count, frozen) in expected.frozen.into_iter().enumerate() {
            let mut state = start.clone();
            let change = Change::TrainableBackboneLayers(count);
            state.change(&change).expect("that many stages");
            assert_eq!(
                state.frozen().names,
                expected.names[..frozen],
                "{case}/{count}"
            );
        }
    }
}
