//! Operations on awkward inputs: no boxes, boxes on and over the border, ties, one-pixel maps.

use std::sync::LazyLock;

use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use parity::{Fixture, assert_close};
use rcnn_burn::backbone::FeatureMaps;
use rcnn_burn::ops::{
    self, BBox, BoxCoder, ConvEpilogue, DetectionBackend, RoiAlignOptions, RoiPoolOptions,
};
use rcnn_burn::roi::{LevelMapper, MultiScaleRoiAlign};
use rcnn_burn::rpn::AnchorGenerator;
use rcnn_burn::{GeneralizedRcnnTransform, Instances, Size};
use serde::de::DeserializeOwned;

use crate::Named;

static OPS: LazyLock<Fixture> = LazyLock::new(|| Fixture::open("ops"));
const EXACT: f32 = 0.0;

/// Operations of the fixture and their numbers of cases. All are compared below; `infer_scale` as a part
/// of `multiscale_roi_align`.
const CASES: [(&str, usize); 18] = [
    ("anchors", 5),
    ("batched_nms", 9),
    ("box_area", 1),
    ("box_decode", 4),
    ("box_encode", 4),
    ("box_iou", 3),
    ("clip_boxes_to_image", 3),
    ("infer_scale", 1),
    ("level_mapper", 3),
    ("multiscale_roi_align", 7),
    ("nms", 21),
    ("remove_small_boxes", 5),
    ("resize_bilinear", 10),
    ("resize_boxes", 3),
    ("resize_nearest", 4),
    ("resize_size", 2),
    ("roi_align", 68),
    ("roi_pool", 12),
];

/// What runs on the host alone.
pub(crate) fn host_checks() -> Vec<(&'static str, fn())> {
    vec![
        ("every_case_is_compared", || OPS.assert_cases(&CASES)),
        ("box_area_and_iou", box_area_and_iou),
        ("clip_and_remove_small", clip_and_remove_small),
        ("suppression", suppression),
        ("level_mapper", level_mapper),
        ("resized_sizes_and_boxes", resized_sizes_and_boxes),
    ]
}

/// What runs on a backend.
pub(crate) fn checks<B: DetectionBackend>() -> Vec<Named<B>> {
    vec![
        ("box_iou", box_iou::<B>),
        ("grouped_nms", grouped_nms::<B>),
        ("box_coder", box_coder::<B>),
        ("anchors", anchors::<B>),
        ("roi_align", roi_align::<B>),
        ("roi_pool", roi_pool::<B>),
        ("multiscale_roi_align", multiscale_roi_align::<B>),
        ("resize_bilinear", resize_bilinear::<B>),
        ("resize_nearest", resize_nearest::<B>),
    ]
}

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

fn tensor<B: Backend, const D: usize>(case: &str, name: &str, device: &B::Device) -> Tensor<B, D> {
    OPS.tensor(&format!("{case}/{name}"), device)
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().into_vec().expect("f32")
}

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

fn box_iou<B: DetectionBackend>(device: &B::Device) {
    for_cases("box_iou", |case| {
        let boxes = |name| tensor::<B, 2>(case, name, device);
        let found = values(ops::box_iou_matrix(boxes("boxes1"), boxes("boxes2")));
        assert_close(case, &found, &floats(case, "iou"), 1e-6);
    });
}

