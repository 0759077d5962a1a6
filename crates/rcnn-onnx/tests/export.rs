//! Exported files, and what cannot be exported.

mod tiny;

use std::fs;

use rcnn_detector::FasterRcnnConfig;
use rcnn_onnx::{
    FixedShape, OnnxError, OnnxInput, OnnxOptions, OnnxPart, Pooling, onnx_as_recorded,
};
use rcnn_roi::{NmsMethod, PoolMethod};
use rcnn_types::{BoxRules, Size};
use tiny::{Kind, config, models, roi_pool, tensorflow};

fn exported(
    config: &FasterRcnnConfig,
    kind: Kind,
    options: &OnnxOptions,
) -> Result<Vec<u8>, OnnxError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    let (model, recorded) = models(config, kind);
    let written = onnx_as_recorded(&model, &recorded, options, &path);
    let files = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(files, usize::from(written.is_ok()));
    written.map(|()| fs::read(path).expect("a file"))
}

#[test]
fn the_same_model_gives_the_same_file_and_half_weights_a_smaller_one() {
    let file = |half_weights| {
        let options = OnnxOptions {
            half_weights,
            ..OnnxOptions::default()
        };
        exported(&config(), Kind::Plain, &options).expect("a file")
    };
    assert!(file(false) == file(false));
    assert!(file(true).len() < file(false).len());
}

#[test]
fn what_can_not_be_exported_is_named_and_leaves_no_file() {
    let error = exported(&config(), Kind::Odd, &OnnxOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("Sin cannot be exported"), "{error}");
    let mut soft = config();
    soft.roi_heads.nms_method = NmsMethod::SoftLinear;
    let error = exported(&soft, Kind::Plain, &OnnxOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("box_nms_method = \"soft_linear\""),
        "{error}"
    );
}

#[test]
fn every_kind_of_file_passes_the_second_reader() {
    let fixed = Some(FixedShape {
        batch: 2,
        size: Size::new(40, 70),
    });
    let default = OnnxOptions::default;
    let pooling = Pooling::Gather;
    let kinds = [
        OnnxOptions { fixed, ..default() },
        OnnxOptions {
            pooling,
            ..default()
        },
        OnnxOptions {
            fixed,
            pooling,
            ..default()
        },
        OnnxOptions {
            input: OnnxInput::Image,
            ..default()
        },
        OnnxOptions {
            part: OnnxPart::Body,
            ..default()
        },
        OnnxOptions {
            part: OnnxPart::Body,
            fixed,
            ..default()
        },
        OnnxOptions {
            opset: 21,
            ..default()
        },
    ];
    let tensorflow = |rules| (tensorflow(rules), Kind::Same);
    let models = [
        (config(), Kind::Plain),
        tensorflow(BoxRules::Tensorflow2018),
        tensorflow(BoxRules::Tensorflow2019),
        (roi_pool(), Kind::Plain),
    ];
    for (config, kind) in &models {
        for options in &kinds {
            let method = config.roi_heads.box_roi_pool.method;
            if (method, options.pooling) == (PoolMethod::RoiPool, Pooling::Gather) {
                continue;
            }
            let file = exported(config, *kind, options);
            assert!(file.is_ok(), "{method:?}, {options:?}: {:?}", file.err());
        }
    }
}

/// The number of anchors overflowed, and the sizes of a file were negative.
#[test]
fn batches_that_no_machine_computes_are_refused() {
    let fault = |batch, height, width, input| {
        let size = Size::new(height, width);
        let fixed = Some(FixedShape { batch, size });
        let options = OnnxOptions {
            fixed,
            input,
            ..OnnxOptions::default()
        };
        let error = exported(&config(), Kind::Plain, &options);
        error.expect_err("too large").to_string()
    };
    for error in [
        fault(usize::MAX, 64, 64, OnnxInput::Tensor),
        fault(1, 40_000, 40_000, OnnxInput::Tensor),
    ] {
        assert!(error.contains("pixels in a batch"), "{error}");
    }
    for input in [OnnxInput::Tensor, OnnxInput::Image] {
        let error = fault(1, usize::MAX, 2, input);
        assert!(error.contains("x2 pixels: expected 1 to"), "{error}");
    }
}

#[test]
fn options_that_contradict_each_other_are_named() {
    let fault = |options: OnnxOptions| {
        exported(&config(), Kind::Plain, &options)
            .unwrap_err()
            .to_string()
    };
    let default = OnnxOptions::default;
    let error = fault(OnnxOptions {
        opset: 12,
        ..default()
    });
    assert_eq!(error, "opset 12: expected 13 to 21");
    let input = OnnxInput::Image;
    let size = Size::new(40, 70);
    let error = fault(OnnxOptions {
        input,
        fixed: Some(FixedShape { batch: 2, size }),
        ..default()
    });
    assert!(error.contains("the batch must be 1"), "{error}");
    let fixed = |batch, size| OnnxOptions {
        fixed: Some(FixedShape { batch, size }),
        ..default()
    };
    let error = fault(fixed(1, Size::new(0, 70)));
    assert!(error.contains("0x70 pixels: expected 1 to"), "{error}");
    let error = fault(OnnxOptions {
        input,
        part: OnnxPart::Body,
        ..default()
    });
    assert!(error.contains("no image input"), "{error}");
    let mut adaptive = config();
    adaptive.roi_heads.box_roi_pool.sampling_ratio = 0;
    let options = OnnxOptions {
        pooling: Pooling::Gather,
        ..default()
    };
    let error = exported(&adaptive, Kind::Plain, &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("sampling_ratio = 0"), "{error}");
    let error = exported(&roi_pool(), Kind::Plain, &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("roi_pool.method = roi_pool"), "{error}");
    assert!(error.contains("MaxRoiPool"), "{error}");
}
