//! The highest values of each row: a cube for each row finds the k-th highest, a byte of the key at
//! a time, and lists what is not below it; then a unit for each of these finds its rank.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::{contiguous, dims, empty};

/// Units of a cube, and values of a byte.
const UNITS: usize = 256;

/// An integer whose order is that of the floats (that of `f32::total_cmp`).
#[cube]
fn key<F: Float>(value: F) -> u32 {
    let bits = u32::reinterpret(f32::cast_from(value));
    let mut key = bits | 0x8000_0000u32;
    if bits >= 0x8000_0000u32 {
        key = !bits;
    }
    key
}

#[cube(launch)]
fn select_kernel<F: Float>(
    values: &Tensor<F>,
    selected: &mut Tensor<u32>,
    n: usize,
    k: usize,
    #[define(F)] _dtype: StorageType,
) {
    let unit = UNIT_POS as usize;
    let start = CUBE_POS * n;
    let counts = SharedMemory::<Atomic<u32>>::new(UNITS);
    // The key of the k-th highest, byte by byte, and how many of those equal so far are wanted.
    let mut prefix = 0u32;
    let mut wanted = k as u32;
    for pass in 0..4u32 {
        let shift = 24u32 - pass * 8u32;
        counts[unit].store(0u32);
        sync_cube();
        let mut i = unit;
        while i < n {
            let key = key::<F>(values[start + i]);
            // A shift by 32 is none: the first pass takes all.
            if pass == 0u32 || (key >> shift) >> 8u32 == prefix {
                counts[((key >> shift) & 255u32) as usize].fetch_add(1u32);
            }
            i += UNITS;
        }
        sync_cube();
        let mut byte = 255u32;
        let mut count = counts[255usize].load();
        while count < wanted && byte > 0u32 {
            wanted -= count;
            byte -= 1u32;
            count = counts[byte as usize].load();
        }
        prefix = (prefix << 8u32) | byte;
        sync_cube();
    }

    // Each unit lists its own stretch of the row, so that equals stay in order.
    let mut above_counts = SharedMemory::<u32>::new(UNITS);
    let mut equal_counts = SharedMemory::<u32>::new(UNITS);
    let stretch = n.div_ceil(UNITS);
    let first = unit * stretch;
    let end = clamp_max(first + stretch, n);
    let mut above = 0u32;
    let mut equal = 0u32;
    let mut i = first;
    while i < end {
        let key = key::<F>(values[start + i]);
        if key > prefix {
            above += 1u32;
        } else if key == prefix {
            equal += 1u32;
        }
        i += 1usize;
    }
    above_counts[unit] = above;
    equal_counts[unit] = equal;
    sync_cube();
    let mut above = 0u32;
    let mut equal = k as u32 - wanted;
    for before in 0..unit {
        above += above_counts[before];
        equal += equal_counts[before];
    }
    let mut i = first;
    while i < end {
        let key = key::<F>(values[start + i]);
        if key > prefix {
            selected[CUBE_POS * k + above as usize] = i as u32;
            above += 1u32;
        } else if key == prefix {
            if equal < k as u32 {
                selected[CUBE_POS * k + equal as usize] = i as u32;
            }
            equal += 1u32;
        }
        i += 1usize;
    }
}

#[cube(launch)]
fn sort_kernel<F: Float, I: Int>(
    values: &Tensor<F>,
    selected: &Tensor<u32>,
    top_values: &mut Tensor<F>,
    top_indices: &mut Tensor<I>,
    count: usize,
    n: usize,
    k: usize,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let row = ABSOLUTE_POS / k;
    let index = selected[ABSOLUTE_POS];
    let value = values[row * n + index as usize];
    let this = key::<F>(value);
    let mut rank = 0usize;
    for other in 0..k {
        let other_index = selected[row * k + other];
        let key = key::<F>(values[row * n + other_index as usize]);
        if key > this || (key == this && other_index < index) {
            rank += 1;
        }
    }
    top_values[row * k + rank] = value;
    top_indices[row * k + rank] = I::cast_from(index);
}

pub(super) fn top_k<R: CubeRuntime>(
    values: CubeTensor<R>,
    k: usize,
    int_dtype: DType,
) -> (CubeTensor<R>, CubeTensor<R>) {
    let [rows, n] = dims(&values);
    let top_values = empty(&values, [rows, k], values.dtype);
    let top_indices = empty(&values, [rows, k], int_dtype);
    let count = rows * k;
    if count == 0 {
        return (top_values, top_indices);
    }
    let [values] = contiguous([values]);
    let selected = empty(&values, [rows, k], DType::U32);
    let client = values.client.clone();
    let dtype = values.dtype;
    select_kernel::launch(
        &client,
        CubeCount::new_1d(rows as u32),
        CubeDim::new_1d(UNITS as u32),
        values.clone().into_tensor_arg(),
        selected.clone().into_tensor_arg(),
        n,
        k,
        dtype.into(),
    );
    let cube_dim = CubeDim::new(&client, count);
    sort_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, count, cube_dim),
        cube_dim,
        values.into_tensor_arg(),
        selected.into_tensor_arg(),
        top_values.clone().into_tensor_arg(),
        top_indices.clone().into_tensor_arg(),
        count,
        n,
        k,
        [dtype.into(), int_dtype.into()],
    );
    (top_values, top_indices)
}
