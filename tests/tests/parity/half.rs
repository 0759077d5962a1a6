//! Half precision: near torchvision's f32 where the device has it, an error where it does not.

use burn::tensor::FloatDType;
use parity::Fixture;
use rcnn_burn::ops::DetectionBackend;

use crate::{Check, models};

/// Largest difference of boxes in pixels, and of scores.
const F16: (f32, f32) = (1.0, 0.02);
/// bf16 keeps 8 bits of a number, f16 11.
const BF16: (f32, f32) = (8.0, 0.1);
/// Share of torchvision's detections that must be found: close scores may change places.
const FOUND: f64 = 0.9;

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

fn check<B: DetectionBackend>(dtype: FloatDType, (pixels, scores): (f32, f32), device: &B::Device) {
    let fixture = Fixture::open("resnet18_frozen");
    let case = &fixture.settings;
    let model = models::config(case).init::<B>(device).expect("a model");
    let model = models::with_weights(case, model, str::to_string);
    let model = match (B::supports_dtype(device, dtype.into()), model.cast(dtype)) {
        (true, model) => model.expect("a supported precision"),
        (false, Ok(_)) => panic!("{dtype:?} is not supported and no error"),
        (false, Err(error)) => {
            assert!(error.to_string().contains(&format!("{dtype:?}")), "{error}");
            return;
        }
    };
    let detections = model.detect(&models::images(case, device)).expect("images");
    for (i, found) in detections.iter().enumerate() {
        let expected = models::expected_detections(&fixture, i);
        assert!(!expected.is_empty());
        let close = |&(bbox, label, score): &([f32; 4], usize, f32)| {
            found.iter().any(|(b, l, s)| {
                let near = b.iter().zip(bbox).all(|(b, e)| (b - e).abs() <= pixels);
                near && l == label && (s - score).abs() <= scores
            })
        };
        let count = expected.iter().filter(close).count();
        assert!(
            count as f64 >= FOUND * expected.len() as f64,
            "image {i}: {count} of {} detections",
            expected.len()
        );
    }
}
