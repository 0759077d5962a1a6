//! RoIAlign: a unit for each output value, and backward a unit for each pixel, which gathers from
//! the boxes over it.

use burn::tensor::Shape;
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::tensor::CubeTensor;

use super::roi::read_roi;
use super::{contiguous, dims, empty};
use crate::RoiAlignOptions;

/// How one axis of a box is sampled, in feature pixels.
#[derive(CubeType, Clone, Copy)]
struct Axis {
    start: f32,
    bin: f32,
    /// Samples of a bin.
    samples: usize,
}

/// The two pixels that a sample lies between, and their weights.
#[derive(CubeType, Clone, Copy)]
struct Tap {
    /// Not more than a pixel outside.
    inside: bool,
    low: usize,
    high: usize,
    weight_low: f32,
    weight_high: f32,
}

#[cube]
fn axis(
    low: f32,
    high: f32,
    bins: usize,
    scale: f32,
    #[comptime] sampling_ratio: usize,
    #[comptime] aligned: bool,
) -> Axis {
    let offset = comptime!(if aligned { 0.5f32 } else { 0.0f32 });
    let start = low * scale - offset;
    let mut size = high * scale - offset - start;
    if comptime!(!aligned) {
        size = clamp_min(size, 1.0);
    }
    let bin = size / bins as f32;
    let mut samples = sampling_ratio.runtime();
    if comptime!(sampling_ratio == 0) {
        samples = clamp_min(bin.ceil(), 0.0) as usize;
    }
    Axis {
        start,
        bin,
        samples,
    }
}

#[cube]
fn tap(axis: &Axis, bin: usize, sample: usize, length: usize) -> Tap {
    let within = (sample as f32 + 0.5) * axis.bin / axis.samples as f32;
    let position = axis.start + bin as f32 * axis.bin + within;
    let inside = position >= -1.0 && position <= length as f32;
    let last = length - 1;
    let position = clamp(position, 0.0, last as f32);
    let low = position.floor();
    let weight_high = position - low;
    let low = low as usize;
    Tap {
        inside,
        low,
        high: clamp_max(low + 1, last),
        weight_low: 1.0 - weight_high,
        weight_high,
    }
}

#[cube(launch)]
#[allow(
    clippy::too_many_arguments,
    reason = "each is one scalar of the shader"
)]
fn forward_kernel<F: Float, R: Float>(
    features: &Tensor<F>,
    rois: &Tensor<R>,
    output: &mut Tensor<F>,
    count: usize,
    out_h: usize,
    out_w: usize,
    scale: f32,
    #[comptime] sampling_ratio: usize,
    #[comptime] aligned: bool,
    #[define(F, R)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let (height, width) = (features.shape(2), features.shape(3));
    let bin_x = ABSOLUTE_POS % out_w;
    let bin_y = ABSOLUTE_POS / out_w % out_h;
    let channel = ABSOLUTE_POS / (out_w * out_h) % features.shape(1);
    let roi = read_roi(rois, ABSOLUTE_POS / (out_w * out_h * features.shape(1)));
    let rows = axis(roi.y1, roi.y2, out_h, scale, sampling_ratio, aligned);
    let columns = axis(roi.x1, roi.x2, out_w, scale, sampling_ratio, aligned);
    let plane = roi.image * features.stride(0) + channel * features.stride(1);
    let mut sum = 0.0f32;
    for row in 0..rows.samples {
        let row = tap(&rows, bin_y, row, height);
        if row.inside {
            let low = plane + row.low * features.stride(2);
            let high = plane + row.high * features.stride(2);
            for column in 0..columns.samples {
                let column = tap(&columns, bin_x, column, width);
                if column.inside {
                    let left = column.low * features.stride(3);
                    let right = column.high * features.stride(3);
                    let along_low = f32::cast_from(features[low + left]) * column.weight_low
                        + f32::cast_from(features[low + right]) * column.weight_high;
                    let along_high = f32::cast_from(features[high + left]) * column.weight_low
                        + f32::cast_from(features[high + right]) * column.weight_high;
                    sum += row.weight_low * along_low + row.weight_high * along_high;
                }
            }
        }
    }
    let samples = clamp_min(rows.samples * columns.samples, 1);
    output[ABSOLUTE_POS] = F::cast_from(sum / samples as f32);
}

pub(super) fn forward<R: CubeRuntime>(
    features: CubeTensor<R>,
    rois: CubeTensor<R>,
    options: RoiAlignOptions,
) -> CubeTensor<R> {
    let ([_, channels, _, _], [k, _]) = (dims(&features), dims(&rois));
    let [out_h, out_w] = options.output_size;
    let output = empty(&features, [k, channels, out_h, out_w], features.dtype);
    let count = k * channels * out_h * out_w;
    if count == 0 {
        return output;
    }
    let [rois] = contiguous([rois]);
    let dtypes = [features.dtype.into(), rois.dtype.into()];
    let client = features.client.clone();
    let cube_dim = CubeDim::new(&client, count);
    forward_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, count, cube_dim),
        cube_dim,
        features.into_tensor_arg(),
        rois.into_tensor_arg(),
        output.clone().into_tensor_arg(),
        count,
        out_h,
        out_w,
        options.spatial_scale,
        options.sampling_ratio,
        options.aligned,
        dtypes,
    );
    output
}

/// Side of the tile of pixels that a cube of the backward pass works on.
const TILE: usize = 16;
/// Channels that a unit adds up at once: the boxes are looked at once for all of them.
const CHANNELS: usize = 8;

