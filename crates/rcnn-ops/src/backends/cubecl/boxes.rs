//! Decoding with clipping, and IoU: a unit for each box, or pair of boxes.

use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::{contiguous, dims, empty};
use crate::box_coder::BBOX_XFORM_CLIP;

#[cube(launch)]
#[allow(
    clippy::too_many_arguments,
    reason = "each is one scalar of the shader"
)]
fn decode_kernel<D: Float, F: Float>(
    deltas: &Tensor<D>,
    references: &Tensor<F>,
    sizes: &Tensor<F>,
    output: &mut Tensor<F>,
    count: usize,
    classes: usize,
    weight_x: f32,
    weight_y: f32,
    weight_w: f32,
    weight_h: f32,
    most: f32,
    #[define(D, F)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let row = ABSOLUTE_POS / classes;
    let delta = ABSOLUTE_POS * 4;
    let x1 = f32::cast_from(references[row * 4]);
    let y1 = f32::cast_from(references[row * 4 + 1]);
    let width = f32::cast_from(references[row * 4 + 2]) - x1;
    let height = f32::cast_from(references[row * 4 + 3]) - y1;
    let dx = f32::cast_from(deltas[delta]) / weight_x;
    let dy = f32::cast_from(deltas[delta + 1]) / weight_y;
    let dw = clamp_max(f32::cast_from(deltas[delta + 2]) / weight_w, most);
    let dh = clamp_max(f32::cast_from(deltas[delta + 3]) / weight_h, most);
    let x = dx * width + (x1 + width * 0.5);
    let y = dy * height + (y1 + height * 0.5);
    let half_width = dw.exp() * width * 0.5;
    let half_height = dh.exp() * height * 0.5;
    let last_y = f32::cast_from(sizes[row * 2]);
    let last_x = f32::cast_from(sizes[row * 2 + 1]);
    output[delta] = F::cast_from(clamp(x - half_width, 0.0, last_x));
    output[delta + 1] = F::cast_from(clamp(y - half_height, 0.0, last_y));
    output[delta + 2] = F::cast_from(clamp(x + half_width, 0.0, last_x));
    output[delta + 3] = F::cast_from(clamp(y + half_height, 0.0, last_y));
}

pub(super) fn decode<R: CubeRuntime>(
    deltas: CubeTensor<R>,
    references: CubeTensor<R>,
    sizes: CubeTensor<R>,
    [weight_x, weight_y, weight_w, weight_h]: [f32; 4],
) -> CubeTensor<R> {
    let [n, columns] = dims(&deltas);
    let classes = columns / 4;
    let output = empty(&references, [n, classes, 4], references.dtype);
    let count = n * classes;
    if count == 0 {
        return output;
    }
    let dtypes = [deltas.dtype.into(), output.dtype.into()];
    let [deltas, references, sizes] = contiguous([deltas, references, sizes]);
    let client = output.client.clone();
    let cube_dim = CubeDim::new(&client, count);
    decode_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, count, cube_dim),
        cube_dim,
        deltas.into_tensor_arg(),
        references.into_tensor_arg(),
        sizes.into_tensor_arg(),
        output.clone().into_tensor_arg(),
        count,
        classes,
        weight_x,
        weight_y,
        weight_w,
        weight_h,
        BBOX_XFORM_CLIP as f32,
        dtypes,
    );
    output
}

/// IoU of the boxes at two offsets, in the order of operations of the host's.
#[cube]
pub(super) fn iou_of<F: Float>(a: &Tensor<F>, at_a: usize, b: &Tensor<F>, at_b: usize) -> f32 {
    let a_x1 = f32::cast_from(a[at_a]);
    let a_y1 = f32::cast_from(a[at_a + 1]);
    let a_x2 = f32::cast_from(a[at_a + 2]);
    let a_y2 = f32::cast_from(a[at_a + 3]);
    let b_x1 = f32::cast_from(b[at_b]);
    let b_y1 = f32::cast_from(b[at_b + 1]);
    let b_x2 = f32::cast_from(b[at_b + 2]);
    let b_y2 = f32::cast_from(b[at_b + 3]);
    let width = clamp_min(clamp_max(a_x2, b_x2) - clamp_min(a_x1, b_x1), 0.0);
    let height = clamp_min(clamp_max(a_y2, b_y2) - clamp_min(a_y1, b_y1), 0.0);
    let intersection = width * height;
    let area_a = (a_x2 - a_x1) * (a_y2 - a_y1);
    let area_b = (b_x2 - b_x1) * (b_y2 - b_y1);
    intersection / (area_a + area_b - intersection)
}

#[cube(launch)]
fn iou_kernel<F: Float>(
    a: &Tensor<F>,
    b: &Tensor<F>,
    output: &mut Tensor<F>,
    count: usize,
    columns: usize,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let (row, column) = (ABSOLUTE_POS / columns, ABSOLUTE_POS % columns);
    output[ABSOLUTE_POS] = F::cast_from(iou_of::<F>(a, row * 4, b, column * 4));
}

pub(super) fn iou<R: CubeRuntime>(a: CubeTensor<R>, b: CubeTensor<R>) -> CubeTensor<R> {
    let ([m, _], [n, _]) = (dims(&a), dims(&b));
    let output = empty(&a, [m, n], a.dtype);
    let count = m * n;
    if count == 0 {
        return output;
    }
    let [a, b] = contiguous([a, b]);
    let client = output.client.clone();
    let cube_dim = CubeDim::new(&client, count);
    iou_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, count, cube_dim),
        cube_dim,
        a.into_tensor_arg(),
        b.into_tensor_arg(),
        output.clone().into_tensor_arg(),
        count,
        n,
        output.dtype.into(),
    );
    output
}
