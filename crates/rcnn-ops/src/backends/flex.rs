//! Native kernels for Flex, in f32; other precisions run the reference bodies.
//!
//! The forward passes share the boxes between threads, the backward passes the planes of the
//! gradient, so no two threads write the same pixel and every run gives the same bits.

use burn::tensor::ops::{ConvOptions, FloatTensor, IntTensor, ModuleOps};
use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use crate::{
    ConvEpilogue, DetectionBackend, RoiAlignOptions, RoiPoolOptions, resample, roi_align, roi_pool,
};

mod channels;
mod conv2d;
mod convolution;
mod max_pool;
mod pool;
mod pooled;
mod upsample;

use max_pool::MaxPool;
use pooled::pooled;

impl DetectionBackend for Flex {
    fn channel_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        channels::affine(x, scale, shift)
    }

    fn channel_moments(x: FloatTensor<Self>) -> FloatTensor<Self> {
        channels::moments(x)
    }

    fn channel_sums(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        channels::sums(a, b)
    }

    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        convolution::forward(x, weight, bias, options, conv2d::forward)
    }

    fn fused_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
        epilogue: ConvEpilogue<Self>,
    ) -> FloatTensor<Self> {
        convolution::fused(x, weight, bias, options, epilogue)
    }

    fn max_pool(
        x: FloatTensor<Self>,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> FloatTensor<Self> {
        let [n, c, h, w] = dims(&x);
        let pool = MaxPool {
            planes: n * c,
            size: [h, w],
            kernel,
            stride,
            padding,
        };
        match pool.output_size() {
            Some(size @ [out_h, out_w]) if x.dtype() == DType::F32 => pooled(
                max_pool::forward(&pool, size, x.to_contiguous().storage()),
                [n, c, out_h, out_w],
            ),
            _ => Self::max_pool2d(x, kernel, stride, padding, [1, 1], false),
        }
    }

    fn upsample_nearest(x: FloatTensor<Self>, to: [usize; 2]) -> FloatTensor<Self> {
        let [n, c, h, w] = dims(&x);
        if x.dtype() != DType::F32 || h * w == 0 {
            return resample::nearest::<Self>(x, to);
        }
        pooled(
            upsample::forward(x.to_contiguous().storage(), [h, w], to),
            [n, c, to[0], to[1]],
        )
    }

    fn tracked_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        convolution::forward(x, weight, bias, options, conv2d::exact_forward)
    }

    fn convolution_input_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        convolution::input_grad(x, weight, grad, options)
    }

    fn convolution_weight_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        convolution::weight_grad(x, weight, grad, options)
    }

    fn convolution_bias_grad(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        convolution::bias_grad(x, bias, grad)
    }

    fn roi_align(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        if features.dtype() != DType::F32 {
            return roi_align::forward::<Self>(features, rois, options);
        }
        let shape @ [_, c, h, w] = dims(&features);
        let features = features.to_contiguous();
        let features = features.storage::<f32>();
        let rois = parse_rois(rois);
        let [out_h, out_w] = options.output_size;
        let mut pooled = vec![0.0f32; rois.len() * c * out_h * out_w];
        pooled
            .par_chunks_mut((c * out_h * out_w).max(1))
            .zip(&rois)
            .for_each(|(pooled, roi)| {
                let samples = RoiSamples::new(roi, shape, options);
                for (channel, out) in pooled.chunks_mut(out_h * out_w).enumerate() {
                    let plane = (roi.image * c + channel) * h * w;
                    samples.pool(&features[plane..plane + h * w], w, out);
                }
            });
        tensor(pooled, [rois.len(), c, out_h, out_w])
    }

    fn roi_align_backward(
        shape: [usize; 4],
        rois: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: RoiAlignOptions,
    ) -> FloatTensor<Self> {
        if grad.dtype() != DType::F32 {
            return roi_align::backward::<Self>(shape, rois, grad, options);
        }
        let [n, c, h, w] = shape;
        let grad = floats(grad);
        let rois = parse_rois(rois);
        let bins = options.output_size[0] * options.output_size[1];
        let samples: Vec<RoiSamples> = rois
            .par_iter()
            .map(|roi| RoiSamples::new(roi, shape, options))
            .collect();
        let mut out = vec![0.0f32; n * c * h * w];
        out.par_chunks_mut(h * w)
            .enumerate()
            .for_each(|(plane, out)| {
                let (image, channel) = (plane / c, plane % c);
                for (k, roi) in rois.iter().enumerate() {
                    if roi.image == image {
                        let start = (k * c + channel) * bins;
                        samples[k].spread(&grad[start..start + bins], w, out);
                    }
                }
            });
        tensor(out, shape)
    }

    fn roi_pool(
        features: FloatTensor<Self>,
        rois: FloatTensor<Self>,
        options: RoiPoolOptions,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        if features.dtype() != DType::F32 {
            return roi_pool::forward::<Self>(features, rois, options);
        }
        let [_, c, h, w] = dims(&features);
        let features = features.to_contiguous();
        let features = features.storage::<f32>();
        let rois = parse_rois(rois);
        let [out_h, out_w] = options.output_size;
        let size = rois.len() * c * out_h * out_w;
        let (mut values, mut positions) = (vec![0.0f32; size], vec![-1i32; size]);
        let per_roi = (c * out_h * out_w).max(1);
        values
            .par_chunks_mut(per_roi)
            .zip(positions.par_chunks_mut(per_roi))
            .zip(&rois)
            .for_each(|((values, positions), roi)| {
                let rows = windows(
                    roi.bounds[1],
                    roi.bounds[3],
                    h,
                    out_h,
                    options.spatial_scale,
                );
                let columns = windows(
                    roi.bounds[0],
                    roi.bounds[2],
                    w,
                    out_w,
                    options.spatial_scale,
                );
                for channel in 0..c {
                    let plane = (roi.image * c + channel) * h * w;
                    let plane = &features[plane..plane + h * w];
                    for bin in 0..out_h * out_w {
                        let at = channel * out_h * out_w + bin;
                        let (rows, columns) = (rows[bin / out_w], columns[bin % out_w]);
                        if let Some(best) = first_max(plane, w, rows, columns) {
                            values[at] = plane[best];
                            positions[at] = best as i32;
                        }
                    }
                }
            });
        let shape = [rois.len(), c, out_h, out_w];
        let positions = FlexTensor::from_data(TensorData::new(positions, shape));
        (tensor(values, shape), positions)
    }
}

