//! Operations on awkward inputs: no boxes, boxes on and over the border, ties, one-pixel maps.

use std::sync::LazyLock;

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use parity::{Fixture, assert_close};
use rcnn_burn::backbone::FeatureMaps;
use rcnn_burn::ops::backend_types::{Flex, FlexDevice};
use rcnn_burn::ops::{self, BBox, BoxCoder, RoiAlignOptions, RoiPoolOptions};
use rcnn_burn::roi::{LevelMapper, MultiScaleRoiAlign};
use rcnn_burn::rpn::AnchorGenerator;
use rcnn_burn::{GeneralizedRcnnTransform, ImageSize};
use serde::de::DeserializeOwned;

static OPS: LazyLock<Fixture> = LazyLock::new(|| Fixture::open("ops"));
const DEVICE: FlexDevice = FlexDevice;
const EXACT: f32 = 0.0;

fn for_cases(operation: &str, check: impl Fn(&str)) {
    OPS.for_cases(operation, check);
}

fn setting<T: DeserializeOwned>(case: &str, name: &str) -> T {
    OPS.setting(case, name)
}

fn boxes(case: &str, name: &str) -> Vec<BBox> {
    OPS.boxes(&format!("{case}/{name}"))
}

fn floats(case: &str, name: &str) -> Vec<f32> {
    OPS.floats(&format!("{case}/{name}")).1
}

fn ints(case: &str, name: &str) -> Vec<usize> {
    OPS.ints(&format!("{case}/{name}"))
}

fn tensor<const D: usize>(case: &str, name: &str) -> Tensor<Flex, D> {
    OPS.tensor(&format!("{case}/{name}"), &DEVICE)
}

fn values<const D: usize>(tensor: Tensor<Flex, D>) -> Vec<f32> {
    tensor.into_data().into_vec().expect("f32")
}

#[test]
fn box_area_and_iou() {
    for_cases("box_area", |case| {
        let found: Vec<f32> = boxes(case, "boxes").iter().map(ops::box_area).collect();
        assert_close(case, &found, &floats(case, "areas"), EXACT);
    });
    for_cases("box_iou", |case| {
        let (a, b) = (boxes(case, "boxes1"), boxes(case, "boxes2"));
        let pairs = a
            .iter()
            .flat_map(|a| b.iter().map(move |b| ops::box_iou(a, b)));
        assert_close(case, &pairs.collect::<Vec<_>>(), &floats(case, "iou"), 1e-6);
    });
}

#[test]
fn clip_and_remove_small() {
    for_cases("clip_boxes_to_image", |case| {
        let mut found = boxes(case, "boxes");
        ops::clip_boxes_to_image(&mut found, setting(case, "size"));
        assert_eq!(found, boxes(case, "clipped"), "{case}");
    });
    for_cases("remove_small_boxes", |case| {
        let found = ops::remove_small_boxes(&boxes(case, "boxes"), setting(case, "min_size"));
        assert_eq!(found, ints(case, "keep"), "{case}");
    });
}

#[test]
fn suppression() {
    for_cases("nms", |case| {
        let scores = floats(case, "scores");
        let found = ops::nms(
            &boxes(case, "boxes"),
            &scores,
            setting(case, "iou_threshold"),
        );
        assert_eq!(found, ints(case, "keep"), "{case}");
    });
    for_cases("batched_nms", |case| {
        let (scores, classes) = (floats(case, "scores"), ints(case, "classes"));
        let threshold = setting(case, "iou_threshold");
        let found = ops::batched_nms(&boxes(case, "boxes"), &scores, &classes, threshold);
        if case.ends_with("negative_coordinates") {
            // torchvision moves each class aside by the largest coordinate instead of comparing
            // classes, so below zero boxes of two classes meet, against its own documentation.
            assert_eq!(found, [0, 1]);
            return;
        }
        assert_eq!(found, ints(case, "keep"), "{case}");
    });
}

#[test]
fn box_coder() {
    for_cases("box_encode", |case| {
        let coder = BoxCoder {
            weights: setting(case, "weights"),
        };
        let found = coder.encode(tensor(case, "boxes"), tensor(case, "anchors"));
        assert_close(case, &values(found), &floats(case, "codes"), 1e-6);
    });
    for_cases("box_decode", |case| {
        let coder = BoxCoder {
            weights: setting(case, "weights"),
        };
        let found = coder.decode(tensor(case, "codes"), tensor(case, "anchors"));
        assert_close(case, &values(found), &floats(case, "boxes"), 1e-6);
    });
}

#[test]
fn anchors() {
    for_cases("anchors", |case| {
        let generator = AnchorGenerator {
            sizes: setting(case, "sizes"),
            aspect_ratios: setting(case, "aspect_ratios"),
        };
        let image: ImageSize = setting(case, "image_size");
        let grids: Vec<ImageSize> = setting(case, "grids");
        let levels = grids.into_iter().enumerate().map(|(level, grid)| {
            let stride = (image.0 / grid.0, image.1 / grid.1);
            generator.grid_anchors::<Flex>(level, grid, stride, &DEVICE)
        });
        let found = values(Tensor::cat(levels.collect(), 0));
        assert_close(case, &found, &floats(case, "anchors"), EXACT);
    });
}