/// Boxes of each class by themselves, shorter classes filled up with boxes that are left out.
fn grouped_nms<B: DetectionBackend>(device: &B::Device) {
    let check = |case: &str, classes: Vec<usize>| {
        let (all, scores) = (boxes(case, "boxes"), floats(case, "scores"));
        let members = |class: usize| (0..all.len()).filter(|&i| classes[i] == class).collect();
        let groups = classes.iter().max().map_or(1, |most| most + 1);
        let groups: Vec<Vec<usize>> = (0..groups).map(members).collect();
        let longest = groups.iter().map(Vec::len).max().unwrap_or(0);
        let (mut group_boxes, mut group_scores) = (Vec::new(), Vec::new());
        for group in &groups {
            group_boxes.extend(group.iter().flat_map(|&i| all[i]));
            group_scores.extend(group.iter().map(|&i| scores[i]));
            let missing = longest - group.len();
            group_boxes.extend(std::iter::repeat_n(0.0, missing * 4));
            group_scores.extend(std::iter::repeat_n(-1.0, missing));
        }
        let shape = [groups.len(), longest];
        let boxes = TensorData::new(group_boxes, [shape[0], longest, 4]);
        let found = ops::grouped_nms(
            Tensor::<B, 3>::from_data(boxes, device),
            Tensor::<B, 2>::from_data(TensorData::new(group_scores, shape), device),
            setting(case, "iou_threshold"),
        );
        let flags = found.into_data().convert::<i32>();
        let flags: Vec<i32> = flags.into_vec().expect("i32");
        let kept = |(group, flags): (&Vec<usize>, &[i32])| {
            let flagged = group.iter().zip(flags).filter(|(_, flag)| **flag == 1);
            flagged.map(|(i, _)| *i).collect::<Vec<_>>()
        };
        let found = groups
            .iter()
            .zip(flags.chunks(longest.max(1)))
            .flat_map(kept);
        let mut found: Vec<usize> = found.collect();
        let mut expected = ints(case, "keep");
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{case}");
    };
    for_cases("nms", |case| {
        check(case, vec![0; boxes(case, "boxes").len()])
    });
    for_cases("batched_nms", |case| {
        // See `suppression`.
        if !case.ends_with("negative_coordinates") {
            check(case, ints(case, "classes"));
        }
    });
}

fn box_coder<B: DetectionBackend>(device: &B::Device) {
    let tensor = |case: &str, name: &str| tensor::<B, 2>(case, name, device);
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
        let (codes, anchors) = (tensor(case, "codes"), tensor(case, "anchors"));
        let found = coder.decode(codes.clone(), anchors.clone());
        let expected = floats(case, "boxes");
        assert_close(case, &values(found), &expected, 1e-6);
        let sizes = Tensor::<B, 1>::from_floats([60.0, 70.0], device);
        let sizes = sizes.unsqueeze::<2>().repeat_dim(0, codes.dims()[0]);
        let found = coder.decode_clipped(codes, anchors, sizes);
        let clip = |b: &[f32]| ops::clip_box(&[b[0], b[1], b[2], b[3]], Size::new(60, 70));
        let expected: Vec<f32> = expected.chunks(4).flat_map(clip).collect();
        assert_close(case, &values(found), &expected, 2e-6);
    });
}

fn anchors<B: DetectionBackend>(device: &B::Device) {
    for_cases("anchors", |case| {
        let generator = AnchorGenerator {
            sizes: setting(case, "sizes"),
            aspect_ratios: setting(case, "aspect_ratios"),
            strides: None,
        };
        let image: Size = setting(case, "image_size");
        let grids: Vec<Size> = setting(case, "grids");
        let levels = grids.into_iter().enumerate().map(|(level, grid)| {
            let stride = Size::new(image.height / grid.height, image.width / grid.width);
            generator.grid_anchors::<B>(level, grid, stride, device)
        });
        let found = values(Tensor::cat(levels.collect(), 0));
        assert_close(case, &found, &floats(case, "anchors"), EXACT);
    });
}

/// Checks output and gradient of a pooling operation.
fn check_pool<B: DetectionBackend>(
    case: &str,
    device: &B::Device,
    pool: impl Fn(Tensor<Autodiff<B>, 4>, Tensor<Autodiff<B>, 2>) -> Tensor<Autodiff<B>, 4>,
) {
    let features = tensor::<Autodiff<B>, 4>(case, "input", device).require_grad();
    let output = pool(features.clone(), tensor(case, "rois", device));
    let (shape, expected) = OPS.floats(&format!("{case}/output"));
    assert_eq!(output.dims().to_vec(), shape, "{case}");
    assert_close(case, &values(output.clone().inner()), &expected, 2e-6);
    if expected.is_empty() {
        return;
    }
    let upstream = tensor(case, "upstream", device);
    let gradients = (output * upstream).sum().backward();
    let found = features.grad(&gradients).expect("a gradient");
    assert_close(case, &values(found), &floats(case, "input_grad"), 2e-6);
}