/// A parsed row of `rois`.
struct Roi {
    image: usize,
    bounds: [f32; 4],
}

fn parse_rois(rois: FlexTensor) -> Vec<Roi> {
    let rois = floats(rois);
    let parse = |roi: &[f32]| Roi {
        image: roi[0] as usize,
        bounds: [roi[1], roi[2], roi[3], roi[4]],
    };
    rois.chunks_exact(5).map(parse).collect()
}

fn dims(tensor: &FlexTensor) -> [usize; 4] {
    tensor.layout().shape().dims()
}

fn floats(tensor: FlexTensor) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.into_vec().expect("converted to f32")
}

fn tensor(values: Vec<f32>, shape: [usize; 4]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// One sample along one axis: the two pixels it lies between and their weights.
#[derive(Clone, Copy)]
struct Tap {
    low: usize,
    high: usize,
    weight_low: f32,
    weight_high: f32,
}

/// The samples of one box along both axes, bin by bin.
struct RoiSamples {
    rows: Vec<Vec<Tap>>,
    columns: Vec<Vec<Tap>>,
    count: f32,
}

impl RoiSamples {
    fn new(roi: &Roi, [_, _, h, w]: [usize; 4], options: RoiAlignOptions) -> Self {
        let [out_h, out_w] = options.output_size;
        let [x1, y1, x2, y2] = roi.bounds;
        let (rows, count_y) = taps(y1, y2, h, out_h, options);
        let (columns, count_x) = taps(x1, x2, w, out_w, options);
        let count = (count_y * count_x).max(1) as f32;
        Self {
            rows,
            columns,
            count,
        }
    }

    fn pool(&self, plane: &[f32], width: usize, out: &mut [f32]) {
        let bins = self
            .rows
            .iter()
            .flat_map(|r| self.columns.iter().map(move |c| (r, c)));
        for (out, (rows, columns)) in out.iter_mut().zip(bins) {
            let mut sum = 0.0;
            for row in rows {
                let (low, high) = (&plane[row.low * width..], &plane[row.high * width..]);
                for column in columns {
                    let along = |line: &[f32]| {
                        line[column.low] * column.weight_low
                            + line[column.high] * column.weight_high
                    };
                    sum += row.weight_low * along(low) + row.weight_high * along(high);
                }
            }
            *out = sum / self.count;
        }
    }

    fn spread(&self, grad: &[f32], width: usize, out: &mut [f32]) {
        let bins = self
            .rows
            .iter()
            .flat_map(|r| self.columns.iter().map(move |c| (r, c)));
        for (grad, (rows, columns)) in grad.iter().zip(bins) {
            let grad = grad / self.count;
            for row in rows {
                for column in columns {
                    for (y, weight_y) in [(row.low, row.weight_low), (row.high, row.weight_high)] {
                        out[y * width + column.low] += grad * weight_y * column.weight_low;
                        out[y * width + column.high] += grad * weight_y * column.weight_high;
                    }
                }
            }
        }
    }
}

/// Samples of a box from `low` to `high` along an axis of `length` pixels, by bin, leaving out those
/// more than a pixel outside; and how many a bin has with them.
fn taps(
    low: f32,
    high: f32,
    length: usize,
    bins: usize,
    options: RoiAlignOptions,
) -> (Vec<Vec<Tap>>, usize) {
    let offset = if options.aligned { 0.5 } else { 0.0 };
    let start = low * options.spatial_scale - offset;
    let mut size = high * options.spatial_scale - offset - start;
    if !options.aligned {
        size = size.max(1.0);
    }
    let bin_size = size / bins as f32;
    let count = match options.sampling_ratio {
        0 => bin_size.ceil().max(0.0) as usize,
        ratio => ratio,
    };
    let last = length - 1;
    let tap = |bin: usize, sample: usize| {
        let within = (sample as f32 + 0.5) * bin_size / count as f32;
        let position = start + bin as f32 * bin_size + within;
        // Not `contains`: a NaN position must be left out too.
        (position >= -1.0 && position <= length as f32).then(|| {
            let position = position.clamp(0.0, last as f32);
            let low = position as usize;
            let fraction = position - low as f32;
            let high = (low + 1).min(last);
            Tap {
                low,
                high,
                weight_low: 1.0 - fraction,
                weight_high: fraction,
            }
        })
    };
    let taps = (0..bins)
        .map(|bin| (0..count).filter_map(|sample| tap(bin, sample)).collect())
        .collect();
    (taps, count)
}

/// First and last-but-one pixel of each of RoIPool's bins along an axis of `length` pixels.
fn windows(low: f32, high: f32, length: usize, bins: usize, scale: f32) -> Vec<(usize, usize)> {
    let start = (low * scale).round();
    let size = ((high * scale).round() - start + 1.0).max(1.0) / bins as f32;
    let clip = |edge: f32| (edge + start).clamp(0.0, length as f32) as usize;
    (0..bins)
        .map(|bin| {
            let bin = bin as f32;
            (
                clip((bin * size).floor()),
                clip(((bin + 1.0) * size).ceil()),
            )
        })
        .collect()
}

fn first_max(
    plane: &[f32],
    width: usize,
    (top, bottom): (usize, usize),
    (left, right): (usize, usize),
) -> Option<usize> {
    let mut best = None;
    for y in top..bottom {
        for position in y * width + left..y * width + right {
            if best.is_none_or(|b: usize| plane[position] > plane[b]) {
                best = Some(position);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use burn::backend::Autodiff;
    use burn::tensor::{Int, Tensor, TensorPrimitive, Tolerance};

    use super::*;
    use crate::{roi_align, roi_pool};

    const SHAPE: [usize; 4] = [2, 3, 9, 11];
    /// Inside, over the border, outside, tiny, whole, reversed; none on the second image but one.
    const ROIS: [[f32; 5]; 7] = [
        [0.0, 1.2, 2.3, 8.1, 6.4],
        [0.0, -3.0, -2.0, 4.0, 12.0],
        [0.0, 30.0, 30.0, 40.0, 40.0],
        [0.0, 3.2, 3.2, 3.3, 3.4],
        [1.0, 0.0, 0.0, 11.0, 9.0],
        [0.0, 6.0, 5.0, 2.0, 1.0],
        [0.0, 10.5, 8.5, 11.0, 9.0],
    ];

    /// Distinct values, so that RoIPool's maxima are.
    fn features() -> Tensor<Flex, 4> {
        let count = SHAPE.iter().product::<usize>();
        let values = (0..count).map(|i| (i * 271 % count) as f32 / count as f32 * 2.0 - 1.0);
        Tensor::from_data(
            TensorData::new(values.collect(), SHAPE),
            &Default::default(),
        )
    }

    fn rois() -> Tensor<Flex, 2> {
        Tensor::from_floats(ROIS, &Default::default())
    }

    fn align_options() -> impl Iterator<Item = RoiAlignOptions> {
        let variants = [(0, false), (0, true), (1, false), (2, false), (3, true)];
        variants
            .into_iter()
            .map(|(sampling_ratio, aligned)| RoiAlignOptions {
                output_size: [3, 2],
                spatial_scale: 0.75,
                sampling_ratio,
                aligned,
            })
    }

    const POOL: RoiPoolOptions = RoiPoolOptions {
        output_size: [3, 2],
        spatial_scale: 0.75,
    };

    fn primitive<const D: usize>(tensor: Tensor<Flex, D>) -> FlexTensor {
        tensor.into_primitive().tensor()
    }

    fn assert_same(native: FlexTensor, reference: FlexTensor) {
        let data = |t| Tensor::<Flex, 4>::from_primitive(TensorPrimitive::Float(t)).into_data();
        data(native).assert_approx_eq::<f32>(&data(reference), Tolerance::absolute(1e-5));
    }

    #[test]
    fn roi_align_equals_the_reference() {
        for options in align_options() {
            let args = || (primitive(features()), primitive(rois()));
            let (x, rois) = args();
            let native = Flex::roi_align(x, rois, options);
            let (x, rois) = args();
            assert_same(
                native.clone(),
                crate::roi_align::forward::<Flex>(x, rois, options),
            );

            let (_, rois) = args();
            let found = Flex::roi_align_backward(SHAPE, rois.clone(), native.clone(), options);
            let expected = crate::roi_align::backward::<Flex>(SHAPE, rois, native, options);
            assert_same(found, expected);
        }
    }

    #[test]
    fn roi_pool_equals_the_reference() {
        let (values, positions) = Flex::roi_pool(primitive(features()), primitive(rois()), POOL);
        let (expected, expected_positions) =
            crate::roi_pool::forward::<Flex>(primitive(features()), primitive(rois()), POOL);
        let ints = |t| {
            Tensor::<Flex, 4, Int>::from_primitive(t)
                .into_data()
                .convert::<i64>()
        };
        assert_eq!(ints(positions.clone()), ints(expected_positions));
        assert_same(values.clone(), expected);
        let found = Flex::roi_pool_backward(SHAPE, primitive(rois()), positions, values.clone());
        // Every maximum but those of empty bins gets its own value back.
        let sum = |t| {
            Tensor::<Flex, 4>::from_primitive(TensorPrimitive::Float(t))
                .sum()
                .into_scalar()
        };
        assert!((sum(found) - sum(values)).abs() < 1e-3);
    }

    /// Compares a gradient with central differences of the sum of squares.
    fn check_gradient(
        pool: impl Fn(Tensor<Autodiff<Flex>, 4>, Tensor<Autodiff<Flex>, 2>) -> Tensor<Autodiff<Flex>, 4>,
    ) {
        let loss =
            |x: Tensor<Autodiff<Flex>, 4>| pool(x, Tensor::from_inner(rois())).powi_scalar(2).sum();
        let x = Tensor::<Autodiff<Flex>, 4>::from_inner(features()).require_grad();
        let gradients = loss(x.clone()).backward();
        let found: Vec<f32> = x
            .grad(&gradients)
            .expect("a gradient")
            .into_data()
            .into_vec()
            .unwrap();
        let values: Vec<f32> = features().into_data().into_vec().unwrap();
        let at = |i: usize, value: f32| {
            let mut values = values.clone();
            values[i] = value;
            let x = Tensor::from_data(TensorData::new(values, SHAPE), &Default::default());
            loss(x).into_scalar()
        };
        const STEP: f32 = 1e-3;
        for i in (0..values.len()).step_by(7) {
            let slope = (at(i, values[i] + STEP) - at(i, values[i] - STEP)) / (2.0 * STEP);
            assert!(
                (found[i] - slope).abs() < 2e-2,
                "{i}: found {}, slope {slope}",
                found[i]
            );
        }
    }

    #[test]
    fn gradients_equal_central_differences() {
        for options in align_options() {
            check_gradient(|x, rois| roi_align(x, rois, options));
        }
        check_gradient(|x, rois| roi_pool(x, rois, POOL));
    }

    #[test]
    fn boxes_get_no_gradient_and_no_boxes_no_features() {
        let options = align_options().next().expect("one");
        let none = Tensor::<Flex, 2>::zeros([0, 5], &Default::default());
        assert_eq!(
            roi_align(features(), none.clone(), options).dims(),
            [0, 3, 3, 2]
        );
        assert_eq!(roi_pool(features(), none, POOL).dims(), [0, 3, 3, 2]);
        let rois = Tensor::<Autodiff<Flex>, 2>::from_inner(rois()).require_grad();
        let x = Tensor::from_inner(features()).require_grad();
        let gradients = roi_align(x, rois.clone(), options).sum().backward();
        assert!(rois.grad(&gradients).is_none());
    }
}
