//! The products of transformed weights with transformed tiles.

use super::super::gemm::{Matrix, gemm_shared};
use super::super::pool::{LANES, Lane, floats, floats_mut};
use super::super::shared::Shared;
use super::weights::panels;

/// Lanes of outputs, tiles, and input channels (a multiple of a lane's) of a product.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) out_lanes: usize,
    pub(super) tiles: usize,
    pub(super) ins: usize,
}

/// `m = u * v`: of weights `u` in panels, and of tiles `v`, each its input channels in a row; of
/// the result each tile is its outputs in a row.
pub(super) fn multiply(sizes: Sizes, u: &[Lane], v: &[Lane], m: &mut [Lane]) {
    let Sizes {
        out_lanes,
        tiles,
        ins,
    } = sizes;
    assert!(out_lanes * ins <= u.len());
    assert!(tiles * ins <= v.len() * LANES && tiles * out_lanes <= m.len());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has just been asked, and the sizes checked.
        return unsafe { avx512::multiply(sizes, u, floats(v), m) };
    }
    let m = Shared::new(floats_mut(m));
    for (first, width) in panels(out_lanes) {
        let rows = width * LANES;
        let u = Matrix::columns(floats(&u[first * ins..][..width * ins]), rows);
        let v = Matrix::columns(floats(v), ins);
        let stride = out_lanes * LANES;
        // SAFETY: `m` is this thread's.
        unsafe {
            gemm_shared([rows, tiles, ins], &m, first * LANES, stride, u, v, false);
        }
    }
}

/// A kernel for weights that need no packing: the general product would copy them for each block.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps,
    };

    use super::super::weights::panels;
    use super::{Lane, Sizes};

    /// Tiles at once: with a panel's four lanes, 24 of the 32 registers hold sums.
    const TILES: usize = 6;

    /// # Safety
    ///
    /// The slices have to hold what `sizes` says.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn multiply(sizes: Sizes, u: &[Lane], v: &[f32], m: &mut [Lane]) {
        for (first, width) in panels(sizes.out_lanes) {
            let u = &u[first * sizes.ins..][..width * sizes.ins];
            for tile in (0..sizes.tiles).step_by(TILES) {
                let count = TILES.min(sizes.tiles - tile);
                let v = &v[tile * sizes.ins..];
                let m = &mut m[tile * sizes.out_lanes + first..];
                // SAFETY: `count` tiles and `width` lanes are there.
                unsafe {
                    match (width, count) {
                        (4, 6) => block::<4, 6>(sizes, u, v, m),
                        (4, 5) => block::<4, 5>(sizes, u, v, m),
                        (4, 4) => block::<4, 4>(sizes, u, v, m),
                        (4, 3) => block::<4, 3>(sizes, u, v, m),
                        (4, 2) => block::<4, 2>(sizes, u, v, m),
                        (4, _) => block::<4, 1>(sizes, u, v, m),
                        (_, 6) => each_lane::<6>(width, sizes, u, v, m),
                        (_, 5) => each_lane::<5>(width, sizes, u, v, m),
                        (_, 4) => each_lane::<4>(width, sizes, u, v, m),
                        (_, 3) => each_lane::<3>(width, sizes, u, v, m),
                        (_, 2) => each_lane::<2>(width, sizes, u, v, m),
                        (_, _) => each_lane::<1>(width, sizes, u, v, m),
                    }
                }
            }
        }
    }

    /// A panel of fewer lanes than four.
    #[target_feature(enable = "avx512f")]
    unsafe fn each_lane<const T: usize>(
        width: usize,
        sizes: Sizes,
        u: &[Lane],
        v: &[f32],
        m: &mut [Lane],
    ) {
        // SAFETY: as the caller answers for.
        unsafe {
            match width {
                3 => block::<3, T>(sizes, u, v, m),
                2 => block::<2, T>(sizes, u, v, m),
                _ => block::<1, T>(sizes, u, v, m),
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn block<const W: usize, const T: usize>(
        sizes: Sizes,
        u: &[Lane],
        v: &[f32],
        m: &mut [Lane],
    ) {
        let mut sums: [[__m512; W]; T] = [[_mm512_setzero_ps(); W]; T];
        let (u, v) = (u.as_ptr().cast::<f32>(), v.as_ptr());
        for k in 0..sizes.ins {
            // SAFETY: row `k` of the panel and element `k` of each tile are there, and lanes
            // aligned.
            unsafe {
                let row = u.add(k * W * 16);
                let row: [__m512; W] = std::array::from_fn(|w| _mm512_load_ps(row.add(w * 16)));
                for (t, sums) in sums.iter_mut().enumerate() {
                    let value = _mm512_set1_ps(*v.add(t * sizes.ins + k));
                    for (sum, weight) in sums.iter_mut().zip(&row) {
                        *sum = _mm512_fmadd_ps(*weight, value, *sum);
                    }
                }
            }
        }
        for (t, sums) in sums.iter().enumerate() {
            let lanes = &mut m[t * sizes.out_lanes..][..W];
            for (lane, sum) in lanes.iter_mut().zip(sums) {
                // SAFETY: a lane is sixteen floats, aligned.
                unsafe { _mm512_store_ps(lane.0.as_mut_ptr(), *sum) };
            }
        }
    }
}