/// Share of the bin's samples that falls on a pixel.
#[cube]
fn weight(axis: &Axis, bin: usize, pixel: usize, length: usize) -> f32 {
    let mut weight = 0.0f32;
    for sample in 0..axis.samples {
        let tap = tap(axis, bin, sample, length);
        if tap.inside {
            if tap.low == pixel {
                weight += tap.weight_low;
            }
            if tap.high == pixel {
                weight += tap.weight_high;
            }
        }
    }
    weight
}

/// Whether an axis of a box may have samples beside the tile that starts at `first`.
#[cube]
fn touches(axis: &Axis, bins: usize, first: usize) -> bool {
    let end = axis.start + axis.bin * bins as f32;
    let low = clamp_max(axis.start, end) - 1.0;
    let high = clamp_min(axis.start, end) + 1.0;
    low <= (first + TILE) as f32 && high >= first as f32
}

#[cube(launch)]
#[allow(
    clippy::too_many_arguments,
    reason = "each is one scalar of the shader"
)]
fn backward_kernel<F: Float, R: Float>(
    grad: &Tensor<F>,
    rois: &Tensor<R>,
    output: &mut Tensor<F>,
    roi_count: usize,
    channels: usize,
    height: usize,
    width: usize,
    scale: f32,
    #[comptime] sampling_ratio: usize,
    #[comptime] aligned: bool,
    #[define(F, R)] _dtypes: [StorageType; 2],
) {
    let (out_h, out_w) = (grad.shape(2), grad.shape(3));
    let tiles_x = width.div_ceil(TILE);
    let tile_y = CUBE_POS_X as usize / tiles_x * TILE;
    let tile_x = CUBE_POS_X as usize % tiles_x * TILE;
    let y = tile_y + UNIT_POS_Y as usize;
    let x = tile_x + UNIT_POS_X as usize;
    let first_channel = CUBE_POS_Y as usize * CHANNELS;
    let image = CUBE_POS_Z as usize;
    let unit = UNIT_POS as usize;
    let units = CUBE_DIM as usize;

    let mut near = SharedMemory::<u32>::new(TILE * TILE);
    let mut sums = Array::<f32>::new(CHANNELS);
    #[unroll]
    for channel in 0..CHANNELS {
        sums[channel] = 0.0f32;
    }
    let chunks = roi_count.div_ceil(units);
    for chunk in 0..chunks {
        // The units look at one box each, whether it is near the tile; then at all that are.
        let roi = chunk * units + unit;
        near[unit] = 0u32;
        if roi < roi_count {
            let roi = read_roi(rois, roi);
            if roi.image == image {
                let rows = axis(roi.y1, roi.y2, out_h, scale, sampling_ratio, aligned);
                let columns = axis(roi.x1, roi.x2, out_w, scale, sampling_ratio, aligned);
                if touches(&rows, out_h, tile_y) && touches(&columns, out_w, tile_x) {
                    near[unit] = 1u32;
                }
            }
        }
        sync_cube();
        for other in 0..units {
            if near[other] == 1u32 {
                let index = chunk * units + other;
                let roi = read_roi(rois, index);
                let rows = axis(roi.y1, roi.y2, out_h, scale, sampling_ratio, aligned);
                let columns = axis(roi.x1, roi.x2, out_w, scale, sampling_ratio, aligned);
                let samples = clamp_min(rows.samples * columns.samples, 1) as f32;
                for bin_y in 0..out_h {
                    let weight_y = weight(&rows, bin_y, y, height) / samples;
                    if weight_y > 0.0 {
                        for bin_x in 0..out_w {
                            let weight = weight_y * weight(&columns, bin_x, x, width);
                            if weight > 0.0 {
                                #[unroll]
                                for channel in 0..CHANNELS {
                                    let plane = first_channel + channel;
                                    if plane < channels {
                                        let from = ((index * channels + plane) * out_h + bin_y)
                                            * out_w
                                            + bin_x;
                                        sums[channel] += weight * f32::cast_from(grad[from]);
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        sync_cube();
    }
    if y < height && x < width {
        #[unroll]
        for channel in 0..CHANNELS {
            let plane = first_channel + channel;
            if plane < channels {
                let to = ((image * channels + plane) * height + y) * width + x;
                output[to] = F::cast_from(sums[channel]);
            }
        }
    }
}

pub(super) fn backward<R: CubeRuntime>(
    shape: [usize; 4],
    rois: CubeTensor<R>,
    grad: CubeTensor<R>,
    options: RoiAlignOptions,
) -> CubeTensor<R> {
    let [n, channels, height, width] = shape;
    let [k, _] = dims(&rois);
    let client = grad.client.clone();
    if k == 0 {
        return zeros_client(client, grad.device, Shape::new(shape), grad.dtype);
    }
    let output = empty(&grad, shape, grad.dtype);
    let [rois, grad] = contiguous([rois, grad]);
    let dtypes = [grad.dtype.into(), rois.dtype.into()];
    let tiles = height.div_ceil(TILE) * width.div_ceil(TILE);
    let channel_groups = channels.div_ceil(CHANNELS);
    backward_kernel::launch(
        &client,
        CubeCount::new_3d(tiles as u32, channel_groups as u32, n as u32),
        CubeDim::new_2d(TILE as u32, TILE as u32),
        grad.into_tensor_arg(),
        rois.into_tensor_arg(),
        output.clone().into_tensor_arg(),
        k,
        channels,
        height,
        width,
        options.spatial_scale,
        options.sampling_ratio,
        options.aligned,
        dtypes,
    );
    output
}
