//! Half precision: near torchvision's f32, stage by stage, where the device has it; an error where it
//! does not. Selections between the stages are torchvision's, for close scores change places.

use burn::tensor::{DType, FloatDType};
use parity::Fixture;
use rcnn_burn::backbone::Forward;
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::rpn::Proposals;

use crate::{Check, models};

/// Largest difference of a stage's values, relative to the largest value.
const F16: f32 = 0.02;
/// bf16 keeps 8 bits of a number, f16 11.
const BF16: f32 = 0.15;

pub(crate) fn checks<B: DetectionBackend>() -> Vec<Check<B>> {
    let check = |name, dtype, tolerance| {
        Check::new(name, move |device: &B::Device| {
            check::<B>(dtype, tolerance, device)
        })
    };
    vec![
        check("f16", FloatDType::F16, F16),
        check("bf16", FloatDType::BF16, BF16),
    ]
}

fn check<B: DetectionBackend>(dtype: FloatDType, tolerance: f32, device: &B::Device) {
    let fixture = Fixture::open("resnet18_frozen");
    let case = &fixture.settings;
    let model = models::config(case).init::<B>(device).expect("a model");
    let model = models::with_weights(case, model, str::to_string);
    let model = match (B::supports_dtype(device, dtype.into()), model.cast(dtype)) {
        (true, model) => model.expect("a supported precision"),
        (false, Ok(_)) => panic!("{dtype:?} is not supported and no error"),
        (false, Err(error)) => {
            let name = format!("{dtype:?}").to_lowercase();
            assert!(error.to_string().ends_with(&name), "{error}");
            return;
        }
    };
    let images = models::images(case, device);
    let batch = model.transform.forward(&images).expect("images");
    let features = model.features(&batch).expect("feature maps");
    for (name, map) in features.iter() {
        assert_eq!(map.dtype(), DType::from(dtype));
        let map = map.clone().cast(DType::F32);
        fixture.assert_sampled(&format!("features.{name}"), map, tolerance);
    }
    let proposals = |image| Proposals {
        boxes: fixture.boxes(&format!("proposals.{image}")),
        scores: fixture.floats(&format!("proposal_scores.{image}")).1,
    };
    let proposals: Vec<Proposals> = (0..images.len()).map(proposals).collect();
    let pooled = model.pooled_features(&batch, &features, &proposals);
    let branch = model.roi_heads.box_branch();
    let predictions = branch.predict(pooled, &mut Forward::inference());
    let logits = predictions.class_logits.cast(DType::F32);
    fixture.assert_sampled("class_logits", logits, tolerance);
    let deltas = predictions.box_regression.expect("box deltas");
    fixture.assert_sampled("box_regression", deltas.cast(DType::F32), tolerance);

    let detections = model.detect(&images).expect("images");
    for (i, found) in detections.iter().enumerate() {
        let expected = models::expected_detections(&fixture, i).len() as f64;
        let ratio = found.len() as f64 / expected;
        assert!(
            (0.8..1.25).contains(&ratio),
            "image {i}: {ratio} as many detections"
        );
    }
}
