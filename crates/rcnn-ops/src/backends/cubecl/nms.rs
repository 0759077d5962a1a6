//! Non-maximum suppression of many groups in three launches: a unit for each box finds its rank by
//! score, a unit for each box and 32 lower-scored ones finds which of them it overlaps, and a cube
//! for each group walks down the ranks, 32 at a time.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::tensor::CubeTensor;

use super::boxes::iou_of;
use super::{contiguous, dims, empty};

/// Writes each box's index plus one at its rank within its group; zero ends the ranks.
#[cube(launch)]
fn rank_kernel<F: Float>(
    scores: &Tensor<F>,
    order: &mut Tensor<u32>,
    count: usize,
    k: usize,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let score = scores[ABSOLUTE_POS];
    if score >= F::new(0.0) {
        let index = ABSOLUTE_POS % k;
        let start = ABSOLUTE_POS - index;
        let mut rank = 0usize;
        for other in 0..k {
            let other_score = scores[start + other];
            if other_score > score || (other_score == score && other < index) {
                rank += 1;
            }
        }
        order[start + rank] = index as u32 + 1;
    }
}

/// Bit `b` of word `w` of a rank's row: whether the box of rank `32 * w + b` comes after it and
/// overlaps it.
#[cube(launch)]
fn overlap_kernel<F: Float>(
    boxes: &Tensor<F>,
    order: &Tensor<u32>,
    overlaps: &mut Tensor<u32>,
    count: usize,
    k: usize,
    words: usize,
    iou_threshold: f32,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let word = ABSOLUTE_POS % words;
    let row = ABSOLUTE_POS / words;
    let start = row - row % k;
    let rank = row - start;
    let index = order[row] as usize;
    let mut bits = 0u32;
    if index > 0 && word >= rank / 32 {
        let this = (start + index - 1) * 4;
        for bit in 0..32usize {
            let other_rank = word * 32 + bit;
            if other_rank > rank && other_rank < k {
                let other = order[start + other_rank] as usize;
                if other > 0 {
                    let other = (start + other - 1) * 4;
                    if iou_of::<F>(boxes, this, boxes, other) > iou_threshold {
                        bits |= 1u32 << bit as u32;
                    }
                }
            }
        }
    }
    overlaps[ABSOLUTE_POS] = bits;
}

/// Every unit settles the same 32 ranks; then they share the words that these suppress.
#[cube(launch)]
fn scan_kernel<I: Int>(
    order: &Tensor<u32>,
    overlaps: &Tensor<u32>,
    keep: &mut Tensor<I>,
    k: usize,
    words: usize,
    #[comptime] shared_words: usize,
    #[define(I)] _dtype: StorageType,
) {
    let unit = UNIT_POS as usize;
    let units = CUBE_DIM as usize;
    let start = CUBE_POS * k;
    let mut gone = SharedMemory::<u32>::new(shared_words);
    let mut word = unit;
    while word < words {
        gone[word] = 0u32;
        word += units;
    }
    sync_cube();
    for block in 0..words {
        let mut block_gone = gone[block];
        let mut kept = 0u32;
        for bit in 0..32usize {
            let rank = block * 32 + bit;
            if rank < k && (block_gone >> bit as u32) & 1u32 == 0u32 {
                let index = order[start + rank] as usize;
                if index > 0 {
                    kept |= 1u32 << bit as u32;
                    block_gone |= overlaps[(start + rank) * words + block];
                    if bit == unit {
                        keep[start + index - 1] = I::new(1);
                    }
                }
            }
        }
        let mut word = block + 1 + unit;
        while word < words {
            let mut suppressed = gone[word];
            for bit in 0..32usize {
                if (kept >> bit as u32) & 1u32 == 1u32 {
                    suppressed |= overlaps[(start + block * 32 + bit) * words + word];
                }
            }
            gone[word] = suppressed;
            word += units;
        }
        sync_cube();
    }
}

/// Units of a scanning cube; at least 32, for a unit marks the box of each bit.
const SCAN_UNITS: u32 = 64;

pub(super) fn nms<R: CubeRuntime>(
    boxes: CubeTensor<R>,
    scores: CubeTensor<R>,
    iou_threshold: f64,
    int_dtype: DType,
) -> CubeTensor<R> {
    let [groups, k] = dims(&scores);
    let (client, device) = (scores.client.clone(), scores.device.clone());
    if groups * k == 0 {
        return empty(&scores, [groups, k], int_dtype);
    }
    let zeros = |dtype| {
        let (client, device) = (client.clone(), device.clone());
        zeros_client(client, device, [groups, k].into(), dtype)
    };
    let [boxes, scores] = contiguous([boxes, scores]);
    // What `zeros` makes may have padded rows.
    let [order, keep] = contiguous([zeros(DType::U32), zeros(int_dtype)]);
    let words = k.div_ceil(32);
    let overlaps = empty(&scores, [groups, k, words], DType::U32);

    let count = groups * k;
    let cube_dim = CubeDim::new(&client, count);
    let float_dtype = scores.dtype.into();
    rank_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, count, cube_dim),
        cube_dim,
        scores.into_tensor_arg(),
        order.clone().into_tensor_arg(),
        count,
        k,
        float_dtype,
    );
    let count = groups * k * words;
    let cube_dim = CubeDim::new(&client, count);
    let float_dtype = boxes.dtype.into();
    overlap_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, count, cube_dim),
        cube_dim,
        boxes.into_tensor_arg(),
        order.clone().into_tensor_arg(),
        overlaps.clone().into_tensor_arg(),
        count,
        k,
        words,
        not_above(iou_threshold),
        float_dtype,
    );
    scan_kernel::launch(
        &client,
        CubeCount::new_1d(groups as u32),
        CubeDim::new_1d(SCAN_UNITS),
        order.into_tensor_arg(),
        overlaps.into_tensor_arg(),
        keep.clone().into_tensor_arg(),
        k,
        words,
        // A power of two, so that few kernels are compiled.
        words.next_power_of_two(),
        int_dtype.into(),
    );
    keep
}

/// The greatest f32 not above a threshold: an f32 is greater than the one when it is greater than
/// the other, so that IoUs compare as in torchvision's double precision.
fn not_above(threshold: f64) -> f32 {
    let nearest = threshold as f32;
    match f64::from(nearest) > threshold {
        true => nearest.next_down(),
        false => nearest,
    }
}

#[cfg(test)]
mod tests {
    use super::not_above;

    #[test]
    fn thresholds_compare_as_doubles() {
        for threshold in [0.3, 0.5, 0.7, 0.1, 1.0 / 3.0, 0.0, 1.0] {
            let single = not_above(threshold);
            let near = [single.next_down(), single, single.next_up()];
            for iou in near.into_iter().chain([threshold as f32]) {
                assert_eq!(
                    iou > single,
                    f64::from(iou) > threshold,
                    "{iou} {threshold}"
                );
            }
        }
    }
}
