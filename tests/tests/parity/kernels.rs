//! Every operation of a backend against the default bodies, on Flex, over awkward shapes.

use burn::backend::Autodiff;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive, backend::Backend};
use rcnn_burn::ops::backend_types::{Flex, FlexDevice};
use rcnn_burn::ops::{
    BoxCoder, DetectionBackend, RoiAlignOptions, RoiLevel, RoiPoolOptions, box_iou_matrix,
    crop_and_max_pool, grouped_nms, multi_scale_roi_align, reference, roi_align, roi_pool, top_k,
};

use rcnn_burn::types::Size;

use crate::Named;

/// Every check of this file, by name.
pub(crate) fn checks<B: DetectionBackend>() -> Vec<Named<B>> {
    vec![
        ("roi_align", check_roi_align::<B>),
        ("roi_pool", check_roi_pool::<B>),
        ("crops", check_crops::<B>),
        ("rois_of_a_view", check_rois_of_a_view::<B>),
        ("no_boxes", check_no_boxes::<B>),
        ("top_k", check_top_k::<B>),
        ("decode_boxes", check_decode_boxes::<B>),
        ("box_iou", check_box_iou::<B>),
        ("grouped_nms", check_grouped_nms::<B>),
    ]
}

/// Values between 0 and 1, distinct enough, always the same.
pub(crate) fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| next()).collect()
}

/// Boxes inside an image of `[height, width]` pixels and over its border.
fn boxes(count: usize, [height, width]: [f32; 2], seed: u32) -> Vec<f32> {
    let corner = |n: &[f32]| {
        let (x, y) = (
            n[0] * width * 1.2 - width * 0.1,
            n[1] * height * 1.2 - height * 0.1,
        );
        [x, y, x + n[2] * n[2] * width, y + n[3] * n[3] * height]
    };
    noise(count * 4, seed).chunks(4).flat_map(corner).collect()
}

