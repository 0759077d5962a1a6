//! RoIPool: a unit for each output value, and backward a unit for each pixel, which gathers from
//! the bins whose maximum it is.

use burn::tensor::{DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::tensor::CubeTensor;

use super::roi::read_roi;
use super::{contiguous, dims, empty};
use crate::RoiPoolOptions;

/// C's rounding: half away from zero.
#[cube]
fn round(value: f32) -> f32 {
    let mut rounded = (value.abs() + 0.5).floor();
    if value < 0.0 {
        rounded = -rounded;
    }
    rounded
}

/// First pixel of a bin, and the one after its last.
#[cube]
fn window(
    low: f32,
    high: f32,
    bin: usize,
    bins: usize,
    scale: f32,
    length: usize,
) -> (usize, usize) {
    let start = round(low * scale);
    let size = clamp_min(round(high * scale) - start + 1.0, 1.0) / bins as f32;
    let first = (bin as f32 * size).floor() + start;
    let end = ((bin + 1) as f32 * size).ceil() + start;
    let length = length as f32;
    (
        clamp(first, 0.0, length) as usize,
        clamp(end, 0.0, length) as usize,
    )
}

#[cube(launch)]
#[allow(
    clippy::too_many_arguments,
    reason = "each is one scalar of the shader"
)]
fn forward_kernel<F: Float, R: Float, I: Int>(
    features: &Tensor<F>,
    rois: &Tensor<R>,
    values: &mut Tensor<F>,
    positions: &mut Tensor<I>,
    count: usize,
    out_h: usize,
    out_w: usize,
    scale: f32,
    #[define(F, R, I)] _dtypes: [StorageType; 3],
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let (height, width) = (features.shape(2), features.shape(3));
    let bin_x = ABSOLUTE_POS % out_w;
    let bin_y = ABSOLUTE_POS / out_w % out_h;
    let channel = ABSOLUTE_POS / (out_w * out_h) % features.shape(1);
    let roi = read_roi(rois, ABSOLUTE_POS / (out_w * out_h * features.shape(1)));
    let (top, bottom) = window(roi.y1, roi.y2, bin_y, out_h, scale, height);
    let (left, right) = window(roi.x1, roi.x2, bin_x, out_w, scale, width);
    let plane = roi.image * features.stride(0) + channel * features.stride(1);
    let mut best = F::new(0.0);
    let mut position = I::new(-1);
    for y in top..bottom {
        for x in left..right {
            let value = features[plane + y * features.stride(2) + x * features.stride(3)];
            if position < I::new(0) || value > best {
                best = value;
                position = I::cast_from(y * width + x);
            }
        }
    }
    values[ABSOLUTE_POS] = best;
    positions[ABSOLUTE_POS] = position;
}

pub(super) fn forward<R: CubeRuntime>(
    features: CubeTensor<R>,
    rois: CubeTensor<R>,
    options: RoiPoolOptions,
    int_dtype: DType,
) -> (CubeTensor<R>, CubeTensor<R>) {
    let ([_, channels, _, _], [k, _]) = (dims(&features), dims(&rois));
    let [out_h, out_w] = options.output_size;
    let shape = [k, channels, out_h, out_w];
    let values = empty(&features, shape, features.dtype);
    let positions = empty(&features, shape, int_dtype);
    let count = k * channels * out_h * out_w;
    if count == 0 {
        return (values, positions);
    }
    let [rois] = contiguous([rois]);
    let dtypes = [features.dtype.into(), rois.dtype.into(), int_dtype.into()];
    let client = features.client.clone();
    let cube_dim = CubeDim::new(&client, count);
    forward_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, count, cube_dim),
        cube_dim,
        features.into_tensor_arg(),
        rois.into_tensor_arg(),
        values.clone().into_tensor_arg(),
        positions.clone().into_tensor_arg(),
        count,
        out_h,
        out_w,
        options.spatial_scale,
        dtypes,
    );
    (values, positions)
}

#[cube(launch)]
#[allow(
    clippy::too_many_arguments,
    reason = "each is one scalar of the shader"
)]
fn backward_kernel<F: Float, R: Float, I: Int>(
    grad: &Tensor<F>,
    rois: &Tensor<R>,
    positions: &Tensor<I>,
    output: &mut Tensor<F>,
    count: usize,
    roi_count: usize,
    channels: usize,
    plane: usize,
    bins: usize,
    #[define(F, R, I)] _dtypes: [StorageType; 3],
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let position = I::cast_from(ABSOLUTE_POS % plane);
    let channel = ABSOLUTE_POS / plane % channels;
    let image = ABSOLUTE_POS / (plane * channels);
    let mut sum = 0.0f32;
    for roi in 0..roi_count {
        if read_roi(rois, roi).image == image {
            let first = (roi * channels + channel) * bins;
            for bin in first..first + bins {
                if positions[bin] == position {
                    sum += f32::cast_from(grad[bin]);
                }
            }
        }
    }
    output[ABSOLUTE_POS] = F::cast_from(sum);
}

pub(super) fn backward<R: CubeRuntime>(
    shape: [usize; 4],
    rois: CubeTensor<R>,
    positions: CubeTensor<R>,
    grad: CubeTensor<R>,
) -> CubeTensor<R> {
    let [_, channels, height, width] = shape;
    let [k, _, out_h, out_w] = dims(&grad);
    let client = grad.client.clone();
    if k == 0 {
        return zeros_client(client, grad.device, Shape::new(shape), grad.dtype);
    }
    let output = empty(&grad, shape, grad.dtype);
    let [rois, positions, grad] = contiguous([rois, positions, grad]);
    let dtypes = [grad.dtype.into(), rois.dtype.into(), positions.dtype.into()];
    let count = shape.iter().product();
    let cube_dim = CubeDim::new(&client, count);
    backward_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, count, cube_dim),
        cube_dim,
        grad.into_tensor_arg(),
        rois.into_tensor_arg(),
        positions.into_tensor_arg(),
        output.clone().into_tensor_arg(),
        count,
        k,
        channels,
        height * width,
        out_h * out_w,
        dtypes,
    );
    output
}