/// Checks output and gradient of a pooling operation.
fn check_pool(
    case: &str,
    pool: impl Fn(Tensor<Autodiff<Flex>, 4>, Tensor<Autodiff<Flex>, 2>) -> Tensor<Autodiff<Flex>, 4>,
) {
    let features = Tensor::from_inner(tensor::<4>(case, "input")).require_grad();
    let output = pool(features.clone(), Tensor::from_inner(tensor(case, "rois")));
    let (shape, expected) = OPS.floats(&format!("{case}/output"));
    assert_eq!(output.dims().to_vec(), shape, "{case}");
    assert_close(case, &values(output.clone().inner()), &expected, 2e-6);
    if expected.is_empty() {
        return;
    }
    let upstream = Tensor::from_inner(tensor::<4>(case, "upstream"));
    let gradients = (output * upstream).sum().backward();
    let found = features.grad(&gradients).expect("a gradient");
    assert_close(case, &values(found), &floats(case, "input_grad"), 2e-6);
}

#[test]
fn roi_align() {
    for_cases("roi_align", |case| {
        let options = RoiAlignOptions {
            output_size: setting(case, "output_size"),
            spatial_scale: setting(case, "spatial_scale"),
            sampling_ratio: setting::<i64>(case, "sampling_ratio").max(0) as usize,
            aligned: setting(case, "aligned"),
        };
        check_pool(case, |features, rois| {
            ops::roi_align(features, rois, options)
        });
    });
}

#[test]
fn roi_pool() {
    for_cases("roi_pool", |case| {
        let options = RoiPoolOptions {
            output_size: setting(case, "output_size"),
            spatial_scale: setting(case, "spatial_scale"),
        };
        check_pool(case, |features, rois| {
            ops::roi_pool(features, rois, options)
        });
    });
}

#[test]
fn level_mapper() {
    for_cases("level_mapper", |case| {
        let mapper = LevelMapper {
            k_min: setting(case, "k_min"),
            k_max: setting(case, "k_max"),
            canonical_scale: setting(case, "canonical_scale"),
            canonical_level: setting(case, "canonical_level"),
        };
        let found: Vec<usize> = boxes(case, "boxes")
            .iter()
            .map(|b| mapper.level(b))
            .collect();
        assert_eq!(found, ints(case, "levels"), "{case}");
    });
}

#[test]
fn multiscale_roi_align() {
    for_cases("multiscale_roi_align", |case| {
        let maps = ["0", "1", "2", "3", "pool"].into_iter().filter_map(|name| {
            let key = format!("{case}/features.{name}");
            OPS.has(&key)
                .then(|| (name.to_string(), OPS.tensor::<Flex, 4>(&key, &DEVICE)))
        });
        let features = FeatureMaps::new(maps.collect());
        let sizes: Vec<ImageSize> = setting(case, "image_sizes");
        let boxes: Vec<_> = (0..sizes.len())
            .map(|i| boxes(case, &format!("boxes.{i}")))
            .collect();
        let boxes: Vec<&[BBox]> = boxes.iter().map(Vec::as_slice).collect();
        let mut pool = MultiScaleRoiAlign {
            featmap_names: setting(case, "featmap_names"),
            output_size: setting(case, "output_size"),
            sampling_ratio: setting::<i64>(case, "sampling_ratio").max(0) as usize,
            ..Default::default()
        };
        if !OPS.settings[case]["canonical_scale"].is_null() {
            pool.canonical_scale = setting(case, "canonical_scale");
            pool.canonical_level = setting(case, "canonical_level");
        }
        let found = pool.forward(&features, &boxes, &sizes);
        let (shape, expected) = OPS.floats(&format!("{case}/output"));
        assert_eq!(found.dims().to_vec(), shape, "{case}");
        assert_close(case, &values(found), &expected, 2e-6);
    });
}

#[test]
fn resize() {
    for row in ints("resize_size/table", "sizes").chunks_exact(6) {
        let transform = GeneralizedRcnnTransform {
            min_size: vec![row[2]],
            max_size: row[3],
            ..Default::default()
        };
        assert_eq!(
            transform.resized((row[0], row[1])),
            (row[4], row[5]),
            "{row:?}"
        );
    }
    for_cases("resize_boxes", |case| {
        let mut found = boxes(case, "boxes");
        let (from, to) = (setting(case, "from"), setting(case, "to"));
        GeneralizedRcnnTransform::resize_boxes(&mut found, from, to);
        assert_eq!(found, boxes(case, "resized"), "{case}");
    });
    for_cases("resize_bilinear", |case| {
        let (height, width): ImageSize = setting(case, "size");
        let transform = GeneralizedRcnnTransform {
            fixed_size: Some((width, height)),
            image_mean: [0.0; 3],
            image_std: [1.0; 3],
            size_divisible: 1,
            ..Default::default()
        };
        let found = transform
            .forward(&[tensor::<3>(case, "input")])
            .expect("an image");
        assert_close(case, &values(found.tensors), &floats(case, "output"), 2e-6);
    });
}