fn roi_align<B: DetectionBackend>(device: &B::Device) {
    for_cases("roi_align", |case| {
        let options = RoiAlignOptions {
            output_size: setting(case, "output_size"),
            spatial_scale: setting(case, "spatial_scale"),
            sampling_ratio: setting::<i64>(case, "sampling_ratio").max(0) as usize,
            aligned: setting(case, "aligned"),
        };
        check_pool::<B>(case, device, |features, rois| {
            ops::roi_align(features, rois, options)
        });
    });
}

fn roi_pool<B: DetectionBackend>(device: &B::Device) {
    for_cases("roi_pool", |case| {
        let options = RoiPoolOptions {
            output_size: setting(case, "output_size"),
            spatial_scale: setting(case, "spatial_scale"),
        };
        check_pool::<B>(case, device, |features, rois| {
            ops::roi_pool(features, rois, options)
        });
    });
}

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

fn multiscale_roi_align<B: DetectionBackend>(device: &B::Device) {
    for_cases("multiscale_roi_align", |case| {
        let maps = ["0", "1", "2", "3", "pool"].into_iter().filter_map(|name| {
            let key = format!("{case}/features.{name}");
            OPS.has(&key)
                .then(|| (name.to_string(), OPS.tensor::<B, 4>(&key, device)))
        });
        let features = FeatureMaps::new(maps.collect());
        let sizes: Vec<Size> = setting(case, "image_sizes");
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

fn resized_sizes_and_boxes() {
    let resized = |row: &[usize]| {
        let transform = GeneralizedRcnnTransform {
            min_size: vec![row[2]],
            max_size: row[3],
            ..Default::default()
        };
        transform.resized(Size::new(row[0], row[1]))
    };
    let rows = ints("resize_size/table", "sizes");
    assert!(!rows.is_empty(), "no sizes");
    for row in rows.chunks_exact(6) {
        assert_eq!(resized(row), Size::new(row[4], row[5]), "{row:?}");
    }
    // Where torchvision fails, for a side would have no pixel, it has one.
    let rows = ints("resize_size/refused", "sizes");
    assert!(!rows.is_empty(), "no sizes that torchvision refuses");
    for row in rows.chunks_exact(4) {
        let Size { height, width } = resized(row);
        assert_eq!(height.min(width), 1, "{row:?}");
        assert!(height.max(width) <= row[3], "{row:?}");
    }
    for_cases("resize_boxes", |case| {
        let boxes = |key| boxes(case, key);
        let mut found = Instances::new(boxes("boxes"), Vec::new());
        found.resize(setting(case, "from"), setting(case, "to"));
        assert_eq!(found.boxes, boxes("resized"), "{case}");
    });
}

fn resize_bilinear<B: DetectionBackend>(device: &B::Device) {
    for_cases("resize_bilinear", |case| {
        let transform = GeneralizedRcnnTransform {
            fixed_size: Some(setting(case, "size")),
            image_mean: [0.0; 3],
            image_std: [1.0; 3],
            size_divisible: 1,
            ..Default::default()
        };
        let found = transform
            .forward(&[tensor::<B, 3>(case, "input", device)])
            .expect("an image");
        assert_close(case, &values(found.tensors), &floats(case, "output"), 2e-6);
    });
}

/// The pyramid's upsampling, which is the residual of a convolution.
fn resize_nearest<B: DetectionBackend>(device: &B::Device) {
    for_cases("resize_nearest", |case| {
        let [height, width]: [usize; 2] = setting(case, "size");
        let map = tensor::<B, 3>(case, "input", device).unsqueeze::<4>();
        let channels = map.dims()[1];
        let epilogue = ConvEpilogue {
            residual: Some(map),
            ..Default::default()
        };
        let found = epilogue.apply(Tensor::zeros([1, channels, height, width], device));
        assert_close(case, &values(found), &floats(case, "output"), EXACT);
    });
}