pub(crate) fn tensor<B: Backend, const D: usize>(
    values: &[f32],
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// A tensor of the reference's.
fn flex<const D: usize>(values: &[f32], shape: [usize; D]) -> FloatTensor<Flex> {
    tensor::<Flex, D>(values, shape, &FlexDevice)
        .into_primitive()
        .tensor()
}

fn float_data<const D: usize>(primitive: FloatTensor<Flex>) -> TensorData {
    Tensor::<Flex, D>::from_primitive(TensorPrimitive::Float(primitive)).into_data()
}

fn int_data<B: Backend, const D: usize>(tensor: Tensor<B, D, Int>) -> TensorData {
    tensor.into_data().convert::<i32>()
}

fn assert_close<B: Backend, const D: usize>(what: &str, found: Tensor<B, D>, expected: TensorData) {
    let found = found.into_data().convert::<f32>();
    assert_eq!(found.shape, expected.shape, "{what}");
    let pairs = found.iter::<f32>().zip(expected.iter::<f32>());
    for (i, (f, e)) in pairs.enumerate() {
        let same = (f.is_nan() && e.is_nan()) || (f - e).abs() <= 1e-5 * (1.0 + e.abs());
        assert!(same, "{what}[{i}]: found {f}, the reference has {e}");
    }
}

/// A feature map, and boxes on it.
struct Pooled {
    name: &'static str,
    shape: [usize; 4],
    rois: Vec<f32>,
}

impl Pooled {
    fn all() -> Vec<Self> {
        // Inside, over the border, outside, tiny, whole, reversed, on the border.
        let awkward = [
            [0.0, 1.2, 2.3, 8.1, 6.4],
            [0.0, -3.0, -2.0, 4.0, 12.0],
            [0.0, 30.0, 30.0, 40.0, 40.0],
            [0.0, 3.2, 3.2, 3.3, 3.4],
            [1.0, 0.0, 0.0, 14.7, 12.0],
            [0.0, 6.0, 5.0, 2.0, 1.0],
            [0.0, 14.0, 11.5, 14.7, 12.0],
            [0.0, 0.0, 0.0, 0.0, 0.0],
        ];
        let hundreds = boxes(300, [26.0, 46.0], 7);
        let hundreds = hundreds
            .chunks(4)
            .flat_map(|b| [0.0, b[0], b[1], b[2], b[3]]);
        vec![
            Self {
                name: "awkward boxes",
                shape: [2, 3, 9, 11],
                rois: awkward.into_iter().flatten().collect(),
            },
            Self {
                name: "no boxes",
                shape: [2, 3, 9, 11],
                rois: vec![],
            },
            Self {
                name: "one box",
                shape: [1, 1, 9, 11],
                rois: vec![0.0, 1.0, 1.0, 9.0, 5.0],
            },
            Self {
                name: "maps of one pixel",
                shape: [2, 9, 1, 1],
                rois: vec![
                    0.0, 0.0, 0.0, 1.3, 1.3, 1.0, -1.0, -1.0, 0.5, 0.2, 1.0, 0.4, 0.4, 9.0, 9.0,
                ],
            },
            Self {
                name: "hundreds of boxes on one image and none on the next",
                shape: [2, 9, 20, 35],
                rois: hundreds.collect(),
            },
        ]
    }

    /// Values of the feature map; each another, so that RoIPool's maxima are unique.
    fn features(&self) -> Vec<f32> {
        let count: usize = self.shape.iter().product();
        let value = |i: usize| (i * 271 % count) as f32 / count as f32 * 2.0 - 1.0;
        (0..count).map(value).collect()
    }

    fn count(&self) -> usize {
        self.rois.len() / 5
    }

    /// Pooled values, and the features' gradient given that of the values. Boxes get none.
    fn pool<B: DetectionBackend>(
        &self,
        grad: &[f32],
        device: &B::Device,
        pool: impl Fn(Tensor<Autodiff<B>, 4>, Tensor<Autodiff<B>, 2>) -> Tensor<Autodiff<B>, 4>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let features = tensor(&self.features(), self.shape, device).require_grad();
        let rois = tensor(&self.rois, [self.count(), 5], device).require_grad();
        let pooled = pool(features.clone(), rois.clone());
        if self.count() == 0 {
            // Backends can't sum nothing: see `check_no_boxes`.
            return (pooled.inner(), Tensor::zeros(self.shape, device));
        }
        let grad = tensor(grad, pooled.dims(), device);
        let gradients = (pooled.clone() * grad).sum().backward();
        assert!(rois.grad(&gradients).is_none(), "boxes have a gradient");
        (
            pooled.inner(),
            features.grad(&gradients).expect("a gradient"),
        )
    }
}

fn align_options() -> impl Iterator<Item = RoiAlignOptions> {
    let variants = [(0, false), (0, true), (1, false), (2, false), (3, true)];
    let options = |(sampling_ratio, aligned)| RoiAlignOptions {
        output_size: [3, 2],
        spatial_scale: 0.75,
        sampling_ratio,
        aligned,
    };
    variants.into_iter().map(options)
}

const POOL: RoiPoolOptions = RoiPoolOptions {
    output_size: [3, 2],
    spatial_scale: 0.75,
};

fn check_roi_align<B: DetectionBackend>(device: &B::Device) {
    for case in Pooled::all() {
        let (shape, k, values) = (case.shape, case.count(), case.features());
        let out = [k, shape[1], 3, 2];
        let grad = noise(out.iter().product(), 3);
        for options in align_options() {
            let what = format!("{}: {options:?}", case.name);
            let pool = |features, rois| roi_align(features, rois, options);
            let (pooled, gradient) = case.pool::<B>(&grad, device, pool);
            let rois = || flex(&case.rois, [k, 5]);
            let expected = reference::roi_align::<Flex>(flex(&values, shape), rois(), options);
            assert_close(&what, pooled.clone(), float_data::<4>(expected));
            let grad = flex(&grad, out);
            let expected = reference::roi_align_backward::<Flex>(shape, rois(), grad, options);
            assert_close(&what, gradient, float_data::<4>(expected.clone()));
            if k == 0 {
                continue;
            }

            // The same boxes on two levels, whose rows alternate from the last to the first.
            let rows: Vec<usize> = (0..k).rev().collect();
            let [even, odd] = [0, 1].map(|first| (first..k).step_by(2).collect::<Vec<_>>());
            let pool = |features: Tensor<Autodiff<B>, 4>, rois: Tensor<Autodiff<B>, 2>| {
                let index = |places: &[usize]| {
                    let places: Vec<i32> = places.iter().map(|&place| place as i32).collect();
                    Tensor::<Autodiff<B>, 1, Int>::from_ints(places.as_slice(), &rois.device())
                };
                let parts = [&odd, &even].into_iter().filter(|part| !part.is_empty());
                let levels = parts.map(|part| RoiLevel {
                    features: features.clone(),
                    rois: rois.clone().select(0, index(part)),
                    rows: part.iter().map(|&roi| rows[roi]).collect(),
                    options,
                });
                multi_scale_roi_align(levels.collect()).select(0, index(&rows))
            };
            let (levels, gradient) = case.pool::<B>(&noise(out.iter().product(), 3), device, pool);
            assert_close(&what, levels, pooled.into_data());
            assert_close(&what, gradient, float_data::<4>(expected));
        }
    }
}

fn check_roi_pool<B: DetectionBackend>(device: &B::Device) {
    for case in Pooled::all() {
        let (shape, k, values) = (case.shape, case.count(), case.features());
        let out = [k, shape[1], 3, 2];
        let grad = noise(out.iter().product(), 5);
        let pool = |features, rois| roi_pool(features, rois, POOL);
        let (pooled, gradient) = case.pool::<B>(&grad, device, pool);
        let rois = || flex(&case.rois, [k, 5]);
        let (expected, positions) = reference::roi_pool::<Flex>(flex(&values, shape), rois(), POOL);
        assert_close(case.name, pooled, float_data::<4>(expected));
        let grad = flex(&grad, out);
        let expected = reference::roi_pool_backward::<Flex>(shape, rois(), positions.clone(), grad);
        assert_close(case.name, gradient, float_data::<4>(expected));

        let features = tensor::<B, 4>(&values, shape, device);
        let rois = tensor::<B, 2>(&case.rois, [k, 5], device);
        let (_, found) = B::roi_pool(
            features.into_primitive().tensor(),
            rois.into_primitive().tensor(),
            POOL,
        );
        let found = Tensor::<B, 4, Int>::from_primitive(found);
        let expected = Tensor::<Flex, 4, Int>::from_primitive(positions);
        assert_eq!(int_data(found), int_data(expected), "{}", case.name);
    }
}

/// TensorFlow's crops against RoIAlign, zeros outside and a max-pool, which autodiff has of them.
fn check_crops<B: DetectionBackend>(device: &B::Device) {
    let shape = [2, 20, 9, 11];
    let values = noise(shape.iter().product(), 3);
    let sizes = [Size::new(72, 88), Size::new(70, 80)];
    let awkward = [
        [0.0, 0.0, 88.0, 72.0],
        [-20.0, 5.5, 30.0, 90.0],
        [12.2, 3.1, 12.2, 3.1],
        [200.0, 200.0, 240.0, 260.0],
        [60.0, 40.0, 20.0, 10.0],
    ];
    let many = boxes(40, [72.0, 88.0], 4);
    let (many, _) = many.as_chunks::<4>();
    for boxes in [[&awkward[..], many], [many, &[]], [&[], &[]]] {
        for (bins, samples) in [([7, 7], 2), ([3, 2], 1), ([2, 5], 3)] {
            let map = tensor::<B, 4>(&values, shape, device);
            let found = crop_and_max_pool(&map, &boxes, &sizes, bins, samples);
            let map = tensor::<Autodiff<Flex>, 4>(&values, shape, &FlexDevice);
            let expected = crop_and_max_pool(&map, &boxes, &sizes, bins, samples);
            assert_close("crops", found, expected.into_data());
        }
    }
}

/// Features that are not laid out row by row, as convolutions may leave them.
fn check_rois_of_a_view<B: DetectionBackend>(device: &B::Device) {
    let [n, c, h, w] = [2, 3, 9, 11];
    let values = noise(n * c * h * w, 9);
    let rois = [0.0, 1.0, 1.0, 9.0, 5.0, 1.0, 2.0, 0.0, 8.0, 8.0];
    let view = |values| tensor::<B, 4>(values, [n, h, w, c], device).permute([0, 3, 1, 2]);
    let reference_view = tensor::<Flex, 4>(&values, [n, h, w, c], &FlexDevice);
    let reference_view = reference_view.permute([0, 3, 1, 2]);
    let boxes = tensor::<B, 2>(&rois, [2, 5], device);
    let options = align_options().next().expect("one");
    let found = roi_align(view(&values), boxes.clone(), options);
    let primitive = || reference_view.clone().into_primitive().tensor();
    let expected = reference::roi_align::<Flex>(primitive(), flex(&rois, [2, 5]), options);
    assert_close("roi_align", found, float_data::<4>(expected));
    let found = roi_pool(view(&values), boxes, POOL);
    let (expected, _) = reference::roi_pool::<Flex>(primitive(), flex(&rois, [2, 5]), POOL);
    assert_close("roi_pool", found, float_data::<4>(expected));
}

/// Without boxes the features' gradient is zero.
fn check_no_boxes<B: DetectionBackend>(device: &B::Device) {
    let shape = [2, 3, 4, 5];
    let rois = || {
        Tensor::<B, 2>::zeros([0, 5], device)
            .into_primitive()
            .tensor()
    };
    let grad = || {
        Tensor::<B, 4>::zeros([0, 3, 3, 2], device)
            .into_primitive()
            .tensor()
    };
    let options = align_options().next().expect("one");
    let positions = Tensor::<B, 4, Int>::zeros([0, 3, 3, 2], device).into_primitive();
    for gradient in [
        B::roi_align_backward(shape, rois(), &[], grad(), options),
        B::roi_pool_backward(shape, rois(), positions, grad()),
    ] {
        let gradient = Tensor::<B, 4>::from_primitive(TensorPrimitive::Float(gradient));
        let zeros = Tensor::<Flex, 4>::zeros(shape, &FlexDevice).into_data();
        assert_close("no boxes", gradient, zeros);
    }
}

fn check_top_k<B: DetectionBackend>(device: &B::Device) {
    let ties = |n: usize| {
        noise(n, 2)
            .iter()
            .map(|v| (v * 20.0).floor() - 10.0)
            .collect()
    };
    let cases: [(&str, [usize; 2], usize, Vec<f32>); 8] = [
        ("one value", [1, 1], 1, vec![0.5]),
        ("no row", [0, 9], 3, vec![]),
        ("none of them", [2, 9], 0, noise(18, 1)),
        ("all of them", [2, 300], 300, noise(600, 1)),
        ("some of many", [3, 5000], 1000, noise(15000, 1)),
        ("many equals", [2, 700], 100, ties(1400)),
        ("all equal", [1, 600], 257, vec![1.5; 600]),
        (
            "signs",
            [1, 6],
            5,
            vec![-0.0, -1.0, 1e30, f32::MIN, f32::INFINITY, 1e-30],
        ),
    ];
    for (name, shape, k, values) in cases {
        let (found, indices) = top_k(tensor::<B, 2>(&values, shape, device), k);
        let (expected, positions) = reference::top_k::<Flex>(flex(&values, shape), k);
        let positions = Tensor::<Flex, 2, Int>::from_primitive(positions);
        assert_eq!(int_data(indices), int_data(positions), "{name}");
        assert_eq!(found.into_data(), float_data::<2>(expected), "{name}");
    }
}

fn check_decode_boxes<B: DetectionBackend>(device: &B::Device) {
    for (n, classes) in [(0, 3), (1, 1), (70, 1), (40, 5)] {
        let references = boxes(n, [60.0, 80.0], 1);
        // Some far beyond what the exponential is clipped at.
        let deltas = noise(n * classes * 4, 2)
            .iter()
            .map(|v| (v - 0.5) * 40.0)
            .collect::<Vec<_>>();
        let sizes: Vec<f32> = (0..n).flat_map(|i| [60.0 - (i % 3) as f32, 80.0]).collect();
        for weights in [[1.0; 4], [10.0, 10.0, 5.0, 5.0]] {
            let found = BoxCoder { weights }.decode_clipped(
                tensor::<B, 2>(&deltas, [n, classes * 4], device),
                tensor::<B, 2>(&references, [n, 4], device),
                tensor::<B, 2>(&sizes, [n, 2], device),
            );
            let expected = reference::decode_boxes::<Flex>(
                flex(&deltas, [n, classes * 4]),
                flex(&references, [n, 4]),
                flex(&sizes, [n, 2]),
                weights,
            );
            let what = format!("{n} boxes, {classes} classes, {weights:?}");
            assert_close(&what, found, float_data::<3>(expected));
        }
    }
}

fn check_box_iou<B: DetectionBackend>(device: &B::Device) {
    for (m, n) in [(0, 3), (3, 0), (1, 1), (40, 70)] {
        let (a, b) = (boxes(m, [60.0, 80.0], 1), boxes(n, [60.0, 80.0], 2));
        let found = box_iou_matrix(
            tensor::<B, 2>(&a, [m, 4], device),
            tensor::<B, 2>(&b, [n, 4], device),
        );
        let expected = reference::box_iou::<Flex>(flex(&a, [m, 4]), flex(&b, [n, 4]));
        assert_close(
            &format!("{m} and {n} boxes"),
            found,
            float_data::<2>(expected),
        );
    }
}

fn check_grouped_nms<B: DetectionBackend>(device: &B::Device) {
    let (mut kept, mut dropped) = (0, 0);
    for (groups, k) in [
        (0, 4),
        (2, 0),
        (1, 1),
        (3, 31),
        (2, 33),
        (5, 70),
        (2, 300),
        (1, 1100),
    ] {
        let boxes = boxes(groups * k, [60.0, 80.0], k as u32);
        let mut scores = noise(groups * k, 4);
        for (i, score) in scores.iter_mut().enumerate() {
            match i % 5 {
                // Left out, and equal to others.
                0 => *score = -1.0,
                1 => *score = 0.5,
                _ => {}
            }
        }
        if groups == 5 {
            scores[k..2 * k].fill(-1.0);
        }
        for threshold in [0.0, 0.3, 0.7, 1.0] {
            let found = grouped_nms(
                tensor::<B, 3>(&boxes, [groups, k, 4], device),
                tensor::<B, 2>(&scores, [groups, k], device),
                threshold,
            );
            let expected = reference::nms::<Flex>(
                flex(&boxes, [groups, k, 4]),
                flex(&scores, [groups, k]),
                threshold,
            );
            let expected = int_data(Tensor::<Flex, 2, Int>::from_primitive(expected));
            assert_eq!(
                int_data(found),
                expected,
                "{groups} of {k} above {threshold}"
            );
            let expected = expected.into_vec::<i32>().expect("i32");
            kept += expected.iter().filter(|&&k| k == 1).count();
            dropped += expected.iter().filter(|&&k| k == 0).count();
        }
    }
    assert!(kept > 100 && dropped > 100, "a case that decides nothing");
    // An IoU of 1/3 against thresholds beside it.
    let pair = [0.0, 0.0, 2.0, 2.0, 1.0, 0.0, 3.0, 2.0];
    for (threshold, expected) in [(0.333, [1, 0]), (f64::from(1.0f32 / 3.0), [1, 1])] {
        let found = grouped_nms(
            tensor::<B, 3>(&pair, [1, 2, 4], device),
            tensor::<B, 2>(&[0.9, 0.8], [1, 2], device),
            threshold,
        );
        assert_eq!(int_data(found), TensorData::new(expected.to_vec(), [1, 2]));
    }
}
